"""Logs: one JSON object or one readable line an event, and never a value of a message.

Exceptions are told by their types and places; their texts, which hold values, stay out, whoever logs them.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog
from pydantic_core import to_json

from producers import ids
from worker.engine.classify import describe

# What arq says of itself and not of a job. Its lines for each job hold arguments and results; ours say the rest.
_ARQ_ABOUT_ITSELF = ("Starting worker for", "redis_version=", "shutdown on", "redis connection", "recording health")


def configure(log_format: Literal["json", "console"], level: str) -> None:
    """Send all logs, those of libraries too, to standard output in one form. May be called again."""
    # Our own events do not take the way through the standard library: it would cost a job more than its whole claim.
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_exception,
            _renderer(log_format),
        ],
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer)
        if log_format == "json"
        else structlog.WriteLoggerFactory(sys.stdout),
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
    for library in ("sqlalchemy", "asyncio", "redis"):
        logging.getLogger(library).setLevel(logging.WARNING)
    tame_arq()


def _renderer(log_format: Literal["json", "console"]) -> structlog.typing.Processor:
    if log_format == "console":
        return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    return structlog.processors.JSONRenderer(serializer=_to_json)


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
