"""Which jobs the demo sends, what each must come to, and what the database must hold in the end.

They come in three waves, since posts need users and changes need both.
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

# Any encoded hash will do; making a real one for each user would take longer than all the jobs.
HASH = "$argon2id$v=19$m=65536,t=3,p=4$ZGVtby1zYWx0LTE2Ynl0ZQ$" + "A" * 43
TEXT = "Lorem ipsum dolor sit amet. " * 8
RETITLED = "Retitled"


@dataclass(frozen=True)
class Step:
    """A job and the outcome that it must come to."""

    message: Message[Any]
    done: bool = True


class Plan:
    """Which jobs are sent, and what the database must hold after them.

    Half of the users are deleted in the end, and with them their posts. Of the rest, each user and post is changed
    or deleted at most once, so that what comes out depends on no order.
    """

    def __init__(self, jobs: int, name: str) -> None:
        self.jobs = jobs
        self.name = name
        self.creations = jobs * 3 // 10
        self.refusals = jobs // 50
        self.renamed = 0
        self.retitled = 0
        self.users_left = self.creations
        self.posts_left = self.creations

    def users(self) -> list[Step]:
        return [Step(self._user(number)) for number in range(self.creations)]

    def posts(self, users: list[int]) -> list[Step]:
        """Posts, every second one by a user who will be deleted; some by nobody; and users whose name is taken."""
        kept, doomed = users[::2], users[1::2]
        steps = [
            Step(CreatePost(author_id=authors[number // 2 % len(authors)], title=f"Post {number}", content=TEXT))
            for number, authors in zip(range(self.creations), cycle((kept, doomed)), strict=False)
        ]
        steps += [Step(CreatePost(author_id=MAX_ID, title="By nobody", content=""), done=False)] * self.refusals
        steps += [Step(self._user(number), done=False) for number in range(self.refusals)]
        return steps

    def changes(self, users: list[int], posts: list[int]) -> list[Step]:
        kept, doomed = users[::2], users[1::2]
        kept_posts = posts[::2]
        left = self.jobs - 2 * self.creations - 2 * self.refusals - len(doomed)
        rename = kept[: left // 4]
        retitle = kept_posts[::2][: left // 4]
        drop = kept_posts[1::2][: left // 4]
        steps = [Step(UpdateUser(user_id=user, changes=UserChanges(username=f"{self.name}+{user}"))) for user in rename]
        steps += [Step(UpdatePost(post_id=post, changes=PostChanges(title=RETITLED))) for post in retitle]
        steps += [Step(DeletePost(post_id=post)) for post in drop]
        steps += [Step(DeleteUser(user_id=user)) for user in doomed]
        # What is not there cannot be changed; deleting it is no error.
        absent: list[Step] = [
            Step(UpdateUser(user_id=MAX_ID, changes=UserChanges(is_active=False)), done=False),
            Step(UpdatePost(post_id=MAX_ID, changes=PostChanges(title=RETITLED)), done=False),
            Step(DeleteUser(user_id=MAX_ID)),
            Step(DeletePost(post_id=MAX_ID)),
        ]
        steps += islice(cycle(absent), left - len(rename) - len(retitle) - len(drop))
        self.renamed, self.retitled = len(rename), len(retitle)
        self.users_left = len(kept)
        self.posts_left = len(kept_posts) - len(drop)
        return steps

    def _user(self, number: int) -> CreateUser:
        name = f"{self.name}-{number}"
        return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH)
