"""streaq: its own worker on uvloop, without a log line per job, and its bulk call, which is a pipeline.

A dead worker's jobs run again after the idle timeout, by default 60 s.
"""

import os
from collections.abc import Sequence
from contextlib import AsyncExitStack

from streaq import Worker  # type: ignore[import-not-found]  # installed in its own environment

from benchmarks.adapters.base import CONCURRENCY, LEASE_SECONDS, Adapter, main
from benchmarks.adapters.handlers import tasks
from benchmarks.adapters.workload import Job

_JOBS_PER_CALL = 1000

WORKER = Worker(
    redis_url=os.environ["REDIS_URL"],
    concurrency=CONCURRENCY,
    anyio_kwargs={"use_uvloop": True},
    idle_timeout=LEASE_SECONDS or 60,
)
_TASKS = {name: WORKER.task(task, name=name, silent=True) for name, task in tasks().items()}


class Streaq(Adapter):
    """streaq 7.2."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    def worker(self) -> None:
        WORKER.run_sync()

    async def open(self) -> None:
        await self._stack.enter_async_context(WORKER)

    async def close(self) -> None:
        await self._stack.aclose()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await _TASKS[name].enqueue(**fields)

    async def enqueue_many(self, batch: Sequence[Job]) -> None:
        for start in range(0, len(batch), _JOBS_PER_CALL):
            chunk = batch[start : start + _JOBS_PER_CALL]
            await WORKER.enqueue_many([_TASKS[name].enqueue(**fields) for name, fields in chunk])


if __name__ == "__main__":
    main(Streaq())
