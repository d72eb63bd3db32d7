"""What the workers of the asyncio systems do with a job: count it, or give it its effect in a session of its own."""

import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.peers import best, usual
from benchmarks.peers.common import KINDS, concurrency, counter
from benchmarks.peers.tables import database_url, session_scope

Task = Callable[..., Awaitable[None]]

_USUAL = {kind: getattr(usual, kind) for kind in KINDS}


@cache
def sessions() -> async_sessionmaker[AsyncSession]:
    """Made when the first job comes, in the process and the event loop that run it."""
    engine = create_async_engine(
        database_url("asyncpg"),
        pool_pre_ping=handlers() == "usual",
        pool_size=concurrency(),
        max_overflow=0,
    )
    return async_sessionmaker(engine, expire_on_commit=False)


@cache
def handlers() -> str:
    """`usual`, as users write them, or `best`."""
    return os.environ.get("HANDLERS", "usual")


def tasks() -> dict[str, Task]:
    """The tasks of all scenarios, by name. They take the fields of their jobs."""
    return {"noop": noop} | {kind: _task(kind) for kind in KINDS}


async def noop(number: int) -> None:  # noqa: ARG001  # sent along, as any real job has something
    """Only count."""
    counter()()


def _task(kind: str) -> Task:
    async def usually(**fields: Any) -> None:
        async with session_scope(sessions()) as session:
            await _USUAL[kind](session, **fields)

    async def at_best(**fields: Any) -> None:
        async with session_scope(sessions()) as session:
            await best.run(session, kind, fields)

    task = usually if handlers() == "usual" else at_best
    task.__name__ = task.__qualname__ = kind
    return task
