"""Sessions whose transaction nobody ends but who began it: effect and ledger row have to be one."""

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction


class TransactionEnded(Exception):
    """A handler ended the transaction that it was given: its effect and its record would no longer be one."""


class OwnedSession(Session):
    """The session below an `AsyncSession`; see `kept_open`."""

    kept_open = False
    ended = False


class kept_open:  # noqa: N801  # a context manager; made by a generator it would cost twice as much
    """Let nobody end the session's transaction meanwhile.

    Raises:
        TransactionEnded: when somebody tries to commit, or has rolled back or closed the session.
        TypeError: when the session is not one of `create_sessions`.
    """

    __slots__ = ("_owned",)

    def __init__(self, session: AsyncSession) -> None:
        owned = session.sync_session
        if not isinstance(owned, OwnedSession):
            raise TypeError("the session cannot be kept open: take it from create_sessions()")
        self._owned = owned

    def __enter__(self) -> None:
        self._owned.kept_open, self._owned.ended = True, False

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._owned.kept_open = False
        if error is None and self._owned.ended:
            raise TransactionEnded


# For all sessions at once: to put listeners on each and take them off again costs more than a statement.


@event.listens_for(OwnedSession, "before_commit")
def _before_commit(session: OwnedSession) -> None:
    if session.kept_open and not session.in_nested_transaction():
        raise TransactionEnded


@event.listens_for(OwnedSession, "after_transaction_end")
def _after_transaction_end(session: OwnedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.ended = True
