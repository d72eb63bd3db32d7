"""The contract as an AsyncAPI 3.0 document, generated from the models, for clients in any language.

AsyncAPI cannot describe a queue that consists of a sorted set and strings, nor an ordering key. Descriptions explain
these to people, `x-` fields to programs.
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
A sorted set of job ids by due time, and one string for each job. To enqueue, in one MULTI and in this order:

1. SET `{keys.job(_JOB_ID)}` to the payload, with NX.
2. ZADD the job id to the queue, with NX. The score is the due time in milliseconds of the Unix clock, with or without \
a fraction. Take it from Redis's TIME, so that the order does not depend on the clocks of clients.
3. PUBLISH any message on `{keys.wake(_NAME)}` (optional: an idle worker then starts at once).

The client chooses the job id: {ids.JOB_ID_FORM}. An enqueue whose answer was lost can be repeated with the same id.

The part after the @ is the ordering key: jobs with one key run one at a time, in the order of their scores. Jobs with \
other keys run concurrently. `x-ordering-key` of a message is its default key; null: none."""

_RESULTS = f"""\
The outcome of a job: one string for each job, set when the job ends and kept for the result's time to live (an hour \
by default). Repeat GET `{keys.result(_JOB_ID)}` until it exists.

A client that sets the header `producer` of its jobs can subscribe as well: workers publish the ids of ended jobs, \
separated by spaces, on `{keys.results(_NAME, _PRODUCER)}`. A message published without a subscriber is lost, so \
do not rely on messages alone."""

_NOT_DONE = {
    "rejected": ("The request cannot be honoured: an answer, not a fault.", get_args(RejectedCode)),
    "dead": ("The job failed for good and is kept as a dead letter.", get_args(DeadCode)),
    "cancelled": ("The job was cancelled before it was done.", (CANCELLED,)),
}


def asyncapi(of: Mapping[str, type[Message[Any]]] = MESSAGES) -> dict[str, Any]:
    """The AsyncAPI document for these messages, as dicts, lists, strings and numbers."""
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
    """The AsyncAPI document as JSON text. The same models always give the same text."""
    return json.dumps(asyncapi(), indent=2, ensure_ascii=False) + "\n"


def ordering_key_template(message: type[Message[Any]]) -> str | None:
    """The default ordering key of a message, with the names of fields in braces for their values.

    >>> from producers.messages import UpdateUser
    >>> ordering_key_template(UpdateUser)
    'user:{user_id}'
    """
    # A message whose fields hold their own names returns the template.
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
            "subscribe": [{"command": "SUBSCRIBE", "channel": keys.results(_NAME, _PRODUCER), "optional": True}],
        },
    }


def _operation(message: type[Message[Any]]) -> dict[str, Any]:
    """The operation from the worker's side, as AsyncAPI defines it: it receives jobs and replies."""
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
