"""The contract as an AsyncAPI 3.0 document, generated from the models: what a client in any language needs to know.

AsyncAPI has no word for a queue that is a sorted set beside strings, nor for a key that keeps jobs in order: what it
cannot say is said in descriptions for people and in `x-` fields for programs.
"""

import inspect
import json
from collections.abc import Mapping
from typing import Any, get_args

from producers import ids, keys, schemas
from producers.errors import CANCELLED, DeadCode, RejectedCode
from producers.messages import MESSAGES, Message
from producers.wire import CONTRACT_VERSION

_JOB_ID = "{job_id}"
_NAME = "{queue}"
_PRODUCER = "{producer}"

_QUEUE = f"""\
A sorted set of job ids by due time, beside one string for each job. To enqueue, in one MULTI and in this order:

1. SET `{keys.job(_JOB_ID)}` to the payload, with NX.
2. ZADD the job id to the queue, with NX; the score is the due time in milliseconds of the Unix clock, with or without \
a fraction. Taken from Redis's own TIME it keeps the clocks of clients from changing the order.
3. PUBLISH anything on `{keys.wake(_NAME)}` (optional: an idle worker then starts at once).

The job id is the client's: {ids.JOB_ID_FORM}. An enqueue whose answer was lost can be repeated with the same id.

What follows the @ is the ordering key: jobs with one key run one at a time, in the order of their scores; other keys \
run beside them. Each message names its default key in `x-ordering-key`; null: any order will do."""

_RESULTS = f"""\
The outcome of a job: one string for each job, set when the job ends and kept for the result's time to live (an hour, \
unless configured otherwise). GET `{keys.result(_JOB_ID)}` until it is there.

Who names a `producer` in the headers of a job is told as well: workers publish the ids of ended jobs, separated by \
spaces, on `{keys.results(_NAME, _PRODUCER)}`. What is published while nobody listens is lost, so do not rely on it \
alone."""

_NOT_DONE = {
    "rejected": ("The request cannot be honoured: an answer, not a fault.", get_args(RejectedCode)),
    "dead": ("The job was given up, and is kept as a dead letter.", get_args(DeadCode)),
    "cancelled": ("Somebody cancelled the job before it was done.", (CANCELLED,)),
}


def asyncapi(of: Mapping[str, type[Message[Any]]] = MESSAGES) -> dict[str, Any]:
    """The AsyncAPI document of the contract of these messages, as plain dicts, lists, strings and numbers."""
    jobs = list(of.values())
    components = schemas.components(jobs)
    components |= {name: schemas.failure(codes) for name, (_, codes) in _NOT_DONE.items()}
    messages = {message.job: _job_message(message, components) for message in jobs}
    results = {
        name: _result_message(name, f"{_title(message)}: done", inspect.getdoc(message.reply_type()))
        for message in jobs
        for name in [schemas.done_name(message)]
    }
    results |= {name: _result_message(name, name.capitalize(), text) for name, (text, _) in _NOT_DONE.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "userpost-worker",
            "version": f"{CONTRACT_VERSION}.0.0",
            "description": "Jobs that create, update and delete users and posts, and their outcomes.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "redis": {
                "host": "localhost:6379",
                "pathname": "/0",
                "protocol": "redis",
                "description": "Redis 7 or newer, or Valkey 8 or newer, with `maxmemory-policy noeviction`.",
            }
        },
        "channels": {"queue": _queue_channel(list(messages)), "results": _results_channel(list(results))},
        "operations": {message.job: _operation(message) for message in jobs},
        "components": {"messages": messages | results, "schemas": components},
    }


def asyncapi_json() -> str:
    """The document as JSON text; the same models give the same text."""
    return json.dumps(asyncapi(), indent=2, ensure_ascii=False) + "\n"


def ordering_key_template(message: type[Message[Any]]) -> str | None:
    """The default ordering key of a message, with the names of fields in braces where their values go.

    >>> from producers.messages import UpdateUser
    >>> ordering_key_template(UpdateUser)
    'user:{user_id}'
    """
    # The message itself tells, once each field holds its own name.
    names: dict[str, Any] = {name: f"{{{name}}}" for name in message.model_fields}
    return message.model_construct(**names).ordering_key


def _queue_channel(messages: list[str]) -> dict[str, Any]:
    return {
        "address": _NAME,
        "title": "The queue",
        "description": _QUEUE,
        "servers": [_ref("servers", "redis")],
        "parameters": {"queue": {"description": "The name of the queue.", "default": keys.DEFAULT_QUEUE}},
        "messages": {name: _ref("components", "messages", name) for name in messages},
        "bindings": {"redis": {}},
        "x-redis": {
            "transaction": [
                {"command": "SET", "key": keys.job(_JOB_ID), "value": "{payload}", "options": ["NX"]},
                {"command": "ZADD", "key": _NAME, "score": "{due_ms}", "member": _JOB_ID, "options": ["NX"]},
                {"command": "PUBLISH", "channel": keys.wake(_NAME), "message": "1", "optional": True},
            ],
            "job_id": ids.JOB_ID_FORM,
        },
    }


def _results_channel(messages: list[str]) -> dict[str, Any]:
    return {
        "address": keys.result(_JOB_ID),
        "title": "Results",
        "description": _RESULTS,
        "servers": [_ref("servers", "redis")],
        "parameters": {
            "job_id": {"description": f"The job's id: {ids.JOB_ID_FORM}.", "examples": ["import-7", "import-8@user:42"]}
        },
        "messages": {name: _ref("components", "messages", name) for name in messages},
        "bindings": {"redis": {}},
        "x-redis": {
            "read": [{"command": "GET", "key": keys.result(_JOB_ID)}],
            "told": [{"command": "SUBSCRIBE", "channel": keys.results(_NAME, _PRODUCER), "optional": True}],
        },
    }


def _operation(message: type[Message[Any]]) -> dict[str, Any]:
    """As AsyncAPI has it, from the side of the worker: it receives jobs and replies."""
    outcomes = [schemas.done_name(message), *_NOT_DONE]
    return {
        "action": "receive",
        "title": _title(message),
        "description": inspect.getdoc(message),
        "channel": _ref("channels", "queue"),
        "messages": [_ref("channels", "queue", "messages", message.job)],
        "bindings": {"redis": {}},
        "reply": {
            "channel": _ref("channels", "results"),
            "messages": [_ref("channels", "results", "messages", name) for name in outcomes],
        },
    }


def _job_message(message: type[Message[Any]], components: dict[str, schemas.Schema]) -> dict[str, Any]:
    fields = schemas.example(components[message.__name__], components)
    return {
        "name": message.job,
        "title": _title(message),
        "description": inspect.getdoc(message),
        "contentType": "application/json",
        "payload": _ref("components", "schemas", schemas.payload_name(message)),
        "bindings": {"redis": {}},
        "examples": [
            {
                "payload": {
                    "f": message.job,
                    "k": fields,
                    "a": [],
                    "t": None,
                    "et": 1_700_000_000_000,
                    "v": CONTRACT_VERSION,
                }
            }
        ],
        "x-ordering-key": ordering_key_template(message),
    }


def _result_message(name: str, title: str, description: str | None) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "description": description,
        "contentType": "application/json",
        "payload": _ref("components", "schemas", name),
        "bindings": {"redis": {}},
    }


def _title(message: type[Message[Any]]) -> str:
    return message.job.replace("_", " ").capitalize()


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "/".join(("#", *path))}
