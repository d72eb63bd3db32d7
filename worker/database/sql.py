"""SQL that goes to asyncpg unchanged: SQLAlchemy's compilation would take a fifth of a job's time."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, CursorResult, Select, any_, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Session

V = TypeVar("V")


async def fetch(session: AsyncSession, statement: str, *values: Any) -> Sequence[Any]:
    """Run a statement with PostgreSQL's own placeholders (`$1`). Return its rows."""
    return (await session.run_sync(_run, statement, values)).all()


async def fetch_dicts(session: AsyncSession, statement: str, *values: Any) -> list[dict[str, Any]]:
    """Run a statement with PostgreSQL's own placeholders (`$1`). Return its rows as dictionaries by column name."""
    result = await session.run_sync(_run, statement, values)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


async def execute(session: AsyncSession, statement: str, *values: Any) -> int:
    """Run a statement with PostgreSQL's own placeholders (`$1`). Return the number of rows it affected."""
    count: int = (await session.run_sync(_run, statement, values)).rowcount
    return count


def is_among(column: InstrumentedAttribute[V], chosen: Select[V]) -> ColumnElement[bool]:
    """Whether a column is among the selected values, for the condition of a statement."""
    # `= ANY(array)`, not `IN`: PostgreSQL may plan `IN` as a join that scans the table and reruns the subquery.
    return column == any_(func.array(chosen.scalar_subquery()))


def deleted_flags(row_ids: Iterable[int], deleted: Iterable[int]) -> list[bool]:
    """Whether each of these rows was deleted. Of two requests for one row, only the first deleted it.

    >>> deleted_flags([1, 2, 1], {1})
    [True, False, False]
    """
    left = set(deleted)
    flags = []
    for row_id in row_ids:
        flags.append(row_id in left)
        left.discard(row_id)
    return flags


def _run(session: Session, statement: str, values: tuple[Any, ...]) -> CursorResult[Any]:
    # Safe to read synchronously: asyncpg has already fetched all rows.
    return session.connection().exec_driver_sql(statement, values)
