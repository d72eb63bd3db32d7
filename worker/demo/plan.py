"""The jobs of the demo, their expected outcomes, and the expected content of the database.

They come in three waves, because posts need users and changes need both.
"""

from dataclasses import dataclass
from itertools import cycle, islice
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
from producers.fields import MAX_ID

# A valid encoding of a made-up hash: to compute one for each user would take longer than all the jobs.
HASH = "$argon2id$v=19$m=65536,t=3,p=4$ZGVtby1zYWx0LTE2Ynl0ZQ$" + "A" * 43
CONTENT = "Lorem ipsum dolor sit amet. " * 8
NEW_TITLE = "Retitled"


@dataclass(frozen=True)
class PlannedJob:
    """A job and whether it is expected to be done or rejected."""

    message: Message[Any]
    done: bool = True


class Plan:
    """The jobs of one run, and the rows that must exist after them.

    At the end, every second user is deleted, and the posts of that user with it. Each of the other users and posts is
    changed or deleted at most once, so the result does not depend on the order of the jobs.
    """

    def __init__(self, jobs: int, name: str) -> None:
        self.jobs = jobs
        self.name = name
        self.creations = jobs * 3 // 10
        self.rejections = jobs // 50
        self.renamed = 0
        self.retitled = 0
        self.users_left = self.creations
        self.posts_left = self.creations

    def users(self) -> list[PlannedJob]:
        """Users with distinct names."""
        return [PlannedJob(self._user(number)) for number in range(self.creations)]

    def posts(self, users: list[int]) -> list[PlannedJob]:
        """Posts, every second one by a user who will be deleted; posts of missing users; users with a taken name."""
        kept, deleted = users[::2], users[1::2]
        posts = [
            CreatePost(author_id=authors[number // 2 % len(authors)], title=f"Post {number}", content=CONTENT)
            for number, authors in zip(range(self.creations), cycle((kept, deleted)), strict=False)
        ]
        jobs = [PlannedJob(post) for post in posts]
        jobs += [PlannedJob(CreatePost(author_id=MAX_ID, title="No author", content=""), False)] * self.rejections
        jobs += [PlannedJob(self._user(number), False) for number in range(self.rejections)]
        return jobs

    def changes(self, users: list[int], posts: list[int]) -> list[PlannedJob]:
        """Updates and deletions, and the same for rows that do not exist."""
        kept, deleted = users[::2], users[1::2]
        kept_posts = posts[::2]
        left = self.jobs - 2 * self.creations - 2 * self.rejections - len(deleted)
        renamed = kept[: left // 4]
        retitled = kept_posts[::2][: left // 4]
        dropped = kept_posts[1::2][: left // 4]
        messages: list[Message[Any]] = [
            *(UpdateUser(user_id=user, changes=UserChanges(username=f"{self.name}+{user}")) for user in renamed),
            *(UpdatePost(post_id=post, changes=PostChanges(title=NEW_TITLE)) for post in retitled),
            *(DeletePost(post_id=post) for post in dropped),
            *(DeleteUser(user_id=user) for user in deleted),
        ]
        # A missing row cannot be updated. Deleting it is not an error.
        missing = [
            PlannedJob(UpdateUser(user_id=MAX_ID, changes=UserChanges(is_active=False)), False),
            PlannedJob(UpdatePost(post_id=MAX_ID, changes=PostChanges(title=NEW_TITLE)), False),
            PlannedJob(DeleteUser(user_id=MAX_ID)),
            PlannedJob(DeletePost(post_id=MAX_ID)),
        ]
        self.renamed, self.retitled = len(renamed), len(retitled)
        self.users_left, self.posts_left = len(kept), len(kept_posts) - len(dropped)
        remaining = left - len(renamed) - len(retitled) - len(dropped)
        return [*(PlannedJob(message) for message in messages), *islice(cycle(missing), remaining)]

    def _user(self, number: int) -> CreateUser:
        name = f"{self.name}-{number}"
        return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH)
