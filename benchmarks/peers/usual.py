"""The six jobs as they are usually written: pre-ping, flush, refresh, and posts that load with their user."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.peers.tables import Base, Post, User


async def create_user(session: AsyncSession, **fields: Any) -> int:
    """Add a user; its id."""
    user = User(**fields)
    session.add(user)
    await session.flush()
    await session.refresh(user)
    return user.id


async def update_user(session: AsyncSession, user_id: int, changes: dict[str, Any]) -> None:
    """Set what is to change."""
    await _change(session, await session.get(User, user_id), changes)


async def delete_user(session: AsyncSession, user_id: int) -> None:
    """Delete a user and the posts."""
    await _delete(session, await session.get(User, user_id))


async def create_post(session: AsyncSession, **fields: Any) -> int:
    """Add a post; its id."""
    post = Post(**fields)
    session.add(post)
    await session.flush()
    await session.refresh(post)
    return post.id


async def update_post(session: AsyncSession, post_id: int, changes: dict[str, Any]) -> None:
    """Set what is to change."""
    await _change(session, await session.get(Post, post_id), changes)


async def delete_post(session: AsyncSession, post_id: int) -> None:
    """Delete a post."""
    await _delete(session, await session.get(Post, post_id))


async def _change(session: AsyncSession, row: Base | None, changes: dict[str, Any]) -> None:
    if row is None:
        return
    for name, value in changes.items():
        setattr(row, name, value)
    await session.flush()
    await session.refresh(row)


async def _delete(session: AsyncSession, row: Base | None) -> None:
    if row is not None:
        await session.delete(row)
        await session.flush()
