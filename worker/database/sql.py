"""SQL that goes to asyncpg unchanged: SQLAlchemy's compilation would take a fifth of a job's time."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


async def fetch(session: AsyncSession, statement: str, *values: Any) -> Sequence[Any]:
    """Run a statement with PostgreSQL's own placeholders (`$1`). Return its rows."""
    return await session.run_sync(_fetch, statement, values)


async def fetch_dicts(session: AsyncSession, statement: str, *values: Any) -> list[dict[str, Any]]:
    """Run a statement with PostgreSQL's own placeholders (`$1`). Return its rows as dictionaries by column name."""
    return await session.run_sync(_fetch_dicts, statement, values)


async def execute(session: AsyncSession, statement: str, *values: Any) -> int:
    """Run a statement with PostgreSQL's own placeholders (`$1`). Return the number of rows it affected."""
    return await session.run_sync(_execute, statement, values)


def _fetch(session: Session, statement: str, values: tuple[Any, ...]) -> Sequence[Any]:
    return session.connection().exec_driver_sql(statement, values).all()


def _fetch_dicts(session: Session, statement: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    result = session.connection().exec_driver_sql(statement, values)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


def _execute(session: Session, statement: str, values: tuple[Any, ...]) -> int:
    count: int = session.connection().exec_driver_sql(statement, values).rowcount
    return count
