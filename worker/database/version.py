"""The version of a database's schema, and whether this worker can use it.

A version is named `NNNN_needs_MMMM`: the migration step NNNN, for workers that know step MMMM or a later one. So the
name alone shows whether an older worker can use a newer database. docs/decisions/0008-migrations.md has the rule for
both numbers.
"""

import re
from enum import Enum

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.database.models import Base

HEAD = "0001_needs_0001"
"""The version of this worker's models: the last step in `migrations/versions`."""

VERSION_TABLE = "worker_alembic_version"
"""Not Alembic's default name: another application with Alembic may share the database."""

SCHEMA_LOCK = 0x75736572706F7374
"""The advisory lock for creating and changing tables. Every release of the worker uses the same number."""

_TABLES = text("SELECT name FROM unnest(:names) AS name WHERE to_regclass(name) IS NOT NULL ORDER BY name").bindparams(
    bindparam("names", sorted(Base.metadata.tables), type_=ARRAY(Text))
)
_EXISTS = text("SELECT to_regclass('worker_alembic_version') IS NOT NULL")
_READ = text("SELECT version_num FROM worker_alembic_version")
_FORM = re.compile(r"(?P<step>[0-9]{4})_needs_(?P<needs>[0-9]{4})")


class SchemaStatus(Enum):
    """A database's schema version, relative to this worker's."""

    CURRENT = "current"
    NEWER = "newer"
    """Of a later release, and usable by this worker."""
    MISSING = "missing"
    """The database is empty: no migration has run."""
    BEHIND = "behind"
    TOO_NEW = "too_new"
    UNKNOWN = "unknown"

    @property
    def usable(self) -> bool:
        """Whether this worker can use it."""
        return self in {SchemaStatus.CURRENT, SchemaStatus.NEWER}


class SchemaError(Exception):
    """This worker cannot use the tables of the database. The message explains how to fix it."""


def schema_status(version: str | None, head: str = HEAD) -> SchemaStatus:
    """Compare a database's version with `head`, the worker's own.

    >>> def status(version): return schema_status(version, head="0003_needs_0002").value
    >>> status("0002_needs_0001"), status("0003_needs_0002")
    ('behind', 'current')
    >>> status("0004_needs_0003"), status("0004_needs_0004")
    ('newer', 'too_new')
    >>> status("1975ea83b712"), status("0003_needs_0001"), status(None)
    ('unknown', 'unknown', 'missing')
    """
    if version is None:
        return SchemaStatus.MISSING
    if version == head:
        return SchemaStatus.CURRENT
    theirs, ours = _FORM.fullmatch(version), _FORM.fullmatch(head)
    if theirs is None or ours is None or theirs["step"] == ours["step"]:
        return SchemaStatus.UNKNOWN
    if theirs["step"] < ours["step"]:
        return SchemaStatus.BEHIND
    return SchemaStatus.NEWER if theirs["needs"] <= ours["step"] else SchemaStatus.TOO_NEW


def explain(version: str | None) -> str:
    """Describe a version for people, and explain how to fix it if this worker cannot use it.

    >>> explain("0000_needs_0000").partition(": ")[2]
    'run `worker migrate`'
    """
    match schema_status(version):
        case SchemaStatus.CURRENT:
            return f"the database is at {HEAD}, the version of this worker"
        case SchemaStatus.NEWER:
            return f"the database is at {version}, newer than this worker's {HEAD} and still usable"
        case SchemaStatus.MISSING:
            return "the database has no tables yet: run `worker migrate`"
        case SchemaStatus.BEHIND:
            return f"the database is at {version} and this worker needs {HEAD}: run `worker migrate`"
        case SchemaStatus.TOO_NEW:
            return f"the database is at {version}, too new for this worker, which knows {HEAD}: run a newer worker"
        case SchemaStatus.UNKNOWN:
            return f"the database is at {version!a}, which is not a version of this worker: check DATABASE_URL"


async def read_version(connection: AsyncConnection) -> str | None:
    """Return the version of the database, or None when it is empty.

    Raises:
        SchemaError: it has tables of this worker's names that no migration has made.
    """
    # Before the version: a migration commits both at once.
    tables = (await connection.scalars(_TABLES)).all()
    version = await _version(connection)
    if version is None and tables:
        raise SchemaError(
            f"the database has tables without a version ({', '.join(tables)}), which `worker migrate` has not made:"
            " rename them, or give the worker another database or schema"
        )
    return version


async def _version(connection: AsyncConnection) -> str | None:
    if not await connection.scalar(_EXISTS):
        return None
    found = await connection.scalar(_READ)
    return None if found is None else str(found)


async def version_of(engine: AsyncEngine) -> str | None:
    """Return the same, over a new connection."""
    async with engine.connect() as connection:
        return await read_version(connection)
