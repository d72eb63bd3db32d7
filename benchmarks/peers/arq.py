"""Stock arq: its own command, with more places and quicker looks at the queue than its defaults, or as it comes.

arq fills its free places once a look, and by default looks twice a second.
"""

import asyncio
import logging
import os
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func, run_worker

from benchmarks.peers.common import System, concurrency, lease_seconds, main
from benchmarks.peers.handlers import Task, tasks
from benchmarks.peers.plan import Job

_AT_ONCE = 500


class Arq(System):
    """arq 0.28."""

    _redis: ArqRedis

    def worker(self) -> None:
        logging.getLogger("arq").setLevel(logging.WARNING)
        settings = {
            "functions": [func(_with_context(task), name=name) for name, task in tasks().items()],
            "redis_settings": _settings(),
        }
        if not os.environ.get("AS_IT_COMES"):
            asyncio.set_event_loop(uvloop.new_event_loop())
            settings |= {"max_jobs": concurrency(), "poll_delay": 0.01}
        if lease := lease_seconds():
            # What a dead worker held is locked for this time and ten seconds more; by default for 310 s.
            settings["job_timeout"] = lease
        run_worker(type("WorkerSettings", (), settings))

    async def open(self) -> None:
        self._redis = await create_pool(_settings())

    async def close(self) -> None:
        await self._redis.aclose()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await self._redis.enqueue_job(name, **fields)

    async def enqueue_many(self, many: list[Job]) -> None:
        # There is no bulk call.
        for start in range(0, len(many), _AT_ONCE):
            await asyncio.gather(*(self.enqueue(job) for job in many[start : start + _AT_ONCE]))


def _settings() -> RedisSettings:
    return RedisSettings.from_dsn(os.environ["REDIS_URL"])


def _with_context(task: Task) -> Any:
    async def run(_context: dict[Any, Any], **fields: Any) -> None:
        await task(**fields)

    return run


if __name__ == "__main__":
    main(Arq())
