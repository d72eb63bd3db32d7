"""Waiting for outcomes: one connection that is told of them, and one look for all the waiters of a producer."""

import asyncio
from collections import defaultdict
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from producers import keys
from producers._pubsub import Listener

FIRST_DELAY_SECONDS = 0.005
LONGEST_DELAY_SECONDS = 0.25
JOBS_A_LOOK = 1000


class Results:
    """Fetches the results of jobs that are waited for, in one round trip a thousand jobs.

    Workers tell on a channel which jobs ended, so a result is fetched as soon as it is there. Being told is not relied
    upon: all that are waited for are looked at as well, first within milliseconds, then less and less often, so that
    many waiters cost Redis no more than one, and a long wait next to nothing.

    Args:
        redis: the client.
        queue: the queue's name.
        channel: where workers tell of ended jobs; empty: nowhere.
    """

    def __init__(self, redis: Redis, queue: str, channel: str = "") -> None:
        self._redis = redis
        self._queue = queue
        self._listener = Listener(redis, [channel], self._hear) if channel else None
        self._listening: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        self._news = asyncio.Event()
        self._next_look = 0.0
        self._waiting: defaultdict[str, list[asyncio.Future[bytes | None]]] = defaultdict(list)
        self._poller: asyncio.Task[None] | None = None
        self._delay_seconds = FIRST_DELAY_SECONDS
        self.trouble: str = ""
        """Why the last look failed, for the text of a time-out; empty when it did not."""

    async def wait(self, job_id: str) -> bytes | None:
        """The bytes of the job's result as soon as there is one; None when Redis does not know the job."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].append(future)
        self._delay_seconds = FIRST_DELAY_SECONDS
        # It may have ended before anybody waited for it.
        self._told.add(job_id)
        self._news.set()
        if self._listener is not None and self._listening is None:
            self._listening = asyncio.create_task(self._listener.run(), name="results-listener")
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="results")
        try:
            return await future
        finally:
            self._forget(job_id, future)

    async def close(self) -> None:
        """Stop looking; whoever still waits is cancelled."""
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

    def _hear(self, _channel: str, message: bytes) -> None:
        self._told.update(message.decode("utf-8", "replace").split())
        self._news.set()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._news.clear()
            told = [job_id for job_id in self._told if job_id in self._waiting]
            self._told.clear()
            if loop.time() >= self._next_look:
                told = list(self._waiting)
                self._delay_seconds = min(self._delay_seconds * 1.5, LONGEST_DELAY_SECONDS)
                self._next_look = loop.time() + self._delay_seconds
            for start in range(0, len(told), JOBS_A_LOOK):
                await self._look(told[start : start + JOBS_A_LOOK])
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_look):
                    await self._news.wait()

    async def _look(self, job_ids: list[str]) -> None:
        try:
            # One transaction: a job that ends between the two answers would look unknown.
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.mget([keys.result(job_id) for job_id in job_ids])
                pipeline.execute_command("ZMSCORE", self._queue, *job_ids)
                results, scores = await pipeline.execute()
        except (RedisError, OSError) as error:
            self.trouble = f" ({type(error).__name__}: {error})"
            return
        self.trouble = ""
        for job_id, result, score in zip(job_ids, results, scores, strict=True):
            if result is None and score is not None:
                continue
            for future in self._waiting.get(job_id, ()):
                if not future.done():
                    future.set_result(result)
