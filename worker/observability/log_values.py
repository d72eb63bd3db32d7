"""What a line of the log may hold: plain values of a bounded size, as JSON in ASCII.

What has no plain form is told by its type: its `repr`, or its fields, might hold anything.
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

MOST_FIELDS = 50
LONGEST_NAME = 100
LONGEST_TEXT = 2000
"""In characters; also the longest line, in bytes, that is not looked into: no field of it can be longer."""
LONGEST_FIELD = 8000
"""In characters, of what a list or a mapping holds in all."""
LEVEL = 100
"""The room, in characters, that a list or a mapping takes by itself: it bounds how deep they go."""
LARGEST_NUMBER = 2**64

_SCALARS = frozenset({str, int, float, bool, type(None)})
_TOLD_AS_TEXT = (date, time, timedelta, Decimal, UUID, PurePath)


def as_json(event: Mapping[str, Any]) -> bytes:
    r"""A line as JSON.

    >>> as_json({"event": "é\n", "took_ms": float("nan"), "odd": object()})
    b'{"event":"\\u00e9\\n","took_ms":"NaN","odd":"object"}'
    """
    if _SCALARS.issuperset(map(type, event.values())):
        try:
            line = to_json(event, inf_nan_mode="strings")
        except ValueError:  # half a character, or a number of thousands of digits
            pass
        else:
            if len(line) <= LONGEST_TEXT and line.isascii():
                return line
    return to_json(bounded(event), ensure_ascii=True, inf_nan_mode="strings")


def bounded(event: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a line, each of a bounded size; with `fields_left_out` when there were too many.

    >>> bounded({"detail": "x" * 5000})["detail"][-20:]
    'x… (5000 characters)'
    """
    fields = {
        cut(name, LONGEST_NAME): _plain(value, [LONGEST_FIELD]) for name, value in islice(event.items(), MOST_FIELDS)
    }
    if len(event) > MOST_FIELDS:
        # What a line is of comes last in it.
        fields |= {
            name: _plain(event[name], [LONGEST_FIELD]) for name in ("event", "level", "timestamp") if name in event
        }
        fields["fields_left_out"] = len(event) - MOST_FIELDS
    return fields


def cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text, its end left out when it is too long; halves of characters escaped.

    >>> cut("abcdef", 3), cut("\\ud800")
    ('abc… (6 characters)', '\\\\ud800')
    """
    if len(text) > longest:
        text = f"{text[:longest]}… ({len(text)} characters)"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any, left: list[int]) -> Any:
    """A value that JSON has a form for. `left` has how many characters there is room for."""
    left[0] -= 1
    match value:
        case Enum():
            return value.name
        case str():
            text = cut(str.__str__(value), max(0, min(LONGEST_TEXT, left[0])))
            left[0] -= len(text)
            return text
        case None | bool() | float():
            return value
        case int():
            return value if abs(value) < LARGEST_NUMBER else "int"
        case dict():
            return _mapping(value, left)
        case list() | set() | frozenset():
            return _list(value, left)
        case tuple() if type(value) is tuple:  # one whose items have names may be a row, or a job
            return _list(value, left)
        case _:
            return str(value) if isinstance(value, _TOLD_AS_TEXT) else type(value).__name__


def _mapping(value: Mapping[Any, Any], left: list[int]) -> dict[str, Any]:
    left[0] -= LEVEL
    told: dict[str, Any] = {}
    for name, item in value.items():
        if left[0] <= 0:
            told["…"] = f"{len(value)} fields"
            break
        told[_plain(name, left) if isinstance(name, str) else str(_plain(name, left))] = _plain(item, left)
    return told


def _list(value: Any, left: list[int]) -> list[Any]:
    left[0] -= LEVEL
    told: list[Any] = []
    for item in value:
        if left[0] <= 0:
            return [*told, f"… ({len(value)} items)"]
        told.append(_plain(item, left))
    return told
