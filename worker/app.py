"""arq's entry: `worker.app.WorkerSettings` for the stock arq command, and `run` for `worker run`."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import Context
from typing import Any

import structlog
import uvloop
from arq.connections import RedisSettings
from redis.asyncio.connection import parse_url

from producers import arq_wire, wire
from producers._redis import connect
from worker.engine.arq_functions import functions
from worker.engine.context import put_runtime
from worker.engine.cron import cron_jobs
from worker.engine.pipeline import Options
from worker.engine.tasks import Actor
from worker.engine.worker import EngineWorker
from worker.jobs import REGISTRY, SCHEDULE
from worker.model.failures import causes
from worker.observability import logs
from worker.runtime import open_runtime, scheduled_jobs
from worker.settings import Settings, SettingsError, zone

log = structlog.get_logger("worker")

# arq starts jobs only when it polls; its default delay of 0.5 s would cap it at a few dozen jobs per second.
POLL_SECONDS = 0.05
HEALTH_CHECK_SECONDS = 10
# Python's default of 700 new objects is reached every few jobs. A job's objects are freed by reference counting, so
# collections find nothing.
GC_THRESHOLD = 50_000


def run(settings: Settings, *, burst: bool = False) -> None:
    """Run a worker in this process until a signal stops it, or, with `burst`, until the queue is empty."""
    logs.configure(settings.log_format, settings.log_level)
    asyncio.set_event_loop(uvloop.new_event_loop())
    worker = engine_worker(settings, burst=burst)
    tune_gc()
    worker.run()


def tune_gc() -> None:
    """Freeze existing objects and raise the GC threshold.

    Modules, mappings and settings are hundreds of thousands of objects that live as long as the process. Scanning them
    takes tens of milliseconds in which no job runs, and cost batches a fifth of their speed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)


def engine_worker(settings: Settings, *, burst: bool = False) -> EngineWorker:
    """This project's worker, for these settings."""
    redis = connect(settings.redis_url.get_secret_value(), queue=settings.queue)
    arguments = arq_arguments(settings, burst=burst)
    return EngineWorker(
        options=Options(
            concurrency=settings.concurrency,
            batch_size=settings.batch_size,
            lease_seconds=settings.lease_seconds,
            max_tries=settings.max_tries,
            grace_seconds=settings.shutdown_grace_seconds,
            result_ttl_seconds=settings.result_ttl_seconds,
            max_payload_bytes=settings.max_payload_bytes,
        ),
        services=lambda worker: _services(settings, worker),
        redis_pool=redis,
        **arguments | {"cron_jobs": cron_jobs(scheduled_jobs(settings, redis))},
    )


def stock_arguments(settings: Settings) -> dict[str, Any]:
    """The attributes of the stock arq worker's `WorkerSettings`."""
    url = settings.redis_url.get_secret_value()
    return arq_arguments(settings) | {"redis_settings": redis_settings(url), "poll_delay": POLL_SECONDS}


def arq_arguments(settings: Settings, *, burst: bool = False) -> dict[str, Any]:
    """What both workers give to arq's `Worker`."""
    return {
        "functions": functions(REGISTRY.values(), settings.job_timeout_seconds),
        "cron_jobs": cron_jobs(SCHEDULE.values()),
        "queue_name": settings.queue,
        # All hosts must compute the same tick times, because a tick's time is its id.
        "timezone": zone(settings.timezone),
        "burst": burst,
        "on_startup": lambda ctx: _startup(settings, ctx),
        "on_shutdown": _shutdown,
        "max_jobs": settings.concurrency,
        "job_timeout": settings.job_timeout_seconds,
        "job_completion_wait": round(settings.shutdown_grace_seconds),
        "keep_result": settings.result_ttl_seconds,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "job_serializer": arq_wire.dumps,
        "job_deserializer": _bounded_loads(settings.max_payload_bytes),
        "log_results": False,
    }


def redis_settings(url: str) -> RedisSettings:
    """arq's settings from a URL, with its escapes decoded (arq's own parser leaves them in)."""
    parsed = parse_url(url)
    return RedisSettings(
        host=parsed.get("host", "localhost"),
        port=parsed.get("port", 6379),
        unix_socket_path=parsed.get("path"),
        database=parsed.get("db", 0),
        username=parsed.get("username"),
        password=parsed.get("password"),
        ssl=url.startswith("rediss:"),
        conn_timeout=2,
    )


async def _startup(settings: Settings, ctx: dict[str, Any]) -> None:
    """arq's startup hook: create the tables and open what jobs need."""
    # Here, not earlier: arq's command installs its own log handlers before it starts the worker.
    logs.configure(settings.log_format, settings.log_level)
    asyncio.get_running_loop().set_exception_handler(_log_unhandled)
    stack = ctx["exit_stack"] = AsyncExitStack()
    put_runtime(ctx, await stack.enter_async_context(open_runtime(settings, ctx["redis"])))
    log.info("worker_started", queue=settings.queue, concurrency=settings.concurrency, batch_size=settings.batch_size)


async def _shutdown(ctx: dict[str, Any]) -> None:
    """arq's shutdown hook: dispose the engine and close everything else that was opened."""
    if (stack := ctx.get("exit_stack")) is not None:
        await stack.aclose()
    log.info("worker_stopped")


def _services(settings: Settings, worker: EngineWorker) -> list[Actor]:
    if not settings.http_port:
        return []
    # Importing the HTTP module takes 0.1 s: skip it without endpoints.
    from worker.observability import http  # noqa: PLC0415

    return [
        lambda: http.serve_endpoints(
            worker,
            database_url=settings.database_url.get_secret_value(),
            redis_url=settings.redis_url.get_secret_value(),
            host=settings.http_host,
            port=settings.http_port,
        )
    ]


def _bounded_loads(max_bytes: int) -> Callable[[bytes], dict[str, Any]]:
    def loads(payload: bytes) -> dict[str, Any]:
        if len(payload) > max_bytes:
            raise wire.TooLargeError(f"the payload is larger than {max_bytes} bytes")
        return arq_wire.loads(payload)

    return loads


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's own text holds the repr of the exception, and with it values.
    error = context.get("exception")
    # asyncio reports it when a task is discarded, in the middle of any other job: so log it in the task's own context,
    # which Python offers from 3.12 on, or in an empty one.
    own: Context = getattr(context.get("task"), "get_context", Context)()
    chain = causes(error) if isinstance(error, BaseException) else None
    own.copy().run(lambda: log.error("unhandled_error", error=chain))


def __getattr__(name: str) -> Any:
    """`WorkerSettings` for arq's command: made on access, so that importing this module reads no environment."""
    if name != "WorkerSettings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        arguments = stock_arguments(Settings.load())
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    return type("WorkerSettings", (), arguments)
