"""Users: create, read, update, delete. Every function takes a session, and the caller commits."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from producers.messages import CreateUser, UserChanges
from worker.database.models import User
from worker.database.sql import fetch, fetch_dicts, is_among


async def get_user(session: AsyncSession, user_id: int) -> User | None:
    """Return the user, or None. The posts are not loaded: reading them raises."""
    return await session.get(User, user_id)


async def get_user_with_posts(session: AsyncSession, user_id: int) -> User | None:
    """Return the user with all posts, or None. Two queries."""
    return await session.scalar(
        select(User)
        .where(User.id == user_id)
        .options(selectinload(User.posts))
        .execution_options(populate_existing=True)
    )


async def get_users(session: AsyncSession, skip: int = 0, limit: int = 100) -> Sequence[User]:
    """Return a page of users, in the order of their ids."""
    return (await session.scalars(select(User).order_by(User.id).offset(skip).limit(limit))).all()


async def create_user(session: AsyncSession, user: CreateUser) -> User:
    """Add a user. The insert returns the id and `created_at`.

    Raises:
        IntegrityError: (SQLAlchemy) the e-mail address or the username is taken.
    """
    # The worker's clock: the insert would not return the value of an SQL expression, and reading it would raise.
    row = User(**user.model_dump(), inactive_since=None if user.is_active else datetime.now(UTC))
    session.add(row)
    await session.flush()
    return row


async def update_user(session: AsyncSession, user_id: int, changes: UserChanges) -> User | None:
    """Set only the fields that are given. Return the updated user, or None if there is none.

    Raises:
        IntegrityError: (SQLAlchemy) the new e-mail address or username is taken.
    """
    values: dict[str, Any] = changes.model_dump(exclude_unset=True)
    if "is_active" in values:
        # An already inactive user keeps the original `inactive_since`, so the clean-up clock does not restart.
        values["inactive_since"] = None if values["is_active"] else func.coalesce(User.inactive_since, func.now())
    statement = update(User).where(User.id == user_id).values(values).returning(User)
    return await session.scalar(statement, execution_options={"synchronize_session": False, "populate_existing": True})


async def delete_user(session: AsyncSession, user_id: int) -> bool:
    """Delete a user and, through the foreign key, their posts. Return False if there was no such user."""
    deleted = await session.scalar(delete(User).where(User.id == user_id).returning(User.id))
    return deleted is not None


# Set-based forms. They lock rows in the order of their ids, so that two batches cannot deadlock.

_CREATE = """
INSERT INTO users (email, username, hashed_password, is_active, inactive_since)
SELECT email, username, hashed_password, is_active, CASE WHEN NOT is_active THEN now() END
FROM unnest($1::varchar[], $2::varchar[], $3::varchar[], $4::boolean[]) WITH ORDINALITY
    AS new (email, username, hashed_password, is_active, place)
ORDER BY place
ON CONFLICT DO NOTHING
RETURNING id, email, username, is_active, created_at
"""
_HOLDERS = "SELECT id, email, username FROM users WHERE email = ANY($1::varchar[]) OR username = ANY($2::varchar[])"
_LOCK = "SELECT id FROM users WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE"
_UPDATE = """
UPDATE users SET
    email = coalesce(new.email, users.email),
    username = coalesce(new.username, users.username),
    hashed_password = coalesce(new.hashed_password, users.hashed_password),
    is_active = coalesce(new.is_active, users.is_active),
    inactive_since = CASE
        WHEN new.is_active IS NULL THEN users.inactive_since
        WHEN NOT new.is_active THEN coalesce(users.inactive_since, now())
    END
FROM unnest($1::bigint[], $2::varchar[], $3::varchar[], $4::varchar[], $5::boolean[])
    AS new (id, email, username, hashed_password, is_active)
WHERE users.id = new.id
RETURNING users.id, users.email, users.username, users.is_active, users.created_at
"""
_DELETE = """
WITH chosen AS MATERIALIZED (SELECT id FROM users WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE)
DELETE FROM users USING chosen WHERE users.id = chosen.id RETURNING users.id
"""


Values = dict[str, Any]
"""A row as a dictionary by column name."""


async def create_users(session: AsyncSession, new: Sequence[CreateUser]) -> list[Values | None]:
    """Add users in the given order. Return each new row, or None where the e-mail address or username is taken."""
    columns = ([getattr(user, name) for user in new] for name in ("email", "username", "hashed_password", "is_active"))
    # If two users are identical, the first was added.
    added = {(row["email"], row["username"]): row for row in await fetch_dicts(session, _CREATE, *columns)}
    return [added.pop((user.email, user.username), None) for user in new]


async def holders(session: AsyncSession, emails: set[str], usernames: set[str]) -> list[Values]:
    """Return `id`, `email` and `username` of the users who have any of these addresses or names."""
    return await fetch_dicts(session, _HOLDERS, list(emails), list(usernames))


async def lock_users(session: AsyncSession, user_ids: Iterable[int]) -> set[int]:
    """Lock these users until the transaction ends. Return the ids that exist."""
    return {user_id for (user_id,) in await fetch(session, _LOCK, list(user_ids))}


async def update_users(session: AsyncSession, changes: Mapping[int, UserChanges]) -> dict[int, Values]:
    """Set only the fields that are given. Return the updated rows by id.

    Raises:
        IntegrityError: (SQLAlchemy) one of the new e-mail addresses or usernames is taken.
    """
    columns = (
        [getattr(change, name) for change in changes.values()]
        for name in ("email", "username", "hashed_password", "is_active")
    )
    return {row["id"]: row for row in await fetch_dicts(session, _UPDATE, list(changes), *columns)}


async def delete_users(session: AsyncSession, user_ids: Iterable[int]) -> set[int]:
    """Delete users and, through the foreign key, their posts. Return the ids that existed."""
    return {user_id for (user_id,) in await fetch(session, _DELETE, list(user_ids))}


async def delete_inactive_users(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete at most `limit` users who have been inactive since before a time. Return how many were deleted."""
    chosen = (
        select(User.id)
        .where(User.inactive_since < before, User.is_active.is_(False))
        .order_by(User.inactive_since)
        .limit(limit)
        # Skip a user whom a job has locked; the next clean-up deletes it.
        .with_for_update(skip_locked=True)
    )
    deleted = await session.scalars(
        delete(User).where(is_among(User.id, chosen)).returning(User.id),
        execution_options={"synchronize_session": False},
    )
    return len(deleted.all())
