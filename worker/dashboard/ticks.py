"""When each scheduled job ran last, and when it runs next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from sqlalchemy.ext.asyncio import AsyncSession

from worker.database import ledger
from worker.engine.cron import cron_jobs
from worker.model.registry import ScheduledJob


@dataclass(frozen=True, slots=True)
class Ticks:
    """A scheduled job on its clock. Times are in milliseconds of the Unix clock."""

    name: str
    last_id: str | None
    """The job id of the last tick that a worker took, as far as the ledger goes back."""
    last_ms: float | None
    next_ms: float | None


async def ticks(
    session: AsyncSession, schedule: Sequence[ScheduledJob], zone: tzinfo, now: datetime | None = None
) -> list[Ticks]:
    """Ask the ledger, and arq for what comes. Those that come first are first."""
    last = await ledger.last_ticks(session, [job.name for job in schedule])
    found = []
    for job in schedule:
        last_id, began = last.get(job.name, (None, None))
        last_ms = None if began is None else began.timestamp() * 1000
        found.append(Ticks(job.name, last_id, last_ms, next_ms(job, now or datetime.now(zone))))
    return sorted(found, key=lambda tick: tick.next_ms or 0)


def next_ms(job: ScheduledJob, now: datetime) -> float | None:
    """When arq will let a job run next."""
    (cron_job,) = cron_jobs([job])
    cron_job.calculate_next(now)
    return None if cron_job.next_run is None else cron_job.next_run.timestamp() * 1000
