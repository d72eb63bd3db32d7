"""The sign of life that a worker gives in Redis, for people, for `worker status` and for arq's own health check."""

import json
import time
from datetime import datetime

from redis.asyncio import Redis

from producers import keys

HEARTBEAT_SECONDS = 5.0


class Heartbeat:
    """Writes what one worker is about.

    Args:
        redis: the client.
        queue: the queue's name.
        worker: this worker's name.
        health_key: arq's key, shared by the workers of the queue.
        concurrency: how many sessions it may have at once.
    """

    def __init__(self, redis: Redis, queue: str, worker: str, health_key: str, concurrency: int) -> None:
        self._redis = redis
        self._workers = keys.workers(queue)
        self._worker = worker
        self._health_key = health_key
        self._concurrency = concurrency

    async def beat(self, *, running: int, held: int) -> None:
        """Say that this worker lives, how many jobs it runs, and how many leases it holds."""
        said = json.dumps(
            {"at": round(time.time(), 3), "running": running, "held": held, "concurrency": self._concurrency}
        )
        as_arq_says_it = f"{datetime.now():%b-%d %H:%M:%S} j_ongoing={running} worker={self._worker}"  # noqa: DTZ005
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._workers, self._worker, said)
            pipeline.psetex(self._health_key, round(HEARTBEAT_SECONDS * 3000), as_arq_says_it)
            await pipeline.execute()

    async def sign_off(self) -> None:
        """Say that this worker is gone. The last one takes the queue's shared sign of life down."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(self._workers, self._worker)
            pipeline.hlen(self._workers)
            _, left = await pipeline.execute()
        if not left:
            await self._redis.delete(self._health_key)
