"""Tasks that live as long as the worker does."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from worker.model.failures import causes

log = structlog.get_logger("worker")

RESTART_SECONDS = 1.0
SHUTDOWN_SECONDS = 5.0
"""How long each step of a shutdown may take: the last settlements, the hooks, the last commands to each server."""

Actor = Callable[[], Awaitable[None]]
"""Runs until it is cancelled, or to its own end."""


async def run_forever(actor: Actor) -> None:
    """Run an actor to its end. A fault of this project's own is logged and the actor restarted."""
    while True:
        try:
            await actor()
        except Exception as error:  # noqa: BLE001  # after any failure, running jobs must still be renewed and settled
            log.error("task_fault", error=causes(error))  # noqa: TRY400  # its text may hold values
            await asyncio.sleep(RESTART_SECONDS)
        else:
            return


async def run_until(event: asyncio.Event, work: Awaitable[None]) -> bool:
    """Run some work until it ends or the event is set. Returns whether it ended by itself."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait({working})
        return False
    await working
    return True


async def cancel_all(tasks: Iterable[asyncio.Task[Any]], *, seconds: float) -> None:
    """Cancel tasks and wait for them, again each second: a library may swallow one cancellation while it connects."""
    pending = set(tasks)
    for _ in range(round(seconds)):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


class LoopLag:
    """How late the event loop runs its timers: what blocks it keeps everything else waiting for as long."""

    INTERVAL_SECONDS = 0.25
    WINDOW_SECONDS = 10.0

    def __init__(self) -> None:
        self._lags: deque[float] = deque([0.0], maxlen=round(self.WINDOW_SECONDS / self.INTERVAL_SECONDS))

    @property
    def seconds(self) -> float:
        """The worst lag of the last ten seconds."""
        return max(self._lags)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + self.INTERVAL_SECONDS
            await asyncio.sleep(self.INTERVAL_SECONDS)
            self._lags.append(max(0.0, time.monotonic() - due))
