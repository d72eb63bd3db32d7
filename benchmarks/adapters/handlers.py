"""The handlers of all other systems: one SQLAlchemy Core statement in a session per job, or nothing but a count.

Core is the fastest form with a session per job: create_user reaches 1,850 jobs/s in one process on two cores, against
990 for an ORM-enabled insert and 890 for adding an object and flushing it.
"""

import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Boolean, Executable, String, bindparam, column, delete, insert, table, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.adapters.base import CONCURRENCY, job_counter
from benchmarks.adapters.workload import PROPORTIONS

Task = Callable[..., Awaitable[None]]

_USERS = table(
    "users",
    column("id", BigInteger),
    *(column(name, String) for name in ("email", "username", "hashed_password")),
    column("is_active", Boolean),
)
_POSTS = table(
    "posts",
    *(column(name, BigInteger) for name in ("id", "author_id")),
    *(column(name, String) for name in ("title", "content")),
)
# Parameters must not have a column's name: SQLAlchemy reserves those for the values of an UPDATE.
_THIS_USER = _USERS.c.id == bindparam("user_id")
_THIS_POST = _POSTS.c.id == bindparam("post_id")
_CONSTANT: dict[str, Executable] = {
    "create_user": insert(_USERS).returning(_USERS.c.id),
    "delete_user": delete(_USERS).where(_THIS_USER),
    "create_post": insert(_POSTS).returning(_POSTS.c.id),
    "delete_post": delete(_POSTS).where(_THIS_POST),
}


def tasks() -> dict[str, Task]:
    """The handlers of all workloads, by name. Each takes the fields of its job."""
    return {"noop": noop} | {name: _task(name) for name in PROPORTIONS}


def tasks_with_context() -> dict[str, Any]:
    """The same for arq and SAQ, which pass a context as well."""
    return {name: _drop_context(task) for name, task in tasks().items()}


async def noop(number: int) -> None:  # noqa: ARG001  # a job carries something
    """Count the job and do nothing else."""
    job_counter()()


def statement(name: str, fields: dict[str, Any]) -> tuple[Executable, dict[str, Any]]:
    """The statement of a job, and its parameters."""
    match name:
        case "update_user":
            return update(_USERS).where(_THIS_USER).values(fields["changes"]), {"user_id": fields["user_id"]}
        case "update_post":
            return update(_POSTS).where(_THIS_POST).values(fields["changes"]), {"post_id": fields["post_id"]}
        case _:
            return _CONSTANT[name], fields


@cache
def _sessions() -> async_sessionmaker[AsyncSession]:
    """Made by the first job, in the process and the event loop that run it."""
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://", 1)
    engine = create_async_engine(url, pool_size=CONCURRENCY, max_overflow=0)
    return async_sessionmaker(engine, expire_on_commit=False)


def _drop_context(task: Task) -> Any:
    async def run(_context: dict[Any, Any], **fields: Any) -> None:
        await task(**fields)

    return run


def _task(name: str) -> Task:
    async def task(**fields: Any) -> None:
        async with _sessions().begin() as session:
            await session.execute(*statement(name, fields))

    task.__name__ = task.__qualname__ = name
    return task
