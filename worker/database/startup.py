"""What a worker does with the database at its start: wait for it, and create the tables of an empty one."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.connections import describe_error
from worker.database.version import HEAD, SchemaError, SchemaStatus, explain, schema_status, version_of
from worker.model.backoff import backoff_seconds
from worker.model.failures import classify, is_lock_timeout, lacks_privilege
from worker.model.outcome import Release

log = structlog.get_logger("worker")


async def wait_for_schema(engine: AsyncEngine, *, create: bool) -> None:
    """Return when the database answers and has tables that this worker can use. Until then, log the reason.

    Args:
        engine: the worker's engine.
        create: create the tables of an empty database; otherwise wait for `worker migrate`.
    """
    version = await _retry(lambda: _usable_version(engine, create=create))
    if schema_status(version) is SchemaStatus.NEWER:
        log.warning("database_newer", version=version, known=HEAD)


async def create_tables(engine: AsyncEngine) -> None:
    """Run the migrations on an empty database, and leave any other unchanged. Many workers can do it at once."""
    from worker.database.migrate import migrate  # noqa: PLC0415  # loads Alembic, which only an empty database needs

    migration = await migrate(engine, only_empty=True)
    if migration.steps:
        log.info("tables_created", version=migration.after)


async def _usable_version(engine: AsyncEngine, *, create: bool) -> str | None:
    version = await version_of(engine)
    if version is None and create:
        await create_tables(engine)
        version = await version_of(engine)
    if not schema_status(version).usable:
        raise SchemaError(explain(version))
    return version


async def _retry(read: Callable[[], Awaitable[str | None]]) -> str | None:
    """Repeat until it succeeds: a deployment starts its parts in any order."""
    attempts = 0
    logged = None
    while True:
        attempts += 1
        try:
            return await read()
        except SchemaError as error:
            # Logged once: a person has to act, which may take long.
            if logged != (logged := str(error)):
                log.warning("migration_awaited", reason=logged)
        except Exception as error:
            if not _may_recover(error):
                raise
            logged = None
            log.warning("database_awaited", reason=describe_error(error), attempts=attempts)
        await asyncio.sleep(backoff_seconds(attempts, base=0.5, cap=5))


def _may_recover(error: Exception) -> bool:
    """Whether waiting can help: the server comes back, a lock is released, or a privilege is granted."""
    if isinstance(error, OSError | ResourceClosedError) or lacks_privilege(error) or is_lock_timeout(error):
        return True
    return isinstance(classify(error), Release)
