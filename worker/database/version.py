"""At which version of the tables a database is, and whether this worker may use it as it is.

A version is called `NNNN_needs_MMMM`: it is the step NNNN, and fit for workers that know the step MMMM or a later one.
So a worker can tell from the name alone whether a database that is newer than itself is still fit for it. When which
number moves: docs/decisions/0008-migrations.md.
"""

import re
from enum import Enum

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

HEAD = "0001_needs_0001"
"""The version that this worker's models are; the last step in `migrations/versions`."""

VERSION_TABLE = "worker_alembic_version"
"""Not Alembic's own name for it: the database may be another application's, which may use Alembic, too."""

_THERE = text("SELECT to_regclass('worker_alembic_version') IS NOT NULL")
_READ = text("SELECT version_num FROM worker_alembic_version")
_FORM = re.compile(r"(?P<step>[0-9]{4})_needs_(?P<needs>[0-9]{4})")


class Standing(Enum):
    """What a database's version is to this worker."""

    CURRENT = "current"
    NEWER = "newer"
    """A later worker's, which says that it is fit for this one."""
    MISSING = "missing"
    """None: it is empty, or its tables were not made by migrations."""
    BEHIND = "behind"
    TOO_NEW = "too_new"
    UNKNOWN = "unknown"

    @property
    def usable(self) -> bool:
        """Whether this worker may run on it."""
        return self in {Standing.CURRENT, Standing.NEWER}


class NotMigrated(Exception):
    """The database is at a version that this worker cannot use; the text says what to do."""

    def __init__(self, version: str | None) -> None:
        super().__init__(explain(version))
        self.version = version


def standing(version: str | None, head: str = HEAD) -> Standing:
    """What a version is to a worker whose own is `head`.

    >>> head = "0003_needs_0002"
    >>> standing("0003_needs_0002", head).value, standing("0002_needs_0001", head).value
    ('current', 'behind')
    >>> standing("0004_needs_0003", head).value, standing("0004_needs_0004", head).value
    ('newer', 'too_new')
    >>> standing("1975ea83b712", head).value, standing("0003_needs_0001", head).value, standing(None, head).value
    ('unknown', 'unknown', 'missing')
    """
    if version is None:
        return Standing.MISSING
    if version == head:
        return Standing.CURRENT
    there, ours = _FORM.fullmatch(version), _FORM.fullmatch(head)
    if there is None or ours is None or there["step"] == ours["step"]:
        return Standing.UNKNOWN
    if there["step"] < ours["step"]:
        return Standing.BEHIND
    return Standing.NEWER if there["needs"] <= ours["step"] else Standing.TOO_NEW


def explain(version: str | None) -> str:
    """What a version is to this worker, in words, and what to do about it.

    >>> explain("0000_needs_0000").partition(": ")[2]
    'run `worker migrate`'
    """
    match standing(version):
        case Standing.CURRENT:
            return f"the database is at {HEAD}, as this worker needs it"
        case Standing.NEWER:
            return f"the database is at {version}, which is newer than this worker's {HEAD}, and still fit for it"
        case Standing.MISSING:
            return "the database has no version yet: run `worker migrate`, which makes the tables or adopts them"
        case Standing.BEHIND:
            return f"the database is at {version}, and this worker needs {HEAD}: run `worker migrate`"
        case Standing.TOO_NEW:
            return f"the database is at {version}, too new for this worker, which knows {HEAD}: run a newer worker"
        case Standing.UNKNOWN:
            return (
                f"the database is at {version!a}, which no worker has made: see whether DATABASE_URL is the right one"
            )


async def read_version(connection: AsyncConnection) -> str | None:
    """The version of the database, or None when it has none."""
    if not await connection.scalar(_THERE):
        return None
    found = await connection.scalar(_READ)
    return None if found is None else str(found)


async def version_of(engine: AsyncEngine) -> str | None:
    """The same, on a connection of its own."""
    async with engine.connect() as connection:
        return await read_version(connection)
