"""The life of a worker process: start, signals, the pipeline, and an orderly end.

A subclass of arq's `Worker`: its hooks, its cron jobs, its health key and the way to start it are arq's. How jobs are
claimed, run and settled is the pipeline's.

At SIGTERM, in this order: the claimer stops. The pipeline releases waiting jobs, lets running ones end within the grace
period, cancels and releases the rest unless they commit, and sends the last settlements (`Pipeline._drain`). Its tasks
and the services end. arq's `run` then calls `close`, which removes the heartbeat, runs the shutdown hook (it closes the
runtime: traces, then the engine) and closes Redis. A second signal skips the grace period.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
from arq.worker import Worker

from producers._redis import close_redis
from worker.engine.context import runtime_of
from worker.engine.pipeline import Options, Pipeline
from worker.engine.settler import WorkerIdentity
from worker.engine.signals import Signals
from worker.engine.tasks import SHUTDOWN_SECONDS, Actor, LoopLag, cancel_all, run_forever, run_until
from worker.queue.availability import REDIS_ERRORS, wait_for_redis
from worker.queue.heartbeat import HEARTBEAT_SECONDS, Heartbeat

log = structlog.get_logger("worker")

CRON_SECONDS = 0.5


class EngineWorker(Worker):
    """arq's `Worker` with this project's pipeline. arq's startup hook must put a `Runtime` into its context.

    Args:
        options: how jobs run.
        services: makes what runs beside the worker, from before its start until it has ended.
        arq: the arguments of arq's `Worker`; `redis_pool` among them.
    """

    def __init__(
        self,
        *,
        options: Options,
        services: Callable[["EngineWorker"], Sequence[Actor]] = lambda _worker: (),
        **arq: Any,
    ) -> None:
        super().__init__(**arq)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._options = options
        self._services = services
        self._signals = Signals()
        self._loop_lag = LoopLag()
        self._heartbeat = Heartbeat(
            self.pool,
            self.queue_name,
            self.name,
            self.health_check_key,
            result_ms=options.result_ttl_seconds * 1000,
        )
        self._pipeline: Pipeline | None = None

    async def main(self) -> None:
        """Run until stopped, or in a burst until the queue is empty, and drain."""
        services = [
            asyncio.create_task(run_forever(service)) for service in (self._loop_lag.run, *self._services(self))
        ]
        try:
            if await run_until(self._signals.stop, self._start()):
                identity = WorkerIdentity(self.name, self.queue_name)
                self._pipeline = pipeline = Pipeline(
                    self.pool, runtime_of(self.ctx), self._signals, identity, self._options
                )
                beat = lambda: pipeline.every(HEARTBEAT_SECONDS, self._beat)  # noqa: E731
                cron = lambda: pipeline.every(CRON_SECONDS, self._enqueue_ticks)  # noqa: E731
                await pipeline.run(actors=(beat, cron), burst=self.burst)
        finally:
            await cancel_all(services, seconds=SHUTDOWN_SECONDS)

    async def close(self) -> None:
        """Run the shutdown hook and close the connections. Each step has a time limit."""
        if self._pool is None:
            return
        with suppress(*REDIS_ERRORS, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await self._heartbeat.remove()
        if self.on_shutdown is not None:
            try:
                async with asyncio.timeout(SHUTDOWN_SECONDS):
                    await self.on_shutdown(self.ctx)
            except TimeoutError:
                log.warning("shutdown_hook_unfinished", after_seconds=SHUTDOWN_SECONDS)
        await close_redis(self.pool)
        self._pool = None

    def state(self) -> dict[str, Any]:
        """The state of this worker, as its heartbeat reports it."""
        jobs = {"running": 0, "held": 0, "jobs": []} if self._pipeline is None else self._pipeline.state()
        pool = {} if self._pipeline is None else runtime_of(self.ctx).pool_gauges()
        return {
            "at": round(time.time(), 3),
            "concurrency": self._options.concurrency,
            "redis_up": not self._signals.redis.is_down,
            "database_up": not self._signals.database.is_down,
            "loop_lag_seconds": round(self._loop_lag.seconds, 3),
            **jobs,
            **pool,
        }

    def not_ready(self) -> dict[str, str]:
        """Why this worker claims no jobs, by `worker`, `redis` or `database`; empty when it does."""
        servers = (self._signals.redis, self._signals.database)
        reasons = {server.server: server.reason for server in servers if server.reason is not None}
        if self._signals.stop.is_set():
            reasons["worker"] = "it is stopping"
        elif self._pipeline is None:
            reasons["worker"] = "it has not started yet"
        return reasons

    def handle_sig(self, signum: signal.Signals) -> None:
        """Stop claiming and let running jobs end; at the second signal, release them at once."""
        state = self.state()
        if self._signals.stop.is_set():
            log.info("worker_stopping_now", signal=signal.Signals(signum).name, running=state["running"])
            self._signals.stop_now.set()
        else:
            log.info("worker_stopping", signal=signal.Signals(signum).name, running=state["running"])
            self._signals.stop.set()
            self._signals.wake.set()

    handle_sig_wait_for_completion = handle_sig

    async def _start(self) -> None:
        await wait_for_redis(self.pool, self._signals.redis)
        self.ctx["redis"] = self.pool  # as arq's own worker does
        if self.on_startup is not None:
            await self.on_startup(self.ctx)

    async def _beat(self) -> None:
        await self._heartbeat.beat(self.state())

    async def _enqueue_ticks(self) -> None:
        if self.cron_jobs and not self._signals.stop.is_set():
            await self.run_cron(datetime.now(tz=self.timezone), CRON_SECONDS)
