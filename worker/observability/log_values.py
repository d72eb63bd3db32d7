"""What a log line may hold: JSON values of bounded size, written as JSON in ASCII.

A value that JSON has no form for is logged as the name of its type: its `repr` or its fields might hold anything.
"""

from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic_core import to_json

MAX_FIELDS = 50
MAX_NAME = 100
"""Characters in the name of a field."""
MAX_TEXT = 2000
"""Characters in one text. A JSON line of at most this many bytes is not examined: none of its fields can be longer."""
MAX_FIELD = 8000
"""Characters in all texts of one list or mapping together."""
CONTAINER_COST = 100
"""Characters that each list or mapping counts for by itself, which bounds the nesting."""
MAX_NUMBER = 2**64

_SCALARS = frozenset({str, int, float, bool, type(None)})
_LOGGED_AS_TEXT = (date, time, timedelta, Decimal, UUID, PurePath)


def as_json(event: Mapping[str, Any]) -> bytes:
    r"""Render an event as JSON.

    >>> as_json({"event": "é\n", "took_ms": float("nan"), "odd": object()})
    b'{"event":"\\u00e9\\n","took_ms":"NaN","odd":"object"}'
    """
    if _SCALARS.issuperset(map(type, event.values())):
        try:
            line = to_json(event, inf_nan_mode="strings")
        except ValueError:  # half a surrogate pair, or a number of thousands of digits
            pass
        else:
            if len(line) <= MAX_TEXT and line.isascii():
                return line
    return to_json(bounded(event), ensure_ascii=True, inf_nan_mode="strings")


def bounded(event: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event, each of bounded size; `fields_left_out` counts those over the limit.

    >>> bounded({"detail": "x" * 5000})["detail"][-20:]
    'x… (5000 characters)'
    """
    fields = {cut(name, MAX_NAME): _to_json_value(value) for name, value in islice(event.items(), MAX_FIELDS)}
    if len(event) > MAX_FIELDS:
        # These come last in a line, and every line must have them.
        fields |= {name: _to_json_value(event[name]) for name in ("event", "level", "timestamp") if name in event}
        fields["fields_left_out"] = len(event) - MAX_FIELDS
    return fields


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """Cut a text to the limit, and escape lone surrogates.

    >>> cut("abcdef", 3), cut("\\ud800")
    ('abc… (6 characters)', '\\\\ud800')
    """
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _to_json_value(value: Any) -> Any:
    return _convert(value, [MAX_FIELD])


def _convert(value: Any, room: list[int]) -> Any:
    """Convert a value to one that JSON has a form for. `room` holds the number of characters left for its field."""
    room[0] -= 1
    match value:
        case Enum():
            return value.name
        case str():
            text = cut(str.__str__(value), max(0, min(MAX_TEXT, room[0])))
            room[0] -= len(text)
            return text
        case None | bool() | float():
            return value
        case int():
            return value if abs(value) < MAX_NUMBER else "int"
        case dict():
            return _convert_mapping(value, room)
        case list() | set() | frozenset():
            return _convert_list(value, room)
        case tuple() if type(value) is tuple:  # a named tuple may be a database row or a job
            return _convert_list(value, room)
        case _:
            return str(value) if isinstance(value, _LOGGED_AS_TEXT) else type(value).__name__


def _convert_mapping(value: Mapping[Any, Any], room: list[int]) -> dict[str, Any]:
    room[0] -= CONTAINER_COST
    converted: dict[str, Any] = {}
    for name, item in value.items():
        if room[0] <= 0:
            converted["…"] = f"{len(value)} fields"
            break
        converted[str(_convert(name, room))] = _convert(item, room)
    return converted


def _convert_list(value: Any, room: list[int]) -> list[Any]:
    room[0] -= CONTAINER_COST
    converted: list[Any] = []
    for item in value:
        if room[0] <= 0:
            return [*converted, f"… ({len(value)} items)"]
        converted.append(_convert(item, room))
    return converted
