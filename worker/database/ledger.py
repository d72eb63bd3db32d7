"""The ledger: which jobs have had their outcome, and what it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import any_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from worker.database.models import LedgerRow, Outcome
from worker.database.owned import TransactionEnded
from worker.database.statements import execute, fetch


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger: `reply` is JSON when the outcome is done, `code` and `detail` say why it is not."""

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
# The ids of one name differ in their digits alone, so their order is that of time by any collation.
_LAST_TICKS = """
SELECT name, last.job_id, last.recorded_at
FROM unnest($1::varchar[]) AS name, LATERAL (
    SELECT job_id, recorded_at FROM job_ledger
    WHERE job_id BETWEEN 'cron:' || name || ':0' AND 'cron:' || name || ':9999999999999'
        AND starts_with(job_id, 'cron:' || name || ':')
    ORDER BY job_id DESC LIMIT 1
) AS last
"""
_KNOWN = "SELECT job_id FROM job_ledger WHERE job_id = ANY($1::varchar[])"
_SET_REPLY = "UPDATE job_ledger SET reply = $2 WHERE job_id = $1"
# Locked in one order, so that two who forget the same jobs at once wait for, and not on, each other.
_FORGET_DEAD = """
WITH dead AS MATERIALIZED (
    SELECT job_id FROM job_ledger WHERE job_id = ANY($1::varchar[]) AND outcome = 'dead' ORDER BY job_id FOR UPDATE
)
DELETE FROM job_ledger USING dead WHERE job_ledger.job_id = dead.job_id
RETURNING job_ledger.job_id, job, outcome, code, detail, reply::text, digest
"""


async def enter(session: AsyncSession, entry: Entry) -> bool:
    """Write the outcome of a job unless it has one already; whether it was written.

    Waits while another transaction that has written the same job is open, and then sees what became of it.
    """
    values = entry.job_id, entry.job, entry.outcome, entry.code, entry.detail, entry.reply, entry.digest
    return await execute(session, _INSERT, *values) == 1


async def enter_many(session: AsyncSession, entries: Sequence[Entry]) -> bool:
    """Write the outcomes, done or rejected, of jobs of one kind; whether none of them had one already.

    In the order of the ids, so that two who write the same jobs at once wait for, and not on, each other.
    """
    columns = ([getattr(entry, name) for entry in entries] for name in ("job_id", "code", "detail", "reply", "digest"))
    return await execute(session, _INSERT_MANY, entries[0].job, *columns) == len(entries)


async def known(session: AsyncSession, job_ids: Sequence[str]) -> set[str]:
    """Those of these jobs that have their outcomes."""
    return {job_id for (job_id,) in await fetch(session, _KNOWN, list(job_ids))}


async def set_reply(session: AsyncSession, job_id: str, reply: str) -> None:
    """Add the reply to a row that this transaction has entered.

    Raises:
        TransactionEnded: when the row is not there: somebody rolled the transaction back meanwhile.
    """
    if await execute(session, _SET_REPLY, job_id, reply) != 1:
        raise TransactionEnded


async def find(session: AsyncSession, job_id: str) -> Entry | None:
    """The outcome of a job, or None when it has none."""
    row = await session.scalar(
        select(LedgerRow).where(LedgerRow.job_id == job_id), execution_options={"populate_existing": True}
    )
    if row is None:
        return None
    return Entry(row.job_id, row.job, row.outcome, row.code, row.detail, row.reply, row.digest)


async def recorded(session: AsyncSession, job_id: str, reply_length: int) -> tuple[Entry, datetime] | None:
    """The outcome of a job, and when it was written down; no more than so many characters of its reply."""
    rows = await fetch(session, _RECORDED, job_id, reply_length)
    return next(((Entry(*row[:-1]), row[-1]) for row in rows), None)


async def last_ticks(session: AsyncSession, names: Sequence[str]) -> dict[str, tuple[str, datetime]]:
    """The last tick of each of these scheduled jobs that had one: its id, and when it began."""
    return {name: (job_id, began) for name, job_id, began in await fetch(session, _LAST_TICKS, list(names))}


async def forget_dead(session: AsyncSession, job_ids: Sequence[str]) -> list[Entry]:
    """Delete the rows of those of these jobs that are dead, so that they can be tried anew; returns what was deleted.

    Waits while another transaction does the same. Any other outcome stays: a job that is done is never done again.
    """
    return [Entry(*tuple(row)) for row in await fetch(session, _FORGET_DEAD, list(job_ids))]


async def purge(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete at most `limit` rows that were recorded before a time; how many there were."""
    old = select(LedgerRow.job_id).where(LedgerRow.recorded_at < before).limit(limit).with_for_update(skip_locked=True)
    deleted = await session.scalars(
        # As an array: `IN` may be joined over a scan of the whole table, and look for old rows more than once.
        delete(LedgerRow)
        .where(LedgerRow.job_id == any_(func.array(old.scalar_subquery())))
        .returning(LedgerRow.job_id),
        execution_options={"synchronize_session": False},
    )
    return len(deleted.all())
