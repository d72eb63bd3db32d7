"""Everything that Redis and the ledger have of one job."""

from dataclasses import dataclass, fields
from datetime import datetime

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids
from producers.errors import CANCELLED
from producers.job_status import JobStatus
from worker.database import ledger
from worker.database.connections import DATABASE_ERRORS, describe_error
from worker.queue.inspect import MAX_RESULT_BYTES, JobSnapshot, read_job_snapshot


@dataclass(frozen=True, kw_only=True)
class JobRecords(JobSnapshot):
    """What Redis has of a job, and its ledger row."""

    recorded: ledger.LedgerEntry | None = None
    recorded_at: datetime | None = None
    ledger_error: str | None = None
    """Why the ledger could not be read."""

    @property
    def exists(self) -> bool:
        """Whether there is any record of the job."""
        return any((self.score is not None, self.payload, self.stored, self.letter, self.recorded))

    @property
    def _ended(self) -> JobStatus | None:
        """How the job ended. The ledger remembers outcomes for longer than Redis keeps results."""
        if self.result is None and self.recorded is not None:
            cancelled = self.recorded.code == CANCELLED
            return JobStatus.CANCELLED if cancelled else JobStatus(self.recorded.outcome)
        return super()._ended


async def read_job_records(
    redis: Redis, queue: str, sessions: async_sessionmaker[AsyncSession], job_id: bytes, max_bytes: int
) -> JobRecords:
    """Read what both servers have of a job. Raises what the Redis client raises; a database that is down is reported.

    Args:
        redis: the client.
        queue: the queue's name.
        sessions: for the ledger.
        job_id: which job.
        max_bytes: a larger payload is not read.
    """
    snapshot = await read_job_snapshot(redis, queue, job_id, max_bytes)
    facts = {field.name: getattr(snapshot, field.name) for field in fields(snapshot)}
    text = job_id.decode("ascii", "replace")
    if not ids.is_job_id(text):
        return JobRecords(**facts)  # the ledger holds only valid job ids
    try:
        async with sessions() as session:
            found = await ledger.find_with_time(session, text, MAX_RESULT_BYTES)
    except DATABASE_ERRORS as error:
        return JobRecords(**facts, ledger_error=describe_error(error))
    entry, at = found or (None, None)
    return JobRecords(**facts, recorded=entry, recorded_at=at)
