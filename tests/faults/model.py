"""The sequential model: what the tables must hold and each job must have been answered, one ordering key at a time.

A user is changed by the jobs of its own key only, so all of it is certain. A post may also go with its user, at a
moment that its own key does not show: from there on its jobs find nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from producers import CreatePost, CreateUser, DeletePost, DeleteUser, UpdatePost, UpdateUser
from tests.faults.client import Asked
from tests.faults.load import TAKEN
from tests.faults.seen import Entry, Seen


@dataclass
class Model:
    """The state that follows from the history, and what contradicts it."""

    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    posts: dict[int, dict[str, Any]] = field(default_factory=dict)
    deleted_users: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def expect(self, asked: Asked, entry: Entry, outcome: str, code: str | None = None) -> bool:
        """Note it when a job had another outcome than the model's; whether it is done."""
        if entry.outcome != "dead" and (entry.outcome, entry.code) != (outcome, code):
            self.wrong.append(f"{asked.job_id}: {entry.outcome} {entry.code or ''}, must be {outcome} {code or ''}")
        return entry.outcome == outcome == "done"

    def compare(self, key: str, have: Mapping[int, Any], must: Mapping[int, Any]) -> None:
        """Note the ordering keys of what is not in its table as it must be."""
        for row_id in have.keys() | must.keys():
            if have.get(row_id) != must.get(row_id):
                self.wrong.append(f"{key}:{row_id} is {have.get(row_id)}, must be {must.get(row_id)}")


def contradictions(history: Iterable[Asked], seen: Seen) -> list[str]:
    """All that the tables and the ledger's answers have against the model."""
    model = Model()
    entered = [(asked, seen.ledger[asked.job_id]) for asked in history if asked.job_id in seen.ledger]
    # In the order of their commits: that it is the order in which they were accepted is another invariant's matter.
    entered.sort(key=lambda job: job[1].seq or 0)
    for apply in (_user_made, _user_changed, _post_made, _post_changed):
        for asked, entry in entered:
            apply(model, asked, entry)
    model.posts = {i: post for i, post in model.posts.items() if post["author_id"] not in model.deleted_users}
    model.compare("user", seen.users, model.users)
    model.compare("post", seen.posts, model.posts)
    return model.wrong


def _user_made(model: Model, asked: Asked, entry: Entry) -> None:
    if not isinstance(message := asked.message, CreateUser):
        return
    if message.email == TAKEN and asked.mark != "taken":
        model.expect(asked, entry, "rejected", "conflict")
    elif model.expect(asked, entry, "done"):
        user = {"id": entry.reply["id"], **message.model_dump(exclude={"hashed_password"})}
        _replied(model, asked, entry, user)
        if user["id"] in model.users:
            model.wrong.append(f"{asked.job_id}: user {user['id']} is another job's")
        model.users[user["id"]] = user


def _user_changed(model: Model, asked: Asked, entry: Entry) -> None:
    match asked.message:
        case UpdateUser(user_id=user_id, changes=changes):
            if (user := model.users.get(user_id)) is None:
                model.expect(asked, entry, "rejected", "not_found")
            elif changes.email == TAKEN:
                model.expect(asked, entry, "rejected", "conflict")
            elif model.expect(asked, entry, "done"):
                user.update(changes.model_dump(exclude_unset=True))
                _replied(model, asked, entry, user)
        case DeleteUser(user_id=user_id):
            if model.expect(asked, entry, "done"):
                _replied(model, asked, entry, {"deleted": user_id in model.users})
                if model.users.pop(user_id, None) is not None:
                    model.deleted_users.add(user_id)
        case _:
            return


def _post_made(model: Model, asked: Asked, entry: Entry) -> None:
    if not isinstance(message := asked.message, CreatePost):
        return
    author = message.author_id
    if author not in model.users and (author not in model.deleted_users or entry.outcome == "rejected"):
        model.expect(asked, entry, "rejected", "not_found")
    elif model.expect(asked, entry, "done"):
        post = {"id": entry.reply["id"], "title": message.title, "author_id": author}
        _replied(model, asked, entry, post)
        model.posts[post["id"]] = post


def _post_changed(model: Model, asked: Asked, entry: Entry) -> None:
    if entry.outcome == "dead":
        return
    match asked.message:
        case UpdatePost(post_id=post_id, changes=changes):
            post = model.posts.get(post_id)
            if entry.outcome == "rejected" and _may_be_gone(model, post):
                model.posts.pop(post_id, None)
                model.expect(asked, entry, "rejected", "not_found")
            elif post is None:
                model.expect(asked, entry, "rejected", "not_found")
            elif model.expect(asked, entry, "done"):
                post["title"] = changes.title
                _replied(model, asked, entry, post)
        case DeletePost(post_id=post_id):
            if model.expect(asked, entry, "done"):
                post = model.posts.pop(post_id, None)
                deleted = bool(entry.reply["deleted"])
                if deleted != (post is not None) and (deleted or not _may_be_gone(model, post)):
                    model.wrong.append(f"{asked.job_id}: answered deleted={deleted} for post {post}")
        case _:
            return


def _may_be_gone(model: Model, post: dict[str, Any] | None) -> bool:
    return post is None or post["author_id"] in model.deleted_users


def _replied(model: Model, asked: Asked, entry: Entry, must: Mapping[str, Any]) -> None:
    reply = {name: entry.reply.get(name) for name in must}
    if reply != dict(must):
        model.wrong.append(f"{asked.job_id}: answered {reply}, must be {dict(must)}")
