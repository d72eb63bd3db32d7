"""Posts: create, read, update, delete. Every function takes a session and leaves the commit to its owner."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from producers.messages import CreatePost, PostChanges
from worker.database.models import Post


async def get_post(session: AsyncSession, post_id: int) -> Post | None:
    """The post, or None. The author is not loaded, and reading it raises."""
    return await session.get(Post, post_id)


async def get_post_with_author(session: AsyncSession, post_id: int) -> Post | None:
    """The post with its author, in two queries, or None."""
    return await session.scalar(
        select(Post)
        .where(Post.id == post_id)
        .options(selectinload(Post.author))
        .execution_options(populate_existing=True)
    )


async def get_posts(session: AsyncSession, skip: int = 0, limit: int = 100) -> Sequence[Post]:
    """Some posts, in the order of their ids."""
    return (await session.scalars(select(Post).order_by(Post.id).offset(skip).limit(limit))).all()


async def create_post(session: AsyncSession, post: CreatePost) -> Post:
    """Add a post. The id comes back with the insert.

    Raises:
        IntegrityError: (of SQLAlchemy) when the author does not exist.
    """
    row = Post(**post.model_dump())
    session.add(row)
    await session.flush()
    return row


async def update_post(session: AsyncSession, post_id: int, changes: PostChanges) -> Post | None:
    """Set the fields that are given and no others; the post as it now is, or None."""
    statement = update(Post).where(Post.id == post_id).values(changes.model_dump(exclude_unset=True)).returning(Post)
    return await session.scalar(statement, execution_options={"synchronize_session": False, "populate_existing": True})


async def delete_post(session: AsyncSession, post_id: int) -> bool:
    """Delete a post; whether there was one."""
    deleted = await session.scalar(delete(Post).where(Post.id == post_id).returning(Post.id))
    return deleted is not None
