"""The fields of a payload or a reply: names, types and sizes, without any value."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from producers import wire
from producers.messages import MESSAGES

UNKNOWN_FIELD = "(not in the contract)"
"""Stands for the name of a field that the contract does not have, because a name can hold a value."""


def summarize_payload(payload: bytes) -> dict[str, Any]:
    """The envelope of a job without the values of its fields.

    >>> fields = b'{"user_id":7,"changes":{"username":"ada"},"hunter2":[]}'
    >>> payload = b'{"f":"update_user","k":%b,"a":[],"t":null,"et":5}' % fields
    >>> summarize_payload(payload)  # doctest: +NORMALIZE_WHITESPACE
    {'job': 'update_user', 'enqueued_ms': 5, 'headers': [],
     'fields': {'user_id': 'number', 'changes.username': 'text, 3 characters',
                '(not in the contract)': 'list, 0 items'}}
    >>> summarize_payload(b"\\x80\\x04")
    {'undecodable': 'not an envelope of this contract: invalid JSON: expected value at line 1 column 1'}
    """
    try:
        envelope = wire.decode(payload)
    except wire.WireError as error:
        return {"undecodable": str(error)}
    return {
        "job": envelope.f,
        "enqueued_ms": envelope.et,
        # Only the headers that producers set: any other name can hold a value.
        "headers": [name for name in ("producer", "traceparent") if name in envelope.h],
        "fields": dict(_fields(envelope.k, MESSAGES.get(envelope.f))),
    }


def summarize_reply(job: str, reply: object) -> dict[str, str]:
    """The fields of a reply without their values.

    >>> summarize_reply("delete_user", {"deleted": True, "hunter2": "x"})
    {'deleted': 'true or false', '(not in the contract)': 'text, 1 character'}
    """
    message = MESSAGES.get(job)
    values = reply if isinstance(reply, dict) else {}
    return dict(_fields(values, None if message is None else message.reply_type()))


def _fields(values: Mapping[str, Any], model: type[BaseModel] | None, path: str = "") -> Iterator[tuple[str, str]]:
    known = {} if model is None else model.model_fields
    for name, value in values.items():
        if name not in known:
            yield path + UNKNOWN_FIELD, _describe(value)
            continue
        inner = known[name].annotation
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(value, inner, f"{path}{name}.")
        else:
            yield path + name, _describe(value)


def _describe(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "number"
        case str():
            return f"text, {len(value)} character{'s' * (len(value) != 1)}"
        case list():
            return f"list, {len(value)} item{'s' * (len(value) != 1)}"
        case _:
            return "object"
