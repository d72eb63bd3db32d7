"""The heartbeat that each worker writes to Redis: for people, for `worker status` and for arq's own health check."""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from producers import keys
from worker.model.job import ClaimedJob
from worker.model.log_context import safe_job_id

HEARTBEAT_SECONDS = 5.0
MAX_JOBS = 16
"""How many running jobs a heartbeat names, longest-running first."""


class Heartbeat:
    """Writes one worker's heartbeats.

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

    async def beat(self, state: Mapping[str, Any]) -> None:
        """Write that this worker is alive, and its state: `running` is how many jobs it runs."""
        arq_text = f"{datetime.now():%b-%d %H:%M:%S} j_ongoing={state['running']} worker={self._worker}"  # noqa: DTZ005
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._workers, self._worker, json.dumps(state))
            pipeline.psetex(self._health_key, round(HEARTBEAT_SECONDS * 3000), arq_text)
            pipeline.hset(self._config, "result_ms", str(self._result_ms))
            *answers, _ = await pipeline.execute(raise_on_error=False)
        # A foreign client's key of another type under the configuration does not stop the heartbeat.
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer

    async def remove(self) -> None:
        """Remove this worker's heartbeat. The last worker removes the shared health key, too."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._workers, self._worker)
            pipeline.hlen(self._workers)
            _, left = await pipeline.execute()
        if not left:
            await self._redis.delete(self._health_key)


def describe_running(jobs: Iterable[ClaimedJob]) -> list[dict[str, Any]]:
    """The longest-running of these jobs, as a heartbeat holds them."""
    now_ms = time.time() * 1000
    longest = sorted(jobs, key=lambda job: job.progress.started_ms or now_ms)[:MAX_JOBS]
    return [
        {
            "id": safe_job_id(job.lease.job_id),
            "job": job.name,
            "attempt": job.attempt,
            "seconds": round(max(0.0, now_ms - (job.progress.started_ms or now_ms)) / 1000, 3),
        }
        for job in longest
    ]
