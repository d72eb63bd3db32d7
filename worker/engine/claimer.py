"""Claiming: as long as there is room for jobs, and both servers are there."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from redis.exceptions import RedisError

from worker.engine.dispatcher import Lanes
from worker.engine.job import Job, read
from worker.model.failures import describe
from worker.queue.availability import Outage, reason
from worker.queue.leases import Leases
from worker.queue.queue import Queue


class Claimer:
    """Claims due jobs until it is told to stop; while a server is away it claims none, and asks whether it is back.

    Args:
        queue: where jobs are claimed.
        lanes: what runs them.
        leases: told of each claim.
        redis: whether Redis is there.
        database: whether the database is.
        database_ready: returns when the database answers, and raises while it does not.
        max_tries: a job on its last try runs by itself.
        poll_seconds: how often an idle worker looks for the jobs of clients that do not wake it.
    """

    def __init__(
        self,
        queue: Queue,
        lanes: Lanes,
        leases: Leases,
        *,
        redis: Outage,
        database: Outage,
        database_ready: Callable[[], Awaitable[None]],
        max_tries: int,
        poll_seconds: float,
    ) -> None:
        self._queue = queue
        self._lanes = lanes
        self._leases = leases
        self._redis = redis
        self._database = database
        self._database_ready = database_ready
        self._max_tries = max_tries
        self._poll_seconds = poll_seconds
        self._changed = asyncio.Event()
        self.stopping = asyncio.Event()
        """Set to end it."""

    def wake(self) -> None:
        """Something may be due, or there is room for more."""
        self._changed.set()

    def stop(self) -> None:
        """Claim no more."""
        self.stopping.set()
        self._changed.set()

    async def run(self, *, until: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Claim until stopped, or until this says so of a worker that has nothing to do."""
        while not self.stopping.is_set():
            self._changed.clear()
            if self._redis.lasts or self._database.lasts:
                await self._wait_out_outages()
            elif room := self._lanes.room():
                idle_seconds = await self._claim(room)
                if idle_seconds and until is not None and not self._lanes and await until():
                    self.stop()
                await self._wait(idle_seconds)
            else:
                await self._changed.wait()

    async def _claim(self, count: int) -> float:
        """Claim, and say how long there is nothing more to be had."""
        try:
            claims = await self._queue.claim(count)
        except (RedisError, OSError) as error:
            self._redis.met(reason(error))
            return 0.0
        self._redis.over()
        remembered_since_ms = time.time() * 1000 - self._queue.result_ms
        jobs: list[Job] = []
        last_tries: list[Job] = []
        for claimed in claims.jobs:
            job = read(claimed, remembered_since_ms=remembered_since_ms)
            self._leases.hold(job)
            (last_tries if 1 < self._max_tries <= claimed.tries else jobs).append(job)
        self._lanes.add(jobs, last_tries)
        if len(claims.jobs) == count:
            return 0.0
        if claims.next_due_ms is None:
            return self._poll_seconds
        return min(self._poll_seconds, claims.next_due_ms / 1000)

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    async def _wait_out_outages(self) -> None:
        outage = self._redis if self._redis.lasts else self._database
        with suppress(TimeoutError):
            async with asyncio.timeout(outage.wait_seconds()):
                await self.stopping.wait()
        if outage is self._redis:
            # The true question is whether it takes writes: a ping answers while memory or disk is full.
            await self._claim(1)
            return
        try:
            await self._database_ready()
        except Exception as error:  # noqa: BLE001  # whatever it is, the database is not back
            outage.met(describe(error))
        else:
            outage.over()
