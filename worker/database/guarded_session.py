"""Sessions that refuse to commit while a handler runs: the effect and its ledger row must share one transaction."""

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction


class TransactionEnded(Exception):
    """A handler ended the transaction that it was given, so its effect and its ledger row would be separate."""


class GuardedSession(Session):
    """The session inside an `AsyncSession`; see `forbid_commit`."""

    commit_forbidden = False
    ended = False


class forbid_commit:  # noqa: N801  # a context manager; as a generator it would cost twice as much
    """Refuse to end the session's transaction inside the `with` block.

    Raises:
        TransactionEnded: on commit, and at the end of the block if the session was rolled back or closed.
        TypeError: the session does not come from `create_sessions`.
    """

    __slots__ = ("_session",)

    def __init__(self, session: AsyncSession) -> None:
        guarded = session.sync_session
        if not isinstance(guarded, GuardedSession):
            raise TypeError("the session cannot forbid commits: take it from create_sessions()")
        self._session = guarded

    def __enter__(self) -> None:
        self._session.commit_forbidden, self._session.ended = True, False

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._session.commit_forbidden = False
        if error is None and self._session.ended:
            raise TransactionEnded


# Listeners on the class: adding and removing them on each session costs more than a statement.


@event.listens_for(GuardedSession, "before_commit")
def _before_commit(session: GuardedSession) -> None:
    if session.commit_forbidden and not session.in_nested_transaction():
        raise TransactionEnded


@event.listens_for(GuardedSession, "after_transaction_end")
def _after_transaction_end(session: GuardedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.ended = True
