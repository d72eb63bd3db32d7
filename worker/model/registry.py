"""The registry: which handler runs for which message, and which jobs are scheduled."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers.errors import RejectedCode
from producers.messages import Message, Reply

ReplyT = TypeVar("ReplyT", bound=Reply)
M = TypeVar("M", bound=Message[Any])


class Rejection(Exception):
    """Raised by a handler when the request cannot be honoured: an answer, not a fault, and never retried.

    `detail` is stored, logged and shown to the caller: it must not hold a value of the message.
    """

    def __init__(self, code: RejectedCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


Handler = Callable[[AsyncSession, M], Awaitable[ReplyT]]
BatchHandler = Callable[[AsyncSession, Sequence[M]], Awaitable[Sequence[ReplyT | Rejection | None]]]


@dataclass(slots=True)
class JobType(Generic[M, ReplyT]):
    """A job type: its message and its handler. Calling it calls the handler."""

    name: str
    message: type[M]
    handler: Handler[M, ReplyT]
    set_based: BatchHandler[M, ReplyT] | None = None
    """The handler for many messages in one transaction, if there is one: see `batch`."""

    async def __call__(self, session: AsyncSession, message: M) -> ReplyT:
        """Run the handler for one message."""
        return await self.handler(session, message)

    def batch(self, handler: BatchHandler[M, ReplyT]) -> BatchHandler[M, ReplyT]:
        """Register the set-based form of the handler: an optimisation that may always give up.

        It takes many messages in the order in which they were accepted, and returns for each of them, in that order,
        the reply; or a `Rejection`; or None when the message must run in a session of its own. A message without a
        reply must leave no trace. Its outcome must be the handler's. When it raises, its transaction is rolled back and
        the messages run in smaller parts, down to the handler itself.
        """
        self.set_based = handler
        return handler


AnyJobType = JobType[Any, Any]

REGISTRY: dict[str, AnyJobType] = {}
"""Every job type, by name."""


def job(message: type[M]) -> Callable[[Handler[M, ReplyT]], JobType[M, ReplyT]]:
    """Register the handler of a message.

    The handler takes a session in a transaction and the validated message, and returns the reply. It neither commits
    nor rolls back: its effect and the record that it ran are one transaction. It may run again after a crash, or after
    a commit that Redis has forgotten; in that case everything is rolled back.

    Raises:
        ValueError: the message has a handler already.
    """

    def register(handler: Handler[M, ReplyT]) -> JobType[M, ReplyT]:
        if message.job in REGISTRY:
            raise ValueError(f"{message.job} has a handler already: {REGISTRY[message.job].handler!r}")
        REGISTRY[message.job] = made = JobType(message.job, message, handler)
        return made

    return register


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept."""

    ledger: timedelta
    inactive_users: timedelta | None
    """None: for ever."""


Tick = Callable[[async_sessionmaker[AsyncSession], Retention], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job that runs once a tick, whatever the number of workers. `run` returns how many rows it deleted."""

    name: str
    run: Tick
    minutes: frozenset[int]
    hours: frozenset[int] | None


SCHEDULE: dict[str, ScheduledJob] = {}
"""Every scheduled job, by name."""


def scheduled(*, minutes: frozenset[int], hours: frozenset[int] | None = None) -> Callable[[Tick], Tick]:
    """Register a job that runs at these minutes of these hours (None: of every hour)."""

    def register(run: Tick) -> Tick:
        name = run.__name__
        SCHEDULE[name] = ScheduledJob(name, run, minutes, hours)
        return run

    return register
