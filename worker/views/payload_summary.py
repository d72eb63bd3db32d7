"""What a payload holds, without any of its values: the names of fields, their types and their sizes."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from producers import wire
from producers.messages import MESSAGES

UNKNOWN = "(a name that the contract does not have)"


def shape(payload: bytes) -> dict[str, Any]:
    """What a payload says, its values left out.

    >>> shape(b'{"f":"update_user","k":{"user_id":7,"changes":{"username":"ada"},"hunter2":[]},"a":[],"t":null,"et":5}')
    ... # doctest: +NORMALIZE_WHITESPACE
    {'job': 'update_user', 'enqueued_ms': 5, 'headers': [],
     'fields': {'user_id': 'number', 'changes.username': 'text, 3 characters',
                '(a name that the contract does not have)': 'list, 0 items'}}
    >>> shape(b"\\x80\\x04")
    {'undecodable': 'not an envelope of this contract: invalid JSON: expected value at line 1 column 1'}
    """
    try:
        envelope = wire.decode(payload)
    except wire.WireError as error:
        return {"undecodable": str(error)}
    message = MESSAGES.get(envelope.f)
    return {
        "job": envelope.f,
        "enqueued_ms": envelope.et,
        # Only those that everybody sends: others' names may be anything.
        "headers": [name for name in ("producer", "traceparent") if name in envelope.h],
        "fields": dict(_fields(envelope.k, message)),
    }


def reply_shape(job: str, reply: object) -> dict[str, str]:
    """What a reply says, its values left out.

    >>> reply_shape("delete_user", {"deleted": True, "hunter2": "x"})
    {'deleted': 'true or false', '(a name that the contract does not have)': 'text, 1 characters'}
    """
    message = MESSAGES.get(job)
    values = reply if isinstance(reply, dict) else {}
    return dict(_fields(values, None if message is None else message.reply_type()))


def _fields(values: Mapping[str, Any], model: type[BaseModel] | None, path: str = "") -> Iterator[tuple[str, str]]:
    known = {} if model is None else model.model_fields
    for name, value in values.items():
        if name not in known:
            yield path + UNKNOWN, _kind(value)
            continue
        inner = known[name].annotation
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(value, inner, f"{path}{name}.")
        else:
            yield path + name, _kind(value)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "number"
        case str():
            return f"text, {len(value)} characters"
        case list():
            return f"list, {len(value)} items"
        case _:
            return "object"
