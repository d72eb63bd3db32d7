"""streaq: its own worker on uvloop, quiet, and its bulk enqueue, which is a pipeline.

A dead worker's jobs run again after the idle timeout, which is a minute unless it is given.
"""

import os
from contextlib import AsyncExitStack

from streaq import Worker  # type: ignore[import-not-found]  # in the environment of its own

from benchmarks.peers.common import System, concurrency, lease_seconds, main
from benchmarks.peers.handlers import tasks
from benchmarks.peers.plan import Job

_A_CALL = 1000

WORKER = Worker(
    redis_url=os.environ["REDIS_URL"],
    concurrency=concurrency(),
    anyio_kwargs={"use_uvloop": True},
    idle_timeout=lease_seconds() or 60,
)
_TASKS = {name: WORKER.task(task, name=name, silent=True) for name, task in tasks().items()}


class Streaq(System):
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

    async def enqueue_many(self, many: list[Job]) -> None:
        for start in range(0, len(many), _A_CALL):
            await WORKER.enqueue_many(
                [_TASKS[name].enqueue(**fields) for name, fields in many[start : start + _A_CALL]]
            )


if __name__ == "__main__":
    main(Streaq())
