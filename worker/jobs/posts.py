"""Handlers of the post jobs, each with its set-based form."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from producers.messages import CreatePost, Deleted, DeletePost, Post, UpdatePost
from worker.database import posts
from worker.database.sql import deleted_flags
from worker.model.registry import Rejection, job


@job(CreatePost)
async def create_post(session: AsyncSession, message: CreatePost) -> Post:
    return Post.model_validate(await posts.create_post(session, message))


@create_post.batch
async def create_posts(session: AsyncSession, messages: Sequence[CreatePost]) -> list[Post | Rejection | None]:
    authors = await posts.lock_authors(session, {message.author_id for message in messages})
    rows = iter(await posts.create_posts(session, [message for message in messages if message.author_id in authors]))
    return [
        Post.model_validate(next(rows))
        if message.author_id in authors
        else Rejection("not_found", "author_id names nothing that exists")
        for message in messages
    ]


@job(UpdatePost)
async def update_post(session: AsyncSession, message: UpdatePost) -> Post:
    if (post := await posts.update_post(session, message.post_id, message.changes)) is None:
        raise _post_not_found()
    return Post.model_validate(post)


@update_post.batch
async def update_posts(session: AsyncSession, messages: Sequence[UpdatePost]) -> list[Post | Rejection | None]:
    # If two messages are for one post, the second runs in a session of its own.
    first: dict[int, UpdatePost] = {}
    for message in messages:
        first.setdefault(message.post_id, message)
    rows = await posts.update_posts(session, {post_id: message.changes for post_id, message in first.items()})
    return [
        None
        if first[message.post_id] is not message
        else Post.model_validate(rows[message.post_id])
        if message.post_id in rows
        else _post_not_found()
        for message in messages
    ]


@job(DeletePost)
async def delete_post(session: AsyncSession, message: DeletePost) -> Deleted:
    return Deleted(deleted=await posts.delete_post(session, message.post_id))


@delete_post.batch
async def delete_posts(session: AsyncSession, messages: Sequence[DeletePost]) -> list[Deleted]:
    post_ids = [message.post_id for message in messages]
    flags = deleted_flags(post_ids, await posts.delete_posts(session, post_ids))
    return [Deleted(deleted=flag) for flag in flags]


def _post_not_found() -> Rejection:
    return Rejection("not_found", "there is no such post")
