"""Posts: create, read, update, delete. Every function takes a session, and the caller commits."""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from producers.messages import CreatePost, PostChanges
from worker.database.models import Post
from worker.database.sql import fetch, fetch_dicts


async def get_post(session: AsyncSession, post_id: int) -> Post | None:
    """Return the post, or None. The author is not loaded: reading it raises."""
    return await session.get(Post, post_id)


async def get_post_with_author(session: AsyncSession, post_id: int) -> Post | None:
    """Return the post with its author, or None. Two queries."""
    return await session.scalar(
        select(Post)
        .where(Post.id == post_id)
        .options(selectinload(Post.author))
        .execution_options(populate_existing=True)
    )


async def get_posts(session: AsyncSession, skip: int = 0, limit: int = 100) -> Sequence[Post]:
    """Return a page of posts, in the order of their ids."""
    return (await session.scalars(select(Post).order_by(Post.id).offset(skip).limit(limit))).all()


async def create_post(session: AsyncSession, post: CreatePost) -> Post:
    """Add a post. The insert returns the id.

    Raises:
        IntegrityError: (SQLAlchemy) the author does not exist.
    """
    row = Post(**post.model_dump())
    session.add(row)
    await session.flush()
    return row


async def update_post(session: AsyncSession, post_id: int, changes: PostChanges) -> Post | None:
    """Set only the fields that are given. Return the updated post, or None if there is none."""
    statement = update(Post).where(Post.id == post_id).values(changes.model_dump(exclude_unset=True)).returning(Post)
    return await session.scalar(statement, execution_options={"synchronize_session": False, "populate_existing": True})


async def delete_post(session: AsyncSession, post_id: int) -> bool:
    """Delete a post. Return False if there was no such post."""
    deleted = await session.scalar(delete(Post).where(Post.id == post_id).returning(Post.id))
    return deleted is not None


# Set-based forms. They lock rows in the order of their ids, so that two batches cannot deadlock.

_LOCK_AUTHORS = "SELECT id FROM users WHERE id = ANY($1::bigint[]) ORDER BY id FOR KEY SHARE"
_CREATE = """
INSERT INTO posts (title, content, author_id)
SELECT title, content, author_id
FROM unnest($1::varchar[], $2::varchar[], $3::bigint[]) WITH ORDINALITY AS new (title, content, author_id, place)
ORDER BY place
RETURNING id, title, content, author_id
"""
_UPDATE = """
WITH chosen AS MATERIALIZED (SELECT id FROM posts WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE)
UPDATE posts SET title = coalesce(new.title, posts.title), content = coalesce(new.content, posts.content)
FROM unnest($1::bigint[], $2::varchar[], $3::varchar[]) AS new (id, title, content) JOIN chosen USING (id)
WHERE posts.id = new.id
RETURNING posts.id, posts.title, posts.content, posts.author_id
"""
_DELETE = """
WITH chosen AS MATERIALIZED (SELECT id FROM posts WHERE id = ANY($1::bigint[]) ORDER BY id FOR UPDATE)
DELETE FROM posts USING chosen WHERE posts.id = chosen.id RETURNING posts.id
"""


async def lock_authors(session: AsyncSession, user_ids: Iterable[int]) -> set[int]:
    """Prevent the deletion of these users until the transaction ends. Return the ids that exist."""
    return {user_id for (user_id,) in await fetch(session, _LOCK_AUTHORS, list(user_ids))}


async def create_posts(session: AsyncSession, new: Sequence[CreatePost]) -> list[dict[str, Any]]:
    """Add posts in the given order. Return the new rows in that order.

    Raises:
        IntegrityError: (SQLAlchemy) one of the authors does not exist.
    """
    columns = ([getattr(post, name) for post in new] for name in ("title", "content", "author_id"))
    # Ids follow the order of the selection. The order of returned rows is not guaranteed.
    return sorted(await fetch_dicts(session, _CREATE, *columns), key=itemgetter("id"))


async def update_posts(session: AsyncSession, changes: Mapping[int, PostChanges]) -> dict[int, dict[str, Any]]:
    """Set only the fields that are given. Return the updated rows by id."""
    columns = ([getattr(change, name) for change in changes.values()] for name in ("title", "content"))
    return {row["id"]: row for row in await fetch_dicts(session, _UPDATE, list(changes), *columns)}


async def delete_posts(session: AsyncSession, post_ids: Iterable[int]) -> set[int]:
    """Delete posts. Return the ids that existed."""
    return {post_id for (post_id,) in await fetch(session, _DELETE, list(post_ids))}
