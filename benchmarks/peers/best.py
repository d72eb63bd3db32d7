"""The six jobs in the fastest form with a session a job that we know: one Core statement through `Session.execute`.

Measured for create_user, 16 at a time in one process on two cores: ORM add and flush 890 jobs/s, an ORM-enabled insert
990, a Core insert on the table with RETURNING, built once, 1,850. Updates: ORM get and flush 760, Core 1,330.
"""

from typing import Any

from sqlalchemy import BindParameter, Executable, Table, bindparam, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.peers.tables import Base

_USERS: Table = Base.metadata.tables["users"]
_POSTS: Table = Base.metadata.tables["posts"]
# Not of the columns' names: those are kept for the values of an update.
_USER: BindParameter[int] = bindparam("user_id")
_POST: BindParameter[int] = bindparam("post_id")
_FIXED: dict[str, Executable] = {
    "create_user": insert(_USERS).returning(_USERS.c.id),
    "delete_user": delete(_USERS).where(_USERS.c.id == _USER),
    "create_post": insert(_POSTS).returning(_POSTS.c.id),
    "delete_post": delete(_POSTS).where(_POSTS.c.id == _POST),
}


def statement(job: str, fields: dict[str, Any]) -> tuple[Executable, dict[str, Any]]:
    """The one statement of a job, and its parameters."""
    match job:
        case "update_user":
            return update(_USERS).where(_USERS.c.id == _USER).values(fields["changes"]), {"user_id": fields["user_id"]}
        case "update_post":
            return update(_POSTS).where(_POSTS.c.id == _POST).values(fields["changes"]), {"post_id": fields["post_id"]}
        case _:
            return _FIXED[job], fields


async def run(session: AsyncSession, job: str, fields: dict[str, Any]) -> None:
    """Do a job."""
    await session.execute(*statement(job, fields))
