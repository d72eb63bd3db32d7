"""Is a line for people one line, in columns, with units; and in colours only where colours are seen?"""

import io
import re
from collections.abc import Callable

import pytest
import structlog

from tests.unit.written import Written
from worker.observability.console import Console

LINE = {
    "timestamp": "2026-11-26T07:29:15.123456Z", "level": "warning", "event": "job_retried",
    "job_id": "import-7@user:42", "job": "update_user", "try": 2, "wait_ms": 1.25, "run_ms": 61_500.0,
    "code": "failed", "detail": "it is so",
}  # fmt: skip
ERROR = [{"type": "LookupError", "at": "a.py:7 in f"}, {"type": "KeyError"}]


class Terminal(io.StringIO):
    encoding = "utf-8"

    def __init__(self, *, person: bool) -> None:
        super().__init__()
        self._person = person

    def isatty(self) -> bool:
        return self._person


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_columns_and_units() -> None:
    assert Console(colours=False, encoding="utf-8")(LINE | {"error": ERROR}).decode() == (
        "07:29:15.123Z warning job_retried          update_user import-7@user:42 "
        ' try=2 wait=1.2ms run=1m2s code=failed detail="it is so" error=LookupError at a.py:7 in f from KeyError'
    )


def test_a_try_says_nothing_twice() -> None:
    line = Console(colours=False, encoding="utf-8")(LINE | {"outcome": "retry", "error": ERROR}).decode()
    assert line.endswith(" try=2 wait=1.2ms run=1m2s code=failed error=LookupError at a.py:7 in f from KeyError")


def test_what_is_about_no_job_has_no_gap() -> None:
    line = {
        "timestamp": LINE["timestamp"],
        "level": "info",
        "event": "server_back",
        "server": "redis",
        "away_seconds": 4,
    }
    assert Console(colours=False, encoding="utf-8")(line) == (
        b"07:29:15.123Z info    server_back          server=redis away=4s"
    )


def test_levels_of_any_length_keep_the_columns() -> None:
    console = Console(colours=False, encoding="utf-8")
    starts = {console(LINE | {"level": level}).index(b"job_retried") for level in ("debug", "info", "warning", "error")}
    assert len(starts) == 1


def test_colours_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Console.on(Terminal(person=True)).colours
    assert not Console.on(Terminal(person=False)).colours
    monkeypatch.setenv("NO_COLOR", "")
    assert Console.on(Terminal(person=True)).colours  # as no-color.org has it
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Console.on(Terminal(person=True)).colours
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Console.on(Terminal(person=True)).colours


def test_colours_change_nothing_but_the_colour() -> None:
    coloured = Console(colours=True, encoding="utf-8")(LINE)
    assert b"\x1b[33mwarning\x1b[0m" in coloured
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", coloured) == Console(colours=False, encoding="utf-8")(LINE)


@pytest.mark.parametrize("odd", ["a\nb", "a\r\x1b[2Jb", "a\u2028b", "a\u202eb", "\ud800", ["a\nb"], {"a\nb": "c\nd"}])
def test_nothing_breaks_a_line_or_reaches_the_terminals_controls(odd: object) -> None:
    line = Console(colours=False, encoding="utf-8")(
        {**LINE, "event": odd, "job_id": odd, "job": odd, "a\nb": odd, "x": odd}
    )
    text = line.decode()
    assert text.isprintable()
    assert len(text.splitlines()) == 1


def test_what_a_terminal_has_no_characters_for_is_escaped(written: Callable[..., Written]) -> None:
    read = written("console", encoding="ascii")
    structlog.get_logger("ours").info("odd", text="é…")
    assert r"text=\xe9\u2026" in read()
