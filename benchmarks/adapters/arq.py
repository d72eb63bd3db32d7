"""Stock arq: its own worker on uvloop, with a poll delay of 10 ms.

arq fills its free slots once per poll, by default twice per second, which would limit it to a few dozen jobs/s.
"""

import asyncio
import logging
import os

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func, run_worker

from benchmarks.adapters.base import CONCURRENCY, LEASE_SECONDS, Adapter, main
from benchmarks.adapters.handlers import tasks_with_context
from benchmarks.adapters.workload import Job

_REDIS = RedisSettings.from_dsn(os.environ["REDIS_URL"])


class Arq(Adapter):
    """arq 0.28. It has no bulk call."""

    _redis: ArqRedis

    def worker(self) -> None:
        logging.getLogger("arq").setLevel(logging.WARNING)
        asyncio.set_event_loop(uvloop.new_event_loop())
        settings = {
            "functions": [func(task, name=name) for name, task in tasks_with_context().items()],
            "redis_settings": _REDIS,
            "max_jobs": CONCURRENCY,
            "poll_delay": 0.01,
        }
        if LEASE_SECONDS:
            # A dead worker's jobs stay locked for the job timeout and 10 s more; by default for 310 s.
            settings["job_timeout"] = LEASE_SECONDS
        run_worker(type("WorkerSettings", (), settings))

    async def open(self) -> None:
        self._redis = await create_pool(_REDIS)

    async def close(self) -> None:
        await self._redis.aclose()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await self._redis.enqueue_job(name, **fields)


if __name__ == "__main__":
    main(Arq())
