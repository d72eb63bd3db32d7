"""JSON log lines: one line of ASCII and of bounded size for any value, and no fields of objects."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.unit.written import Written, lines
from worker.observability.log_values import MAX_FIELD, MAX_FIELDS, MAX_TEXT, as_json

SECRET = "ada@example.com"


class Model(BaseModel):
    email: str = SECRET


@dataclass
class Data:
    email: str = SECRET


class Row(NamedTuple):
    email: str = SECRET


class Colour(Enum):
    RED = SECRET


def test_a_long_text_is_cut_and_its_length_is_given(written: Callable[..., Written]) -> None:
    read = written()
    structlog.get_logger("ours").info("odd", detail="é" * 3000, fits="e" * MAX_TEXT)
    logging.getLogger("theirs").warning("x" * 5000)
    ours, theirs = lines(read)
    assert ours["detail"] == "é" * MAX_TEXT + "… (3000 characters)"
    assert ours["fits"] == "e" * MAX_TEXT
    assert theirs["event"] == "x" * MAX_TEXT + "… (5000 characters)"
    assert read().isascii()


@pytest.mark.parametrize("odd", [Model(), Data(), Row(), [Model()], {"of": Row()}, {1: Data()}, b"ada@example.com"])
def test_an_object_with_fields_is_logged_as_its_type(odd: Any) -> None:
    assert SECRET not in as_json({"event": "odd", "odd": odd}).decode()


def test_json_values_are_logged_unchanged() -> None:
    given = {
        "text": "a\u2028b\x85c", "number": 2**63, "list": [1, None, (True, 0.5)], "of": {"a": {"b": "c"}, 7: "d"},
        "at": datetime(2026, 11, 26, tzinfo=UTC), "path": Path("a/b"), "colour": Colour.RED,
    }  # fmt: skip
    assert json.loads(as_json(given)) == {
        "text": "a\u2028b\x85c", "number": 2**63, "list": [1, None, [True, 0.5]], "of": {"a": {"b": "c"}, "7": "d"},
        "at": "2026-11-26 00:00:00+00:00", "path": "a/b", "colour": "RED",
    }  # fmt: skip


def circular() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


ODD: Sequence[Any] = (
    "\ud800", {"\ud800": "\udfff"}, b"\xff", float("nan"), float("-inf"), 10**5000, circular(), nested(100_000),
    list(range(100_000)), {str(number): number for number in range(100_000)}, ["x" * 3000] * 100, {"x" * 100_000: 1},
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_values_neither_break_a_line_nor_exceed_its_size(odd: Any) -> None:
    line = as_json({"event": "odd", "odd": odd})
    assert json.loads(line, parse_constant=pytest.fail)["event"] == "odd"
    assert line.isascii()
    assert len(line) < MAX_FIELD * 6 + 100  # an escaped character takes six


def test_fields_over_the_limit_are_left_out_and_counted(written: Callable[..., Written]) -> None:
    read = written()
    structlog.get_logger("ours").info("odd", **{f"field_{number}": number for number in range(1000)})
    (line,) = lines(read)
    assert len(line) <= MAX_FIELDS + 4
    assert (line["event"], line["level"], line["fields_left_out"]) == ("odd", "info", 1003 - MAX_FIELDS)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
)


@given(st.dictionaries(st.text(), values, max_size=60))
def test_every_event_is_one_line(event: dict[str, Any]) -> None:
    line = as_json(event)
    assert len(line.decode("ascii").splitlines()) == 1
    assert isinstance(json.loads(line), dict)


def test_wrong_arguments_of_a_library_are_not_logged(
    written: Callable[..., Written], capfd: pytest.CaptureFixture[str]
) -> None:
    read = written()
    arguments = (SECRET,)
    logging.getLogger("theirs").warning("%d of %s", *arguments)
    (line,) = lines(read)
    assert line["event"] == "%d of %s"
    assert capfd.readouterr().err == ""
