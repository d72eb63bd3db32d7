"""Many jobs of one kind in one session and one transaction: BEGIN, set-based handler, ledger rows, COMMIT.

An optimisation that may always give up: the single form (`Transaction.run`) is the truth. When anything fails, the
shared transaction is rolled back and the batch is split in halves, down to single jobs in sessions of their own.

Here the ledger rows come last, with their replies: one statement less, and a row that is there already rolls all of it
back, so that a second delivery has no effect here either.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids, wire
from producers.messages import Message
from worker.database import ledger
from worker.database.guarded_session import forbid_commit
from worker.database.ledger import LedgerEntry
from worker.engine.executor import Effects
from worker.engine.transaction import Claim, end_session
from worker.model.failures import classify
from worker.model.log_context import trying, trying_batch
from worker.model.outcome import Attempt, Done, Rejected, Release
from worker.model.registry import AnyJobType, BatchHandler, Rejection

# What a dead worker had claimed comes back with one try counted, most of it never begun: so it is done as quickly as
# the rest. What fails again and again, or takes its workers down, has a session of its own from then on.
MOST_TRIES = 2

Tell = Callable[[Sequence[tuple[Claim, Attempt]]], None]


@dataclass(frozen=True, slots=True)
class Member:
    """A claim whose message is valid."""

    claim: Claim
    message: Message[Any]
    digest: bytes


class Delivered(Exception):
    """Some jobs of the batch have their outcomes already."""


class Away(Exception):
    """The database cannot be used: what is left of the batch is given back."""

    def __init__(self, release: Release) -> None:
        super().__init__()
        self.release = release


class Batches:
    """Gives claims of one kind their outcomes together. Shared by all the batches of a worker.

    Args:
        transaction: gives single claims theirs.
        sessions: where sessions come from; one a batch or a part of one.
        registry: the kinds of jobs, by name.
        timeout_seconds: how long one try of a batch may take, COMMIT not included.
    """

    def __init__(
        self,
        transaction: Effects,
        sessions: async_sessionmaker[AsyncSession],
        registry: Mapping[str, AnyJobType],
        *,
        timeout_seconds: float,
    ) -> None:
        self._transaction = transaction
        self._sessions = sessions
        self._registry = registry
        self._timeout_seconds = timeout_seconds

    def takes(self, claim: Claim) -> bool:
        """Whether a claim may share a session: its kind has a set-based form, and it has hardly been tried before."""
        job = self._registry.get(claim.job)
        return (
            job is not None and job.set_based is not None and claim.tries <= MOST_TRIES and ids.is_job_id(claim.job_id)
        )

    async def run(self, claims: Sequence[Claim], tell: Tell) -> None:
        """Try claims of one kind once, and tell what each comes to as soon as it is known.

        Raises only when it is cancelled; those that nothing was told of have then left no trace.
        """
        left = {id(claim): claim for claim in claims}

        def told(attempts: Sequence[tuple[Claim, Attempt]]) -> None:
            for claim, _ in attempts:
                del left[id(claim)]
            tell(attempts)

        job = self._registry[claims[0].job]
        members, alone = _members(job, claims)
        try:
            if job.set_based is not None and members:
                await self._together(job.set_based, members, told)
            else:
                alone = list(claims)
            for claim in alone:
                await self._alone(claim, told)
        except Away as away:
            told([(claim, away.release) for claim in left.values()])

    async def _together(self, handler: BatchHandler[Any, Any], members: Sequence[Member], tell: Tell) -> None:
        """Try a batch, or its parts, in the order of its members."""
        if len(members) == 1:
            await self._alone(members[0].claim, tell)
            return
        parts: list[Sequence[Member]]
        rolled_back = True
        try:
            attempts = await self._attempt(handler, members)
        except Delivered:
            known = await self._known(members)
            parts = [
                *_singly(member for member in members if member.claim.job_id in known),
                [member for member in members if member.claim.job_id not in known],
            ]
        except TimeoutError:
            parts = _singly(members)  # whose fault it was only each alone can show, in its own time
        except Exception as error:  # noqa: BLE001  # every exception is told apart by the table
            parts = _halves(members, error)
        else:
            rolled_back = False
            answered = zip(members, attempts, strict=True)
            tell([(member.claim, attempt) for member, attempt in answered if attempt is not None])
            parts = _singly(member for member, attempt in zip(members, attempts, strict=True) if attempt is None)
        members[0].claim.splits += rolled_back
        for part in parts:
            if part:
                await self._together(handler, part, tell)

    async def _alone(self, claim: Claim, tell: Tell) -> None:
        trying(claim.job_id, claim.job, claim.tries)
        attempt = await self._transaction.run(claim)
        claim.committing = False  # it has been; the next one is not yet
        tell([(claim, attempt)])
        if isinstance(attempt, Release) and attempt.outage:
            raise Away(attempt)

    async def _attempt(
        self, handler: BatchHandler[Any, Any], members: Sequence[Member]
    ) -> list[Done | Rejected | None]:
        trying_batch(members[0].claim.job, len(members))
        session = self._sessions()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with forbid_commit(session):
                    answers = await handler(session, [member.message for member in members])
                attempts = [_attempt(answer) for answer in answers]
                entries = [
                    _entry(member, attempt)
                    for member, attempt in zip(members, attempts, strict=True)
                    if attempt is not None
                ]
                if entries and not await ledger.record_many(session, entries):
                    raise Delivered
            for member in members:
                member.claim.committing = True
            await session.commit()
            return attempts
        finally:
            for member in members:
                member.claim.committing = False
            await end_session(session)

    async def _known(self, members: Sequence[Member]) -> set[str]:
        """Who has an outcome already; all of them, should nobody be able to tell: each alone finds out."""
        job_ids = [member.claim.job_id for member in members]
        session = self._sessions()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await ledger.recorded_ids(session, job_ids) or set(job_ids)
        except Exception as error:  # noqa: BLE001  # every exception is told apart by the table
            _halves(members, error)  # raises when nothing can be tried
            return set(job_ids)
        finally:
            await end_session(session)


def _singly(members: Iterable[Member]) -> list[Sequence[Member]]:
    return [[member] for member in members]


def _halves(members: Sequence[Member], error: Exception) -> list[Sequence[Member]]:
    """What is tried after an exception, unless it says that nothing can be."""
    if isinstance(attempt := classify(error), Release):
        raise Away(attempt) from None
    half = len(members) // 2
    return [members[:half], members[half:]]


def _members(job: AnyJobType, claims: Sequence[Claim]) -> tuple[list[Member], list[Claim]]:
    """Who can share a session, and who cannot."""
    members: dict[str, Member] = {}
    alone: list[Claim] = []
    for claim in claims:
        try:
            message = job.message.model_validate(claim.fields)
        except ValidationError:
            alone.append(claim)
            continue
        member = Member(claim, message, wire.digest(claim.job, wire.fields_json(message)))
        # Claimed twice, after Redis has forgotten the first time: the ledger answers the second.
        if members.setdefault(claim.job_id, member) is not member:
            alone.append(claim)
    return list(members.values()), alone


def _attempt(answer: Any) -> Done | Rejected | None:
    match answer:
        case None:
            return None
        case Rejection():
            return Rejected(answer.code, answer.detail)
        case _:
            return Done(answer.model_dump_json())


def _entry(member: Member, attempt: Done | Rejected) -> LedgerEntry:
    claim = member.claim
    if isinstance(attempt, Done):
        return LedgerEntry(claim.job_id, claim.job, "done", reply=attempt.reply, digest=member.digest)
    return LedgerEntry(
        claim.job_id, claim.job, "rejected", code=attempt.code, detail=attempt.detail, digest=member.digest
    )
