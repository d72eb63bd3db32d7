"""Logs: one JSON object or one readable line an event, and never a value of a message.

Exceptions are told by their types and places; their texts, which hold values, stay out, whoever logs them.
"""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

import structlog
from pydantic_core import to_json

from producers import ids
from worker.engine.classify import describe

# What arq says of itself and not of a job. Its lines for each job hold arguments and results; ours say the rest.
_ARQ_ABOUT_ITSELF = ("Starting worker for", "redis_version=", "shutdown on", "redis connection", "recording health")


class _Lines:
    """Our own JSON lines on their way out. To write one costs as much as to make it: a batch's are written at once."""

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
    # Our own events do not take the way through the standard library: it would cost a job more than its whole claim.
    _LINES.go_to(sys.stdout.buffer)
    structlog.configure(
        processors=[_as_line]
        if log_format == "json"
        else [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_exception,
            _renderer(log_format),
        ],
        logger_factory=(lambda *_: _LINES) if log_format == "json" else structlog.WriteLoggerFactory(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _describe_exception,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _as_text(_renderer(log_format))],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in ("sqlalchemy", "asyncio", "redis", "uvicorn"):
        logging.getLogger(library).setLevel(logging.WARNING)
    tame_arq()


def _renderer(log_format: Literal["json", "console"]) -> structlog.typing.Processor:
    if log_format == "console":
        return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    return structlog.processors.JSONRenderer(serializer=_to_json)


def _as_line(_logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
    """All of structlog's steps for a JSON line in one: its own chain of them costs three times as much."""
    event = structlog.contextvars.merge_contextvars(_logger, method, event)
    if "exc_info" in event or "exception" in event:
        _describe_exception(_logger, method, event)
    event["level"] = method
    event["timestamp"] = _now()
    return _to_json(event)


_second: tuple[int, str] = 0, ""


def _now() -> str:
    """The time as ISO 8601 has it, in UTC."""
    global _second  # noqa: PLW0603  # formatting a second once is enough
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    if _second[0] != seconds:
        _second = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{_second[1]}.{micros:06d}Z"


def _to_json(event: Any, **_: Any) -> bytes:
    # What JSON has no form for is told by its type: its repr might hold anything.
    return to_json(event, fallback=lambda value: type(value).__name__)


def _as_text(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    def render(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        line = renderer(logger, method, event)
        return line.decode() if isinstance(line, bytes) else str(line)

    return render


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


def _describe_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    error = event.pop("exc_info", None)
    event.pop("exception", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["error"] = describe(error)
    return event
