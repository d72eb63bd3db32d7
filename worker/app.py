"""The one place where the parts are joined: from settings to a worker that runs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import structlog
import uvloop
from arq.connections import RedisSettings
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool

from producers import wire
from producers._redis import connect
from worker.database.session import create_engine, create_sessions
from worker.database.startup import wait_for_tables
from worker.engine import compatibility, garbage
from worker.engine.arq_functions import cron_jobs, functions
from worker.engine.batch import Batches
from worker.engine.cron import run_tick
from worker.engine.executor import Batched, Effects, Tick
from worker.engine.job_log import Journal
from worker.engine.loop_lag import LoopLag
from worker.engine.transaction import Transaction
from worker.engine.worker import EngineWorker, Options
from worker.jobs import REGISTRY, SCHEDULE, Retention, ScheduledJob
from worker.model.causes import causes
from worker.observability import logs
from worker.observability.tracing.setup import start as start_tracing
from worker.queue.dead_letters import DeadLetters
from worker.settings import Settings, SettingsError, zone

if TYPE_CHECKING:
    from worker.observability.tracing.wrappers import Tracing

log = structlog.get_logger("worker")

# arq fills its free places once a poll, so its half a second would bound it to a few dozen jobs a second.
POLL_SECONDS = 0.05
HEALTH_CHECK_SECONDS = 10
# arq locks every job of a killed worker for as long as the longest of its functions may take.
CRON_TIMEOUT_SECONDS = 300

Hook = Callable[[dict[str, Any]], Awaitable[None]]


def worker_settings(settings: Settings, *, burst: bool = False) -> dict[str, Any]:
    """The arguments of arq's `Worker`, for these settings.

    Raises:
        Incompatible: (of `worker.engine.compatibility`) when the arq or SQLAlchemy that is installed does not fit.
    """
    arguments = {
        "functions": functions(REGISTRY.values(), settings.job_timeout_seconds),
        "cron_jobs": cron_jobs(SCHEDULE.values(), run_tick, CRON_TIMEOUT_SECONDS),
        "queue_name": settings.queue,
        "redis_settings": redis_settings(settings.redis_url.get_secret_value()),
        # The same on every host, whatever its own clock shows: a tick's id is its time.
        "timezone": zone(settings.timezone),
        "burst": burst,
        "on_startup": _startup(settings),
        "on_shutdown": _shutdown,
        "max_jobs": settings.concurrency,
        "poll_delay": POLL_SECONDS,
        "job_timeout": settings.job_timeout_seconds,
        "job_completion_wait": round(settings.shutdown_grace_seconds),
        "keep_result": settings.result_ttl_seconds,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "job_serializer": wire.dumps,
        "job_deserializer": _bounded_loads(settings.max_payload_bytes),
        "log_results": False,
    }
    compatibility.check(arguments)
    return arguments


def run(settings: Settings, *, burst: bool = False) -> None:
    """Run a worker in this process until it is told to stop, or, with `burst`, until the queue is empty."""
    logs.configure(settings.log_format, settings.log_level)
    asyncio.set_event_loop(uvloop.new_event_loop())
    worker = engine_worker(settings, burst=burst)
    garbage.spare_what_stays()
    worker.run()


def engine_worker(settings: Settings, *, burst: bool = False) -> EngineWorker:
    """This project's worker, for these settings."""
    redis = connect(settings.redis_url.get_secret_value(), queue=settings.queue)
    scheduled = schedule(redis, settings)
    arq = worker_settings(settings, burst=burst)
    arq["cron_jobs"] = cron_jobs(scheduled, run_tick, CRON_TIMEOUT_SECONDS)
    del arq["redis_settings"], arq["poll_delay"]
    lag = LoopLag()
    return EngineWorker(
        effects=lambda ctx: cast("Effects", ctx["transaction"]),
        batched=lambda ctx: cast("Batched", ctx["batches"]),
        ticks=_ticks(scheduled),
        database_ready=lambda ctx: _ping(ctx["engine"]),
        options=Options(
            concurrency=settings.concurrency,
            batch_size=settings.batch_size,
            lease_seconds=settings.lease_seconds,
            max_tries=settings.max_tries,
            grace_seconds=settings.shutdown_grace_seconds,
            result_ttl_seconds=settings.result_ttl_seconds,
            max_payload_bytes=settings.max_payload_bytes,
            log_success_sample=settings.log_success_sample,
        ),
        gathered=logs.buffered,
        measured=lambda ctx: {"loop_lag_seconds": round(lag.seconds, 3), **_pool(ctx.get("engine"))},
        beside=lambda worker: [lag.run, *_pages(settings, worker)],
        redis_pool=redis,
        **arq,
    )


def schedule(redis: Redis, settings: Settings) -> list[ScheduledJob]:
    """All that `worker run` runs by the clock."""
    return [*SCHEDULE.values(), _dead_letter_purge(redis, settings)]


