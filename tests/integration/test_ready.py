"""Does a worker begin when the database has the tables that it needs, and until then wait, saying for what?"""

from collections.abc import AsyncIterator
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
    """A database without tables, an empty queue, and what a waiting worker does."""

    database_url: str
    redis_url: str
    producer: Producer
    query: Any
    eventually: Any
    looks: list[None] = field(default_factory=list)
    """One for each time that a worker has looked at the database."""

    def settings(self, *, create: bool, role: str | None = None) -> Settings:
        url = self.database_url
        if role is not None:
            url = f"postgresql://{role}:hush@{url.rpartition('@')[2]}"
        return settings_of(self.redis_url, url, create_tables=create)

    async def migrate(self) -> None:
        engine = create_engine(self.database_url, pool_size=1, timeouts=migrating.TIMEOUTS)
        await migrating.migrate(engine)
        await engine.dispose()

    async def looked(self, times: int) -> None:
        """Wait until a worker has looked so often."""

        async def enough() -> bool:
            return len(self.looks) >= times

        await self.eventually(enough)


@pytest.fixture
async def stage(
    empty_database_url: str, redis_url: str, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    connection = await asyncpg.connect(empty_database_url)
    async with Producer(redis_url) as producer:
        stage = Stage(empty_database_url, redis_url, producer, connection.fetchval, eventually)

        async def look(engine: AsyncEngine) -> str | None:
            stage.looks.append(None)
            return await version_of(engine)

        monkeypatch.setattr(startup, "version_of", look)
        monkeypatch.setattr(startup, "backoff_seconds", lambda *_, **__: 0.02)
        yield stage
    await connection.close()


def reasons(lines: list[dict[str, Any]], event: str) -> list[str]:
    return [str(line["reason"]) for line in lines if line["event"] == event]


async def test_a_worker_waits_for_the_migration_and_goes_on_by_itself(stage: Stage, logged: Any) -> None:
    with logged() as lines:
        # Given a worker that makes no tables, on an empty database, and a job
        async with working(stage.settings(create=False)):
            job = await stage.producer.enqueue(user("patient"))
            await stage.looked(5)

            # Then it says once that it waits, and for what
            assert await stage.query("SELECT to_regclass('users') IS NULL")
            assert await job.status() is JobStatus.QUEUED
            said = reasons(lines(), "migration_awaited")
            assert len(said) == 1
            assert "run `worker migrate`" in said[0]

            # When the database is migrated, then it does the job
            await stage.migrate()
            assert (await job.result(timeout=PATIENCE_SECONDS)).username == "patient"


async def test_created_tables_are_not_enough_for_a_worker_that_goes_by_versions(stage: Stage, logged: Any) -> None:
    with logged() as lines:
        # Given tables that a worker has created
        async with working(stage.settings(create=True)):
            assert (
                await (await stage.producer.enqueue(user("ada"))).result(timeout=PATIENCE_SECONDS)
            ).username == "ada"
        assert reasons(lines(), "migration_awaited") == []

        async with working(stage.settings(create=False)):
            await stage.looked(len(stage.looks) + 2)
            assert "adopts" in reasons(lines(), "migration_awaited")[0]

            await stage.migrate()
            assert (
                await (await stage.producer.enqueue(user("bob"))).result(timeout=PATIENCE_SECONDS)
            ).username == "bob"


@pytest.mark.parametrize("create", [True, False])
async def test_a_newer_database_is_used_only_if_it_is_fit(stage: Stage, logged: Any, create: bool) -> None:
    await stage.migrate()
    await stage.query(SET_VERSION, "0003_needs_0002")

    with logged() as lines:
        async with working(stage.settings(create=create)):
            job = await stage.producer.enqueue(user("ada"))
            await stage.looked(3)
            said = reasons(lines(), "migration_awaited")
            assert len(said) == 1
            assert "run a newer worker" in said[0]
            assert await job.status() is JobStatus.QUEUED

            await stage.query(SET_VERSION, "0003_needs_0001")

            assert (await job.result(timeout=PATIENCE_SECONDS)).username == "ada"
        newer = [line for line in lines() if line["event"] == "database_newer"]
    assert [(line["version"], line["known"], line["level"]) for line in newer] == [("0003_needs_0001", HEAD, "warning")]


async def test_a_worker_that_makes_no_tables_needs_no_more_than_their_rows(stage: Stage, logged: Any) -> None:
    await stage.migrate()
    await stage.query("CREATE ROLE modest LOGIN PASSWORD 'hush'")
    try:
        with logged() as lines:
            async with working(stage.settings(create=False, role="modest")):
                # Given nothing, it says what is missing
                job = await stage.producer.enqueue(user("ada"))
                await stage.looked(2)
                assert "SQLSTATE 42501" in reasons(lines(), "database_awaited")[0]

                # When it is given what docs/operations.md says
                await stage.query("GRANT SELECT ON worker_alembic_version TO modest")
                await stage.query("GRANT SELECT, INSERT, UPDATE, DELETE ON users, posts, job_ledger TO modest")

                # Then it can do every kind of job
                made = await job.result(timeout=PATIENCE_SECONDS)
                post = await stage.producer.create_post(author_id=made.id, title="t", content="c")
                assert (await post.result(timeout=PATIENCE_SECONDS)).author_id == made.id
                update = await stage.producer.update_user(made.id, is_active=False)
                assert not (await update.result(timeout=PATIENCE_SECONDS)).is_active
                delete = await stage.producer.delete_user(made.id)
                assert (await delete.result(timeout=PATIENCE_SECONDS)).deleted
    finally:
        await stage.query("DROP OWNED BY modest")
        await stage.query("DROP ROLE modest")


async def test_a_connection_that_is_lost_as_it_is_made_is_waited_out(
    stage: Stage, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy's word for it, when the server goes while it asks that for its version and the like."""
    failing = [ResourceClosedError("This Connection is closed")] * 2

    async def look(engine: AsyncEngine) -> str | None:
        if failing:
            raise failing.pop()
        return await version_of(engine)

    monkeypatch.setattr(startup, "version_of", look)

    with logged() as lines:
        async with working(stage.settings(create=True)):
            assert (
                await (await stage.producer.enqueue(user("ada"))).result(timeout=PATIENCE_SECONDS)
            ).username == "ada"
        assert reasons(lines(), "database_awaited") == ["the connection to the database was lost"] * 2
