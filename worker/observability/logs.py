"""Logs: each event is one JSON object or one console line, and no line holds a value of a message.

A line written during an attempt names its job, whether a handler or a library writes it. Exceptions are logged as types
and places; their texts may hold values and are left out.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

import structlog

from producers import ids
from worker.model import log_context
from worker.model.failures import causes
from worker.observability.console import console_renderer
from worker.observability.log_values import as_json

Render = Callable[[Mapping[str, Any]], bytes]

# arq's lines about itself. Its lines about jobs hold arguments and results; ours replace them.
_ARQ_LIFECYCLE = ("Starting worker for", "redis_version=", "shutdown on", "redis connection", "recording health")


class _Output:
    """The file that our own lines go to. A write costs as much as rendering a line, so a batch is written at once."""

    def __init__(self) -> None:
        self._file: BinaryIO = sys.stdout.buffer
        self._lines: list[bytes] = []
        self._buffering = False

    def use(self, file: BinaryIO) -> None:
        """Write to this file from now on."""
        self._file = file

    @contextmanager
    def buffered(self) -> Iterator[None]:
        """Hold back lines and write them together at the end. Do not await anything inside."""
        self._buffering = True
        try:
            yield
        finally:
            self._buffering = False
            self._write()

    def _log(self, line: bytes) -> None:
        self._lines.append(line)
        if not self._buffering:
            self._write()

    # structlog calls these.
    debug = info = warning = error = critical = _log

    def _write(self) -> None:
        if not self._lines:
            return
        # One write of whole lines, so that lines of other threads do not mix with them.
        lines, self._lines = [*self._lines, b""], []
        self._file.write(b"\n".join(lines))
        self._file.flush()


_OUTPUT = _Output()
buffered = _OUTPUT.buffered


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Send all logs, those of libraries included, to standard output in one format. It can be called again."""
    render: Render = as_json if log_format == "json" else console_renderer(sys.stdout)
    # Our own events bypass the standard library, which would cost a job more than its claim does.
    _OUTPUT.use(sys.stdout.buffer)
    structlog.configure(
        processors=[lambda _logger, method, event: render(_complete(event, method))],
        logger_factory=lambda *_: _OUTPUT,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(LibraryFormatter(render, sys.stdout.encoding))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in ("sqlalchemy", "alembic", "asyncio", "redis", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
    silence_arq_job_logs()


class LibraryFormatter(logging.Formatter):
    """Formats the records of libraries that use the standard logging module."""

    def __init__(self, render: Render, encoding: str) -> None:
        super().__init__()
        self._render = render
        self._encoding = encoding

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {"event": _message(record), "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        return self._render(_complete(event, record.levelname.lower())).decode(self._encoding)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  # logging itself would print the arguments, which are values
        return str(record.msg)


def _complete(event: MutableMapping[str, Any], level: str) -> Mapping[str, Any]:
    """Add the current job, exception, level and time. structlog's own processors would take three times as long."""
    if "job_id" not in event:
        event = log_context.current_fields() | structlog.contextvars.get_contextvars() | dict(event)
    if "exc_info" in event or "exception" in event:
        _replace_exception(event)
    event["level"] = level
    event["timestamp"] = _now()
    return event


_second: tuple[int, str] = 0, ""


def _now() -> str:
    """The current UTC time in ISO 8601."""
    global _second  # noqa: PLW0603  # a second is formatted once
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    if _second[0] != seconds:
        _second = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{_second[1]}.{micros:06d}Z"


def silence_arq_job_logs() -> None:
    """Drop arq's lines that hold a job's arguments or results, also under the handlers that arq's command installs."""
    arq = logging.getLogger("arq")
    arq.handlers.clear()
    arq.propagate = True
    worker = logging.getLogger("arq.worker")
    worker.filters[:] = [_ArqFilter()]


class _ArqFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if record.levelno <= logging.INFO:
            return text.startswith(_ARQ_LIFECYCLE)
        if " ! %s failed" in text:
            return False  # our own line reports the failure, without the exception's text
        if "function %r not found" in text:
            # The name can be anything that a client wrote to Redis.
            record.msg, record.args = "job with an unknown name", ()
        elif isinstance(record.args, tuple):
            # So can an id, unless it is a valid job id (arq's `<job id>:<job name>` is one, too).
            record.args = tuple(
                "(invalid job id)" if isinstance(arg, str) and not ids.is_job_id(arg) else arg for arg in record.args
            )
        return True


def _replace_exception(event: MutableMapping[str, Any]) -> None:
    error = event.pop("exc_info", None)
    event.pop("exception", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = causes(error)
