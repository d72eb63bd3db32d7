"""The mixed load: all six job types, hot ordering keys, jobs that must be rejected, users deleted with their posts."""

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
"""The address of a user that never changes: a job that requests it is rejected."""

USERS = 16
HOT = 4
"""The number of users, and of posts, that are changed most often."""
HOT_SHARE = 0.3
"""The share of changes that hot rows get. With more, the workers wait for locks instead of being busy."""

ADOPTED_SHARE = 0.1
"""The share of created users that later jobs change."""

MarkedMessage = tuple[Message[Any], str]
"""A message, and the unique text in the row that it writes."""


class Load:
    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.users: list[int] = []
        self.posts: list[int] = []
        self._number = 0
        self._weights = {
            self.create_user: 20,
            self.create_post: 20,
            self.update_user: 25,
            self.update_post: 15,
            self.absent: 6,
            self.taken: 4,
            self.delete_post: 2,
            self.delete_user: 1,
        }

    def replace_users(self, created: list[int]) -> None:
        """Replace users, which may be deleted, by created ones, so that there are always rows to change."""
        while created:
            user_id = created.pop()
            if len(self.users) > HOT and self.random.random() < ADOPTED_SHARE:
                self.users[self.random.randrange(HOT, len(self.users))] = user_id

    def draw(self, count: int) -> list[MarkedMessage]:
        kinds = self.random.choices(list(self._weights), list(self._weights.values()), k=count)
        return [draw() for draw in kinds]

    def first_users(self) -> list[MarkedMessage]:
        """The users of the load, after the one that never changes."""
        taken = CreateUser(email=TAKEN, username="taken", hashed_password=HASH)
        return [(taken, "taken"), *(self.create_user() for _ in range(USERS))]

    def create_user(self) -> MarkedMessage:
        mark = self._mark("user")
        user = CreateUser(
            email=f"{mark}@example.com", username=mark, hashed_password=HASH, is_active=self.random.random() < 0.8
        )
        return user, mark

    def create_post(self, author_id: int | None = None) -> MarkedMessage:
        """A new post of a user that may be deleted before the job runs."""
        mark = self._mark("post")
        return CreatePost(author_id=author_id or self._pick(self.users), title=mark, content="Words. " * 20), mark

    def update_user(self, user_id: int | None = None) -> MarkedMessage:
        mark = self._mark("renamed")
        changes: dict[str, Any] = {"username": mark}
        if self.random.random() < 0.3:
            changes["is_active"] = self.random.random() < 0.5
        if self.random.random() < 0.3:
            changes["email"] = f"{mark}@example.com"
        return UpdateUser(user_id=user_id or self._pick(self.users), changes=UserChanges(**changes)), mark

    def update_post(self, post_id: int | None = None) -> MarkedMessage:
        mark = self._mark("retitled")
        return UpdatePost(post_id=post_id or self._pick(self.posts), changes=PostChanges(title=mark)), mark

    def absent(self) -> MarkedMessage:
        """A job for a row that never existed."""
        mark = self._mark("absent")
        absent = UserChanges(username=mark)
        choices: list[MarkedMessage] = [
            (DeleteUser(user_id=ABSENT), ""),
            (DeletePost(post_id=ABSENT), ""),
            (UpdateUser(user_id=ABSENT, changes=absent), mark),
            (CreatePost(author_id=ABSENT, title=mark, content=""), mark),
        ]
        return self.random.choice(choices)

    def taken(self) -> MarkedMessage:
        """A job that requests the address of another user."""
        mark = self._mark("taken")
        if self.random.random() < 0.5:
            return CreateUser(email=TAKEN, username=mark, hashed_password=HASH), mark
        changes = UserChanges(username=mark, email=TAKEN)
        return UpdateUser(user_id=self._pick(self.users), changes=changes), mark

    def delete_post(self) -> MarkedMessage:
        """Delete a post, so that its later jobs find no row."""
        return DeletePost(post_id=self._pick(self.posts, hot=False)), ""

    def delete_user(self, user_id: int | None = None) -> MarkedMessage:
        """Delete a user with its posts. Hot users stay: otherwise there are soon no rows to change."""
        return DeleteUser(user_id=user_id or self._pick(self.users, hot=False)), ""

    def _pick(self, row_ids: list[int], *, hot: bool = True) -> int:
        if not row_ids:
            return ABSENT
        if hot and self.random.random() < HOT_SHARE:
            return self.random.choice(row_ids[:HOT])
        return self.random.choice(row_ids[HOT:])

    def _mark(self, word: str) -> str:
        self._number += 1
        return f"{word}-{self._number}"