def _ticks(scheduled: Iterable[ScheduledJob]) -> Callable[[dict[Any, Any]], dict[str, Tick]]:
    def tick(ctx: dict[Any, Any], job: ScheduledJob) -> Tick:
        return lambda tick_id: run_tick(ctx | {"job_id": tick_id}, job)

    def ticks(ctx: dict[Any, Any]) -> dict[str, Tick]:
        made = {f"cron:{job.name}": tick(ctx, job) for job in scheduled}
        tracing: Tracing | None = ctx["tracing"]
        return made if tracing is None else tracing.ticks(made)

    return ticks


def _dead_letter_purge(redis: Redis, settings: Settings) -> ScheduledJob:
    """The scheduled job that deletes old dead letters. Jobs know no Redis, so this one is made where it is at hand."""
    letters = DeadLetters(redis, settings.queue)

    async def purge(_sessions: async_sessionmaker[AsyncSession], _retention: Retention) -> int:
        if not settings.dead_letter_retention_days:
            return 0
        return await letters.purge_older(timedelta(days=settings.dead_letter_retention_days))

    return ScheduledJob("purge_dead_letters", purge, minutes=frozenset({37}), hours=None)


def _pool(engine: AsyncEngine | None) -> dict[str, int]:
    if engine is None or not isinstance(engine.pool, QueuePool):
        return {}
    return {"pool_in_use": engine.pool.checkedout(), "pool_idle": engine.pool.checkedin()}


def _pages(settings: Settings, worker: EngineWorker) -> list[Callable[[], Awaitable[None]]]:
    if not settings.http_port:
        return []
    # A tenth of a second at the start, where nobody asks.
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


async def _ping(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def redis_settings(url: str) -> RedisSettings:
    """arq's settings from a URL, escapes in it undone (arq's own reading leaves them in)."""
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


def _startup(settings: Settings) -> Hook:
    async def startup(ctx: dict[str, Any]) -> None:
        # Here, not earlier: arq's command puts its own handlers in place before it starts the worker.
        logs.configure(settings.log_format, settings.log_level)
        asyncio.get_running_loop().set_exception_handler(_log_unhandled)
        engine = create_engine(
            settings.database_url.get_secret_value(), pool_size=settings.concurrency, timeouts=settings.timeouts
        )
        ctx["engine"] = engine
        await wait_for_tables(engine, create=settings.create_tables)
        tracing = ctx["tracing"] = start_tracing(names=REGISTRY, queue=settings.queue)
        sessions = create_sessions(engine) if tracing is None else tracing.sessions(engine)
        ctx["sessions"] = sessions
        ctx["retention"] = Retention(
            ledger=timedelta(days=settings.ledger_retention_days),
            inactive_users=timedelta(days=settings.inactive_user_days) if settings.inactive_user_days else None,
        )
        effects: Effects = Transaction(
            sessions, REGISTRY, max_tries=settings.max_tries, timeout_seconds=settings.job_timeout_seconds
        )
        if tracing is not None:
            effects = tracing.effects(effects)
        batches = Batches(effects, sessions, REGISTRY, timeout_seconds=settings.job_timeout_seconds)
        ctx["transaction"] = effects
        ctx["batches"] = batches if tracing is None else tracing.batched(batches)
        ctx["journal"] = Journal(success_sample=settings.log_success_sample)
        log.info(
            "worker_started",
            queue=settings.queue,
            concurrency=settings.concurrency,
            batch_size=settings.batch_size,
        )

    return startup


async def _shutdown(ctx: dict[str, Any]) -> None:
    if (engine := ctx.get("engine")) is not None:
        await engine.dispose()
    if (tracing := ctx.get("tracing")) is not None:
        await tracing.end()
    log.info("worker_stopped")


def _bounded_loads(max_bytes: int) -> Callable[[bytes], dict[str, Any]]:
    def loads(payload: bytes) -> dict[str, Any]:
        if len(payload) > max_bytes:
            raise wire.TooLargeError(f"the payload is larger than {max_bytes} bytes")
        return wire.loads(payload)

    return loads


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's own text holds the repr of the exception, and with it values.
    error = context.get("exception")
    # It is told when a task is thrown away, in the midst of whatever else is tried then: so in its own context, which
    # Python tells from 3.12 on, or in none.
    own: Context = getattr(context.get("task"), "get_context", Context)()
    told = causes(error) if isinstance(error, BaseException) else None
    own.copy().run(lambda: log.error("unhandled_error", error=told))


def __getattr__(name: str) -> Any:
    """`WorkerSettings` for arq's command: made when it is asked for, so that importing reads no environment."""
    if name != "WorkerSettings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        arguments = worker_settings(Settings.load())
    except (SettingsError, compatibility.Incompatible) as error:
        raise SystemExit(str(error)) from None
    return type("WorkerSettings", (), arguments)
