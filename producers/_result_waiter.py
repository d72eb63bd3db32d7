"""Waiting for results: one listener and one poller for all waiting calls of a producer."""

import asyncio
from collections import defaultdict
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from producers import keys
from producers._pubsub import Listener

FIRST_DELAY_SECONDS = 0.005
MAX_DELAY_SECONDS = 0.25
JOBS_PER_POLL = 1000


class ResultWaiter:
    """Fetches the results that callers wait for, up to a thousand per round trip.

    Workers publish the ids of ended jobs on a channel, so a result is fetched as soon as it exists. Published messages
    can be lost, so all awaited jobs are polled as well: first after milliseconds, then less and less often. Redis is
    polled no more for many waiting calls than for one, and hardly at all during a long wait.

    Args:
        redis: the client.
        queue: the queue's name.
        channel: where workers publish the ids of ended jobs; empty: nowhere.
    """

    def __init__(self, redis: Redis, queue: str, channel: str = "") -> None:
        self._redis = redis
        self._queue = queue
        self._listener = Listener(redis, [channel], self._on_message) if channel else None
        self._listening: asyncio.Task[None] | None = None
        self._ended: set[str] = set()
        self._wake = asyncio.Event()
        self._next_poll = 0.0
        self._waiting: defaultdict[str, list[asyncio.Future[bytes | None]]] = defaultdict(list)
        self._poller: asyncio.Task[None] | None = None
        self._delay_seconds = FIRST_DELAY_SECONDS
        self.last_error: str = ""
        """Why the last poll failed, for the text of a timeout; empty if it did not."""

    async def wait(self, job_id: str) -> bytes | None:
        """The bytes of the job's result as soon as there is one; None if Redis does not know the job."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].append(future)
        self._delay_seconds = FIRST_DELAY_SECONDS
        # It may have ended before anything waited for it.
        self._ended.add(job_id)
        self._wake.set()
        if self._listener is not None and self._listening is None:
            self._listening = asyncio.create_task(self._listener.run(), name="results-listener")
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="results")
        try:
            return await future
        finally:
            self._forget(job_id, future)

    async def close(self) -> None:
        """Stop polling, and cancel all waiting calls."""
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()
        for task in (self._poller, self._listening):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def _forget(self, job_id: str, future: "asyncio.Future[bytes | None]") -> None:
        futures = self._waiting[job_id]
        futures.remove(future)
        if not futures:
            del self._waiting[job_id]

    def _on_message(self, _channel: str, message: bytes) -> None:
        self._ended.update(message.decode("utf-8", "replace").split())
        self._wake.set()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._wake.clear()
            job_ids = [job_id for job_id in self._ended if job_id in self._waiting]
            self._ended.clear()
            if loop.time() >= self._next_poll:
                job_ids = list(self._waiting)
                self._delay_seconds = min(self._delay_seconds * 1.5, MAX_DELAY_SECONDS)
                self._next_poll = loop.time() + self._delay_seconds
            for start in range(0, len(job_ids), JOBS_PER_POLL):
                await self._fetch(job_ids[start : start + JOBS_PER_POLL])
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_poll):
                    await self._wake.wait()

    async def _fetch(self, job_ids: list[str]) -> None:
        try:
            # One transaction: a job that ends between the two answers would look unknown.
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.mget([keys.result(job_id) for job_id in job_ids])
                pipeline.execute_command("ZMSCORE", self._queue, *job_ids)
                results, scores = await pipeline.execute()
        except (RedisError, OSError) as error:
            self.last_error = f" ({type(error).__name__}: {error})"
            return
        self.last_error = ""
        for job_id, result, score in zip(job_ids, results, scores, strict=True):
            if result is None and score is not None:
                continue
            for future in self._waiting.get(job_id, ()):
                if not future.done():
                    future.set_result(result)
