"""Logs: one JSON object or one readable line an event, and never a value of a message.

A line that is written while a job is tried says which, whoever writes it. Exceptions are told by their types and
places; their texts, which hold values, stay out.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

import structlog

from producers import ids
from worker.model import log_context as context
from worker.model.causes import causes
from worker.observability.console import Console
from worker.observability.log_values import as_json

Render = Callable[[Mapping[str, Any]], bytes]

# What arq says of itself and not of a job. Its lines for each job hold arguments and results; ours say the rest.
_ARQ_ABOUT_ITSELF = ("Starting worker for", "redis_version=", "shutdown on", "redis connection", "recording health")


class _Lines:
    """Our own lines on their way out. To write one costs as much as to make it: a batch's are written at once."""

    def __init__(self) -> None:
        self._file: BinaryIO = sys.stdout.buffer
        self._held: list[bytes] = []
        self._gathering = False

    def go_to(self, file: BinaryIO) -> None:
        """Write to this file from now on."""
        self._file = file

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Write what is logged meanwhile at once, at the end. Nothing may be awaited within."""
        self._gathering = True
        try:
            yield
        finally:
            self._gathering = False
            self._write()

    def _log(self, line: bytes) -> None:
        self._held.append(line)
        if not self._gathering:
            self._write()

    # What structlog calls.
    debug = info = warning = error = critical = _log

    def _write(self) -> None:
        if not self._held:
            return
        # Whole lines in one piece, so that other threads' come before or behind.
        held, self._held = [*self._held, b""], []
        self._file.write(b"\n".join(held))
        self._file.flush()


_LINES = _Lines()
gathered = _LINES.gathered


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Send all logs, those of libraries too, to standard output in one form. May be called again."""
    render: Render = as_json if log_format == "json" else Console.on(sys.stdout)
    # Our own events do not take the way through the standard library: it would cost a job more than its whole claim.
    _LINES.go_to(sys.stdout.buffer)
    structlog.configure(
        processors=[lambda _logger, method, event: render(_finished(event, method))],
        logger_factory=lambda *_: _LINES,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Theirs(render, sys.stdout.encoding))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in ("sqlalchemy", "asyncio", "redis", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
    tame_arq()


class _Theirs(logging.Formatter):
    """Lines of those that log by the standard library."""

    def __init__(self, render: Render, encoding: str) -> None:
        super().__init__()
        self._render = render
        self._encoding = encoding

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {"event": _said(record), "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        return self._render(_finished(event, record.levelname.lower())).decode(self._encoding)


def _said(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  # logging itself would print the arguments, which are values
        return str(record.msg)


def _finished(event: MutableMapping[str, Any], level: str) -> Mapping[str, Any]:
    """All the steps to a line in one: structlog's own chain of them costs three times as much."""
    if "job_id" not in event:
        # Not of a job that has been named: a line of a handler, a library, or of nothing that is about a job.
        event = context.fields() | structlog.contextvars.get_contextvars() | dict(event)
    if "exc_info" in event or "exception" in event:
        _tell_exception(event)
    event["level"] = level
    event["timestamp"] = _now()
    return event


_second: tuple[int, str] = 0, ""


def _now() -> str:
    """The time as ISO 8601 has it, in UTC."""
    global _second  # noqa: PLW0603  # formatting a second once is enough
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    if _second[0] != seconds:
        _second = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{_second[1]}.{micros:06d}Z"


def tame_arq() -> None:
    """Let arq's loggers say nothing about what a job holds, also under the handlers that arq's command gives them."""
    arq = logging.getLogger("arq")
    arq.handlers.clear()
    arq.propagate = True
    worker = logging.getLogger("arq.worker")
    worker.filters[:] = [_ArqFilter()]


class _ArqFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if record.levelno <= logging.INFO:
            return text.startswith(_ARQ_ABOUT_ITSELF)
        if " ! %s failed" in text:
            return False  # the job's own line has said it, without the exception's text
        if "function %r not found" in text:
            # The name is whatever somebody wrote into Redis.
            record.msg, record.args = "job of an unknown name", ()
        elif isinstance(record.args, tuple):
            # So is an id, unless it has an id's form (as has arq's `<job id>:<name of the job>`).
            record.args = tuple(
                "(no job id)" if isinstance(arg, str) and not ids.is_job_id(arg) else arg for arg in record.args
            )
        return True


def _tell_exception(event: MutableMapping[str, Any]) -> None:
    error = event.pop("exc_info", None)
    event.pop("exception", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = causes(error)
