"""The clean-up deletes what is past its retention and nothing else, once a tick, and waits for no lock."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from arq.worker import Worker
from redis.asyncio import Redis
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from worker import app
from worker.database import ledger, users
from worker.database.session import Timeouts, create_engine, create_sessions, session_scope
from worker.engine.cron import run_tick
from worker.jobs import SCHEDULE, Retention, ScheduledJob, cleanup
from worker.settings import Settings

Sessions = async_sessionmaker[AsyncSession]
WEEK = timedelta(days=7)

ADD_LEDGER_ROWS = """
    INSERT INTO job_ledger (job_id, job, outcome, reply, digest, recorded_at)
    SELECT md5(n::text) || '@user:' || n, 'create_user', 'done',
        '{"id":1,"email":"ada@example.com","username":"ada","is_active":true}', decode(md5(n::text), 'hex'),
        now() - $2::interval - ($1::int - n) * interval '1 second'
    FROM generate_series(1, $1::int) n
"""
ADD_USERS = """
    INSERT INTO users (email, username, hashed_password, is_active, inactive_since)
    SELECT $1 || n || '@example.com', $1 || n, 'h', $3::interval IS NULL, now() - $3::interval
    FROM generate_series(1, $2::int) n
"""


def retention(*, ledger: timedelta = WEEK, inactive_users: timedelta | None = WEEK) -> Retention:
    return Retention(ledger=ledger, inactive_users=inactive_users)


@pytest.fixture
def commits(engine: AsyncEngine) -> list[None]:
    """One item for each transaction that the engine has committed."""
    committed: list[None] = []
    event.listen(engine.sync_engine, "commit", lambda _: committed.append(None))
    return committed


@pytest.fixture
async def impatient(database_url: str) -> AsyncIterator[Sessions]:
    """Sessions that fail at once when they wait for a lock."""
    engine = create_engine(database_url, pool_size=1, timeouts=Timeouts(lock_seconds=0.001))
    yield create_sessions(engine)
    await engine.dispose()


@asynccontextmanager
async def locked(database_url: str, statement: str) -> AsyncIterator[None]:
    """Another transaction has run a statement and stays open."""
    other = await asyncpg.connect(database_url)
    try:
        await other.execute("BEGIN")
        await other.execute(statement)
        yield
    finally:
        await other.close()


# The ledger


async def test_the_ledger_is_purged_in_chunks_each_in_its_own_transaction(
    sessions: Sessions, sql: Any, commits: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "LEDGER_CHUNK", 10)
    await sql(ADD_LEDGER_ROWS, 25, timedelta(days=8))

    assert await cleanup.purge_ledger(sessions, retention()) == 25

    assert len(commits) == 3
    assert await sql("SELECT count(*) FROM job_ledger") == 0
    # With nothing to do it is one transaction.
    assert await cleanup.purge_ledger(sessions, retention()) == 0
    assert len(commits) == 4


async def test_only_rows_past_their_retention_are_purged(sessions: Sessions, sql: Any) -> None:
    add = "INSERT INTO job_ledger (job_id, job, outcome, recorded_at) VALUES ($1, 'j', 'done', now() - $2::interval)"
    ages = {"old": timedelta(days=7, minutes=1), "young": timedelta(days=6, hours=23), "new": timedelta(0)}
    for job_id, age in ages.items():
        await sql(add, job_id, age)

    assert await cleanup.purge_ledger(sessions, retention(ledger=WEEK)) == 1
    assert await sql("SELECT array_agg(job_id::text ORDER BY job_id) FROM job_ledger") == ["new", "young"]


async def test_one_purge_deletes_no_more_rows_than_its_limit(sessions: Sessions, sql: Any) -> None:
    await sql(ADD_LEDGER_ROWS, 25, timedelta(days=8))
    async with session_scope(sessions) as session:
        assert await ledger.purge(session, datetime.now(UTC), 10) == 10
    assert await sql("SELECT count(*) FROM job_ledger") == 15


async def test_locked_ledger_rows_are_skipped(impatient: Sessions, database_url: str, sql: Any) -> None:
    await sql(ADD_LEDGER_ROWS, 5, timedelta(days=8))
    async with locked(database_url, "SELECT FROM job_ledger WHERE job_id LIKE '%@user:3' FOR UPDATE"):
        assert await cleanup.purge_ledger(impatient, retention()) == 4
    assert await sql("SELECT right(job_id, 7) FROM job_ledger") == "@user:3"


# Inactive users


async def test_inactive_users_are_kept_unless_a_limit_is_set(sessions: Sessions, sql: Any, commits: list[None]) -> None:
    await sql(ADD_USERS, "old", 3, timedelta(days=10_000))
    assert Settings.model_fields["inactive_user_days"].default == 0

    assert await cleanup.delete_inactive_users(sessions, retention(inactive_users=None)) == 0

    assert commits == []
    assert await sql("SELECT count(*) FROM users") == 3


async def test_only_users_inactive_for_long_enough_are_deleted(sessions: Sessions, sql: Any) -> None:
    await sql(ADD_USERS, "active", 1, None)
    await sql(ADD_USERS, "old", 2, timedelta(days=7, minutes=1))
    await sql(ADD_USERS, "young", 1, timedelta(days=6, hours=23))
    await sql(ADD_USERS, "back", 1, timedelta(days=8))
    await sql("UPDATE users SET is_active = true WHERE username = 'back1'")
    await sql(ADD_USERS, "unknown", 1, timedelta(days=8))
    await sql("UPDATE users SET inactive_since = NULL WHERE username = 'unknown1'")
    await sql("INSERT INTO posts (title, content, author_id) SELECT username, '', id FROM users")

    assert await cleanup.delete_inactive_users(sessions, retention(inactive_users=WEEK)) == 2

    left = ["active1", "back1", "unknown1", "young1"]
    assert await sql("SELECT array_agg(username::text ORDER BY username) FROM users") == left
    assert await sql("SELECT array_agg(title::text ORDER BY title) FROM posts") == left


async def test_inactive_users_are_deleted_in_chunks_longest_inactive_first(
    sessions: Sessions, sql: Any, commits: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    await sql(ADD_USERS, "young", 5, timedelta(days=8))
    await sql(ADD_USERS, "old", 5, timedelta(days=9))
    async with session_scope(sessions) as session:
        assert await users.delete_inactive_users(session, datetime.now(UTC), 4) == 4
    assert await sql("SELECT count(*) FROM users WHERE username LIKE 'old%'") == 1
    commits.clear()

    monkeypatch.setattr(cleanup, "USERS_CHUNK", 3)
    assert await cleanup.delete_inactive_users(sessions, retention()) == 6

    assert len(commits) == 3
    assert await sql("SELECT count(*) FROM users") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET is_active = true, inactive_since = NULL WHERE username = 'old2'",
        "INSERT INTO posts (title, content, author_id) SELECT 't', 'c', id FROM users WHERE username = 'old2'",
    ],
    ids=["made-active", "given-a-post"],
)
async def test_users_locked_by_a_job_are_skipped(
    impatient: Sessions, database_url: str, sql: Any, statement: str
) -> None:
    await sql(ADD_USERS, "old", 3, timedelta(days=8))
    async with locked(database_url, statement):
        assert await cleanup.delete_inactive_users(impatient, retention()) == 2
    assert await sql("SELECT array_agg(username::text) FROM users") == ["old2"]


# Ticks


def counting(calls: list[str], name: str = "count") -> ScheduledJob:
    async def run(_sessions: Sessions, _retention: Retention) -> int:
        calls.append(name)
        return 7

    return ScheduledJob(name, run, frozenset({0}), None)


async def test_a_tick_runs_once_however_many_workers_see_it(
    engine: AsyncEngine, database_url: str, logged: Any
) -> None:
    # Given: two processes' engines, each seeing the tick eight times.
    other = create_engine(database_url, pool_size=8)
    calls: list[str] = []

    def tick(tick_id: str, used: AsyncEngine) -> Awaitable[None]:
        return run_tick(create_sessions(used), retention(), counting(calls), tick_id)

    with logged() as read:
        await asyncio.gather(*(tick("cron:count:1", used) for used in (engine, other) for _ in range(8)))
    await other.dispose()

    assert calls == ["count"]
    lines = [(line["event"], line["job_id"], line.get("removed")) for line in read()]
    assert sorted(lines, key=str) == [("tick_done", "cron:count:1", 7)] + [("tick_skipped", "cron:count:1", None)] * 15
    # Another tick is another run.
    await tick("cron:count:2", engine)
    assert calls == ["count", "count"]


async def test_a_failed_tick_is_logged_without_values_and_does_not_run_again(sessions: Sessions, logged: Any) -> None:
    async def fail(_sessions: Sessions, _retention: Retention) -> int:
        raise LookupError("ada@example.com")

    calls: list[str] = []

    with logged() as read:
        with pytest.raises(LookupError):
            await run_tick(sessions, retention(), ScheduledJob("fail", fail, frozenset({0}), None), "cron:fail:1")
        await run_tick(sessions, retention(), counting(calls, "fail"), "cron:fail:1")

    assert calls == []
    failed, skipped = read()
    assert (failed["event"], failed["level"], failed["job"]) == ("tick_failed", "error", "fail")
    (error,) = failed["error"]
    assert error["type"] == "LookupError"
    assert error["at"].startswith("tests/integration/test_cleanup.py:")
    assert "ada@example.com" not in json.dumps(failed)
    assert skipped["event"] == "tick_skipped"


def test_the_schedule_has_the_clean_up_at_its_minutes() -> None:
    assert {name: job.minutes for name, job in SCHEDULE.items()} == {
        "purge_ledger": {7, 27, 47},
        "delete_inactive_users": {17},
    }


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq, when it closes its pool
async def test_two_stock_workers_clean_up_once_a_tick(
    database_url: str, redis_url: str, sql: Any, eventually: Any, logged: Any
) -> None:
    # Given: two stock arq workers whose next ticks come in a moment, and something for each to delete.
    await sql(ADD_LEDGER_ROWS, 10, timedelta(days=15))
    await sql(ADD_USERS, "old", 10, timedelta(days=31))
    settings = Settings.load(DATABASE_URL=database_url, REDIS_URL=redis_url, inactive_user_days=30)
    workers = [Worker(**app.stock_arguments(settings), handle_signals=False) for _ in range(2)]
    tick = datetime.now(workers[0].timezone) + timedelta(seconds=0.3)
    for worker in workers:
        assert {job.name for job in worker.cron_jobs} == {"cron:purge_ledger", "cron:delete_inactive_users"}
        for job in worker.cron_jobs:
            job.next_run = tick

    redis = Redis.from_url(redis_url)

    async def ended() -> bool:
        past = all(job.next_run is not None and job.next_run > tick for worker in workers for job in worker.cron_jobs)
        count = sum(worker.jobs_complete + worker.jobs_failed for worker in workers)
        return past and count >= 2 and await redis.zcard(settings.queue) == 0

    # When: both run past the ticks, and the queue is empty again.
    with logged() as read:
        running = [asyncio.create_task(worker.async_run()) for worker in workers]
        try:
            await eventually(ended)
        finally:
            for task in running:  # before they are closed, so that what they run ends
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for worker in workers:
                await worker.close()
            await redis.aclose()

    # Then:
    done = sorted((line["job"], line["removed"]) for line in read() if line["event"] == "tick_done")
    assert done == [("delete_inactive_users", 10), ("purge_ledger", 10)]
    assert sum(worker.jobs_complete for worker in workers) == 2
    assert sum(worker.jobs_failed for worker in workers) == 0
    assert await sql("SELECT count(*) FROM users") == 0
    # Only the ticks themselves are left in the ledger.
    assert await sql("SELECT array_agg(job || ' ' || outcome ORDER BY job) FROM job_ledger") == [
        "delete_inactive_users done",
        "purge_ledger done",
    ]


# Plans


async def plan(database_url: str, sessions: Sessions, run: Callable[[AsyncSession], Awaitable[Any]]) -> tuple[str, str]:
    """The types of nodes and the indexes in the plan of the last statement that a function sends."""
    sent: list[tuple[str, Any]] = []
    engine: AsyncEngine = sessions.kw["bind"]

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    async with sessions() as session:
        await run(session)
    event.remove(engine.sync_engine, "before_cursor_execute", note)

    connection = await asyncpg.connect(database_url)
    try:
        statement, parameters = sent[-1]
        text = await connection.fetchval("EXPLAIN (FORMAT JSON) " + statement, *parameters)
    finally:
        await connection.close()
    nodes = list(_nodes(json.loads(text)[0]["Plan"]))
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    return " ".join(sorted({node["Node Type"] for node in nodes})), " ".join(sorted(indexes))


def _nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(below for child in node.get("Plans", []) for below in _nodes(child))]


async def test_no_statement_of_the_clean_up_or_the_ledger_scans_a_table(
    database_url: str, sessions: Sessions, sql: Any
) -> None:
    # Given: large tables with few rows that are due, as usual.
    await sql(ADD_LEDGER_ROWS, 60_000, timedelta(0))
    await sql(ADD_USERS, "active", 20_000, None)
    await sql(ADD_USERS, "old", 100, timedelta(days=8))
    await sql("INSERT INTO posts (title, content, author_id) SELECT 't', 'c', id FROM users")
    for table in ("users", "posts", "job_ledger"):
        await sql(f"VACUUM ANALYZE {table}")
    some_job_id = await sql("SELECT job_id FROM job_ledger LIMIT 1")
    an_hour_in = datetime.now(UTC) - timedelta(seconds=60_000) + timedelta(hours=1)

    async def purge(session: AsyncSession) -> None:
        assert await ledger.purge(session, an_hour_in, cleanup.LEDGER_CHUNK) > 3000

    async def delete_inactive(session: AsyncSession) -> None:
        assert await users.delete_inactive_users(session, datetime.now(UTC), cleanup.USERS_CHUNK) == 100

    async def find(session: AsyncSession) -> None:
        assert await ledger.find(session, "missing") is None

    async def set_reply(session: AsyncSession) -> None:
        await ledger.set_reply(session, some_job_id, "{}")

    async def forget_dead(session: AsyncSession) -> None:
        assert await ledger.forget_dead(session, [some_job_id]) == []

    for run, expected in [
        (purge, "ix_job_ledger_recorded_at pk_job_ledger"),
        (delete_inactive, "ix_users_inactive_since pk_users"),
        (find, "pk_job_ledger"),
        (set_reply, "pk_job_ledger"),
        (forget_dead, "pk_job_ledger"),
    ]:
        nodes, indexes = await plan(database_url, sessions, run)
        assert indexes == expected, run.__name__
        assert "Seq Scan" not in nodes, run.__name__

    # The foreign key's own statement, which deletes the posts of a user.
    text = await sql("EXPLAIN (FORMAT JSON) DELETE FROM posts WHERE author_id = 7")
    assert "ix_posts_author_id" in text
