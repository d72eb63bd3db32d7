"""Connections and sessions on a real PostgreSQL: their limits, pings, URLs, and the creation of tables."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from producers.messages import CreateUser
from tests.jobs import HASH, user_fields
from tests.waiting import slowdown
from worker.database import connections, users
from worker.database.connections import ConnectionLost, LeftIdle
from worker.database.models import User
from worker.database.session import Timeouts, create_engine, create_sessions, database_url, session_scope
from worker.database.startup import create_tables
from worker.model.failures import classify
from worker.model.outcome import Release
from worker.settings import Settings

Sessions = async_sessionmaker[AsyncSession]
MakeEngine = Callable[..., AsyncEngine]


@pytest.fixture
async def make_engine(database_url: str) -> AsyncIterator[MakeEngine]:
    """Makes engines with a pool of one connection and these timeouts."""
    made: list[AsyncEngine] = []

    def make(url: str = database_url, *, pool_size: int = 1, name: str = "worker", **timeouts: float) -> AsyncEngine:
        made.append(create_engine(url, pool_size=pool_size, name=name, timeouts=Timeouts(**timeouts)))
        return made[-1]

    yield make
    for engine in made:
        await engine.dispose()


async def scalar(engine: AsyncEngine, statement: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(statement))


async def create(session: AsyncSession, name: str = "ada") -> User:
    return await users.create_user(session, CreateUser(**user_fields(name)))


# The creation of tables


async def test_many_workers_can_create_the_tables_at_once(make_engine: MakeEngine, empty_database_url: str) -> None:
    engines = [make_engine(empty_database_url) for _ in range(8)]
    # All connected, so that they really come at once.
    await asyncio.gather(*(scalar(engine, "SELECT 1") for engine in engines))

    await asyncio.gather(*(create_tables(engine) for engine in engines))

    tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_stat_user_tables"
    assert await scalar(engines[0], tables) == "job_ledger posts users worker_alembic_version"


async def test_the_rows_of_tables_that_exist_are_kept(engine: AsyncEngine, sql: Any) -> None:
    await sql("INSERT INTO users (email, username, hashed_password) VALUES ('e', 'u', 'h')")
    await create_tables(engine)
    assert await sql("SELECT count(*) FROM users") == 1


async def test_another_workers_slow_creation_is_waited_for(
    make_engine: MakeEngine, database_url: str, sql: Any, eventually: Any
) -> None:
    # Given: another worker that holds the lock, and timeouts far below what the wait takes.
    other = await asyncpg.connect(database_url)
    engine = make_engine(lock_seconds=0.01, statement_seconds=0.5)
    try:
        await other.execute("SELECT pg_advisory_lock($1)", 0x75736572706F7374)
        creating = asyncio.create_task(create_tables(engine))

        # When: the wait has gone on for longer than that.
        waited = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND now() - query_start > '600ms'"
            " AND datname = current_database()"
        )
        await eventually(lambda: sql(waited))
        await other.execute("SELECT pg_advisory_unlock_all()")

        # Then:
        await creating
        # And the timeouts hold again afterwards.
        assert await scalar(engine, "SHOW lock_timeout") == "10ms"
    finally:
        await other.close()


# Connections


async def test_every_connection_has_all_its_limits(make_engine: MakeEngine) -> None:
    engine = make_engine(
        pool_size=2, name="a-name", lock_seconds=1.5, statement_seconds=2.5, idle_in_transaction_seconds=3.5
    )
    async with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            for parameter, value in {
                "lock_timeout": "1500ms",
                "statement_timeout": "2500ms",
                "idle_in_transaction_session_timeout": "3500ms",
                "application_name": "a-name",
                "timezone": "UTC",
                "transaction_isolation": "read committed",
            }.items():
                assert await connection.scalar(text(f"SHOW {parameter}")) == value


async def test_limits_follow_from_the_settings(database_url: str, redis_url: str) -> None:
    settings = Settings.load(DATABASE_URL=database_url, REDIS_URL=redis_url, job_timeout_seconds=4, lease_seconds=20)
    engine = create_engine(database_url, pool_size=1, timeouts=settings.timeouts)
    assert await scalar(engine, "SHOW lock_timeout") == "1s"
    assert await scalar(engine, "SHOW statement_timeout") == "1s"
    assert await scalar(engine, "SHOW idle_in_transaction_session_timeout") == "16s"
    await engine.dispose()


async def test_a_tiny_limit_is_not_rounded_to_none(make_engine: MakeEngine) -> None:
    assert await scalar(make_engine(lock_seconds=0.0001), "SHOW lock_timeout") == "1ms"


async def test_the_server_ends_a_statement_over_its_time(make_engine: MakeEngine) -> None:
    engine = make_engine(statement_seconds=0.2)
    with pytest.raises(DBAPIError, match="statement timeout"):
        await scalar(engine, "SELECT pg_sleep(600)")
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # it is a QueuePool


async def test_a_connection_of_a_full_pool_is_waited_for_and_then_refused(make_engine: MakeEngine) -> None:
    engine = make_engine(connect_seconds=0.5 * slowdown())
    async with engine.connect():
        with pytest.raises(PoolTimeoutError):
            await scalar(engine, "SELECT 1")
    assert await scalar(engine, "SELECT 1") == 1


async def test_a_transaction_left_idle_is_not_taken_for_a_lost_connection(
    make_engine: MakeEngine, sql: Any, eventually: Any
) -> None:
    engine = make_engine(idle_in_transaction_seconds=slowdown())

    async def lose(ended: str) -> BaseException:
        with pytest.raises((DBAPIError, LeftIdle, ConnectionLost)) as caught:  # noqa: PT012  # one road to the error
            async with engine.connect() as connection:
                pid = await connection.scalar(text("SELECT pg_backend_pid()"))
                await sql(ended, pid)
                await eventually(lambda: sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid))
                await connection.execute(text("SELECT 1"))
        return caught.value

    assert isinstance(await lose("SELECT $1::int"), LeftIdle)
    # The same connection of the pool, when it is the server that ends it.
    error = await lose("SELECT pg_terminate_backend($1)")
    assert isinstance(error, DBAPIError)
    assert error.connection_invalidated
    assert await scalar(engine, "SELECT 1") == 1


async def test_a_connection_lost_in_a_long_statement_was_not_left_idle(
    make_engine: MakeEngine, sql: Any, eventually: Any
) -> None:
    """The time of a statement is not idle: a server that stops meanwhile is not the job's fault."""
    engine = make_engine(idle_in_transaction_seconds=0.5)
    long = "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $1 AND now() - query_start > interval '0.7 s'"
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        running = asyncio.create_task(connection.execute(text("SELECT pg_sleep(600)")))
        await eventually(lambda: sql(long, pid))
        await sql("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(DBAPIError) as caught:
            await running
    assert isinstance(classify(caught.value), Release)


# Pings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time by which connections are pinged: it changes only when it is set."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(connections, "time", clock)
    return clock


async def test_idle_connections_that_the_server_has_ended_are_replaced(
    engine: AsyncEngine, clock: SimpleNamespace, sql: Any, eventually: Any
) -> None:
    async def three_pids() -> list[int]:
        """The server processes of three connections that are used at once."""
        async with AsyncExitStack() as stack:
            used = [await stack.enter_async_context(engine.connect()) for _ in range(3)]
            return [await connection.scalar(text("SELECT pg_backend_pid()")) for connection in used]

    # Given: three idle connections, all ended.
    pids = await three_pids()
    assert len(set(pids)) == 3
    await sql("SELECT count(pg_terminate_backend(pid)) FROM unnest($1::int[]) AS pid", pids)
    await eventually(lambda: sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ANY ($1::int[])", pids))
    clock.now += 1.0

    # When: each of them would be used again. Then: the caller sees no error.
    assert not set(await three_pids()) & set(pids)


async def test_a_connection_is_pinged_only_after_a_pause(engine: AsyncEngine, clock: SimpleNamespace) -> None:
    # Given: a connection of the pool whose queries are recorded.
    sent: list[str] = []
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        raw.add_query_logger(lambda record: sent.append(record.query))

    for pause_seconds, pinged in ((0.4, False), (0.6, True)):
        clock.now += pause_seconds
        assert await scalar(engine, "SELECT 1") == 1
        assert (";" in sent) is pinged


# URLs


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://ada:s3cret@db/app", "postgresql+asyncpg://ada:s3cret@db/app"),
        ("postgres://ada:s3cret@db:5433/app", "postgresql+asyncpg://ada:s3cret@db:5433/app"),
        ("postgresql+asyncpg://ada@db/app", "postgresql+asyncpg://ada@db/app"),
        ("postgresql://ada:p%40ss%2Fword@db/app", "postgresql+asyncpg://ada:p%40ss%2Fword@db/app"),
        ("postgresql://ada@[::1]:5432/app", "postgresql+asyncpg://ada@[::1]:5432/app"),
        ("postgres://db/app?sslmode=require", "postgresql+asyncpg://db/app?ssl=require"),
        ("postgresql:///app?host=/run/postgresql", "postgresql+asyncpg:///app?host=%2Frun%2Fpostgresql"),
    ],
)
def test_a_url_is_completed_for_asyncpg(given: str, used: str) -> None:
    assert database_url(given).render_as_string(hide_password=False) == used


