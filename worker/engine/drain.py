"""The end of a worker: what has not begun is given back, what runs may end within the grace, and all is settled."""

import asyncio
import time
from collections.abc import Callable

import structlog

from worker.engine.dispatcher import Lanes
from worker.engine.job import Job
from worker.engine.settler import Settler
from worker.queue.leases import interrupt

log = structlog.get_logger("worker")

# How long the last settlements, the hooks and the goodbyes may take while stopping: no server is waited for longer.
FAREWELL_SECONDS = 5.0


async def drain(
    lanes: Lanes,
    settler: Settler,
    give_back: Callable[[Job], None],
    *,
    grace_seconds: float,
    at_once: asyncio.Event,
) -> None:
    """Let running jobs end within the grace, or until `at_once`; then give them back too, and settle everything."""
    for job in lanes.take_waiting():
        give_back(job)
    hurried = asyncio.ensure_future(at_once.wait())
    deadline = time.monotonic() + grace_seconds
    while (running := lanes.tasks) and not at_once.is_set():
        left = deadline - time.monotonic()
        if left <= 0:
            break
        await asyncio.wait({hurried, *running}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    farewell = time.monotonic() + FAREWELL_SECONDS
    while (running := lanes.tasks) and time.monotonic() < farewell:
        interrupt(lanes.running)  # again: who is committing is left in peace, and may have more to do
        await asyncio.wait(running, timeout=0.1)
    unsettled = await settler.flushed(FAREWELL_SECONDS)
    log.info("worker_drained", unsettled=unsettled, unfinished=len(lanes.running))
