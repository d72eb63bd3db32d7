"""Waiting for outcomes: one poller for all the waiters of a producer."""

import asyncio
from collections import defaultdict
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from producers import keys

FIRST_DELAY_SECONDS = 0.005
LONGEST_DELAY_SECONDS = 0.25
JOBS_A_LOOK = 1000


class Results:
    """Looks for the results of all jobs that are waited for, in one round trip a thousand jobs.

    The looks begin a few milliseconds apart and move apart while nothing comes, so that many waiters cost Redis no
    more than one, and a long wait next to nothing.
    """

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._queue = queue
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
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller

    def _forget(self, job_id: str, future: "asyncio.Future[bytes | None]") -> None:
        futures = self._waiting[job_id]
        futures.remove(future)
        if not futures:
            del self._waiting[job_id]

    async def _poll(self) -> None:
        while self._waiting:
            job_ids = list(self._waiting)
            found = 0
            for start in range(0, len(job_ids), JOBS_A_LOOK):
                found += await self._look(job_ids[start : start + JOBS_A_LOOK])
            self._delay_seconds = (
                FIRST_DELAY_SECONDS if found else min(self._delay_seconds * 1.5, LONGEST_DELAY_SECONDS)
            )
            await asyncio.sleep(self._delay_seconds)

    async def _look(self, job_ids: list[str]) -> int:
        try:
            # One transaction: a job that ends between the two answers would look unknown.
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.mget([keys.result(job_id) for job_id in job_ids])
                pipeline.execute_command("ZMSCORE", self._queue, *job_ids)
                results, scores = await pipeline.execute()
        except (RedisError, OSError) as error:
            self.trouble = f" ({type(error).__name__}: {error})"
            return 0
        self.trouble = ""
        found = 0
        for job_id, result, score in zip(job_ids, results, scores, strict=True):
            if result is None and score is not None:
                continue
            found += 1
            for future in self._waiting.get(job_id, ()):
                if not future.done():
                    future.set_result(result)
        return found