@pytest.mark.parametrize(
    "given",
    [
        "", "s3cret", "db.example.com/app", "host=db password=s3cret", "mysql://ada:s3cret@db/app",
        "sqlite:///s3cret.db", "postgresql+psycopg2://ada:s3cret@db/app", "https://ada:s3cret@db/app",
        # A password with a slash or brackets that is not escaped, so that the rest is parsed as a port.
        "postgresql://ada:@[s3cret:s3cret/x@db/app", "postgresql://s3cret:s3cret@db:s3cret/app",
    ],
)  # fmt: skip
def test_an_invalid_url_is_refused_without_being_repeated(given: str) -> None:
    with pytest.raises(ValueError, match=r"postgresql://") as caught:
        database_url(given)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_password_with_every_special_character_logs_in(
    make_engine: MakeEngine, database_url: str, sql: Any
) -> None:
    login = database_url.partition("//")[2].partition("@")[0]
    await sql("CREATE ROLE tricky LOGIN PASSWORD 'p@ss/w:rd%?#é'")
    try:
        engine = make_engine(database_url.replace(login, "tricky:p%40ss%2Fw%3Ard%25%3F%23é"))
        assert await scalar(engine, "SELECT current_user") == "tricky"
        await engine.dispose()
    finally:
        await sql("DROP ROLE tricky")


