"""The sign of life that a worker gives in Redis, for people, for `worker status` and for arq's own health check."""

import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from producers import keys
from worker.engine.job import Job
from worker.engine.job_log import loggable

HEARTBEAT_SECONDS = 5.0
MOST_JOBS = 16
"""So many of the jobs that it runs are named, those that have run for longest."""


class Heartbeat:
    """Writes what one worker is about.

    Args:
        redis: the client.
        queue: the queue's name.
        worker: this worker's name.
        health_key: arq's key, shared by the workers of the queue.
        result_ms: how long the workers keep results; clients that cancel jobs keep theirs as long.
    """

    def __init__(self, redis: Redis, queue: str, worker: str, health_key: str, *, result_ms: int) -> None:
        self._redis = redis
        self._workers = keys.workers(queue)
        self._worker = worker
        self._health_key = health_key
        self._config = keys.config(queue)
        self._result_ms = result_ms

    async def beat(self, said: dict[str, Any]) -> None:
        """Say that this worker lives, and what it is about: `running` how many jobs, and more."""
        as_arq_says_it = f"{datetime.now():%b-%d %H:%M:%S} j_ongoing={said['running']} worker={self._worker}"  # noqa: DTZ005
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._workers, self._worker, json.dumps(said))
            pipeline.psetex(self._health_key, round(HEARTBEAT_SECONDS * 3000), as_arq_says_it)
            pipeline.hset(self._config, "result_ms", str(self._result_ms))
            *answers, _ = await pipeline.execute(raise_on_error=False)
        # A foreign client's key of another type under the configuration does not stop the heartbeat.
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer

    async def sign_off(self) -> None:
        """Say that this worker is gone. The last one takes the queue's shared sign of life down."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._workers, self._worker)
            pipeline.hlen(self._workers)
            _, left = await pipeline.execute()
        if not left:
            await self._redis.delete(self._health_key)


def running(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Which of these jobs have run for longest, and for how long."""
    now_ms = time.time() * 1000
    longest = sorted(jobs, key=lambda job: job.started_ms or now_ms)[:MOST_JOBS]
    return [
        {
            "id": loggable(job.claimed.lease.job_id),
            "job": job.claim.job,
            "try": job.claim.tries,
            "seconds": round(max(0.0, now_ms - (job.started_ms or now_ms)) / 1000, 3),
        }
        for job in longest
    ]
