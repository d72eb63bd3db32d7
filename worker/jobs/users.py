"""Handlers of the user jobs, each with its set-based form."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Self

from sqlalchemy.ext.asyncio import AsyncSession

from producers.messages import CreateUser, Deleted, DeleteUser, UpdateUser, User, UserChanges
from worker.database import users
from worker.database.sql import deleted_flags
from worker.model.registry import Rejection, job


@job(CreateUser)
async def create_user(session: AsyncSession, message: CreateUser) -> User:
    return User.model_validate(await users.create_user(session, message))


@create_user.batch
async def create_users(session: AsyncSession, messages: Sequence[CreateUser]) -> list[User | Rejection | None]:
    rows = await users.create_users(session, messages)
    if all(rows):
        return [User.model_validate(row) for row in rows]
    refused = [message for message, row in zip(messages, rows, strict=True) if row is None]
    names = await UniqueNames.load(session, refused)
    answers: list[User | Rejection | None] = []
    # Backwards, so that a refused message is not blamed for a name that a later message in the batch took.
    for message, row in zip(reversed(messages), reversed(rows), strict=True):
        answers.append(names.conflict(message) if row is None else User.model_validate(row))
        if row is not None:
            names.forget(row["id"])
    return answers[::-1]


@job(UpdateUser)
async def update_user(session: AsyncSession, message: UpdateUser) -> User:
    if (user := await users.update_user(session, message.user_id, message.changes)) is None:
        raise _user_not_found()
    return User.model_validate(user)


@update_user.batch
async def update_users(session: AsyncSession, messages: Sequence[UpdateUser]) -> list[User | Rejection | None]:
    # If two messages are for one user, the second runs in a session of its own.
    first: dict[int, UpdateUser] = {}
    for message in messages:
        first.setdefault(message.user_id, message)
    existing = await users.lock_users(session, first)
    names = await UniqueNames.load(session, [message.changes for message in messages])
    overlapping = names.overlapping((message.user_id, message.changes) for message in messages)
    refused: dict[int, Rejection | None] = {}
    for user_id, message in first.items():
        if user_id not in existing:
            refused[user_id] = _user_not_found()
        elif user_id in overlapping:
            refused[user_id] = None
        elif names.taken(message.changes, user_id):
            refused[user_id] = names.conflict(message.changes, user_id)
    changes = {user_id: message.changes for user_id, message in first.items() if user_id not in refused}
    rows = await users.update_users(session, changes) if changes else {}
    updated = {user_id: User.model_validate(row) for user_id, row in rows.items()}
    return [
        updated.get(message.user_id, refused.get(message.user_id)) if first[message.user_id] is message else None
        for message in messages
    ]


@job(DeleteUser)
async def delete_user(session: AsyncSession, message: DeleteUser) -> Deleted:
    return Deleted(deleted=await users.delete_user(session, message.user_id))


@delete_user.batch
async def delete_users(session: AsyncSession, messages: Sequence[DeleteUser]) -> list[Deleted]:
    user_ids = [message.user_id for message in messages]
    flags = deleted_flags(user_ids, await users.delete_users(session, user_ids))
    return [Deleted(deleted=flag) for flag in flags]


class UniqueNames:
    """Who holds the e-mail addresses and usernames that some messages ask for."""

    def __init__(self) -> None:
        self._requested = {"email": Counter[str](), "username": Counter[str]()}
        self._holders: dict[str, dict[str, int]] = {"email": {}, "username": {}}

    @classmethod
    async def load(cls, session: AsyncSession, requests: Collection[CreateUser | UserChanges]) -> Self:
        """Read the holders, if any name is requested."""
        names = cls()
        for request in requests:
            for column, value in _requested_names(request):
                names._requested[column][value] += 1
        if any(names._requested.values()):
            for row in await users.holders(session, *(set(requested) for requested in names._requested.values())):
                for column in ("email", "username"):
                    names._holders[column][row[column]] = row["id"]
        return names

    def taken(self, request: CreateUser | UserChanges, user_id: int | None = None) -> list[str]:
        """The columns whose requested value another user holds."""
        return [
            column
            for column, value in _requested_names(request)
            if self._holders[column].get(value, user_id) != user_id
        ]

    def conflict(self, request: CreateUser | UserChanges, user_id: int | None = None) -> Rejection | None:
        """The rejection of a request whose value is taken; None unless exactly one column is."""
        taken = self.taken(request, user_id)
        return Rejection("conflict", f"{taken[0]} is already taken") if len(taken) == 1 else None

    def forget(self, user_id: int) -> None:
        """Ignore what a user holds."""
        for holders in self._holders.values():
            for value in [value for value, holder in holders.items() if holder == user_id]:
                del holders[value]

    def overlapping(self, requests: Iterable[tuple[int, UserChanges]]) -> set[int]:
        """The users whose changes must be made one after the other.

        Two of them request the same value, or one requests a value that another holds and may be about to give up.
        """
        all_requests = list(requests)
        user_ids = {user_id for user_id, _ in all_requests}
        overlapping: set[int] = set()
        for user_id, request in all_requests:
            for column, value in _requested_names(request):
                holder = self._holders[column].get(value, user_id)
                if self._requested[column][value] > 1:
                    overlapping.add(user_id)
                if holder != user_id and holder in user_ids:
                    overlapping |= {user_id, holder}
        return overlapping


def _requested_names(request: CreateUser | UserChanges) -> list[tuple[str, str]]:
    return [(column, value) for column in ("email", "username") if (value := getattr(request, column)) is not None]


def _user_not_found() -> Rejection:
    return Rejection("not_found", "there is no such user")