# Sessions


async def test_a_scope_commits_at_its_end(sessions: Sessions, sql: Any) -> None:
    async with session_scope(sessions) as session:
        user = await create(session)
        assert await sql("SELECT count(*) FROM users") == 0
    assert await sql("SELECT count(*) FROM users") == 1
    # Its objects stay readable after that, without another query.
    assert user.username == "ada"


@pytest.mark.parametrize("error", [LookupError("mine"), asyncio.CancelledError("mine"), SystemExit("mine")], ids=repr)
async def test_a_scope_rolls_back_and_raises_the_error_of_its_block(
    sessions: Sessions, engine: AsyncEngine, sql: Any, error: BaseException
) -> None:
    async def fail() -> None:
        async with session_scope(sessions) as session:
            await create(session)
            raise error

    with pytest.raises(type(error), match="mine") as caught:
        await fail()
    assert caught.value is error
    assert await sql("SELECT count(*) FROM users") == 0
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # it is a QueuePool


async def test_a_scope_raises_the_error_of_its_commit(sessions: Sessions, sql: Any) -> None:
    async def create_two() -> None:
        async with session_scope(sessions) as session:
            await create(session, "ada")
            await create(session, "bob")

    await sql("ALTER TABLE users ADD CONSTRAINT later UNIQUE (hashed_password) DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(IntegrityError, match="later"):
        await create_two()
    assert await sql("SELECT count(*) FROM users") == 0


async def test_an_error_of_the_database_holds_no_value(sessions: Sessions) -> None:
    async def create_one() -> None:
        async with session_scope(sessions) as session:
            await create(session)

    await create_one()
    with pytest.raises(IntegrityError) as caught:
        await create_one()

    # PostgreSQL's own detail is "Key (username)=(ada) already exists."
    shown = f"{caught.value} {caught.value!r} {caught.value.orig} {caught.value.orig!r}"
    assert "duplicate key value" in shown
    for secret in ("ada", "example.com", HASH):
        assert secret not in shown


async def test_no_connection_is_opened_before_it_is_needed(make_engine: MakeEngine) -> None:
    sessions = create_sessions(make_engine("postgresql://no:nothing@127.0.0.1:1/nowhere"))
    async with sessions() as session:
        session.add(User(email="e"))
