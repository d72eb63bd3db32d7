"""Scheduled clean-up. Rows are deleted in chunks, each of which holds its locks only briefly."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from worker.database import ledger, users
from worker.database.session import session_scope
from worker.model.registry import Retention, scheduled

LEDGER_CHUNK = 5_000
# Deleting a user deletes an unknown number of posts, too.
USERS_CHUNK = 100


@scheduled(minutes=frozenset({7, 27, 47}))
async def purge_ledger(sessions: async_sessionmaker[AsyncSession], retention: Retention) -> int:
    """Delete ledger rows past their retention. A job that is delivered again after that would run again."""
    before = datetime.now(UTC) - retention.ledger
    return await _in_chunks(sessions, LEDGER_CHUNK, lambda session: ledger.purge(session, before, LEDGER_CHUNK))


@scheduled(minutes=frozenset({17}))
async def delete_inactive_users(sessions: async_sessionmaker[AsyncSession], retention: Retention) -> int:
    """Delete users who have been inactive for longer than allowed, if there is a limit."""
    if retention.inactive_users is None:
        return 0
    before = datetime.now(UTC) - retention.inactive_users
    return await _in_chunks(
        sessions, USERS_CHUNK, lambda session: users.delete_inactive_users(session, before, USERS_CHUNK)
    )


async def _in_chunks(
    sessions: async_sessionmaker[AsyncSession], size: int, delete: Callable[[AsyncSession], Awaitable[int]]
) -> int:
    total = 0
    while True:
        async with session_scope(sessions) as session:
            deleted = await delete(session)
        total += deleted
        if deleted < size:
            return total
