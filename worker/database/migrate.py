"""Run the migrations: all steps in one transaction, under an advisory lock.

Alembic runs the steps without an alembic.ini and an env.py: the code here supplies what they would.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database import migrations
from worker.database.session import Timeouts
from worker.database.version import (
    HEAD,
    SCHEMA_LOCK,
    VERSION_TABLE,
    SchemaError,
    SchemaStatus,
    explain,
    read_version,
    schema_status,
)

TIMEOUTS = Timeouts(answer_seconds=3610)
"""For the engine of `worker migrate`: the client outlasts `_STEP_TIMEOUT`."""

_STEP_TIMEOUT = text("SET LOCAL statement_timeout = '1h'")  # a step may read a large table
_WAIT_FOR_LOCK = text("SET LOCAL lock_timeout = '60s'")  # holds no other lock meanwhile
_LOCK = select(func.pg_advisory_xact_lock(literal_column(str(SCHEMA_LOCK))))
_WAIT_FOR_TABLES = text("SET LOCAL lock_timeout = '5s'")  # a longer wait for a table would block the jobs behind it


@dataclass(frozen=True, slots=True)
class Step:
    """A migration step that has run."""

    version: str
    description: str


@dataclass(frozen=True, slots=True)
class Migration:
    """The versions of a database before and after, and the steps between them."""

    before: str | None
    after: str
    steps: list[Step]


async def migrate(engine: AsyncEngine, *, only_empty: bool = False) -> Migration:
    """Bring the database to this worker's version, or leave it unchanged. A newer, usable version is left alone.

    Args:
        engine: with `TIMEOUTS`, unless the database is empty.
        only_empty: do not change a database that has a version.

    Raises:
        SchemaError: the version is too new or unknown, or the tables have no version.
    """
    async with engine.begin() as connection:
        for statement in _preamble():
            await connection.execute(statement)
        before = await read_version(connection)
        if before is not None and only_empty:
            return Migration(before, before, [])
        match schema_status(before):
            case SchemaStatus.NEWER | SchemaStatus.CURRENT:
                return Migration(before, before or HEAD, [])
            case SchemaStatus.TOO_NEW | SchemaStatus.UNKNOWN:
                raise SchemaError(explain(before))
            case SchemaStatus.BEHIND | SchemaStatus.MISSING:
                return Migration(before, HEAD, await connection.run_sync(_upgrade))


def as_sql(since: str | None = None, to: str | None = None) -> str:
    """Return what `migrate` would run, as an SQL script.

    Args:
        since: the version of the database; None for an empty one.
        to: the version that the script leads to; None for this worker's.

    Raises:
        KeyError: there is no such version.
    """
    scripts = _scripts()
    if since is not None and since not in versions():
        raise KeyError(since)
    script = io.StringIO()
    options = {"as_sql": True, "output_buffer": script, "starting_rev": since}
    with _context(None, scripts, to or HEAD, **options) as context, context.begin_transaction():
        for statement in _preamble():
            context.execute(statement)
        context.run_migrations()
    return script.getvalue()


def versions() -> list[str]:
    """Return all versions, oldest first."""
    return [script.revision for script in reversed(list(_scripts().walk_revisions()))]


def _preamble() -> tuple[Any, ...]:
    return _STEP_TIMEOUT, _WAIT_FOR_LOCK, _LOCK, _WAIT_FOR_TABLES


def _upgrade(connection: Connection) -> list[Step]:
    scripts = _scripts()
    steps: list[Step] = []

    def record(step: MigrationInfo, **_: Any) -> None:
        version = str(step.up_revision_id)
        steps.append(Step(version, scripts.get_revision(version).doc))

    with _context(connection, scripts, HEAD, on_version_apply=(record,)) as context:
        context.run_migrations()
    return steps


@contextmanager
def _context(
    connection: Connection | None, scripts: ScriptDirectory, target: str, **options: Any
) -> Iterator[MigrationContext]:
    """Set up Alembic to upgrade to a version. Without a connection it writes SQL."""

    def upgrades(current: tuple[str, ...], _context: MigrationContext) -> list[RevisionStep]:
        ahead = list(scripts.iterate_revisions(target, current or "base"))
        return [RevisionStep.upgrade_from_script(scripts.revision_map, script) for script in reversed(ahead)]

    options = {"fn": upgrades, "script": scripts, "version_table": VERSION_TABLE} | options
    context = MigrationContext.configure(
        connection, dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options
    )
    with Operations.context(context):  # so that `op` in the migration steps uses this connection
        yield context


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(migrations.__file__).parent))
