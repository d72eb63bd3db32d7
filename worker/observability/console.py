"""Log lines for people: structlog's console renderer over bounded values.

    07:29:15.123Z [info     ] job_done             job_id=import-7 job=create_user attempt=1 wait_ms=1.3

Each event is one line. Characters that cannot be printed are escaped, so data cannot control the terminal.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from structlog.dev import BRIGHT, DIM, RESET_ALL, Column, ConsoleRenderer, KeyValueColumnFormatter
from structlog.dev import LogLevelColumnFormatter as LevelFormatter

from worker.observability.log_values import bounded

EVENT_WIDTH = 20
_RENDERED_BY_STRUCTLOG = frozenset({"stack", "exception", "exc_info"})
"""structlog writes the values of these fields raw, on lines of their own."""


def console_renderer(stream: TextIO) -> Callable[[Mapping[str, Any]], bytes]:
    """Return a function that renders an event as one line for this stream.

    It uses colors on a terminal, unless `NO_COLOR` (no-color.org) is set or the terminal has none.
    """
    colors = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    dim, bold, reset = (DIM, BRIGHT, RESET_ALL) if colors else ("", "", "")
    columns = [
        Column("timestamp", KeyValueColumnFormatter(None, dim, reset, lambda value: f"{str(value)[11:23]}Z")),
        Column("level", LevelFormatter(ConsoleRenderer.get_default_level_styles(colors), reset)),
        Column("event", KeyValueColumnFormatter(None, bold, reset, lambda value: _printable(str(value)), EVENT_WIDTH)),
        Column("", KeyValueColumnFormatter(dim, "", reset, _format_value)),
    ]
    renderer = ConsoleRenderer(sort_keys=False, columns=columns)

    def render(event: Mapping[str, Any]) -> bytes:
        fields = {_field_name(name): value for name, value in bounded(event).items()}
        return str(renderer(None, "", fields)).encode(stream.encoding or "utf-8", "backslashreplace")

    return render


def _field_name(name: str) -> str:
    return f"{name}_" if name in _RENDERED_BY_STRUCTLOG else _printable(name)


def _format_value(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(link, dict) and "type" in link for link in value):
        return _format_chain(value)
    text = _printable(str(value))
    if isinstance(value, str) and (not text or set(text) & set(' ="')):
        return '"' + text.replace('"', '\\"') + '"'
    return text


def _format_chain(links: list[dict[str, Any]]) -> str:
    """Format an exception chain from the outermost exception to its cause, with a group's members in brackets.

    >>> group = {"type": "EG", "at": "a.py:1 in f", "errors": [[{"type": "KeyError"}], [{"type": "OSError"}]]}
    >>> _format_chain([group, {"type": "asyncpg.exceptions.UniqueViolationError", "sqlstate": "23505"}])
    'EG [KeyError | OSError] at a.py:1 in f from UniqueViolationError[23505]'
    """
    texts = []
    for link in links:
        text = str(link["type"]).rpartition(".")[2]
        text += f"[{link['sqlstate']}]" if "sqlstate" in link else ""
        text += f" [{' | '.join(map(_format_chain, link['errors']))}]" if link.get("errors") else ""
        texts.append(text + (f" at {link['at']}" if "at" in link else ""))
    return _printable(" from ".join(texts))


def _printable(text: str) -> str:
    """Escape the characters that cannot be printed.

    >>> _printable("a\\nb\\x1b[2J\\u2028é")
    'a\\\\nb\\\\x1b[2J\\\\u2028é'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
