"""The worker: what claims jobs, runs and settles them, put together; from its start to an orderly end.

A subclass of arq's `Worker`: its hooks, its cron jobs, its health key and the way to start it are arq's. How jobs are
claimed, run and settled is not.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from arq.worker import Worker
from redis.exceptions import RedisError

from producers import keys
from producers._pubsub import Listener
from worker.engine.claimer import Claimer
from worker.engine.dispatcher import Lanes
from worker.engine.drain import FAREWELL_SECONDS, drain
from worker.engine.executor import Batched, Effects, Execution, Tick
from worker.engine.job import Job
from worker.engine.settler import Settler
from worker.engine.tasks import end, kept, unless
from worker.model.causes import causes
from worker.queue.availability import Outage, reason, redis_there
from worker.queue.heartbeat import HEARTBEAT_SECONDS, Heartbeat, running
from worker.queue.leases import Leases
from worker.queue.queue import GiveBack, Queue, RetryLater, Settlement

log = structlog.get_logger("worker")

CRON_SECONDS = 0.5
SWEEP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the engine runs."""

    concurrency: int
    lease_seconds: float
    max_tries: int
    grace_seconds: float
    result_ttl_seconds: int
    max_payload_bytes: int
    batch_size: int = 1
    """How many jobs may share a session."""
    poll_seconds: float = 0.5
    """How often an idle worker looks for the jobs of clients that do not wake it."""
    log_success_sample: float = 1.0
    """The part of the jobs done whose line is logged."""


