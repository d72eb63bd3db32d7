"""Tasks that live as long as the worker does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from worker.model.causes import causes

log = structlog.get_logger("worker")

FAULT_SECONDS = 1.0


async def kept(actor: Callable[[], Awaitable[None]]) -> None:
    """Let an actor run to its end, through faults of our own: they are said, and do not end the worker."""
    while True:
        try:
            await actor()
        except Exception as error:  # noqa: BLE001  # whatever it is, running jobs must still be renewed and settled
            log.error("actor_fault", error=causes(error))  # noqa: TRY400  # its text may hold values
            await asyncio.sleep(FAULT_SECONDS)
        else:
            return


async def unless(stopped: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do some work to its end, unless the event comes before; whether it came to its end."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.wait({doing})
        return False
    await doing
    return True


async def end(tasks: Iterable[asyncio.Task[Any]], *, seconds: float) -> None:
    """End tasks. A library may swallow a cancellation while it waits for a connection, so one is not enough."""
    pending = set(tasks)
    for _ in range(round(seconds)):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
