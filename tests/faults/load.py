"""The mixed load: all six jobs, hot ordering keys, requests that must be rejected, users who go with their posts."""

import random
from typing import Any

from producers import (
    CreatePost,
    CreateUser,
    DeletePost,
    DeleteUser,
    Message,
    PostChanges,
    UpdatePost,
    UpdateUser,
    UserChanges,
)

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzYWx0$" + "A" * 43
ABSENT = 2**62
TAKEN = "taken@example.com"
"""The address of a user who stays as it is: whoever asks for it is rejected."""

USERS = 16
HOT = 4
"""So many of the users, and of the posts, are changed again and again."""
HOT_SHARE = 0.3
"""What they get of all changes: more, and the workers would wait for them instead of being kept busy."""

MET = 0.1
"""So many of the users who come are changed later."""

Marked = tuple[Message[Any], str]


class Load:
    """Draws jobs.

    Args:
        chance: what they are drawn from.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.users: list[int] = []
        self.posts: list[int] = []
        self._number = 0
        self._kinds = {
            self.new_user: 20,
            self.new_post: 20,
            self.rename: 25,
            self.retitle: 15,
            self.absent: 6,
            self.taken: 4,
            self.drop_post: 2,
            self.drop_user: 1,
        }

    def meet(self, made: list[int]) -> None:
        """Users who have come take the places of such as may be gone, so that there is always something to change."""
        while made:
            user_id = made.pop()
            if len(self.users) > HOT and self.chance.random() < MET:
                self.users[self.chance.randrange(HOT, len(self.users))] = user_id

    def draw(self, count: int) -> list[Marked]:
        """Some jobs."""
        kinds = self.chance.choices(list(self._kinds), list(self._kinds.values()), k=count)
        return [kind() for kind in kinds]

    def first(self) -> list[Marked]:
        """The users that the load is about."""
        taken = CreateUser(email=TAKEN, username="taken", hashed_password=HASH)
        return [(taken, "taken"), *(self.new_user() for _ in range(USERS))]

    def new_user(self) -> Marked:
        """A user more."""
        mark = self._mark("user")
        user = CreateUser(
            email=f"{mark}@example.com", username=mark, hashed_password=HASH, is_active=self.chance.random() < 0.8
        )
        return user, mark

    def new_post(self, author_id: int | None = None) -> Marked:
        """A post of a user who may be gone when it is that job's turn."""
        mark = self._mark("post")
        return CreatePost(author_id=author_id or self._one_of(self.users), title=mark, content="Words. " * 20), mark

    def rename(self, user_id: int | None = None) -> Marked:
        """A change of a user."""
        mark = self._mark("renamed")
        changes: dict[str, Any] = {"username": mark}
        if self.chance.random() < 0.3:
            changes["is_active"] = self.chance.random() < 0.5
        if self.chance.random() < 0.3:
            changes["email"] = f"{mark}@example.com"
        return UpdateUser(user_id=user_id or self._one_of(self.users), changes=UserChanges(**changes)), mark

    def retitle(self, post_id: int | None = None) -> Marked:
        """A change of a post."""
        mark = self._mark("retitled")
        return UpdatePost(post_id=post_id or self._one_of(self.posts), changes=PostChanges(title=mark)), mark

    def absent(self) -> Marked:
        """A job about what was never there."""
        mark = self._mark("absent")
        absent = UserChanges(username=mark)
        choices: list[Marked] = [
            (DeleteUser(user_id=ABSENT), ""),
            (DeletePost(post_id=ABSENT), ""),
            (UpdateUser(user_id=ABSENT, changes=absent), mark),
            (CreatePost(author_id=ABSENT, title=mark, content=""), mark),
        ]
        return self.chance.choice(choices)

    def taken(self) -> Marked:
        """A job that asks for a name that another user has."""
        mark = self._mark("taken")
        if self.chance.random() < 0.5:
            return CreateUser(email=TAKEN, username=mark, hashed_password=HASH), mark
        changes = UserChanges(username=mark, email=TAKEN)
        return UpdateUser(user_id=self._one_of(self.users), changes=changes), mark

    def drop_post(self) -> Marked:
        """A post goes; of its later jobs each finds nothing."""
        return DeletePost(post_id=self._one_of(self.posts, hot=False)), ""

    def drop_user(self, user_id: int | None = None) -> Marked:
        """A user goes, and takes posts along. Not the hot ones: there would soon be nothing left to change."""
        return DeleteUser(user_id=user_id or self._one_of(self.users, hot=False)), ""

    def _one_of(self, some: list[int], *, hot: bool = True) -> int:
        if not some:
            return ABSENT
        if hot and self.chance.random() < HOT_SHARE:
            return self.chance.choice(some[:HOT])
        return self.chance.choice(some[HOT:])

    def _mark(self, word: str) -> str:
        self._number += 1
        return f"{word}-{self._number}"
