"""Which handler gives which message its effect, and which jobs run by the clock."""

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

    `detail` is stored and shown to the caller, and logged: it must hold no value of the message.
    """

    def __init__(self, code: RejectedCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


Handler = Callable[[AsyncSession, M], Awaitable[ReplyT]]
BatchHandler = Callable[[AsyncSession, Sequence[M]], Awaitable[Sequence[ReplyT | Rejection | None]]]


@dataclass(slots=True)
class JobType(Generic[M, ReplyT]):
    """A kind of job: its message and its handler, which calling it calls."""

    name: str
    message: type[M]
    handler: Handler[M, ReplyT]
    set_based: BatchHandler[M, ReplyT] | None = None
    """The handler's form for many messages in one transaction, if it has one: see `batch`."""

    async def __call__(self, session: AsyncSession, message: M) -> ReplyT:
        """Give one message its effect."""
        return await self.handler(session, message)

    def batch(self, handler: BatchHandler[M, ReplyT]) -> BatchHandler[M, ReplyT]:
        """Make a function the handler's set-based form: an optimisation that may always give up.

        It gets many messages in the order they were accepted, and returns for each of them, in the same order, the
        reply; or a `Rejection`; or None, when only a session of its own can tell. Whatever gets no reply must have left
        no trace. It must come to what the handler would have come to; when it raises, its transaction is rolled back
        and the messages are tried in smaller parts, down to the handler itself.
        """
        self.set_based = handler
        return handler


AnyJobType = JobType[Any, Any]

REGISTRY: dict[str, AnyJobType] = {}
"""Every kind of job, by name."""


def job(message: type[M]) -> Callable[[Handler[M, ReplyT]], JobType[M, ReplyT]]:
    """Make a function the handler of a message.

    The handler gets a session in a transaction and the validated message, and returns the reply. It neither commits
    nor rolls back: its effect and the record that it ran are one transaction. It may be run again after a crash; and
    after its transaction was committed only when Redis has forgotten that, and then in vain: all is rolled back.

    Raises:
        ValueError: when the message has a handler already.
    """

    def register(handler: Handler[M, ReplyT]) -> JobType[M, ReplyT]:
        if message.job in REGISTRY:
            raise ValueError(f"{message.job} has a handler already: {REGISTRY[message.job].handler!r}")
        REGISTRY[message.job] = made = JobType(message.job, message, handler)
        return made

    return register


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept."""

    ledger: timedelta
    inactive_users: timedelta | None
    """None: for ever."""


Tick = Callable[[async_sessionmaker[AsyncSession], Retention], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class ScheduledJob:
    """A job that runs by the clock, once a tick however many workers there are. `run` says how many rows it removed."""

    name: str
    run: Tick
    minutes: frozenset[int]
    hours: frozenset[int] | None


SCHEDULE: dict[str, ScheduledJob] = {}
"""Every scheduled job, by name."""


def scheduled(*, minutes: frozenset[int], hours: frozenset[int] | None = None) -> Callable[[Tick], Tick]:
    """Make a function a job that runs at these minutes of these hours (None: of every hour)."""

    def register(run: Tick) -> Tick:
        name = run.__name__
        SCHEDULE[name] = ScheduledJob(name, run, minutes, hours)
        return run

    return register
