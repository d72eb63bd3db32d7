"""taskiq on a Redis list, its quickest broker (jobs under way are lost with their worker): its own command.

Where workers are killed: on a Redis stream, its broker with acknowledgements, which come after the job is done.

One worker process, uvloop (which its command uses when it is installed), hiredis.
"""

import asyncio
import os
import sys
from typing import Any

from taskiq.__main__ import main as command  # type: ignore[import-not-found]  # in the environment of its own
from taskiq_redis import ListQueueBroker, RedisStreamBroker  # type: ignore[import-not-found]

from benchmarks.peers.common import System, concurrency, lease_seconds, main
from benchmarks.peers.handlers import tasks
from benchmarks.peers.plan import Job

_AT_ONCE = 500

_CONNECTIONS = 64


def _broker(url: str) -> Any:
    if lease := lease_seconds():
        # By default what is not acknowledged is taken anew after ten minutes, and the lock for that is for ever.
        return RedisStreamBroker(
            url,
            max_connection_pool_size=_CONNECTIONS,
            idle_timeout=lease * 1000,
            unacknowledged_lock_timeout=lease,
        )
    return ListQueueBroker(url, max_connection_pool_size=_CONNECTIONS)


BROKER = _broker(os.environ["REDIS_URL"])
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