class EngineWorker(Worker):
    """arq's `Worker` with this project's engine.

    Args:
        effects: makes what gives jobs their effects, once arq's `on_startup` has run.
        batched: makes what gives jobs of one kind theirs together, likewise.
        ticks: makes what runs scheduled jobs, likewise.
        database_ready: returns when the database answers, and raises while it does not.
        options: how the engine runs.
        gathered: what is logged within it may be written at once.
        measured: what else the sign of life is to tell, asked each time; JSON.
        beside: what runs for as long as the worker, from before it is started until it has ended.
        arq: the arguments of arq's `Worker`; `redis_pool` among them.
    """

    def __init__(
        self,
        *,
        effects: Callable[[dict[Any, Any]], Effects],
        batched: Callable[[dict[Any, Any]], Batched | None] = lambda _ctx: None,
        ticks: Callable[[dict[Any, Any]], Mapping[str, Tick]],
        database_ready: Callable[[dict[Any, Any]], Awaitable[None]],
        options: Options,
        gathered: Callable[[], AbstractContextManager[None]] = nullcontext,
        measured: Callable[[dict[Any, Any]], Mapping[str, Any]] = lambda _ctx: {},
        beside: Callable[["EngineWorker"], Sequence[Callable[[], Awaitable[None]]]] = lambda _worker: (),
        **arq: Any,
    ) -> None:
        super().__init__(**arq)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._make_effects = effects
        self._make_batched = batched
        self._make_ticks = ticks
        self._options = options
        self._gathered = gathered
        self._measured = measured
        self._beside = beside
        self._started = False
        self._redis = Outage("redis")
        self._database = Outage("database")
        self._queue = Queue(
            self.pool,
            self.queue_name,
            lease_ms=round(options.lease_seconds * 1000),
            result_ms=options.result_ttl_seconds * 1000,
            max_payload_bytes=options.max_payload_bytes,
        )
        self._leases = Leases(self._queue)
        self._settler = Settler(self._queue, self._redis, self._settled)
        self._heartbeat = Heartbeat(
            self.pool, self.queue_name, self.name, self.health_check_key, result_ms=self._queue.result_ms
        )
        self._lanes = Lanes(
            options.concurrency,
            batch_size=options.batch_size,
            sharing=lambda job: self._execution.sharing(job),  # noqa: PLW0108  # it is made when arq has started
            run=self._run,
            not_begun=self._give_back,
            room=lambda: self._claimer.wake(),  # noqa: PLW0108  # it is made next
        )
        self._claimer = Claimer(
            self._queue,
            self._lanes,
            self._leases,
            redis=self._redis,
            database=self._database,
            database_ready=lambda: database_ready(self.ctx),
            max_tries=options.max_tries,
            poll_seconds=options.poll_seconds,
        )
        self._stop_now = asyncio.Event()

    # The life of the worker.

    async def main(self) -> None:
        """Run until told to stop, or in a burst until the queue is empty; then let what runs come to its end."""
        beside = [asyncio.create_task(kept(actor)) for actor in self._beside(self)]
        try:
            if await unless(self._claimer.stopping, self._start()):
                await self._work()
        finally:
            await end(beside, seconds=FAREWELL_SECONDS)

    async def _work(self) -> None:
        shares = self._options.batch_size > 1
        if shares and self._options.max_tries == 1:
            # A job with one try alone has no second one by itself: it must take no others down with it.
            log.warning("batches_off", because="jobs have one try alone", set_it_to="WORKER_MAX_TRIES=2 or more")
            shares = False
        self._execution = Execution(
            self._make_effects(self.ctx),
            self._make_batched(self.ctx) if shares else None,
            self._make_ticks(self.ctx),
            queue=self.queue_name,
            worker=self.name,
            max_tries=self._options.max_tries,
            database_lost=self._database_lost,
            gathered=self._gathered,
            success_sample=self._options.log_success_sample,
        )
        listener = Listener(self.pool, [keys.wake(self.queue_name), keys.control(self.queue_name)], self._hear)
        actors = [
            asyncio.create_task(kept(actor))
            for actor in (
                self._settler.run,
                listener.run,
                lambda: self._every(self._options.lease_seconds / 3, self._leases.renew),
                lambda: self._every(HEARTBEAT_SECONDS, self._beat),
                lambda: self._every(CRON_SECONDS, self._enqueue_ticks),
                lambda: self._every(SWEEP_SECONDS, self._queue.sweep),
            )
        ]
        self._started = True
        burst = self._queue_is_empty if self.burst else None
        claimer = asyncio.create_task(kept(lambda: self._claimer.run(until=burst)))
        try:
            await claimer
            await drain(
                self._lanes,
                self._settler,
                self._give_back,
                grace_seconds=self._options.grace_seconds,
                at_once=self._stop_now,
            )
        finally:
            await end({claimer, *actors}, seconds=FAREWELL_SECONDS)

    async def close(self) -> None:
        """Run the shutdown hook and close the connections. No server that is away is waited for."""
        if self._pool is None:
            return
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._heartbeat.sign_off()
        if self.on_shutdown is not None:
            try:
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self.on_shutdown(self.ctx)
            except TimeoutError:
                log.warning("shutdown_hook_unfinished", after_seconds=FAREWELL_SECONDS)
        await self.pool.aclose()
        await self.pool.connection_pool.disconnect()
        self._pool = None

    def state(self) -> dict[str, Any]:
        """What this worker is about, as its sign of life tells it."""
        jobs = self._lanes.running
        return {
            "at": round(time.time(), 3),
            "running": len(jobs),
            "held": len(self._leases),
            "concurrency": self._options.concurrency,
            "redis_up": not self._redis.lasts,
            "database_up": not self._database.lasts,
            "jobs": running(jobs),
            **self._measured(self.ctx),
        }

    def trouble(self) -> dict[str, str]:
        """Why this worker takes no jobs, if it does not: by `worker`, `redis` or `database`."""
        found = {outage.server: outage.reason for outage in (self._redis, self._database) if outage.reason is not None}
        if self._claimer.stopping.is_set():
            found["worker"] = "it is stopping"
        elif not self._started:
            found["worker"] = "it has not started yet"
        return found

    def handle_sig(self, signum: signal.Signals) -> None:
        """Stop claiming and let running jobs end; at the second signal, give them back at once."""
        if self._claimer.stopping.is_set():
            log.info("worker_stopping_now", signal=signal.Signals(signum).name, running=len(self._lanes.running))
            self._stop_now.set()
        else:
            log.info("worker_stopping", signal=signal.Signals(signum).name, running=len(self._lanes.running))
            self._claimer.stop()

    handle_sig_wait_for_completion = handle_sig

    async def _start(self) -> None:
        await redis_there(self.pool, self._redis)
        if self.on_startup is not None:
            await self.on_startup(self.ctx)

    # What becomes of jobs.

    async def _run(self, jobs: Sequence[Job]) -> None:
        jobs = [job for job in jobs if not job.lost]  # while it waited: another worker has it
        try:
            if len(jobs) == 1:
                self._settle(jobs[0], await self._execution.run(jobs[0]))
            elif jobs:
                await self._execution.run_batch(jobs, self._settle)
        except Exception as error:  # noqa: BLE001  # a fault of our own: their leases end, and they come back
            log.error("lane_fault", error=causes(error))  # noqa: TRY400  # its text may hold values
            for job in jobs:
                self._leases.forget(job.claimed.lease)

    def _settle(self, job: Job, settlement: Settlement | None) -> None:
        if settlement is None:
            self._leases.forget(job.claimed.lease)
        else:
            self._settler.add(settlement)

    def _give_back(self, job: Job) -> None:
        if job.lost:
            self._leases.forget(job.claimed.lease)
        else:
            self._settler.add(GiveBack(job.claimed.lease))

    def _settled(self, settlement: Settlement) -> None:
        self._leases.forget(settlement.lease)
        if isinstance(settlement, RetryLater):
            asyncio.get_running_loop().call_later(settlement.delay_ms / 1000, self._claimer.wake)
        elif b"@" in settlement.lease.job_id:
            self._claimer.wake()  # the next of its key is due

    async def _queue_is_empty(self) -> bool:
        try:
            return await self._settler.flushed(FAREWELL_SECONDS) == 0 and not await self.pool.zcard(self.queue_name)
        except (RedisError, OSError) as error:
            self._redis.met(reason(error))
            return False

    def _database_lost(self, why: str) -> None:
        if not self._claimer.stopping.is_set():
            self._database.met(why)

    # What goes on beside.

    async def _every(self, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await act()
            except (RedisError, OSError) as error:
                self._redis.met(reason(error))
            await asyncio.sleep(seconds)

    async def _beat(self) -> None:
        await self._heartbeat.beat(self.state())

    async def _enqueue_ticks(self) -> None:
        if self.cron_jobs and not self._claimer.stopping.is_set():
            await self.run_cron(datetime.now(tz=self.timezone), CRON_SECONDS)

    def _hear(self, channel: str, message: bytes) -> None:
        if channel == keys.wake(self.queue_name):
            self._claimer.wake()
        else:
            self._leases.cancel(message)
