"""Console lines: one line per event, colors on a terminal only, and no data that can control the terminal."""

import io
import re
from collections.abc import Callable

import pytest
import structlog

from tests.unit.written import Written
from worker.observability.console import console_renderer

EVENT = {
    "timestamp": "2026-11-26T07:29:15.123456Z", "level": "warning", "event": "job_retried",
    "job_id": "import-7@user:42", "job": "update_user", "attempt": 2, "wait_ms": 1.25,
    "detail": "not found", "code": "",
}  # fmt: skip
COLOR = re.compile(r"\x1b\[[0-9;]*m")
ERROR = [{"type": "LookupError", "at": "a.py:7 in f"}, {"type": "KeyError"}]


class Stream(io.StringIO):
    encoding = "utf-8"

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def render(event: dict[str, object], *, terminal: bool = False) -> str:
    return console_renderer(Stream(terminal=terminal))(event).decode()


def test_a_line_has_its_time_level_event_and_fields_in_order() -> None:
    assert render(EVENT | {"error": ERROR}) == (
        "07:29:15.123Z [warning  ] job_retried          job_id=import-7@user:42 job=update_user attempt=2 wait_ms=1.25"
        ' detail="not found" code="" error=LookupError at a.py:7 in f from KeyError'
    )


def test_columns_line_up_at_every_level() -> None:
    levels = ("debug", "info", "warning", "error", "critical")
    assert len({render(EVENT | {"level": level}).index("job_retried") for level in levels}) == 1


@pytest.mark.parametrize(
    ("terminal", "variables", "colors"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": ""}, True),  # as no-color.org defines it
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colors_are_used_on_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, variables: dict[str, str], colors: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in render(EVENT, terminal=terminal)) is colors


def test_colors_do_not_change_the_text() -> None:
    assert COLOR.sub("", render(EVENT, terminal=True)) == render(EVENT)


HOSTILE = ("a\nb", "a\r\x1b[2Jb", "\x1b[31m", "a\u2028b", "a\u202eb", "\ud800", ["a\nb"], {"a\nb": "c\nd"})


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["a\nb", "x", "", "stack", "exception", "exc_info", "job_id", "event"])
def test_hostile_data_neither_breaks_a_line_nor_controls_the_terminal(name: str, value: object) -> None:
    line = render({**EVENT, name: value})
    assert line.isprintable()
    assert COLOR.sub("", render({**EVENT, name: value}, terminal=True)) == line


def test_hostile_data_in_an_exception_chain_is_escaped() -> None:
    assert render({**EVENT, "error": [{"type": "a\nb", "at": "\x1b[2J"}]}).isprintable()


def test_characters_that_the_stream_cannot_encode_are_escaped(written: Callable[..., Written]) -> None:
    read = written("console", encoding="ascii")
    structlog.get_logger("ours").info("odd", text="é…")
    assert r"text=\xe9\u2026" in read()
