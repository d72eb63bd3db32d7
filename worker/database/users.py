"""Users: create, read, update, delete. Every function takes a session and leaves the commit to its owner."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import any_, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from producers.messages import CreateUser, UserChanges
from worker.database.models import User


async def get_user(session: AsyncSession, user_id: int) -> User | None:
    """The user, or None. The posts are not loaded, and reading them raises."""
    return await session.get(User, user_id)


async def get_user_with_posts(session: AsyncSession, user_id: int) -> User | None:
    """The user with all posts, in two queries, or None."""
    return await session.scalar(
        select(User)
        .where(User.id == user_id)
        .options(selectinload(User.posts))
        .execution_options(populate_existing=True)
    )


async def get_users(session: AsyncSession, skip: int = 0, limit: int = 100) -> Sequence[User]:
    """Some users, in the order of their ids."""
    return (await session.scalars(select(User).order_by(User.id).offset(skip).limit(limit))).all()


async def create_user(session: AsyncSession, user: CreateUser) -> User:
    """Add a user. The id and the time come back with the insert.

    Raises:
        IntegrityError: (of SQLAlchemy) when the e-mail address or the username is taken.
    """
    # The worker's time: an expression as a value would not come back with the insert, and reading it would raise.
    row = User(**user.model_dump(), inactive_since=None if user.is_active else datetime.now(UTC))
    session.add(row)
    await session.flush()
    return row


async def update_user(session: AsyncSession, user_id: int, changes: UserChanges) -> User | None:
    """Set the fields that are given and no others; the user as it now is, or None.

    Raises:
        IntegrityError: (of SQLAlchemy) when the new e-mail address or username is taken.
    """
    values: dict[str, Any] = changes.model_dump(exclude_unset=True)
    if "is_active" in values:
        # Whoever was inactive already stays so since the same time.
        values["inactive_since"] = None if values["is_active"] else func.coalesce(User.inactive_since, func.now())
    statement = update(User).where(User.id == user_id).values(values).returning(User)
    return await session.scalar(statement, execution_options={"synchronize_session": False, "populate_existing": True})


async def delete_user(session: AsyncSession, user_id: int) -> bool:
    """Delete a user and, by the foreign key, the posts; whether there was one."""
    deleted = await session.scalar(delete(User).where(User.id == user_id).returning(User.id))
    return deleted is not None


async def delete_inactive_users(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete at most `limit` of the users who have been inactive since before a time; how many there were."""
    chosen = (
        select(User.id)
        .where(User.inactive_since < before, User.is_active.is_(False))
        .order_by(User.inactive_since)
        .limit(limit)
        # A user whom a job holds right now is left for the next time, and nobody waits.
        .with_for_update(skip_locked=True)
    )
    deleted = await session.scalars(
        # As an array: `IN` may be joined over a scan of the whole table, and choose more than once.
        delete(User).where(User.id == any_(func.array(chosen.scalar_subquery()))).returning(User.id),
        execution_options={"synchronize_session": False},
    )
    return len(deleted.all())
