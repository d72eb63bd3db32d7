"""Handlers of the jobs for users, each with its set-based form."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Self

from sqlalchemy.ext.asyncio import AsyncSession

from producers.messages import CreateUser, Deleted, DeleteUser, UpdateUser, User, UserChanges
from worker.database import users
from worker.jobs import deletions
from worker.model.registry import Rejection, job


@job(CreateUser)
async def create_user(session: AsyncSession, message: CreateUser) -> User:
    return User.model_validate(await users.create_user(session, message))


@create_user.batch
async def create_users(session: AsyncSession, messages: Sequence[CreateUser]) -> list[User | Rejection | None]:
    rows = await users.create_users(session, messages)
    if all(rows):
        return [User.model_validate(row) for row in rows]
    names = await Names.look_up(session, [message for message, row in zip(messages, rows, strict=True) if row is None])
    answers: list[User | Rejection | None] = []
    # From the last to the first: who was refused is not told of names that were given to somebody behind.
    for message, row in zip(reversed(messages), reversed(rows), strict=True):
        answers.append(names.conflict(message) if row is None else User.model_validate(row))
        if row is not None:
            names.forget(row["id"])
    return answers[::-1]


@job(UpdateUser)
async def update_user(session: AsyncSession, message: UpdateUser) -> User:
    if (user := await users.update_user(session, message.user_id, message.changes)) is None:
        raise _no_such_user()
    return User.model_validate(user)


@update_user.batch
async def update_users(session: AsyncSession, messages: Sequence[UpdateUser]) -> list[User | Rejection | None]:
    # Of two for one user, the second waits for a session of its own.
    first: dict[int, UpdateUser] = {}
    for message in messages:
        first.setdefault(message.user_id, message)
    there = await users.lock_users(session, first)
    names = await Names.look_up(session, [message.changes for message in messages])
    waiting = names.contested((message.user_id, message.changes) for message in messages)
    refused: dict[int, Rejection | None] = {}
    for user_id, message in first.items():
        if user_id not in there:
            refused[user_id] = _no_such_user()
        elif user_id in waiting:
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
    wanted = [message.user_id for message in messages]
    return deletions.answers(wanted, await users.delete_users(session, wanted))


class Names:
    """Who has the e-mail addresses and usernames that some messages are about."""

    def __init__(self) -> None:
        self._wanted = {"email": Counter[str](), "username": Counter[str]()}
        self._holders: dict[str, dict[str, int]] = {"email": {}, "username": {}}

    @classmethod
    async def look_up(cls, session: AsyncSession, wishes: Collection[CreateUser | UserChanges]) -> Self:
        """Ask the database, if there is anything to ask."""
        names = cls()
        for wish in wishes:
            for column, value in _named(wish):
                names._wanted[column][value] += 1
        if any(names._wanted.values()):
            for row in await users.holders(session, *(set(wanted) for wanted in names._wanted.values())):
                for column in ("email", "username"):
                    names._holders[column][row[column]] = row["id"]
        return names

    def taken(self, wish: CreateUser | UserChanges, user_id: int | None = None) -> list[str]:
        """What of it somebody else has."""
        return [column for column, value in _named(wish) if self._holders[column].get(value, user_id) != user_id]

    def conflict(self, wish: CreateUser | UserChanges, user_id: int | None = None) -> Rejection | None:
        """What the one who takes it all gets for an answer; None when it is not that one thing alone is taken."""
        taken = self.taken(wish, user_id)
        return Rejection("conflict", f"{taken[0]} is already taken") if len(taken) == 1 else None

    def forget(self, user_id: int) -> None:
        """Take no notice of what a user has."""
        for holders in self._holders.values():
            for value in [value for value, holder in holders.items() if holder == user_id]:
                del holders[value]

    def contested(self, wishes: Iterable[tuple[int, UserChanges]]) -> set[int]:
        """The users whose changes have to be made one after the other.

        Two of them want the same, or one wants what another one has and may be about to give up.
        """
        all_wishes = list(wishes)
        users = {user_id for user_id, _ in all_wishes}
        contested: set[int] = set()
        for user_id, wish in all_wishes:
            for column, value in _named(wish):
                holder = self._holders[column].get(value, user_id)
                if self._wanted[column][value] > 1:
                    contested.add(user_id)
                if holder != user_id and holder in users:
                    contested |= {user_id, holder}
        return contested


def _named(wish: CreateUser | UserChanges) -> list[tuple[str, str]]:
    return [(column, value) for column in ("email", "username") if (value := getattr(wish, column)) is not None]


def _no_such_user() -> Rejection:
    return Rejection("not_found", "there is no such user")
