"""Are connections, sessions and the creation of tables as they should be, on a real PostgreSQL?"""

import asyncio
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
from tests.waiting import slowdown
from worker.database import connections, users
from worker.database.connections import ConnectionLost, LeftIdle
from worker.database.models import User
from worker.database.session import Timeouts, create_engine, create_sessions, database_url, session_scope
from worker.database.startup import create_tables
from worker.model.failures import classify
from worker.model.outcome import Release
from worker.settings import Settings

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"
Sessions = async_sessionmaker[AsyncSession]


def named(name: str) -> CreateUser:
    return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH)


# The creation of tables


async def test_many_workers_create_the_tables_at_once(empty_database_url: str) -> None:
    engines = [create_engine(empty_database_url, pool_size=1) for _ in range(8)]
    try:
        # All connected, so that they really come at once.
        await asyncio.gather(*(_scalar(engine, "SELECT 1") for engine in engines))

        await asyncio.gather(*(create_tables(engine) for engine in engines))

        tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_stat_user_tables"
        assert await _scalar(engines[0], tables) == "job_ledger posts users worker_alembic_version"
    finally:
        await asyncio.gather(*(engine.dispose() for engine in engines))


async def test_creating_the_tables_again_keeps_what_they_hold(engine: AsyncEngine, sql: Any) -> None:
    await sql("INSERT INTO users (email, username, hashed_password) VALUES ('e', 'u', 'h')")
    await create_tables(engine)
    assert await sql("SELECT count(*) FROM users") == 1


async def test_a_slow_creation_elsewhere_is_waited_for(database_url: str, sql: Any, eventually: Any) -> None:
    # Given: another worker that holds the lock, and limits far below what the wait takes.
    other = await asyncpg.connect(database_url)
    engine = create_engine(database_url, pool_size=1, timeouts=Timeouts(lock_seconds=0.01, statement_seconds=0.5))
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
        # And the limits hold again afterwards.
        assert await _scalar(engine, "SHOW lock_timeout") == "10ms"
    finally:
        await other.close()
        await engine.dispose()


# Connections


async def test_every_connection_is_limited_in_all_it_does(database_url: str) -> None:
    timeouts = Timeouts(lock_seconds=1.5, statement_seconds=2.5, idle_in_transaction_seconds=3.5)
    engine = create_engine(database_url, pool_size=2, timeouts=timeouts, name="a-name")
    try:
        async with engine.connect() as first, engine.connect() as second:
            for connection in (first, second):
                assert await connection.scalar(text("SHOW lock_timeout")) == "1500ms"
                assert await connection.scalar(text("SHOW statement_timeout")) == "2500ms"
                assert await connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "3500ms"
                assert await connection.scalar(text("SHOW application_name")) == "a-name"
                assert await connection.scalar(text("SHOW timezone")) == "UTC"
                assert await connection.scalar(text("SHOW transaction_isolation")) == "read committed"
    finally:
        await engine.dispose()


async def test_limits_follow_from_the_settings(database_url: str, redis_url: str) -> None:
    settings = Settings.load(DATABASE_URL=database_url, REDIS_URL=redis_url, job_timeout_seconds=4, lease_seconds=20)
    engine = create_engine(database_url, pool_size=1, timeouts=settings.timeouts)
    try:
        assert await _scalar(engine, "SHOW lock_timeout") == "1s"
        assert await _scalar(engine, "SHOW statement_timeout") == "1s"
        assert await _scalar(engine, "SHOW idle_in_transaction_session_timeout") == "16s"
    finally:
        await engine.dispose()


async def test_no_limit_is_rounded_down_to_none(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1, timeouts=Timeouts(lock_seconds=0.0001))
    try:
        assert await _scalar(engine, "SHOW lock_timeout") == "1ms"
    finally:
        await engine.dispose()


