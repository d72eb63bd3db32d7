"""Scheduled jobs: the last run of each, and the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from worker.dashboard.context import context_of
from worker.database import ledger
from worker.engine.cron import cron_jobs
from worker.model.registry import ScheduledJob


@dataclass(frozen=True, slots=True)
class ScheduledRuns:
    """A scheduled job with its runs, in Unix milliseconds."""

    name: str
    last_id: str | None
    """The job id of the last run, as far back as the ledger goes."""
    last_ms: float | None
    next_ms: float | None


async def show_schedule(request: Request) -> Response:
    """The page."""
    context = context_of(request)
    async with context.backend.sessions() as session:
        runs = await read_runs(session, context.backend.schedule, context.backend.zone)
    return context.templates.page(request, "schedule.html", runs=runs)


async def read_runs(session: AsyncSession, schedule: Sequence[ScheduledJob], zone: tzinfo) -> list[ScheduledRuns]:
    """The last run of each scheduled job from the ledger, and the next from arq; soonest first."""
    last = await ledger.last_ticks(session, [job.name for job in schedule])
    runs = []
    for job in schedule:
        last_id, started = last.get(job.name, (None, None))
        last_ms = None if started is None else started.timestamp() * 1000
        runs.append(ScheduledRuns(job.name, last_id, last_ms, next_run_ms(job, datetime.now(zone))))
    return sorted(runs, key=lambda run: run.next_ms or 0)


def next_run_ms(job: ScheduledJob, now: datetime) -> float | None:
    """When arq runs a job next."""
    (cron_job,) = cron_jobs([job])
    cron_job.calculate_next(now)
    return None if cron_job.next_run is None else cron_job.next_run.timestamp() * 1000
