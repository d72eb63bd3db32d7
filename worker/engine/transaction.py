"""One try of one job: validate, BEGIN, ledger row, handler, reply, COMMIT; or no trace at all.

The ledger row comes first. A second delivery of a job whose first is still running waits on that row, and then finds
the stored outcome, which it returns instead of running the handler. So whatever happens in between (a crash, a lost
answer to COMMIT, two workers with one job), the effect is there once, and the outcome never changes.

Of a job without an ordering key that nothing is known of, the row comes last, with the reply: a round trip less.
Should it be there by then all the same, the effect is rolled back, and the stored outcome returned.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids, wire
from producers.messages import Message, problems
from worker.database import ledger
from worker.database.guarded_session import forbid_commit
from worker.database.ledger import LedgerEntry
from worker.database.models import Outcome as OutcomeName
from worker.model.failures import classify, describe, waited
from worker.model.outcome import Attempt, Dead, Done, Outcome, Rejected, Release, Retry
from worker.model.registry import AnyJobType

ANSWER_SECONDS = 2.0


@dataclass(slots=True)
class Claim:
    """A job that this worker has claimed."""

    job_id: str
    job: str
    fields: dict[str, Any]
    tries: int
    """How many tries of it have begun, this one included."""
    first: bool = False
    """Whether, for all that is known, nobody has tried it before, so that its ledger row may come last."""
    redelivered: bool = False
    """Whether the job had its outcome already, so that nothing was run."""
    committing: bool = False
    """Whether COMMIT has been sent: from here on the try must not be cancelled, only awaited."""
    due_ms: float = 0.0
    """Since when it was due, in milliseconds of Redis's clock."""
    headers: Mapping[str, str] | None = None
    """What its producer said beside the message, as it was read: it may be anything."""
    traced: tuple[str, str] | None = None
    """The ids of the trace and the span that tell of its try, when one does."""
    splits: int = 0
    """How often a batch was split that it stood at the head of."""


class Transaction:
    """Gives claims their outcomes. Shared by all the jobs of a worker; holds nothing of any of them.

    Args:
        sessions: where sessions come from; one a try.
        registry: the kinds of jobs, by name.
        max_tries: after how many failed tries a job is dead.
        timeout_seconds: how long one try may take, COMMIT not included.
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

    async def run(self, claim: Claim) -> Attempt:
        """Try a job once. Raises only when it is cancelled, and then has left no trace."""
        if not ids.is_job_id(claim.job_id):
            # Such an id may be anything, so it is not written down either.
            return Dead("undecodable", f"a job id must match {ids.JOB_ID_FORM}")
        if (job := self._registry.get(claim.job)) is None:
            return await self._settle(claim, Dead("unknown_job", "no job of this name is known here"), None)
        try:
            message = job.message.model_validate(claim.fields)
        except ValidationError as error:
            return await self._settle(claim, Rejected("invalid", "; ".join(problems(error))), _raw_digest(claim))
        digest = wire.digest(claim.job, wire.fields_json(message))
        if claim.tries > self._max_tries:
            # Every try counted ends in an outcome or a retry; one that ended in neither took its worker down.
            return await self._settle(claim, Dead("crashed", "the job took its worker down on its last try"), digest)

        attempt = await self._attempt(claim, job, message, digest)
        if isinstance(attempt, Retry) and attempt.code == "timeout" and not await self._database_answers():
            attempt = Release("the database does not answer")
        if isinstance(attempt, Retry) and claim.tries >= self._max_tries:
            attempt = Dead(attempt.code, attempt.detail, attempt.causes)
        if isinstance(attempt, Rejected | Dead) and not claim.redelivered:
            return await self._settle(claim, attempt, digest)
        return attempt

    async def settle(self, claim: Claim, outcome: Rejected | Dead) -> Outcome | Release:
        """Write down the outcome of a job that is not to be tried; should it have one already, that one is returned."""
        return await self._settle(claim, outcome, None)

    async def _attempt(self, claim: Claim, job: AnyJobType, message: Message[Any], digest: bytes) -> Attempt:
        session = self._sessions()
        entering = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if not claim.first:
                    entering = True
                    if not await ledger.record(session, LedgerEntry(claim.job_id, claim.job, "done", digest=digest)):
                        return await self._stored(session, claim, digest)
                    entering = False
                with forbid_commit(session):
                    reply = (await job.handler(session, message)).model_dump_json()
                if claim.first:
                    entering = True
                    entry = LedgerEntry(claim.job_id, claim.job, "done", reply=reply, digest=digest)
                    if not await ledger.record(session, entry):
                        return await self._stored(session, claim, digest)
                else:
                    await ledger.set_reply(session, claim.job_id, reply)
            claim.committing = True
            await session.commit()
            # With its commit the session has given its connection back.
            return Done(reply)
        except Exception as error:  # noqa: BLE001  # every exception is told apart by the table
            attempt = classify(error)
            if isinstance(attempt, Release) or not entering or claim.committing:
                return attempt
            if waited(error) or not claim.first:
                return Release(f"the ledger could not be asked: {describe(error)}", outage=not waited(error))
            return attempt
        finally:
            await end_session(session)

    async def _database_answers(self) -> bool:
        """Whether it was the job that took its time. A server that went silent lets a try run out just the same."""
        session = self._sessions()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await session.execute(text("SELECT 1"))
        except Exception:  # noqa: BLE001  # whatever it is, it is no answer
            return False
        else:
            return True
        finally:
            await end_session(session)

    async def _settle(self, claim: Claim, outcome: Rejected | Dead, digest: bytes | None) -> Outcome | Release:
        """Write down an outcome that left no trace of its own, unless the job has one already."""
        kind: OutcomeName = "rejected" if isinstance(outcome, Rejected) else "dead"
        entry = LedgerEntry(claim.job_id, claim.job, kind, code=outcome.code, detail=outcome.detail, digest=digest)
        session = self._sessions()
        try:
            if not await ledger.record(session, entry):
                return await self._stored(session, claim, digest)
            claim.committing = True
            await session.commit()
        except Exception as error:  # noqa: BLE001  # whatever it is, the job keeps its turn and comes back
            attempt = classify(error)
            if isinstance(attempt, Release):
                return attempt
            return Release(f"the outcome could not be written down: {describe(error)}", outage=not waited(error))
        else:
            return outcome
        finally:
            await end_session(session)

    async def _stored(self, session: AsyncSession, claim: Claim, digest: bytes | None) -> Outcome | Release:
        """The outcome that the job had before."""
        entry = await ledger.find(session, claim.job_id)
        if entry is None:
            return Release("the ledger row was purged while it was read", outage=False)
        claim.redelivered = True
        if digest is not None and entry.digest is not None and digest != entry.digest:
            return Rejected("conflict", "this job id stands for another content")
        match entry.outcome:
            case "done":
                return Done(entry.reply or "null")
            case "rejected":
                return Rejected(entry.code, entry.detail or "")  # type: ignore[arg-type]  # as it was written
            case "dead":
                return Dead(entry.code, entry.detail or "")  # type: ignore[arg-type]  # as it was written


def _raw_digest(claim: Claim) -> bytes:
    return wire.digest(claim.job, to_json(claim.fields))


async def end_session(session: AsyncSession) -> None:
    """Give back the connection, and with it the transaction if there is one."""
    if not session.in_transaction():
        return
    try:
        # In a task of its own: a try that is cancelled must still leave no connection checked out.
        await asyncio.shield(session.close())
    except Exception:  # noqa: BLE001  # the connection is gone, and the transaction with it
        await session.invalidate()