async def test_a_statement_over_its_time_is_ended_by_the_server(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1, timeouts=Timeouts(statement_seconds=0.2))
    try:
        with pytest.raises(DBAPIError, match="statement timeout"):
            await _scalar(engine, "SELECT pg_sleep(600)")
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # it is a QueuePool
    finally:
        await engine.dispose()


async def test_a_connection_over_the_pool_is_waited_for_and_then_refused(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1, timeouts=Timeouts(connect_seconds=0.5 * slowdown()))
    try:
        async with engine.connect():
            with pytest.raises(PoolTimeoutError):
                await _scalar(engine, "SELECT 1")
        assert await _scalar(engine, "SELECT 1") == 1
    finally:
        await engine.dispose()


async def test_a_transaction_left_idle_is_told_from_a_lost_connection(
    database_url: str, sql: Any, eventually: Any
) -> None:
    engine = create_engine(database_url, pool_size=1, timeouts=Timeouts(idle_in_transaction_seconds=slowdown()))

    async def lose(ended: str) -> BaseException:
        with pytest.raises((DBAPIError, LeftIdle, ConnectionLost)) as caught:  # noqa: PT012  # one road to the error
            async with engine.connect() as connection:
                pid = await connection.scalar(text("SELECT pg_backend_pid()"))
                await sql(ended, pid)
                await eventually(lambda: sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid))
                await connection.execute(text("SELECT 1"))
        return caught.value

    try:
        assert isinstance(await lose("SELECT $1::int"), LeftIdle)
        # The same connection of the pool, when it is the server that ends it.
        error = await lose("SELECT pg_terminate_backend($1)")
        assert isinstance(error, DBAPIError)
        assert error.connection_invalidated
        assert await _scalar(engine, "SELECT 1") == 1
    finally:
        await engine.dispose()


