"""Many jobs of one type in one transaction: BEGIN, the handler's set-based form, ledger rows, COMMIT.

An optimisation that may always give up: the single form (`Transaction.run`) is authoritative. When anything fails, the
shared transaction is rolled back and the batch is split in halves, down to single jobs in sessions of their own.

Here the ledger rows come last, with their replies. That is one statement less, and a row that exists already rolls
everything back, so that a second delivery has no effect here either.

What splits a batch: any exception halves it; a timeout runs all its members alone; a member that is recorded already,
or that the handler answers with None, runs alone. An outage releases the rest. After a cancellation the executor runs
the remaining jobs one by one, or releases them when the worker stops.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids, wire
from producers.messages import Message
from worker.database import ledger
from worker.database.guarded_session import forbid_commit
from worker.database.ledger import LedgerEntry
from worker.engine.context import JobRunner
from worker.engine.transaction import close_session
from worker.model.failures import classify
from worker.model.job import Attempt, ClaimedJob
from worker.model.log_context import set_current_batch, set_current_job
from worker.model.outcome import Done, Rejected, Release
from worker.model.registry import AnyJobType, BatchHandler, Rejection

# The claims of a dead worker come back with one attempt counted, and most of them never began: they are batched like
# the rest. A job that fails again and again, or takes its workers down, then has a session of its own.
MAX_BATCHED_ATTEMPTS = 2


@dataclass(slots=True)
class Member:
    """A job of a batch. `message` is None when it is not valid, or its id is in the batch twice: it then runs alone."""

    job: ClaimedJob
    message: Message[Any] | None
    digest: bytes = b""
    splits: int = 0
    """How often a batch was split that it headed."""


Part = Sequence[Member]
"""Members that are to share a transaction; a single one runs alone."""


class AlreadyRecorded(Exception):
    """Some jobs of the batch have their outcomes already."""


class DatabaseDown(Exception):
    """The database cannot be used: the rest of the batch is released."""

    def __init__(self, release: Release) -> None:
        super().__init__()
        self.release = release


class Batches:
    """Gives jobs of one type their outcomes together. Shared by all the batches of a worker.

    Args:
        runner: gives single jobs their outcomes.
        sessions: where sessions come from; one for each batch or part of one.
        registry: the job types, by name.
        timeout_seconds: how long one attempt of a batch may take, COMMIT not included.
    """

    def __init__(
        self,
        runner: JobRunner,
        sessions: async_sessionmaker[AsyncSession],
        registry: Mapping[str, AnyJobType],
        *,
        timeout_seconds: float,
    ) -> None:
        self._runner = runner
        self._sessions = sessions
        self._registry = registry
        self._timeout_seconds = timeout_seconds

    def accepts(self, job: ClaimedJob) -> bool:
        """Whether a job may share a session: its type has a set-based form, and it has few attempts behind it."""
        job_type = self._registry.get(job.name)
        return (
            job_type is not None
            and job_type.set_based is not None
            and job.attempt <= MAX_BATCHED_ATTEMPTS
            and ids.is_job_id(job.job_id)
        )

    async def run(self, jobs: Sequence[ClaimedJob]) -> AsyncGenerator[Sequence[Attempt], None]:
        """Run one attempt of each of these jobs, all of one type. Yields attempts as soon as they have ended.

        Raises only when it is cancelled; jobs whose attempts were not yielded have then left no trace.
        """
        job_type = self._registry[jobs[0].name]
        members, alone = _read(job_type, jobs)
        parts: list[Part] = [*_singly(reversed(alone)), members]  # the last one is next
        left = {member.job: member for member in (*members, *alone)}
        try:
            while parts:
                part = parts.pop()
                if len(part) <= 1 or job_type.set_based is None:
                    for member in part:
                        attempt = await self._run_alone(member)
                        del left[attempt.job]
                        yield [attempt]
                        if isinstance(attempt.result, Release) and attempt.result.outage:
                            raise DatabaseDown(attempt.result)  # noqa: TRY301  # as from a shared attempt
                else:
                    attempts, remaining = await self._run_shared(job_type.set_based, part)
                    for attempt in attempts:
                        del left[attempt.job]
                    if attempts:
                        yield attempts
                    parts.extend(reversed(remaining))
        except DatabaseDown as down:
            yield [Attempt(job, down.release, splits=left[job].splits) for job in jobs if job in left]

    async def _run_alone(self, member: Member) -> Attempt:
        job = member.job
        set_current_job(job.job_id, job.name, job.attempt)
        attempt = await self._runner.run(job)
        return replace(attempt, splits=member.splits) if member.splits else attempt

    async def _run_shared(
        self, handler: BatchHandler[Any, Any], members: Part
    ) -> tuple[Sequence[Attempt], Sequence[Part]]:
        """Run members in one transaction. Returns the attempts that ended, and the parts to run next, in order."""
        try:
            results = await self._attempt(handler, members)
        except AlreadyRecorded:
            recorded = await self._recorded_ids(members)
            parts = [
                *_singly(member for member in members if member.job.job_id in recorded),
                [member for member in members if member.job.job_id not in recorded],
            ]
        except TimeoutError:
            parts = _singly(members)  # which of them took too long is known only when each runs in its own time
        except Exception as error:  # noqa: BLE001  # every exception is classified
            parts = _halves(members, error)
        else:
            both = list(zip(members, results, strict=True))
            ended = [Attempt(member.job, result, splits=member.splits) for member, result in both if result is not None]
            return ended, _singly(member for member, result in both if result is None)
        members[0].splits += 1
        return [], [part for part in parts if part]

    async def _attempt(self, handler: BatchHandler[Any, Any], members: Part) -> list[Done | Rejected | None]:
        set_current_batch(members[0].job.name, len(members))
        session = self._sessions()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with forbid_commit(session):
                    answers = await handler(session, [member.message for member in members])
                results = [_result(answer) for answer in answers]
                entries = [
                    _entry(member, result)
                    for member, result in zip(members, results, strict=True)
                    if result is not None
                ]
                if entries and not await ledger.record_many(session, entries):
                    raise AlreadyRecorded
            for member in members:
                member.job.progress.committing = True
            await session.commit()
            return results
        finally:
            for member in members:
                member.job.progress.committing = False
            await close_session(session)

    async def _recorded_ids(self, members: Part) -> set[str]:
        """Which members have an outcome already; all of them when that cannot be read: each alone finds out."""
        job_ids = [member.job.job_id for member in members]
        session = self._sessions()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await ledger.recorded_ids(session, job_ids) or set(job_ids)
        except Exception as error:  # noqa: BLE001  # every exception is classified
            _halves(members, error)  # raises when the database is down
            return set(job_ids)
        finally:
            await close_session(session)


def _singly(members: Iterable[Member]) -> list[Part]:
    return [[member] for member in members]


def _halves(members: Part, error: Exception) -> list[Part]:
    """The parts to run after an exception, unless it means that nothing can run."""
    if isinstance(result := classify(error), Release):
        raise DatabaseDown(result) from None
    half = len(members) // 2
    return [members[:half], members[half:]]


def _read(job_type: AnyJobType, jobs: Sequence[ClaimedJob]) -> tuple[list[Member], list[Member]]:
    """The members that can share a transaction, and those that run alone."""
    members: dict[str, Member] = {}
    alone: list[Member] = []
    for job in jobs:
        try:
            message = job_type.message.model_validate(job.fields)
        except ValidationError:
            alone.append(Member(job, None))
            continue
        member = Member(job, message, wire.digest(job.name, wire.fields_json(message)))
        # Claimed twice, after Redis has forgotten the first time: the ledger answers the second.
        if members.setdefault(job.job_id, member) is not member:
            alone.append(member)
    return list(members.values()), alone


def _result(answer: Any) -> Done | Rejected | None:
    match answer:
        case None:
            return None
        case Rejection():
            return Rejected(answer.code, answer.detail)
        case _:
            return Done(answer.model_dump_json())


def _entry(member: Member, result: Done | Rejected) -> LedgerEntry:
    job = member.job
    if isinstance(result, Done):
        return LedgerEntry(job.job_id, job.name, "done", reply=result.reply, digest=member.digest)
    return LedgerEntry(job.job_id, job.name, "rejected", code=result.code, detail=result.detail, digest=member.digest)
