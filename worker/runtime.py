"""The composition root: everything that jobs need, made from the settings and closed in reverse order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from worker.database.session import create_engine, create_sessions
from worker.database.startup import wait_for_schema
from worker.engine.batch import Batches
from worker.engine.context import BatchRunner, JobRunner, Runtime, Tick
from worker.engine.cron import queue_name, run_tick
from worker.engine.job_log import JobLog
from worker.engine.transaction import Transaction
from worker.jobs import REGISTRY, SCHEDULE, Retention, ScheduledJob
from worker.observability import logs
from worker.observability.tracing.setup import start as start_tracing
from worker.queue.dead_letters import DeadLetters
from worker.settings import Settings


@asynccontextmanager
async def open_runtime(settings: Settings, redis: Redis) -> AsyncIterator[Runtime]:
    """Open everything that jobs need. Waits for the database, and for its tables or the migration that makes them.

    Args:
        settings: of the worker.
        redis: the client; only scheduled jobs use it here.
    """
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(_open_database(settings))
        tracing = start_tracing(names=REGISTRY, queue=settings.queue)
        if tracing is not None:
            stack.push_async_callback(tracing.close)
        sessions = create_sessions(engine) if tracing is None else tracing.sessions(engine)
        runner: JobRunner = Transaction(
            sessions, REGISTRY, max_tries=settings.max_tries, timeout_seconds=settings.job_timeout_seconds
        )
        if tracing is not None:
            runner = tracing.runner(runner)
        batches: BatchRunner = Batches(runner, sessions, REGISTRY, timeout_seconds=settings.job_timeout_seconds)
        ticks = _ticks(settings, redis, sessions)
        if tracing is not None:
            batches, ticks = tracing.batches(batches), tracing.ticks(ticks)
        job_log = JobLog(frozenset([*REGISTRY, *ticks]), settings.log_success_sample, logs.buffered)
        yield Runtime(engine, sessions, runner, batches, ticks, job_log)


def scheduled_jobs(settings: Settings, redis: Redis) -> list[ScheduledJob]:
    """Every scheduled job of `worker run`.

    Handlers know no Redis, so the one that purges dead letters is made here.
    """
    letters = DeadLetters(redis, settings.queue)

    async def purge(_sessions: async_sessionmaker[AsyncSession], _retention: Retention) -> int:
        if not settings.dead_letter_retention_days:
            return 0
        return await letters.purge_older(timedelta(days=settings.dead_letter_retention_days))

    return [*SCHEDULE.values(), ScheduledJob("purge_dead_letters", purge, minutes=frozenset({37}), hours=None)]


@asynccontextmanager
async def _open_database(settings: Settings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(
        settings.database_url.get_secret_value(), pool_size=settings.concurrency, timeouts=settings.timeouts
    )
    try:
        await wait_for_schema(engine, create=settings.create_tables)
        yield engine
    finally:
        await engine.dispose()


def _ticks(settings: Settings, redis: Redis, sessions: async_sessionmaker[AsyncSession]) -> dict[str, Tick]:
    inactive_days = settings.inactive_user_days
    retention = Retention(
        ledger=timedelta(days=settings.ledger_retention_days),
        inactive_users=timedelta(days=inactive_days) if inactive_days else None,
    )
    return {queue_name(job): partial(run_tick, sessions, retention, job) for job in scheduled_jobs(settings, redis)}
