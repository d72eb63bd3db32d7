"""Handlers of the jobs for posts."""

from sqlalchemy.ext.asyncio import AsyncSession

from producers.messages import CreatePost, Deleted, DeletePost, Post, UpdatePost
from worker.database import posts
from worker.jobs.registry import Rejection, job


@job(CreatePost)
async def create_post(session: AsyncSession, message: CreatePost) -> Post:
    return Post.model_validate(await posts.create_post(session, message))


@job(UpdatePost)
async def update_post(session: AsyncSession, message: UpdatePost) -> Post:
    if (post := await posts.update_post(session, message.post_id, message.changes)) is None:
        raise Rejection("not_found", "there is no such post")
    return Post.model_validate(post)


@job(DeletePost)
async def delete_post(session: AsyncSession, message: DeletePost) -> Deleted:
    return Deleted(deleted=await posts.delete_post(session, message.post_id))
