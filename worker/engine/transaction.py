"""One attempt of one job: validate, BEGIN, ledger row, handler, reply, COMMIT; or no trace at all.

The ledger row comes first. A second delivery of a job whose first still runs waits on that row, and then finds the
stored outcome, which it returns instead of running the handler. So whatever happens in between (a crash, a lost answer
to COMMIT, two workers with one job), the effect happens once, and the outcome never changes.

For a job without an ordering key of which no other delivery is known, the row comes last, with the reply: one round
trip less. If the row exists by then, the effect is rolled back and the stored outcome returned.

The limit on attempts (`max_tries`) is enforced here: a failure of the last attempt is dead, and so is a job that comes
back after it, by the code `crashed`. `Executor._run_alone` repeats the first rule for faults of the engine's own. The
claimer only sorts out jobs on their last attempt, so that the dispatcher runs them alone.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids, wire
from producers.errors import DETAILS
from producers.messages import Message, problems
from worker.database import ledger
from worker.database.connections import ping
from worker.database.guarded_session import forbid_commit
from worker.database.ledger import LedgerEntry
from worker.database.models import Outcome as OutcomeName
from worker.model.failures import classify, describe, is_lock_timeout
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import AttemptResult, Dead, Done, Outcome, Rejected, Release, Retry
from worker.model.registry import AnyJobType

PING_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Stored:
    """The outcome that the job had before: nothing ran, or what ran was rolled back."""

    result: Outcome | Release


class Transaction:
    """Gives jobs their outcomes. Shared by all the jobs of a worker; holds nothing of any of them.

    Args:
        sessions: where sessions come from; one for each attempt.
        registry: the job types, by name.
        max_tries: a job is dead after this many failed attempts.
        timeout_seconds: how long one attempt may take, COMMIT not included.
    """

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        registry: Mapping[str, AnyJobType],
        *,
        max_tries: int,
        timeout_seconds: float,
    ) -> None:
        self._sessions = sessions
        self._registry = registry
        self._max_tries = max_tries
        self._timeout_seconds = timeout_seconds

    async def run(self, job: ClaimedJob) -> Attempt:
        """Run one attempt. Raises only when it is cancelled, and then has left no trace."""
        return self._ended(job, await self._run(job))

    async def record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        """Record the outcome of a job that is not to run. If it has one already, that one is returned."""
        return self._ended(job, await self._record(job, outcome, None))

    @staticmethod
    def _ended(job: ClaimedJob, result: AttemptResult | Stored) -> Attempt:
        job.progress.committing = False  # the next job of its batch may be cancelled again
        if isinstance(result, Stored):
            return Attempt(job, result.result, redelivered=True)
        return Attempt(job, result)

    async def _run(self, job: ClaimedJob) -> AttemptResult | Stored:
        if not ids.is_job_id(job.job_id):
            # Such an id may be anything, so the ledger does not hold it.
            return Dead("undecodable", f"a job id must match {ids.JOB_ID_FORM}")
        if (job_type := self._registry.get(job.name)) is None:
            return await self._record(job, Dead("unknown_job", DETAILS["unknown_job"]), None)
        try:
            message = job_type.message.model_validate(job.fields)
        except ValidationError as error:
            digest = wire.digest(job.name, to_json(job.fields))
            return await self._record(job, Rejected("invalid", "; ".join(problems(error))), digest)
        digest = wire.digest(job.name, wire.fields_json(message))
        if job.attempt > self._max_tries:
            # Every counted attempt ends in an outcome or a retry; one that ended in neither took its worker down.
            return await self._record(job, Dead("crashed", DETAILS["crashed"]), digest)

        result = await self._attempt(job, job_type, message, digest)
        if isinstance(result, Retry) and result.code == "timeout" and not await self._database_answers():
            result = Release("the database does not answer")
        if isinstance(result, Retry) and job.attempt >= self._max_tries:
            result = Dead(result.code, result.detail, result.causes)
        if isinstance(result, Rejected | Dead):
            return await self._record(job, result, digest)
        return result

    async def _attempt(
        self, job: ClaimedJob, job_type: AnyJobType, message: Message[Any], digest: bytes
    ) -> AttemptResult | Stored:
        session = self._sessions()
        recording = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if not job.ledger_last:
                    recording = True
                    if not await ledger.record(session, LedgerEntry(job.job_id, job.name, "done", digest=digest)):
                        return await self._stored(session, job, digest)
                    recording = False
                with forbid_commit(session):
                    reply = (await job_type.handler(session, message)).model_dump_json()
                if job.ledger_last:
                    recording = True
                    entry = LedgerEntry(job.job_id, job.name, "done", reply=reply, digest=digest)
                    if not await ledger.record(session, entry):
                        return await self._stored(session, job, digest)
                else:
                    await ledger.set_reply(session, job.job_id, reply)
            job.progress.committing = True
            await session.commit()
            # With its commit the session has returned its connection.
            return Done(reply)
        except Exception as error:  # noqa: BLE001  # every exception is classified
            result = classify(error)
            if isinstance(result, Release) or not recording or job.progress.committing:
                return result
            if is_lock_timeout(error) or not job.ledger_last:
                detail = f"the ledger could not be read: {describe(error)}"
                return Release(detail, outage=not is_lock_timeout(error))
            return result
        finally:
            await close_session(session)

    async def _database_answers(self) -> bool:
        """Whether the job itself took too long. When a server goes silent, an attempt times out just the same."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                await ping(self._sessions.kw["bind"])
        except Exception:  # noqa: BLE001  # any failure means that there is no answer
            return False
        return True

    async def _record(
        self, job: ClaimedJob, outcome: Rejected | Dead, digest: bytes | None
    ) -> Outcome | Release | Stored:
        """Record an outcome that left no trace of its own, unless the job has one already."""
        kind: OutcomeName = "rejected" if isinstance(outcome, Rejected) else "dead"
        entry = LedgerEntry(job.job_id, job.name, kind, code=outcome.code, detail=outcome.detail, digest=digest)
        session = self._sessions()
        try:
            if not await ledger.record(session, entry):
                return await self._stored(session, job, digest)
            job.progress.committing = True
            await session.commit()
        except Exception as error:  # noqa: BLE001  # after any failure, the job keeps its turn and comes back
            result = classify(error)
            if isinstance(result, Release):
                return result
            detail = f"the outcome could not be recorded: {describe(error)}"
            return Release(detail, outage=not is_lock_timeout(error))
        else:
            return outcome
        finally:
            await close_session(session)

    async def _stored(self, session: AsyncSession, job: ClaimedJob, digest: bytes | None) -> Stored | Release:
        """The outcome that the job had before."""
        entry = await ledger.find(session, job.job_id)
        if entry is None:
            return Release("the ledger row was purged while it was read", outage=False)
        if digest is not None and entry.digest is not None and digest != entry.digest:
            return Stored(Rejected("conflict", "this job id stands for another content"))
        match entry.outcome:
            case "done":
                return Stored(Done(entry.reply or "null"))
            case "rejected":
                return Stored(Rejected(entry.code, entry.detail or ""))  # type: ignore[arg-type]  # as it was written
            case "dead":
                return Stored(Dead(entry.code, entry.detail or ""))  # type: ignore[arg-type]  # as it was written


async def close_session(session: AsyncSession) -> None:
    """Return the session's connection to the pool and roll back its transaction, if there is one."""
    if not session.in_transaction():
        return
    try:
        # In a task of its own: an attempt that is cancelled must still leave no connection checked out.
        await asyncio.shield(session.close())
    except Exception:  # noqa: BLE001  # the connection is gone, and the transaction with it
        await session.invalidate()
