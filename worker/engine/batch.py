"""Many jobs of one kind in one session and one transaction: BEGIN, set-based handler, ledger rows, COMMIT.

An optimisation that may always give up: the single form (`Transaction.run`) is the truth. When anything fails, the
shared transaction is rolled back and the batch is split in halves, down to single jobs in sessions of their own.

Here the ledger rows come last, with their replies: one statement less, and a row that is there already rolls all of it
back, so that a second delivery has no effect here either.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from producers import ids, wire
from producers.messages import Message
from worker.database import ledger
from worker.database.ledger import Entry, TransactionEnded
from worker.engine.classify import classify
from worker.engine.outcome import Attempt, Done, Rejected, Release
from worker.engine.transaction import Claim, Transaction, end_session
from worker.jobs.registry import AnyJobType, BatchHandler, Rejection

Tell = Callable[[Claim, Attempt], None]


@dataclass(frozen=True, slots=True)
class Member:
    """A claim whose message is valid."""

    claim: Claim
    message: Message[Any]
    digest: bytes


class Delivered(Exception):
    """Some jobs of the batch have their outcomes already."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.members = members


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
        transaction: Transaction,
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
        """Whether a claim may share a session: its kind has a set-based form, and nothing has befallen it yet."""
        job = self._registry.get(claim.job)
        return job is not None and job.set_based is not None and claim.tries == 1 and ids.is_job_id(claim.job_id)

    async def run(self, claims: Sequence[Claim], tell: Tell) -> None:
        """Try claims of one kind once, and tell what each comes to as soon as it is known.

        Raises only when it is cancelled; those that nothing was told of have then left no trace.
        """
        job = self._registry[claims[0].job]
        members: list[Member] = []
        alone: list[Claim] = []
        for claim in claims:
            try:
                message = job.message.model_validate(claim.fields)
            except ValidationError:
                alone.append(claim)
            else:
                members.append(Member(claim, message, wire.digest(claim.job, wire.fields_json(message))))
        if job.set_based is None:
            alone = list(claims)
        elif members:
            alone += await self._together(job.set_based, members, tell)
        for place, claim in enumerate(alone):
            attempt = await self._transaction.run(claim)
            claim.committing = False  # it has been; the next one is not yet
            tell(claim, attempt)
            if isinstance(attempt, Release) and attempt.outage:
                for other in alone[place + 1 :]:
                    tell(other, attempt)
                return

    async def _together(self, handler: BatchHandler[Any, Any], members: Sequence[Member], tell: Tell) -> list[Claim]:
        """Try a batch, or its parts; returns who needs a session of its own."""
        if len(members) == 1:
            return [members[0].claim]
        try:
            attempts = await self._attempt(handler, members)
        except Delivered as found:
            rest = [member for member in members if member not in found.members]
            alone = [member.claim for member in found.members]
            return alone + (await self._together(handler, rest, tell) if rest else [])
        except TimeoutError:
            return [member.claim for member in members]  # whose fault it was only each alone can show, in its own time
        except Exception as error:  # noqa: BLE001  # every exception is told apart by the table
            if isinstance(attempt := classify(error), Release):
                for member in members:
                    tell(member.claim, attempt)
                return []
            half = len(members) // 2
            first = await self._together(handler, members[:half], tell)
            return first + await self._together(handler, members[half:], tell)
        alone = []
        for member, told in zip(members, attempts, strict=True):
            if told is None:
                alone.append(member.claim)
            else:
                tell(member.claim, told)
        return alone

    async def _attempt(
        self, handler: BatchHandler[Any, Any], members: Sequence[Member]
    ) -> list[Done | Rejected | None]:
        session = self._sessions()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with _the_transaction_is_ours(session.sync_session):
                    answers = await handler(session, [member.message for member in members])
                attempts = [_attempt(answer) for answer in answers]
                entries = {
                    member.claim.job_id: _entry(member, attempt)
                    for member, attempt in zip(members, attempts, strict=True)
                    if attempt is not None
                }
                entered = await ledger.enter_many(session, list(entries.values())) if entries else set[str]()
            if len(entered) < len(entries):
                missing = entries.keys() - entered
                raise Delivered([member for member in members if member.claim.job_id in missing])
            for member in members:
                member.claim.committing = True
            await session.commit()
            return attempts
        finally:
            for member in members:
                member.claim.committing = False
            await end_session(session)


def _attempt(answer: Any) -> Done | Rejected | None:
    match answer:
        case None:
            return None
        case Rejection():
            return Rejected(answer.code, answer.detail)
        case _:
            return Done(answer.model_dump_json())


def _entry(member: Member, attempt: Done | Rejected) -> Entry:
    claim = member.claim
    if isinstance(attempt, Done):
        return Entry(claim.job_id, claim.job, "done", reply=attempt.reply, digest=member.digest)
    return Entry(claim.job_id, claim.job, "rejected", code=attempt.code, detail=attempt.detail, digest=member.digest)


@contextmanager
def _the_transaction_is_ours(session: Session) -> Iterator[None]:
    """Let nobody end the transaction meanwhile: effects and ledger rows would no longer be one.

    Raises:
        TransactionEnded: when somebody tries to commit, or has rolled back.
    """
    ended = False

    def before_commit(_session: Session) -> None:
        if not session.in_nested_transaction():
            raise TransactionEnded

    def after_rollback(_session: Session) -> None:
        nonlocal ended
        ended = True

    listeners = {"before_commit": before_commit, "after_rollback": after_rollback}
    for name, listener in listeners.items():
        event.listen(session, name, listener)
    try:
        yield
        if ended:
            raise TransactionEnded
    finally:
        for name, listener in listeners.items():
            event.remove(session, name, listener)
