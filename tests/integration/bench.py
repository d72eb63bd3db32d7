"""Transactions on a real PostgreSQL whose handlers are counted, and what they leave in the database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from producers.messages import CreateUser, Message, Reply, User
from tests.jobs import claimed_job, user_fields
from worker.database import users
from worker.database.session import Timeouts, create_engine, create_sessions
from worker.engine.transaction import Transaction
from worker.jobs import REGISTRY, AnyJobType, JobType
from worker.model.job import ClaimedJob

MAX_TRIES = 3
Sessions = async_sessionmaker[Any]
Handler = Callable[[AsyncSession, Any], Awaitable[Reply]]

OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND (state = 'active' OR state LIKE 'idle in transaction%')"
)
"""How many transactions are open."""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@dataclass
class Bench:
    """A database, and transactions in it."""

    url: str
    engine: AsyncEngine
    sql: Any
    eventually: Any
    ledger_last: bool = False
    """Whether the first delivery of a job may write its ledger row last."""
    calls: int = 0
    """How often a handler was called."""
    engines: list[AsyncEngine] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)

    def job(self, name: str = "ada", /, *, job_id: str = "job-1", attempt: int = 1, **changes: Any) -> ClaimedJob:
        """A delivery of a job that creates a user."""
        first = self.ledger_last and attempt == 1 and job_id not in self.delivered
        self.delivered.add(job_id)
        return claimed_job(fields=user_fields(name, **changes), job_id=job_id, attempt=attempt, ledger_last=first)

    def transaction(
        self, create_user: Handler | None = None, *, sessions: Sessions | None = None, timeout_seconds: float = 20.0
    ) -> Transaction:
        """All real job types, the handler of `create_user` replaced if one is given."""
        registry = {name: self.counted(job_type.message, job_type.handler) for name, job_type in REGISTRY.items()}
        if create_user is not None:
            registry["create_user"] = self.counted(CreateUser, create_user)
        sessions = sessions or create_sessions(self.engine)
        return Transaction(sessions, registry, max_tries=MAX_TRIES, timeout_seconds=timeout_seconds)

    def sessions(
        self, url: str | None = None, *, pool_size: int = 8, kind: type[AsyncSession] = AsyncSession, **timeouts: float
    ) -> Sessions:
        """Sessions of another engine."""
        engine = create_engine(url or self.url, pool_size=pool_size, timeouts=Timeouts(**timeouts))
        self.engines.append(engine)
        return create_sessions(engine, kind)

    async def users(self) -> list[str]:
        """The names of all users."""
        found: list[str] = await self.sql("SELECT coalesce(array_agg(username::text ORDER BY id), '{}') FROM users")
        return found

    async def ledger(self) -> list[tuple[str, str, str | None]]:
        """The id, the outcome and the code of every row."""
        row = "(job_id::text, outcome::text, code::text)"
        found: list[tuple[str, str, str | None]] = await self.sql(
            f"SELECT coalesce(array_agg({row} ORDER BY job_id), '{{}}') FROM job_ledger"  # noqa: S608  # from here
        )
        return found

    async def assert_no_trace(self) -> None:
        """Neither a user nor a ledger row was committed."""
        assert (await self.users(), await self.ledger()) == ([], [])

    async def lock_waits(self, count: int = 1) -> None:
        """Return when this many transactions wait for a lock."""
        await self.eventually(lambda: self.sql(f"SELECT ({_WAITING}) >= $1", count))

    async def assert_nothing_open(self) -> None:
        """No connection is checked out, and no transaction open."""
        for engine in (self.engine, *self.engines):
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # it is a QueuePool
        # The server may need a moment to see that a connection is gone.
        await self.eventually(lambda: self.sql(f"SELECT ({OPEN}) = 0"))

    def counted(self, message: type[Message[Any]], handler: Handler) -> AnyJobType:
        """A job type that counts the calls of its handler."""

        async def run(session: AsyncSession, message: Any) -> Reply:
            self.calls += 1
            return await handler(session, message)

        return JobType(message.job, message, run)

    @asynccontextmanager
    async def commits_held(self) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
        """Every COMMIT that adds a user waits. Yields the function that lets them go on."""
        await self.sql(
            "CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END'"
        )
        await self.sql(
            "CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON users"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_gate()"
        )
        keeper = await asyncpg.connect(self.url)

        async def let_go() -> None:
            await keeper.execute("SELECT pg_advisory_unlock_all()")

        await keeper.execute("SELECT pg_advisory_lock(7)")
        try:
            yield let_go
        finally:
            await keeper.close()


B = TypeVar("B", bound=Bench)


@asynccontextmanager
async def closed_clean(bench: B) -> AsyncIterator[B]:
    """At the end of the block nothing of the bench is open, and its engines are disposed."""
    yield bench
    try:
        await bench.assert_nothing_open()
    finally:
        for engine in bench.engines:
            await engine.dispose()


async def create_user(session: AsyncSession, message: CreateUser) -> User:
    """The single form of the handler."""
    return User.model_validate(await users.create_user(session, message))
