"""The ledger: the jobs whose outcome is committed, and their outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from worker.database.guarded_session import TransactionEnded
from worker.database.models import LedgerRow, Outcome
from worker.database.sql import execute, fetch, is_among


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A row of the ledger. `reply` is JSON and only for done; `code` and `detail` are the reason for all else."""

    job_id: str
    job: str
    outcome: Outcome
    code: str | None = None
    detail: str | None = None
    reply: str | None = None
    digest: bytes | None = None


_INSERT = """
INSERT INTO job_ledger (job_id, job, outcome, code, detail, reply, digest) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (job_id) DO NOTHING
"""
_INSERT_MANY = """
INSERT INTO job_ledger (job_id, job, outcome, code, detail, reply, digest)
SELECT job_id, $1, CASE WHEN code IS NULL THEN 'done' ELSE 'rejected' END, code, detail, reply::json, digest
FROM unnest($2::varchar[], $3::varchar[], $4::varchar[], $5::text[], $6::bytea[])
    AS new (job_id, code, detail, reply, digest)
ORDER BY job_id
ON CONFLICT (job_id) DO NOTHING
"""
_RECORDED = """
SELECT job_id, job, outcome, code, detail, left(reply::text, $2), digest, recorded_at
FROM job_ledger WHERE job_id = $1
"""
# Ids of one scheduled job differ only in their digits, so any collation sorts them by time.
_LAST_TICKS = """
SELECT name, last.job_id, last.recorded_at
FROM unnest($1::varchar[]) AS name, LATERAL (
    SELECT job_id, recorded_at FROM job_ledger
    WHERE job_id BETWEEN 'cron:' || name || ':0' AND 'cron:' || name || ':9999999999999'
        AND starts_with(job_id, 'cron:' || name || ':')
    ORDER BY job_id DESC LIMIT 1
) AS last
"""
_RECORDED_IDS = "SELECT job_id FROM job_ledger WHERE job_id = ANY($1::varchar[])"
_SET_REPLY = "UPDATE job_ledger SET reply = $2 WHERE job_id = $1"
# Locks in the order of the ids, so that two transactions with the same jobs cannot deadlock.
_FORGET_DEAD = """
WITH dead AS MATERIALIZED (
    SELECT job_id FROM job_ledger WHERE job_id = ANY($1::varchar[]) AND outcome = 'dead' ORDER BY job_id FOR UPDATE
)
DELETE FROM job_ledger USING dead WHERE job_ledger.job_id = dead.job_id
RETURNING job_ledger.job_id, job, outcome, code, detail, reply::text, digest
"""


async def record(session: AsyncSession, entry: LedgerEntry) -> bool:
    """Insert the outcome of a job. Return False if the job has one already.

    Waits for an open transaction that has inserted the same job.
    """
    values = entry.job_id, entry.job, entry.outcome, entry.code, entry.detail, entry.reply, entry.digest
    return await execute(session, _INSERT, *values) == 1


async def record_many(session: AsyncSession, entries: Sequence[LedgerEntry]) -> bool:
    """Insert the outcomes (done or rejected) of jobs of one type. Return False if any of them has one already.

    Inserts in the order of the ids, so that two transactions with the same jobs cannot deadlock.
    """
    columns = ([getattr(entry, name) for entry in entries] for name in ("job_id", "code", "detail", "reply", "digest"))
    return await execute(session, _INSERT_MANY, entries[0].job, *columns) == len(entries)


async def recorded_ids(session: AsyncSession, job_ids: Sequence[str]) -> set[str]:
    """Return those of these jobs that have an outcome."""
    return {job_id for (job_id,) in await fetch(session, _RECORDED_IDS, list(job_ids))}


async def set_reply(session: AsyncSession, job_id: str, reply: str) -> None:
    """Add the reply to a row that this transaction has inserted.

    Raises:
        TransactionEnded: the row is missing, so the handler has rolled the transaction back.
    """
    if await execute(session, _SET_REPLY, job_id, reply) != 1:
        raise TransactionEnded


async def find(session: AsyncSession, job_id: str) -> LedgerEntry | None:
    """Return the outcome of a job, or None when it has none."""
    row = await session.scalar(
        select(LedgerRow).where(LedgerRow.job_id == job_id), execution_options={"populate_existing": True}
    )
    if row is None:
        return None
    return LedgerEntry(row.job_id, row.job, row.outcome, row.code, row.detail, row.reply, row.digest)


async def find_with_time(session: AsyncSession, job_id: str, reply_length: int) -> tuple[LedgerEntry, datetime] | None:
    """Return the outcome of a job and the time it was recorded; the reply is cut at `reply_length` characters."""
    rows = await fetch(session, _RECORDED, job_id, reply_length)
    return next(((LedgerEntry(*row[:-1]), row[-1]) for row in rows), None)


async def last_ticks(session: AsyncSession, names: Sequence[str]) -> dict[str, tuple[str, datetime]]:
    """Return the id and the start of the last tick of each of these scheduled jobs, if it had one."""
    return {name: (job_id, began) for name, job_id, began in await fetch(session, _LAST_TICKS, list(names))}


async def forget_dead(session: AsyncSession, job_ids: Sequence[str]) -> list[LedgerEntry]:
    """Delete and return the rows of those of these jobs that are dead, so that they can run again.

    Waits for another transaction that deletes them. Keeps every other outcome: a job that is done never runs again.
    """
    return [LedgerEntry(*tuple(row)) for row in await fetch(session, _FORGET_DEAD, list(job_ids))]


async def purge(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete at most `limit` rows that were recorded before a time. Return how many were deleted."""
    old = select(LedgerRow.job_id).where(LedgerRow.recorded_at < before).limit(limit).with_for_update(skip_locked=True)
    deleted = await session.scalars(
        delete(LedgerRow).where(is_among(LedgerRow.job_id, old)).returning(LedgerRow.job_id),
        execution_options={"synchronize_session": False},
    )
    return len(deleted.all())
