"""taskiq on a Redis list, its quickest broker (jobs under way are lost with their worker): its own command.

One worker process, uvloop (which its command uses when it is installed), hiredis.
"""

import asyncio
import os
import sys

from taskiq.__main__ import main as command  # type: ignore[import-not-found]  # in the environment of its own
from taskiq_redis import ListQueueBroker  # type: ignore[import-not-found]

from benchmarks.peers.common import System, concurrency, main
from benchmarks.peers.handlers import tasks
from benchmarks.peers.plan import Job

_AT_ONCE = 500

BROKER = ListQueueBroker(os.environ["REDIS_URL"], max_connection_pool_size=64)
_TASKS = {name: BROKER.register_task(task, task_name=name) for name, task in tasks().items()}


class Taskiq(System):
    """taskiq 0.13 with taskiq-redis 1.2."""

    def worker(self) -> None:
        options = ["--workers", "1", "--max-async-tasks", str(concurrency()), "--log-level", "WARNING"]
        sys.argv = ["taskiq", "worker", "benchmarks.peers.taskiq:BROKER", *options]
        command()

    async def open(self) -> None:
        await BROKER.startup()

    async def close(self) -> None:
        await BROKER.shutdown()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await _TASKS[name].kiq(**fields)

    async def enqueue_many(self, many: list[Job]) -> None:
        # There is no bulk call.
        for start in range(0, len(many), _AT_ONCE):
            await asyncio.gather(*(self.enqueue(job) for job in many[start : start + _AT_ONCE]))


if __name__ == "__main__":
    main(Taskiq())
