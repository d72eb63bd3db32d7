"""The options that all commands share, their checks, and errors with advice for the command line."""

import math
from typing import Annotated, Any

import typer

from producers import keys
from producers.cli.output import Exit, Failure
from producers.errors import (
    EnqueueUnconfirmed,
    JobNotFound,
    ProducerError,
    RedisRefused,
    RedisUnavailable,
    ResultTimeout,
)

TIMEOUT_SECONDS = 10.0


def _redis_option(name: str, metavar: str, text: str, envvar: str | None = None) -> Any:
    return typer.Option(name, metavar=metavar, envvar=envvar, help=text, rich_help_panel="Redis")


_URL_HELP = (
    "The Redis of the queue. "
    "Pass a URL that contains a password as REDIS_URL: other users can see command-line arguments."
)
RedisUrl = Annotated[str | None, _redis_option("--redis-url", "URL", _URL_HELP, "REDIS_URL")]
Queue = Annotated[str, _redis_option("--queue", "NAME", "The name of the queue.", "WORKER_QUEUE")]
Timeout = Annotated[float, _redis_option("--timeout", "SECONDS", "How long to retry while Redis does not answer.")]

DEFAULT_QUEUE = keys.DEFAULT_QUEUE


def refuse_arguments(context: typer.Context) -> None:
    """Refuse extra arguments without quoting them: they may be parts of a value."""
    if context.args:
        raise Failure(f"{len(context.args)} unexpected argument(s): put quotes around a value with spaces", Exit.USAGE)


def redis_url(given: str | None) -> str:
    """The given URL, if there is one."""
    if not given:
        text = "REDIS_URL is not set: export REDIS_URL=redis://localhost:6379/0, or pass --redis-url"
        raise Failure(text, Exit.USAGE)
    return given


def timeout_seconds(given: float) -> float:
    """The given timeout, if it is positive."""
    if not (math.isfinite(given) and given > 0):
        raise Failure("--timeout must be more than 0 seconds", Exit.USAGE)
    return given


def failure(error: ProducerError) -> Failure:
    """The error with advice and an exit code."""
    text, code = str(error), Exit.REFUSED
    match error:
        case EnqueueUnconfirmed():
            code = Exit.UNKNOWN
            text = (
                f"job {error.job_id} may or may not have been accepted: run the same command again with "
                f"--idempotency-key {error.idempotency_key}, and it is accepted once"
            )
        case RedisUnavailable():
            code = Exit.UNKNOWN
            text = f"{sentence(error)}; start it, or set another one with REDIS_URL or --redis-url"
        case RedisRefused():
            text = (
                f"{sentence(error)}; check the password and database number in REDIS_URL, and whether Redis is out of "
                "memory or a replica"
            )
        case ResultTimeout() | JobNotFound():
            code = Exit.UNKNOWN
        case _:
            pass
    return Failure(text, code)


def sentence(error: object) -> str:
    """The text of an error without the full stop that Redis sometimes adds."""
    return str(error).rstrip(". ")
