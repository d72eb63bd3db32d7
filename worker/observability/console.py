"""A line of the log for people: time, level, what happened, to which job, and the rest with its units.

    07:29:15.123Z info    job_done             create_user 0198c0de5680  try=2 wait=1.3ms run=2ms

One line each, whatever it holds: what cannot be printed is escaped.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from worker.observability.log_values import bounded

LEVEL_WIDTH = len("warning")
EVENT_WIDTH = 20
"""Most events are shorter; one that is longer pushes what follows to the right."""

JOB_WIDTH = len("create_user")

_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_COLOURS = {"debug": _DIM, "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}
_PLACED = ("timestamp", "level", "event", "job", "job_id", "logger", "error")
"""The fields that have a place of their own."""


@dataclass(frozen=True, slots=True)
class Console:
    """Makes the lines, in colours or not, of the characters that an encoding has."""

    colours: bool
    encoding: str

    @classmethod
    def on(cls, stream: TextIO) -> "Console":
        """For a stream: in colours on a terminal, unless it has none or `NO_COLOR` (no-color.org) asks for none."""
        colours = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(colours, stream.encoding or "utf-8")

    def __call__(self, event: Mapping[str, Any]) -> bytes:
        """One line.

        >>> line = {"timestamp": "2026-11-26T07:29:15.123456Z", "level": "info", "event": "job_done",
        ...         "job": "create_user", "job_id": "import-7@user:42", "wait_ms": 1.3, "run_ms": 2500.0, "x": "a b"}
        >>> Console(False, "utf-8")(line)
        b'07:29:15.123Z info    job_done             create_user import-7@user:42  wait=1.3ms run=2.5s x="a b"'
        """
        fields = bounded(event)
        level = str(fields.get("level", ""))
        words = [
            self._in(_DIM, f"{str(fields.get('timestamp', ''))[11:23]}Z"),
            self._in(_COLOURS.get(level, ""), level.ljust(LEVEL_WIDTH)),
            self._in(_BOLD, _printable(str(fields.get("event", ""))).ljust(EVENT_WIDTH)),
        ]
        if about := [_printable(str(fields[name])) for name in ("job", "job_id") if fields.get(name) is not None]:
            words.append(" ".join([about[0].ljust(JOB_WIDTH), *about[1:]]) + " ")
        words += [self._in(_DIM, f"{name}=") + value for name, value in _rest(fields)]
        line = " ".join(words).rstrip()
        return line.encode(self.encoding, "backslashreplace")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self.colours and colour else text


def _rest(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    left_out: tuple[str, ...] = _PLACED
    if "outcome" in fields:  # a try's: the event says the same, and the error more than the detail
        left_out += ("outcome", "detail") if "error" in fields else ("outcome",)
    for name, value in fields.items():
        if name in left_out:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name.endswith("_ms") and is_number:
            yield _printable(name.removesuffix("_ms")), duration(value / 1000)
        elif name.endswith("_seconds") and is_number:
            yield _printable(name.removesuffix("_seconds")), duration(value)
        else:
            yield _printable(name), _value(value)
    for name in ("logger", "error"):
        if fields.get(name) is not None:
            yield name, _chain(fields[name]) if _is_chain(fields[name]) else _value(fields[name])


def duration(seconds: float) -> str:
    """A time as people read it.

    >>> [duration(seconds) for seconds in (0.00004, 0.0013, 0.25, 1.5, 61, 90061)]
    ['0ms', '1.3ms', '250ms', '1.5s', '1m1s', '25h1m']
    """
    if seconds < 1:
        return f"{round(seconds * 1000, 1):g}ms"
    if seconds < 60:  # noqa: PLR2004  # in a minute
        return f"{round(seconds, 1):g}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m"  # noqa: PLR2004  # in an hour


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    shown = _printable(text)
    if isinstance(value, str) and (not text or any(character in text for character in ' ="')):
        return '"' + shown.replace('"', '\\"') + '"'
    return shown


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _is_chain(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(link, dict) and "type" in link for link in value)


def _chain(links: Sequence[Mapping[str, Any]]) -> str:
    """An exception from its outermost to its cause, a group's members in brackets.

    >>> group = {"type": "EG", "at": "a.py:1 in f", "errors": [[{"type": "KeyError"}], [{"type": "OSError"}]]}
    >>> _chain([group, {"type": "asyncpg.exceptions.UniqueViolationError", "sqlstate": "23505"}])
    'EG [KeyError | OSError] at a.py:1 in f from UniqueViolationError[23505]'
    """
    return " from ".join(_link(link) for link in links)


def _link(link: Mapping[str, Any]) -> str:
    told = str(link["type"]).rpartition(".")[2]
    if "sqlstate" in link:
        told += f"[{link['sqlstate']}]"
    if errors := link.get("errors"):
        told += " [" + " | ".join(_chain(chain) for chain in errors) + "]"
    if "at" in link:
        told += f" at {link['at']}"
    return _printable(told)
