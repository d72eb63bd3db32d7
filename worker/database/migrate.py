"""Bringing a database to the version that this worker needs: all in one transaction, by one at a time.

Alembic runs the steps. It is given everything here, so that there is no alembic.ini and no env.py.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationInfo, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database import migrations
from worker.database.catalog import Fact, differences, facts
from worker.database.models import Base
from worker.database.session import Timeouts
from worker.database.version import (
    HEAD,
    SCHEMA_LOCK,
    VERSION_TABLE,
    NotMigrated,
    SchemaStatus,
    read_version,
    schema_status,
)

TIMEOUTS = Timeouts(statement_seconds=3600, answer_seconds=3610)
"""For the engine: a step may have to read a large table, and nobody else waits for it meanwhile."""

# Who waits for this lock holds no other.
_WAIT_FOR_OTHERS = text("SET LOCAL lock_timeout = '60s'")
_ONE_AT_A_TIME = select(func.pg_advisory_xact_lock(literal_column(str(SCHEMA_LOCK))))
# Who waits for a table's lock makes all others wait behind itself: the jobs, too.
_WAIT_FOR_TABLES = text("SET LOCAL lock_timeout = '5s'")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done."""

    version: str
    description: str
    how: Literal["applied", "adopted"]


@dataclass(frozen=True, slots=True)
class Migrated:
    """What became of a database."""

    before: str | None
    after: str
    steps: list[Step]


class Foreign(Exception):
    """The database has tables of these names that are not this worker's; `differences` has a line for each thing."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(
            "the database has tables of the same names that are not as any version of this worker makes them"
        )
        self.differences = found


async def migrate(engine: AsyncEngine) -> Migrated:
    """Bring the database to this worker's version, or leave it as it was. Does nothing to one that is newer but fit.

    Tables that were made without migrations are adopted, if they are as one of the versions has them.

    Args:
        engine: with `TIMEOUTS`.

    Raises:
        NotMigrated: when it is too new, or at a version that nobody knows.
        Foreign: when it has tables of the same names that are something else.
    """
    async with engine.begin() as connection:
        for statement in (_WAIT_FOR_OTHERS, _ONE_AT_A_TIME, _WAIT_FOR_TABLES):
            await connection.execute(statement)
        before = await read_version(connection)
        match schema_status(before):
            case SchemaStatus.NEWER | SchemaStatus.CURRENT:
                return Migrated(before, before or HEAD, [])
            case SchemaStatus.TOO_NEW | SchemaStatus.UNKNOWN:
                raise NotMigrated(before)
            case SchemaStatus.BEHIND | SchemaStatus.MISSING:
                steps = await connection.run_sync(_bring_up, before)
                return Migrated(before, HEAD, steps)


def as_sql(since: str | None = None, to: str | None = None) -> str:
    """The statements that `migrate` would run on a database at a version (None: an empty one), as a script.

    They lead to this worker's version, or to another one that there is.

    Raises:
        KeyError: when there is no such version.
    """
    scripts = _scripts()
    if since is not None and since not in {script.revision for script in scripts.walk_revisions()}:
        raise KeyError(since)
    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written, "starting_rev": since}
    with _context(None, scripts, to or HEAD, **options) as context, context.begin_transaction():
        for statement in (_WAIT_FOR_OTHERS, _ONE_AT_A_TIME, _WAIT_FOR_TABLES):
            context.execute(statement)
        context.run_migrations()
    return written.getvalue()


def versions() -> list[str]:
    """All versions, the first one first."""
    return [script.revision for script in reversed(list(_scripts().walk_revisions()))]


def _bring_up(connection: Connection, before: str | None) -> list[Step]:
    scripts = _scripts()
    steps: list[Step] = []

    def note(step: MigrationInfo, **_: Any) -> None:
        steps.append(_step(scripts, str(step.up_revision_id), "applied"))

    found = facts(connection, Base.metadata.tables) if before is None else None
    adopted = _recognise(connection, scripts, found) if found else None
    with _context(connection, scripts, HEAD, on_version_apply=(note,)) as context:
        if adopted is not None:
            context.stamp(scripts, adopted)
            steps.append(_step(scripts, adopted, "adopted"))
        context.run_migrations()
    return steps


def _recognise(connection: Connection, scripts: ScriptDirectory, found: frozenset[Fact]) -> str:
    """Which version tables are that were made without migrations.

    The steps are tried in the schema for temporary tables, so that what they make can be looked at in the same way;
    then all of it is rolled back.
    """
    seen: list[list[str]] = []
    with connection.begin_nested() as trial:
        connection.execute(text("SET LOCAL search_path = pg_temp"))
        for version in versions():
            with _context(connection, scripts, version) as context:
                context.run_migrations()
            seen.append(differences(found, facts(connection, Base.metadata.tables)))
            if not seen[-1]:
                trial.rollback()
                return version
        trial.rollback()
    raise Foreign(min(seen, key=len))


@contextmanager
def _context(
    connection: Connection | None, scripts: ScriptDirectory, target: str, **options: Any
) -> Iterator[MigrationContext]:
    """Alembic's context for going up to a version; without a connection, on paper."""

    def way(at: tuple[str, ...], _context: MigrationContext) -> list[RevisionStep]:
        ahead = list(scripts.iterate_revisions(target, at or "base"))
        return [RevisionStep.upgrade_from_script(scripts.revision_map, script) for script in reversed(ahead)]

    options = {"fn": way, "script": scripts, "version_table": VERSION_TABLE} | options
    context = MigrationContext.configure(
        connection, dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options
    )
    with Operations.context(context):  # what the steps' `op` stands for
        yield context


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(migrations.__file__).parent))


def _step(scripts: ScriptDirectory, version: str, how: Literal["applied", "adopted"]) -> Step:
    return Step(version, scripts.get_revision(version).doc, how)
