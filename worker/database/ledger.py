"""The ledger: which jobs have had their outcome, and what it was."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import any_, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.database.models import LedgerRow, Outcome


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


_INSERT = insert(LedgerRow).on_conflict_do_nothing(index_elements=[LedgerRow.job_id])
_SET_REPLY = update(LedgerRow).where(LedgerRow.job_id == bindparam("of_job")).values(reply=bindparam("reply"))
_FIND = select(
    LedgerRow.job_id, LedgerRow.job, LedgerRow.outcome, LedgerRow.code, LedgerRow.detail, LedgerRow.reply,
    LedgerRow.digest,
).where(LedgerRow.job_id == bindparam("of_job"))  # fmt: skip


async def enter(connection: AsyncConnection, entry: Entry) -> bool:
    """Write the outcome of a job unless it has one already; whether it was written.

    Waits while another transaction that has written the same job is open, and then sees what became of it.
    """
    result = await connection.execute(
        _INSERT,
        {
            "job_id": entry.job_id,
            "job": entry.job,
            "outcome": entry.outcome,
            "code": entry.code,
            "detail": entry.detail,
            "reply": entry.reply,
            "digest": entry.digest,
        },
    )
    return result.rowcount == 1


async def set_reply(connection: AsyncConnection, job_id: str, reply: str) -> None:
    """Add the reply to a row that this transaction has entered."""
    await connection.execute(_SET_REPLY, {"of_job": job_id, "reply": reply})


async def find(connection: AsyncConnection, job_id: str) -> Entry | None:
    """The outcome of a job, or None when it has none."""
    row = (await connection.execute(_FIND, {"of_job": job_id})).one_or_none()
    return None if row is None else Entry(*row)


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
