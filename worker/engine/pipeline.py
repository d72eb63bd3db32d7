"""The stages of a job in a worker: claimer → dispatcher → executor → settler.

Each stage is constructed with the next. Two shared objects carry feedback: `Signals.wake`, set when there is capacity
or a job became due, and `Leases`, from which the settler drops what Redis has settled.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from redis.asyncio import Redis

from producers import keys
from producers._pubsub import Listener
from worker.engine.claimer import Claimer
from worker.engine.context import Runtime
from worker.engine.dispatcher import Dispatcher
from worker.engine.executor import Executor
from worker.engine.settler import Settler, WorkerIdentity
from worker.engine.signals import Signals
from worker.engine.tasks import SHUTDOWN_SECONDS, Actor, cancel_all, run_forever
from worker.queue.availability import REDIS_ERRORS, describe_error
from worker.queue.heartbeat import describe_running
from worker.queue.leases import Leases, cancel_unless_committing
from worker.queue.queue import Queue

log = structlog.get_logger("worker")

SWEEP_SECONDS = 30.0
RENEWALS_PER_LEASE = 3
"""So that a lease survives one lost renewal."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker runs jobs: see the settings of the same names."""

    concurrency: int
    lease_seconds: float
    max_tries: int
    grace_seconds: float
    result_ttl_seconds: int
    max_payload_bytes: int
    batch_size: int = 1
    poll_seconds: float = 0.5
    """How often an idle worker looks for jobs of clients that do not publish a wake-up."""


class Pipeline:
    """Claims, runs and settles jobs until it is stopped, and then drains.

    Args:
        redis: the client.
        runtime: what runs jobs.
        signals: the state of both servers, and the events that wake and stop the worker.
        identity: the worker's name and its queue's.
        options: how it runs.
    """

    def __init__(
        self, redis: Redis, runtime: Runtime, signals: Signals, identity: WorkerIdentity, options: Options
    ) -> None:
        self._redis = redis
        self._signals = signals
        self._identity = identity
        self._options = options
        self._queue = Queue(
            redis,
            identity.queue,
            lease_ms=round(options.lease_seconds * 1000),
            result_ms=options.result_ttl_seconds * 1000,
            max_payload_bytes=options.max_payload_bytes,
        )
        batch_size = _batch_size(options)
        self._leases = Leases(self._queue)
        self._settler = Settler(self._queue, self._leases, signals, identity)
        self._executor = Executor(runtime, self._settler, signals, max_tries=options.max_tries, batches=batch_size > 1)
        self._dispatcher = Dispatcher(self._executor, signals, concurrency=options.concurrency, batch_size=batch_size)
        self._claimer = Claimer(
            self._queue,
            self._dispatcher,
            self._leases,
            runtime,
            signals,
            max_tries=options.max_tries,
            poll_seconds=options.poll_seconds,
        )

    async def run(self, *, actors: tuple[Actor, ...] = (), burst: bool = False) -> None:
        """Run until `Signals.stop` is set, or in a burst until the queue is empty. Then drain.

        Args:
            actors: run beside the stages for as long.
            burst: stop when the queue is empty.
        """
        queue = self._identity.queue
        listener = Listener(self._redis, [keys.wake(queue), keys.control(queue)], self._hear)
        tasks = [
            asyncio.create_task(run_forever(actor))
            for actor in (
                self._settler.run,
                listener.run,
                lambda: self.every(self._options.lease_seconds / RENEWALS_PER_LEASE, self._leases.renew),
                lambda: self.every(SWEEP_SECONDS, self._queue.sweep),
                *actors,
            )
        ]
        until_empty = self._is_empty if burst else None
        claimer = asyncio.create_task(run_forever(lambda: self._claimer.run(until_empty=until_empty)))
        try:
            await claimer
            await self._drain()
        finally:
            await cancel_all({claimer, *tasks}, seconds=SHUTDOWN_SECONDS)

    async def every(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        """Act again and again until cancelled. Redis may be down meanwhile."""
        while True:
            try:
                await act()
            except REDIS_ERRORS as error:
                self._signals.redis.failed(describe_error(error))
            await asyncio.sleep(seconds)

    def state(self) -> dict[str, Any]:
        """The jobs of this worker, as its heartbeat reports them."""
        running = self._dispatcher.running
        return {"running": len(running), "held": len(self._leases), "jobs": describe_running(running)}

    async def _is_empty(self) -> bool:
        """Whether everything is settled and the queue is empty."""
        try:
            return await self._settler.flush(SHUTDOWN_SECONDS) == 0 and not await self._redis.zcard(
                self._identity.queue
            )
        except REDIS_ERRORS as error:
            self._signals.redis.failed(describe_error(error))
            return False

    async def _drain(self) -> None:
        """Let running jobs end within the grace period, then release them too, and settle everything."""
        self._dispatcher.release_waiting()
        hurry = asyncio.ensure_future(self._signals.stop_now.wait())
        deadline = time.monotonic() + self._options.grace_seconds
        while (tasks := self._dispatcher.tasks) and not hurry.done():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait({hurry, *tasks}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while (tasks := self._dispatcher.tasks) and time.monotonic() < deadline:
            # Again and again: a job that is committing is left alone, and its batch may have more to do.
            cancel_unless_committing(self._dispatcher.running)
            await asyncio.wait(tasks, timeout=0.1)
        unsettled = await self._settler.flush(SHUTDOWN_SECONDS)
        log.info("worker_drained", unsettled=unsettled, unfinished=len(self._dispatcher.running))

    def _hear(self, channel: str, message: bytes) -> None:
        if channel == keys.wake(self._identity.queue):
            self._signals.wake.set()
        else:
            self._leases.cancel(message)


def _batch_size(options: Options) -> int:
    if options.batch_size > 1 and options.max_tries == 1:
        # A job with a single attempt runs alone: it must take no others down with it.
        log.warning("batches_off", reason="WORKER_MAX_TRIES is 1; batches need 2 or more")
        return 1
    return options.batch_size
