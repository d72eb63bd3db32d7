"""The options that the commands share, and connecting as they say."""

import math
from typing import Annotated

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

RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        envvar="REDIS_URL",
        help="The Redis of the queue. With a password in it, better set as REDIS_URL: any user can list arguments.",
        rich_help_panel="Where to",
    ),
]
Queue = Annotated[
    str,
    typer.Option(
        "--queue", metavar="NAME", envvar="WORKER_QUEUE", help="The name of the queue.", rich_help_panel="Where to"
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long to try while Redis is away or silent.",
        rich_help_panel="Where to",
    ),
]

DEFAULT_QUEUE = keys.DEFAULT_QUEUE


def refuse_arguments(context: typer.Context) -> None:
    """Refuse what is no option, without quoting it: it may be a part of a value."""
    if context.args:
        raise Failure(
            f"{len(context.args)} argument(s) belong to no option: put quotes around a value with spaces", Exit.USAGE
        )


def redis_url(given: str | None) -> str:
    """The URL that was given, or the way to give one."""
    if not given:
        raise Failure("no Redis was named: export REDIS_URL=redis://localhost:6379/0, or pass --redis-url", Exit.USAGE)
    return given


def timeout_seconds(given: float) -> float:
    """The time that was given, if it is one to try in."""
    if not (math.isfinite(given) and given > 0):
        raise Failure("--timeout must be more than 0 seconds", Exit.USAGE)
    return given


def failure(error: ProducerError) -> Failure:
    """What to say of an error, with what to do about it."""
    match error:
        case EnqueueUnconfirmed():
            text = (
                f"job {error.job_id} may or may not have been accepted: run the same command again with "
                f"--idempotency-key {error.idempotency_key}, and it is accepted once"
            )
            return Failure(text, Exit.UNKNOWN)
        case RedisUnavailable():
            return Failure(f"{sentence(error)}; start it, or name another by REDIS_URL or --redis-url", Exit.UNKNOWN)
        case RedisRefused():
            text = (
                f"{sentence(error)}; look at the password and the number in REDIS_URL, and at Redis's memory and role"
            )
            return Failure(text, Exit.REFUSED)
        case ResultTimeout() | JobNotFound():
            return Failure(str(error), Exit.UNKNOWN)
        case _:
            return Failure(str(error), Exit.REFUSED)


def sentence(error: object) -> str:
    """The text of an error as the first half of a sentence: Redis's own ends in a full stop, or does not."""
    return str(error).rstrip(". ")
