"""One tick of a scheduled job: run once, however many workers see it come.

A tick that no worker was there to see is missed, and not made good: what is scheduled here cleans up, and the next tick
does what the missed one would have done. Ticks go by one time zone for all hosts (`WORKER_TIMEZONE`). A time of
day that the clocks skip in spring comes an hour later; one that they repeat in autumn comes once.
"""

import time
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from worker.database import ledger
from worker.database.session import session_scope
from worker.model.causes import causes
from worker.model.log_context import told_id, trying
from worker.model.registry import ScheduledJob

log = structlog.get_logger("worker.schedule")


async def run_tick(ctx: dict[Any, Any], job: ScheduledJob) -> None:
    """Run a scheduled job for the tick that arq's context names, unless it ran for it already.

    The tick is entered in the ledger before the work, not with it: a tick that fails half-way is not made good, the
    next one carries on where it stopped.
    """
    sessions: async_sessionmaker[AsyncSession] = ctx["sessions"]
    job_id = told_id(ctx["job_id"])
    trying(ctx["job_id"], job.name, ctx.get("job_try", 1))
    started = time.monotonic()
    async with session_scope(sessions) as session:
        entry = ledger.LedgerEntry(ctx["job_id"], job.name, "done")
        first = await ledger.record(session, entry)
    if not first:
        log.info("tick_skipped", job=job.name, job_id=job_id)
        return
    try:
        removed = await job.run(sessions, ctx["retention"])
    except Exception as error:
        log.error("tick_failed", job=job.name, job_id=job_id, error=causes(error))  # noqa: TRY400  # not its text
        raise
    run_ms = round((time.monotonic() - started) * 1000, 1)
    log.info("tick_done", job=job.name, job_id=job_id, removed=removed, run_ms=run_ms)
