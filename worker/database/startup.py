"""When a worker may begin: when the database is there, and has the tables that this worker needs."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy import text
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.models import Base
from worker.database.version import (
    HEAD,
    SCHEMA_LOCK,
    NotMigrated,
    SchemaStatus,
    read_version,
    schema_status,
    version_of,
)
from worker.model.backoff import backoff_seconds
from worker.model.failures import classify, describe, lacks_privilege
from worker.model.outcome import Release

log = structlog.get_logger("worker")


async def wait_for_tables(engine: AsyncEngine, *, create: bool) -> None:
    """Return when the database can be used; until then, say why it cannot.

    Args:
        engine: of the worker.
        create: make missing tables, unless the database is one that `worker migrate` looks after.
    """
    version = await _wait_for(lambda: _usable(engine, create=create))
    if schema_status(version) is SchemaStatus.NEWER:
        log.warning("database_newer", version=version, known=HEAD)


async def _usable(engine: AsyncEngine, *, create: bool) -> str | None:
    """The version of a database that this worker can use; None when it has none, and needs none."""
    version = await version_of(engine)
    if version is None and create:
        await create_tables(engine)
        version = await version_of(engine)
        if version is None:
            return None
    if not schema_status(version).usable:
        raise NotMigrated(version)
    return version


async def _wait_for(start: Callable[[], Awaitable[str | None]]) -> str | None:
    """Start when the database is there: a deployment starts its parts in any order."""
    tries = 0
    said = None
    while True:
        tries += 1
        try:
            return await start()
        except NotMigrated as error:
            # Said once: it may take as long as people take.
            if said != (said := str(error)):
                log.warning("migration_awaited", reason=said)
        except Exception as error:  # noqa: BLE001  # raised on, if no waiting mends it
            said = None
            log.warning("database_awaited", reason=_reason(error), attempts=tries)
        await asyncio.sleep(backoff_seconds(tries, base=0.5, cap=5))


def _reason(error: Exception) -> str:
    """Why the database cannot be used; raises on what no waiting mends."""
    if isinstance(error, OSError):
        return describe(error)
    if isinstance(error, ResourceClosedError):
        return "the connection to the database was lost"  # so SQLAlchemy says it while it gets to know the server
    if lacks_privilege(error):
        return "the role may not read, or not make, what the worker needs (SQLSTATE 42501): see docs/operations.md"
    attempt = classify(error)
    if not isinstance(attempt, Release):
        raise error
    return attempt.detail


async def create_tables(engine: AsyncEngine) -> None:
    """Create the tables that are missing. Safe when many workers start at once on an empty database.

    A database that has a version is left to `worker migrate`: what is missing there belongs to a step of its own.
    """
    async with engine.begin() as connection:
        # Without the lock two CREATE TABLE IF NOT EXISTS may both see nothing and one of them fails.
        await connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        await connection.execute(text("SET LOCAL statement_timeout = '60s'"))
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        if await read_version(connection) is None:
            await connection.run_sync(Base.metadata.create_all)
