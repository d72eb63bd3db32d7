"""Handlers of the jobs for users."""

from sqlalchemy.ext.asyncio import AsyncSession

from producers.messages import CreateUser, Deleted, DeleteUser, UpdateUser, User
from worker.database import users
from worker.jobs.registry import Rejection, job


@job(CreateUser)
async def create_user(session: AsyncSession, message: CreateUser) -> User:
    return User.model_validate(await users.create_user(session, message))


@job(UpdateUser)
async def update_user(session: AsyncSession, message: UpdateUser) -> User:
    if (user := await users.update_user(session, message.user_id, message.changes)) is None:
        raise Rejection("not_found", "there is no such user")
    return User.model_validate(user)


@job(DeleteUser)
async def delete_user(session: AsyncSession, message: DeleteUser) -> Deleted:
    return Deleted(deleted=await users.delete_user(session, message.user_id))
