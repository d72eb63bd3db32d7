"""taskiq: its own command with one worker process, on uvloop and with hiredis.

It uses a Redis list, its fastest broker, which loses a dead worker's jobs. Where workers are killed, it uses a Redis
stream, its broker with acknowledgements, which it sends after the job is done.
"""

import os
import sys
from typing import Any

from taskiq.__main__ import main as taskiq_main  # type: ignore[import-not-found]  # installed in its own environment
from taskiq_redis import ListQueueBroker, RedisStreamBroker  # type: ignore[import-not-found]

from benchmarks.adapters.base import CONCURRENCY, LEASE_SECONDS, Adapter, main
from benchmarks.adapters.handlers import tasks
from benchmarks.adapters.workload import Job

_CONNECTIONS = 64


def _broker(url: str) -> Any:
    if LEASE_SECONDS:
        # By default a job is taken again after ten minutes, under a lock that never expires.
        return RedisStreamBroker(
            url,
            max_connection_pool_size=_CONNECTIONS,
            idle_timeout=LEASE_SECONDS * 1000,
            unacknowledged_lock_timeout=LEASE_SECONDS,
        )
    return ListQueueBroker(url, max_connection_pool_size=_CONNECTIONS)


BROKER = _broker(os.environ["REDIS_URL"])
_TASKS = {name: BROKER.register_task(task, task_name=name) for name, task in tasks().items()}


class Taskiq(Adapter):
    """taskiq 0.13 with taskiq-redis 1.2. It has no bulk call."""

    def worker(self) -> None:
        options = ["--workers", "1", "--max-async-tasks", str(CONCURRENCY), "--log-level", "WARNING"]
        sys.argv = ["taskiq", "worker", "benchmarks.adapters.taskiq:BROKER", *options]
        taskiq_main()

    async def open(self) -> None:
        await BROKER.startup()

    async def close(self) -> None:
        await BROKER.shutdown()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await _TASKS[name].kiq(**fields)


if __name__ == "__main__":
    main(Taskiq())
