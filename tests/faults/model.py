"""The sequential model: what the tables must hold and what each job must have answered.

Only the jobs of its own key change a user, so a user's state is certain. A post may also disappear with its user, at a
time that its own key does not show. From then on its jobs find no row.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from producers import CreatePost, CreateUser, DeletePost, DeleteUser, UpdatePost, UpdateUser
from tests.faults.client import JobRecord
from tests.faults.load import TAKEN
from tests.faults.observations import LedgerRow, Observations


@dataclass
class Model:
    """The state that follows from the history, and what contradicts it."""

    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    posts: dict[int, dict[str, Any]] = field(default_factory=dict)
    deleted_users: set[int] = field(default_factory=set)
    contradictions: list[str] = field(default_factory=list)

    def expect(self, job: JobRecord, row: LedgerRow, outcome: str, code: str | None = None) -> bool:
        """Compare the outcome of a job with the model's; whether the job is done."""
        if row.outcome != "dead" and (row.outcome, row.code) != (outcome, code):
            self.contradictions.append(f"{job.job_id}: {row.outcome} {row.code or ''}, must be {outcome} {code or ''}")
        return row.outcome == outcome == "done"

    def expect_reply(self, job: JobRecord, row: LedgerRow, expected: Mapping[str, Any]) -> None:
        """Compare these members of the reply."""
        reply = {name: row.reply.get(name) for name in expected}
        if reply != dict(expected):
            self.contradictions.append(f"{job.job_id}: replied {reply}, must be {dict(expected)}")

    def compare_rows(self, kind: str, rows: Mapping[int, Any], expected: Mapping[int, Any]) -> None:
        """Compare a table with the model; each contradiction names the ordering key."""
        for row_id in rows.keys() | expected.keys():
            if rows.get(row_id) != expected.get(row_id):
                self.contradictions.append(f"{kind}:{row_id} is {rows.get(row_id)}, must be {expected.get(row_id)}")

    def may_be_deleted(self, post: Mapping[str, Any] | None) -> bool:
        """Whether a post may be missing, by itself or with its user."""
        return post is None or post["author_id"] in self.deleted_users


def find_contradictions(history: Iterable[JobRecord], observed: Observations) -> list[str]:
    """The differences between the model, the tables and the replies in the ledger."""
    model = Model()
    jobs = [(job, observed.ledger[job.job_id]) for job in history if job.job_id in observed.ledger]
    # In the order of commits: another invariant compares it with the order of acceptance.
    jobs.sort(key=lambda pair: pair[1].seq or 0)
    for apply in (_create_user, _change_user, _create_post, _change_post):
        for job, row in jobs:
            apply(model, job, row)
    model.posts = {i: post for i, post in model.posts.items() if post["author_id"] not in model.deleted_users}
    model.compare_rows("user", observed.users, model.users)
    model.compare_rows("post", observed.posts, model.posts)
    return model.contradictions


def _create_user(model: Model, job: JobRecord, row: LedgerRow) -> None:
    if not isinstance(message := job.message, CreateUser):
        return
    if message.email == TAKEN and job.mark != "taken":
        model.expect(job, row, "rejected", "conflict")
    elif model.expect(job, row, "done"):
        user = {"id": row.reply["id"], **message.model_dump(exclude={"hashed_password"})}
        model.expect_reply(job, row, user)
        if user["id"] in model.users:
            model.contradictions.append(f"{job.job_id}: another job created user {user['id']}")
        model.users[user["id"]] = user


def _change_user(model: Model, job: JobRecord, row: LedgerRow) -> None:
    match job.message:
        case UpdateUser(user_id=user_id, changes=changes):
            if (user := model.users.get(user_id)) is None:
                model.expect(job, row, "rejected", "not_found")
            elif changes.email == TAKEN:
                model.expect(job, row, "rejected", "conflict")
            elif model.expect(job, row, "done"):
                user.update(changes.model_dump(exclude_unset=True))
                model.expect_reply(job, row, user)
        case DeleteUser(user_id=user_id):
            if model.expect(job, row, "done"):
                model.expect_reply(job, row, {"deleted": user_id in model.users})
                if model.users.pop(user_id, None) is not None:
                    model.deleted_users.add(user_id)
        case _:
            return


def _create_post(model: Model, job: JobRecord, row: LedgerRow) -> None:
    if not isinstance(message := job.message, CreatePost):
        return
    author = message.author_id
    if author not in model.users and (author not in model.deleted_users or row.outcome == "rejected"):
        model.expect(job, row, "rejected", "not_found")
    elif model.expect(job, row, "done"):
        post = {"id": row.reply["id"], "title": message.title, "author_id": author}
        model.expect_reply(job, row, post)
        model.posts[post["id"]] = post


def _change_post(model: Model, job: JobRecord, row: LedgerRow) -> None:
    if row.outcome == "dead":
        return
    match job.message:
        case UpdatePost(post_id=post_id, changes=changes):
            post = model.posts.get(post_id)
            if row.outcome == "rejected" and model.may_be_deleted(post):
                model.posts.pop(post_id, None)
                model.expect(job, row, "rejected", "not_found")
            elif post is None:
                model.expect(job, row, "rejected", "not_found")
            elif model.expect(job, row, "done"):
                post["title"] = changes.title
                model.expect_reply(job, row, post)
        case DeletePost(post_id=post_id):
            if model.expect(job, row, "done"):
                post = model.posts.pop(post_id, None)
                deleted = bool(row.reply["deleted"])
                if deleted != (post is not None) and (deleted or not model.may_be_deleted(post)):
                    model.contradictions.append(f"{job.job_id}: replied deleted={deleted} for post {post}")
        case _:
            return
