"""Claim due jobs while there is capacity for them and both servers can be used."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from worker.database import connections
from worker.engine.context import Runtime
from worker.engine.dispatcher import Dispatcher
from worker.engine.signals import Signals
from worker.model.job import ClaimedJob
from worker.queue.availability import REDIS_ERRORS, describe_error
from worker.queue.leases import Leases
from worker.queue.queue import Queue


class Claimer:
    """Claims due jobs until it is stopped. While a server is down it claims none, and probes whether it is back.

    Args:
        queue: where jobs are claimed.
        dispatcher: the next stage.
        leases: hold each claimed job.
        runtime: whose database is probed.
        signals: the state of both servers, and the events that wake and stop the claimer.
        max_tries: the limit on attempts; a job on its last attempt runs alone.
        poll_seconds: how often an idle worker looks for jobs of clients that do not publish a wake-up.
    """

    def __init__(
        self,
        queue: Queue,
        dispatcher: Dispatcher,
        leases: Leases,
        runtime: Runtime,
        signals: Signals,
        *,
        max_tries: int,
        poll_seconds: float,
    ) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._leases = leases
        self._runtime = runtime
        self._signals = signals
        self._max_tries = max_tries
        self._poll_seconds = poll_seconds

    async def run(self, *, until_empty: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Claim until stopped; in a burst, until an idle worker finds the queue empty."""
        wake, stop = self._signals.wake, self._signals.stop
        while not stop.is_set():
            wake.clear()
            if self._signals.redis.is_down or self._signals.database.is_down:
                await self._wait_for_servers()
            elif capacity := self._dispatcher.capacity():
                idle_seconds = await self._claim(capacity)
                if idle_seconds and until_empty is not None and not self._dispatcher and await until_empty():
                    stop.set()
                elif idle_seconds:
                    await self._wait(idle_seconds)
            else:
                await wake.wait()

    async def _claim(self, count: int) -> float:
        """Claim once. Returns the seconds until there can be more to claim."""
        try:
            claims = await self._queue.claim(count)
        except REDIS_ERRORS as error:
            self._signals.redis.failed(describe_error(error))
            return 0.0
        self._signals.redis.recovered()
        jobs: list[ClaimedJob] = []
        last_attempts: list[ClaimedJob] = []
        for job in claims.jobs:
            self._leases.hold(job)
            (last_attempts if 1 < self._max_tries <= job.attempt else jobs).append(job)
        self._dispatcher.add(jobs, last_attempts)
        if len(claims.jobs) == count:
            return 0.0
        if claims.next_due_ms is None:
            return self._poll_seconds
        return min(self._poll_seconds, claims.next_due_ms / 1000)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._signals.wake.wait()

    async def _wait_for_servers(self) -> None:
        redis, database = self._signals.redis, self._signals.database
        server = redis if redis.is_down else database
        with suppress(TimeoutError):
            async with asyncio.timeout(server.wait_seconds()):
                await self._signals.stop.wait()
        if server is redis:
            # The question is whether it takes writes: a ping is answered while memory or disk is full.
            await self._claim(1)
            return
        try:
            await self._runtime.ping_database()
        except Exception as error:  # noqa: BLE001  # after any failure, the database is not back
            database.failed(connections.describe_error(error))
        else:
            database.recovered()
