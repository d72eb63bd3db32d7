"""A worker starts when the database has tables that it can use. Until then it waits and logs the reason."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncEngine

from producers import JobStatus, Producer
from tests.integration.running import settings_of, user, working
from tests.waiting import PATIENCE_SECONDS
from worker.database import migrate as migrating
from worker.database import startup
from worker.database.session import create_engine
from worker.database.version import HEAD, version_of
from worker.settings import Settings

SET_VERSION = "UPDATE worker_alembic_version SET version_num = $1"


@dataclass
class Stage:
    """A database without tables, an empty queue, and the checks that waiting workers make."""

    database_url: str
    redis_url: str
    producer: Producer
    query: Any
    eventually: Any
    checks: list[None] = field(default_factory=list)
    """One entry for each time that a worker has read the version of the database."""

    def settings(self, *, create: bool, role: str | None = None) -> Settings:
        url = self.database_url
        if role is not None:
            url = f"postgresql://{role}:hush@{url.rpartition('@')[2]}"
        return settings_of(self.redis_url, url, create_tables=create)

    async def migrate(self) -> None:
        engine = create_engine(self.database_url, pool_size=1, timeouts=migrating.TIMEOUTS)
        await migrating.migrate(engine)
        await engine.dispose()

    async def create_user(self, name: str) -> None:
        """Enqueue a job, and assert that a worker does it."""
        job = await self.producer.enqueue(user(name))
        assert (await job.result(timeout=PATIENCE_SECONDS)).username == name

    async def checked(self, times: int) -> None:
        """Wait until workers have read the version this many times more."""
        enough = len(self.checks) + times

        async def has_enough() -> bool:
            return len(self.checks) >= enough

        await self.eventually(has_enough)


@pytest.fixture
async def stage(
    empty_database_url: str, redis_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    connection = await asyncpg.connect(empty_database_url)
    async with Producer(redis_url) as producer:
        stage = Stage(empty_database_url, redis_url, producer, connection.fetchval, eventually)

        async def counted(engine: AsyncEngine) -> str | None:
            stage.checks.append(None)
            return await version_of(engine)

        monkeypatch.setattr(startup, "version_of", counted)
        monkeypatch.setattr(startup, "backoff_seconds", lambda *_, **__: 0.02)
        yield stage
    await connection.close()


def reasons(lines: list[dict[str, Any]], event: str) -> list[str]:
    return [str(line["reason"]) for line in lines if line["event"] == event]


# A worker that creates the tables


async def test_workers_create_the_tables_of_an_empty_database_when_many_start_at_once(
    stage: Stage, logged: Any
) -> None:
    with logged() as lines:

        async def all_started() -> bool:
            return [line["event"] for line in lines()].count("worker_started") == 4

        async with AsyncExitStack() as workers:
            settings = stage.settings(create=True)
            await asyncio.gather(*(workers.enter_async_context(working(settings)) for _ in range(4)))
            await stage.create_user("ada")
            await stage.eventually(all_started)
        created = [line for line in lines() if line["event"] == "tables_created"]
        others = [line for line in lines() if line["level"] != "info" or "alembic" in line.get("logger", "")]

    assert [line["version"] for line in created] == [HEAD]
    assert others == []
    assert await stage.query("SELECT version_num FROM worker_alembic_version") == HEAD


async def test_a_worker_without_create_tables_uses_the_tables_that_another_has_created(
    stage: Stage, logged: Any
) -> None:
    with logged() as lines:
        for create, name in ((True, "ada"), (False, "bob"), (True, "eve")):
            async with working(stage.settings(create=create)):
                await stage.create_user(name)
        assert reasons(lines(), "migration_awaited") == []


@pytest.mark.parametrize("create", [True, False])
async def test_a_worker_waits_while_tables_of_its_names_have_no_version(
    stage: Stage, logged: Any, create: bool
) -> None:
    await stage.query("CREATE TABLE users (id integer)")
    await stage.query("INSERT INTO users VALUES (7)")

    with logged() as lines:
        async with working(stage.settings(create=create)):
            await stage.checked(5)
            (reason,) = reasons(lines(), "migration_awaited")
            assert "tables without a version (users)" in reason
            assert "rename them, or give the worker another database or schema" in reason

            # When: the table is renamed.
            await stage.query("ALTER TABLE users RENAME TO old_users")
            if not create:
                await stage.migrate()
            await stage.create_user("ada")

    assert await stage.query("SELECT id FROM old_users") == 7


async def test_a_worker_with_create_tables_waits_for_the_migration_of_an_older_database(
    stage: Stage, logged: Any
) -> None:
    await stage.migrate()
    await stage.query(SET_VERSION, "0000_needs_0000")

    with logged() as lines:
        async with working(stage.settings(create=True)):
            await stage.checked(5)
            (reason,) = reasons(lines(), "migration_awaited")
            assert "run `worker migrate`" in reason
            assert await stage.query("SELECT version_num FROM worker_alembic_version") == "0000_needs_0000"


# A worker that waits for `worker migrate`


async def test_a_worker_waits_for_the_migration_and_then_starts(stage: Stage, logged: Any) -> None:
    with logged() as lines:
        # Given: a worker that creates no tables, an empty database, and a job.
        async with working(stage.settings(create=False)):
            job = await stage.producer.enqueue(user("patient"))
            await stage.checked(5)

            # Then: it logs once what it waits for.
            assert await stage.query("SELECT to_regclass('users') IS NULL")
            assert await job.status() is JobStatus.DUE
            (reason,) = reasons(lines(), "migration_awaited")
            assert "run `worker migrate`" in reason

            # When: the database is migrated, the worker does the job.
            await stage.migrate()
            assert (await job.result(timeout=PATIENCE_SECONDS)).username == "patient"


@pytest.mark.parametrize("create", [True, False])
async def test_a_newer_database_is_used_only_when_this_worker_can(stage: Stage, logged: Any, create: bool) -> None:
    await stage.migrate()
    await stage.query(SET_VERSION, "0003_needs_0002")

    with logged() as lines:
        async with working(stage.settings(create=create)):
            job = await stage.producer.enqueue(user("ada"))
            await stage.checked(3)
            (reason,) = reasons(lines(), "migration_awaited")
            assert "run a newer worker" in reason
            assert await job.status() is JobStatus.DUE

            await stage.query(SET_VERSION, "0003_needs_0001")

            assert (await job.result(timeout=PATIENCE_SECONDS)).username == "ada"
        newer = [line for line in lines() if line["event"] == "database_newer"]
    assert [(line["version"], line["known"], line["level"]) for line in newer] == [("0003_needs_0001", HEAD, "warning")]


async def test_a_worker_that_creates_no_tables_needs_privileges_on_their_rows_only(stage: Stage, logged: Any) -> None:
    await stage.migrate()
    await stage.query("CREATE ROLE modest LOGIN PASSWORD 'hush'")
    try:
        with logged() as lines:
            async with working(stage.settings(create=False, role="modest")):
                # Given: no privileges, it logs which are missing.
                job = await stage.producer.enqueue(user("ada"))
                await stage.checked(2)
                assert "SQLSTATE 42501" in reasons(lines(), "database_awaited")[0]

                # When: it is granted what docs/operations.md lists.
                await stage.query("GRANT SELECT ON worker_alembic_version TO modest")
                await stage.query("GRANT SELECT, INSERT, UPDATE, DELETE ON users, posts, job_ledger TO modest")

                # Then: it does every type of job.
                author = await job.result(timeout=PATIENCE_SECONDS)
                post = await stage.producer.create_post(author_id=author.id, title="t", content="c")
                assert (await post.result(timeout=PATIENCE_SECONDS)).author_id == author.id
                update = await stage.producer.update_user(author.id, is_active=False)
                assert not (await update.result(timeout=PATIENCE_SECONDS)).is_active
                delete = await stage.producer.delete_user(author.id)
                assert (await delete.result(timeout=PATIENCE_SECONDS)).deleted
    finally:
        await stage.query("DROP OWNED BY modest")
        await stage.query("DROP ROLE modest")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        # SQLAlchemy raises this if the connection drops during setup.
        (ResourceClosedError("This Connection is closed"), "the connection to the database was lost"),
        (asyncpg.LockNotAvailableError(""), "another transaction holds a lock that is needed"),
        (ConnectionRefusedError(), "the database cannot be reached (ConnectionRefusedError)"),
    ],
    ids=["lost", "locked", "refused"],
)
async def test_a_worker_retries_when_waiting_can_help(
    stage: Stage, logged: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    failures = [error] * 2

    async def fail_first(engine: AsyncEngine) -> str | None:
        if failures:
            raise failures.pop()
        return await version_of(engine)

    monkeypatch.setattr(startup, "version_of", fail_first)

    with logged() as lines:
        async with working(stage.settings(create=True)):
            await stage.create_user("ada")
        assert reasons(lines(), "database_awaited") == [reason] * 2
