"""Scheduled jobs: each tick runs once, however many workers see it come.

A tick that no worker saw is missed and not made up for: scheduled jobs here clean up, and the next tick does what the
missed one would have done. Ticks follow one time zone on all hosts (`WORKER_TIMEZONE`). A time of day that the clocks
skip in spring comes an hour later; one that they repeat in autumn comes once.
"""

import time
from collections.abc import Iterable
from typing import Any

import structlog
from arq.cron import CronJob, cron
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from worker.database import ledger
from worker.database.ledger import LedgerEntry
from worker.database.session import session_scope
from worker.engine.context import runtime_of
from worker.model.failures import causes
from worker.model.log_context import safe_job_id, set_current_job
from worker.model.registry import Retention, ScheduledJob

log = structlog.get_logger("worker.schedule")

# arq locks every job of a killed worker for as long as the longest of its functions may take.
TIMEOUT_SECONDS = 300


async def run_tick(
    sessions: async_sessionmaker[AsyncSession], retention: Retention, job: ScheduledJob, tick_id: str
) -> None:
    """Run a scheduled job for one tick, unless it ran for that tick already.

    The tick is recorded in the ledger before the work, not with it: a tick that fails half-way is not repeated, and the
    next one continues where it stopped.
    """
    job_id = safe_job_id(tick_id)
    set_current_job(tick_id, job.name, 1)
    started = time.monotonic()
    async with session_scope(sessions) as session:
        first = await ledger.record(session, LedgerEntry(tick_id, job.name, "done"))
    if not first:
        log.info("tick_skipped", job=job.name, job_id=job_id)
        return
    try:
        removed = await job.run(sessions, retention)
    except Exception as error:
        log.error("tick_failed", job=job.name, job_id=job_id, error=causes(error))  # noqa: TRY400  # not its text
        raise
    run_ms = round((time.monotonic() - started) * 1000, 1)
    log.info("tick_done", job=job.name, job_id=job_id, removed=removed, run_ms=run_ms)


def queue_name(job: ScheduledJob) -> str:
    """The name of a scheduled job in the queue, which is arq's for cron jobs."""
    return f"cron:{job.name}"


def cron_jobs(schedule: Iterable[ScheduledJob]) -> list[CronJob]:
    """One arq cron job for each scheduled job. arq gives every tick one id, so that one worker takes it."""
    jobs = []
    for job in schedule:

        async def tick(ctx: dict[Any, Any], name: str = queue_name(job)) -> None:
            await runtime_of(ctx).ticks[name](ctx["job_id"])

        jobs.append(
            cron(
                tick,
                name=queue_name(job),
                minute=set(job.minutes),
                hour=set(job.hours) if job.hours else None,
                second=0,
                unique=True,
                timeout=TIMEOUT_SECONDS,
                max_tries=1,
            )
        )
    return jobs