async def test_a_long_statement_that_is_lost_was_not_left_idle(database_url: str, sql: Any, eventually: Any) -> None:
    """Its own time is none that nothing was sent in: a server that goes meanwhile is not the job's fault."""
    engine = create_engine(database_url, pool_size=1, timeouts=Timeouts(idle_in_transaction_seconds=0.5))
    long = "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $1 AND now() - query_start > interval '0.7 s'"
    try:
        async with engine.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            running = asyncio.create_task(connection.execute(text("SELECT pg_sleep(600)")))
            await eventually(lambda: sql(long, pid))
            await sql("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(DBAPIError) as caught:
                await running
        assert isinstance(classify(caught.value), Release)
    finally:
        await engine.dispose()


# Pre-ping


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time by which the pre-ping goes: it stands still until it is set."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(connections, "time", clock)
    return clock


async def test_idle_connections_that_the_server_has_ended_are_replaced(
    engine: AsyncEngine, clock: SimpleNamespace, sql: Any, eventually: Any
) -> None:
    # Given: three idle connections, all ended.
    pids = await _three_pids(engine)
    assert len(set(pids)) == 3
    await sql("SELECT count(pg_terminate_backend(pid)) FROM unnest($1::int[]) AS pid", pids)
    await eventually(lambda: sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ANY ($1::int[])", pids))
    clock.now += 1.0

    # When: each of them would be used again. Then: nobody notices.
    assert not set(await _three_pids(engine)) & set(pids)


async def _three_pids(engine: AsyncEngine) -> list[int]:
    """The server processes of three connections that are used at once."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(engine.connect()) for _ in range(3)]
        return [await connection.scalar(text("SELECT pg_backend_pid()")) for connection in connections]


async def test_a_connection_that_was_just_used_is_not_pinged(engine: AsyncEngine, clock: SimpleNamespace) -> None:
    # Given: a connection of the pool whose traffic is noted.
    sent: list[str] = []
    async with engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        raw.add_query_logger(lambda record: sent.append(record.query))

    clock.now += 0.4
    assert await _scalar(engine, "SELECT 1") == 1
    assert ";" not in sent

    clock.now += 0.6
    assert await _scalar(engine, "SELECT 1") == 1
    assert ";" in sent


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
def test_urls_that_are_understood(given: str, used: str) -> None:
    assert database_url(given).render_as_string(hide_password=False) == used


@pytest.mark.parametrize(
    "given",
    [
        "",
        "s3cret",
        "db.example.com/app",
        "host=db password=s3cret",
        "mysql://ada:s3cret@db/app",
        "sqlite:///s3cret.db",
        "postgresql+psycopg2://ada:s3cret@db/app",
        "https://ada:s3cret@db/app",
        # A password with a slash or brackets that is not escaped: what follows is taken for a port.
        "postgresql://ada:@[s3cret:s3cret/x@db/app",
        "postgresql://s3cret:s3cret@db:s3cret/app",
    ],
)
def test_urls_that_are_refused_without_being_repeated(given: str) -> None:
    with pytest.raises(ValueError, match=r"postgresql://") as caught:
        database_url(given)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_password_with_all_that_needs_escaping_logs_in(database_url: str, sql: Any) -> None:
    await sql("CREATE ROLE tricky LOGIN PASSWORD 'p@ss/w:rd%?#é'")
    try:
        url = database_url.replace(
            database_url.partition("//")[2].partition("@")[0], "tricky:p%40ss%2Fw%3Ard%25%3F%23é"
        )
        engine = create_engine(url, pool_size=1)
        assert await _scalar(engine, "SELECT current_user") == "tricky"
        await engine.dispose()
    finally:
        await sql("DROP ROLE tricky")


# Sessions


async def test_the_scope_commits(sessions: Sessions, sql: Any) -> None:
    async with session_scope(sessions) as session:
        user = await users.create_user(session, named("ada"))
        assert await sql("SELECT count(*) FROM users") == 0
    assert await sql("SELECT count(*) FROM users") == 1
    # Its objects stay readable after that, without another query.
    assert user.username == "ada"


@pytest.mark.parametrize("error", [LookupError("mine"), asyncio.CancelledError("mine"), SystemExit("mine")], ids=repr)
async def test_the_scope_rolls_back_and_raises_on(
    sessions: Sessions, engine: AsyncEngine, sql: Any, error: BaseException
) -> None:
    async def fail() -> None:
        async with session_scope(sessions) as session:
            await users.create_user(session, named("ada"))
            raise error

    with pytest.raises(type(error), match="mine") as caught:
        await fail()
    assert caught.value is error
    assert await sql("SELECT count(*) FROM users") == 0
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # it is a QueuePool


async def test_the_scope_raises_what_the_commit_says(sessions: Sessions, sql: Any) -> None:
    await sql("ALTER TABLE users ADD CONSTRAINT later UNIQUE (hashed_password) DEFERRABLE INITIALLY DEFERRED")
    with pytest.raises(IntegrityError, match="later"):
        await _create_two(sessions)
    assert await sql("SELECT count(*) FROM users") == 0


async def test_no_error_of_the_database_holds_a_value(sessions: Sessions) -> None:
    async with session_scope(sessions) as session:
        await users.create_user(session, named("ada"))

    with pytest.raises(IntegrityError) as caught:
        async with session_scope(sessions) as session:
            await users.create_user(session, named("ada"))

    # PostgreSQL's own detail is "Key (username)=(ada) already exists."
    shown = f"{caught.value} {caught.value!r} {caught.value.orig} {caught.value.orig!r}"
    assert "duplicate key value" in shown
    for secret in ("ada", "example.com", HASH):
        assert secret not in shown


async def test_nothing_is_opened_before_it_is_needed() -> None:
    engine = create_engine("postgresql://nobody:nothing@127.0.0.1:1/nowhere", pool_size=1)
    sessions = create_sessions(engine)
    async with sessions() as session:
        session.add(User(email="e"))
    await engine.dispose()


async def _create_two(sessions: Sessions) -> None:
    async with session_scope(sessions) as session:
        await users.create_user(session, named("ada"))
        await users.create_user(session, named("bob"))


async def _scalar(engine: AsyncEngine, statement: str) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text(statement))
