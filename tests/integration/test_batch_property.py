"""Batches end as their jobs would have ended one after the other, whatever the jobs are (P11).

Random jobs run twice from the same rows on a real PostgreSQL: each in a session of its own, and in batches. Their
results, the ledger and the rows that they leave must be the same. Order between job types is not promised, so both
ways take the jobs in the order of the batches.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.jobs import claimed_job
from worker.database.session import create_engine, create_sessions
from worker.embedded import PostgresServer
from worker.engine.batch import Batches
from worker.engine.transaction import Transaction
from worker.jobs import REGISTRY
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import Done

EXAMPLES = int(os.environ.get("BATCH_EXAMPLES", "60"))
MAX_TRIES = 3
MISSING = 10**9
HASHES = {f"$2b$12${letter * 53}": f"hash-{letter}" for letter in "xy"}

# Neither is foreseen by a set-based form: a value that breaks each statement with it, and one that breaks its COMMIT.
TRIGGERS = """
CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF to_json(NEW)::text LIKE '%cursed%' THEN RAISE EXCEPTION 'cursed'; END IF; RETURN NEW; END $$;
CREATE FUNCTION curse_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF to_json(NEW)::text LIKE '%late%' THEN RAISE check_violation; END IF; RETURN NULL; END $$;
CREATE TRIGGER curse AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION curse();
CREATE TRIGGER curse AFTER INSERT OR UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION curse();
CREATE CONSTRAINT TRIGGER curse_late AFTER INSERT OR UPDATE ON users DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION curse_late();
CREATE CONSTRAINT TRIGGER curse_late AFTER INSERT OR UPDATE ON posts DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION curse_late();
"""
ROWS = """
DELETE FROM job_ledger; DELETE FROM users;
INSERT INTO users (id, email, username, hashed_password, is_active, inactive_since) VALUES
    (1, 'a@example.com', 'a', 'h', true, NULL), (2, 'b@example.com', 'b', 'h', false, '2020-01-01'),
    (3, 'c@example.com', 'c', 'h', true, NULL);
INSERT INTO posts (id, title, content, author_id) VALUES (1, 'one', '1', 1), (2, 'two', '2', 1), (3, 'three', '3', 2);
SELECT setval('users_id_seq', 100), setval('posts_id_seq', 100);
"""


@dataclass(frozen=True)
class Delivery:
    """A job as it is delivered, once or more often."""

    job_id: str
    name: str
    fields: dict[str, Any] = field(hash=False)
    attempt: int

    def __repr__(self) -> str:
        fields = repr(self.fields).replace("@example.com", "@")
        for value, name in HASHES.items():
            fields = fields.replace(value, name)
        return f"{self.job_id}: {self.name} {fields}" + f", attempt {self.attempt}" * (self.attempt > 1)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))  # how Hypothesis prints a failure

    def claim(self) -> ClaimedJob:
        return claimed_job(self.name, self.fields, job_id=self.job_id, attempt=self.attempt)


# Few values, so that many jobs are about the same rows and names.

row_ids = st.sampled_from([1, 2, 3, MISSING])
names = st.sampled_from([*"abcde" * 4, "cursed", "late"])
emails = st.sampled_from("abcde").map("{}@example.com".format)
hashes = st.sampled_from(list(HASHES))
titles = st.sampled_from([*["one", "other"] * 8, "cursed", "late"])
contents = st.sampled_from(["", "text"])
user = {"email": emails, "username": names, "hashed_password": hashes, "is_active": st.booleans()}
post = {"title": titles, "content": contents}
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "create_user": user,
    "update_user": {"user_id": row_ids, "changes": st.fixed_dictionaries({}, optional=user).filter(bool)},
    "delete_user": {"user_id": row_ids},
    "create_post": post | {"author_id": row_ids},
    "update_post": {"post_id": row_ids, "changes": st.fixed_dictionaries({}, optional=post).filter(bool)},
    "delete_post": {"post_id": row_ids},
}
TYPES = ["update_user", "create_user", *FIELDS, "create_user", "update_user"]  # more of the two that fail most
WRONG: dict[str, Any] = {"email": "a", "hashed_password": "s3cret", "user_id": 0, "post_id": "1", "title": "\x00"}
one_in_ten = st.integers(0, 9).map(lambda number: number == 9)


@st.composite
def streams(draw: st.DrawFn) -> list[list[Delivery]]:
    """What a worker claims, claim by claim; each of few job types, so that batches are full."""
    claims: list[list[Delivery]] = []
    before: list[Delivery] = []
    for _ in range(draw(st.sampled_from([1, 2, 3, 4, 4]))):
        types = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=2))
        claims.append([])
        for _ in range(draw(st.sampled_from([1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8, 8]))):
            claims[-1].append(draw(deliveries(types, before, claims[-1], f"j{sum(map(len, claims)) + 1}")))
        before += claims[-1]
    return claims


@st.composite
def deliveries(
    draw: st.DrawFn, types: list[str], before: list[Delivery], claimed: list[Delivery], job_id: str
) -> Delivery:
    if draw(one_in_ten) and claimed:
        return draw(st.sampled_from(claimed))  # Redis had forgotten that it was claimed
    if draw(one_in_ten) and before:
        again = draw(st.sampled_from(before))
        if again.name not in types or draw(st.booleans()):
            return again
        job_id = again.job_id  # with other content, perhaps
    name = draw(st.sampled_from(types))
    fields = draw(st.fixed_dictionaries(FIELDS[name]))
    if draw(one_in_ten):
        fields |= {key: wrong for key, wrong in WRONG.items() if key in fields} or {"surplus": 1}
    attempt = draw(st.sampled_from([2, MAX_TRIES, MAX_TRIES + 1])) if draw(one_in_ten) else 1
    return Delivery(job_id, name, fields, attempt)


def batches_of(claim: Sequence[Delivery], accepts: Callable[[ClaimedJob], bool], size: int) -> list[list[Delivery]]:
    """Those of one claim that share a session, in the order in which their first ones were claimed."""
    batches: list[list[Delivery]] = []
    open_batches: dict[str, list[Delivery]] = {}
    for delivery in claim:
        batch = open_batches.get(delivery.name, [])
        if accepts(delivery.claim()) and 0 < len(batch) < size:
            batch.append(delivery)
            continue
        batches.append([delivery])
        if accepts(delivery.claim()):
            open_batches[delivery.name] = batches[-1]
    return batches


class Ways:
    """A database, and both ways to run jobs in it."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> "Ways":
        self.engine = create_engine(self._url, pool_size=2)
        sessions = create_sessions(self.engine)
        self._transaction = Transaction(sessions, REGISTRY, max_tries=MAX_TRIES, timeout_seconds=20)
        self.batches = Batches(self._transaction, sessions, REGISTRY, timeout_seconds=20)
        self._sql = await asyncpg.connect(self._url)
        await self._sql.execute(TRIGGERS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sql.close()
        await self.engine.dispose()

    async def singly(self, batch: Sequence[ClaimedJob]) -> list[Attempt]:
        return [await self._transaction.run(job) for job in batch]

    async def shared(self, batch: Sequence[ClaimedJob]) -> list[Attempt]:
        if len(batch) == 1:
            return await self.singly(batch)
        ended: dict[ClaimedJob, Attempt] = {}
        async with aclosing(self.batches.run(batch)) as parts:
            async for attempts in parts:
                assert not ended.keys() & {attempt.job for attempt in attempts}, "a job ended twice"
                ended |= {attempt.job: attempt for attempt in attempts}
        return [ended[job] for job in batch]

    async def outcome(
        self, batches: Sequence[Sequence[Delivery]], run: Callable[[Sequence[ClaimedJob]], Awaitable[list[Attempt]]]
    ) -> dict[str, list[Any]]:
        """Run jobs in one of the ways, always from the same rows. Returns all that can be observed afterwards."""
        await self._sql.execute(ROWS)
        attempts = [attempt for batch in batches for attempt in await run([delivery.claim() for delivery in batch])]
        # Ids are new each time: rows are named after the jobs that created them.
        creators = {
            (attempt.job.name, json.loads(attempt.result.reply)["id"]): attempt.job.job_id
            for attempt in attempts
            if attempt.job.name.startswith("create") and isinstance(attempt.result, Done)
        }
        times = {row["id"]: row["created_at"] for row in await self._sql.fetch("SELECT id, created_at FROM users")}

        def row_name(table: str, row_id: int) -> str:
            return str(row_id) if row_id < 4 else creators.get((f"create_{table}", row_id), "without a creator")

        def reply_of(name: str, text: str | None) -> Any:
            reply = json.loads(text or "null")
            if isinstance(reply, dict) and "id" in reply:
                if "created_at" in reply and reply["id"] in times:
                    assert reply["created_at"] == times[reply["id"]].isoformat().replace("+00:00", "Z")
                reply.pop("created_at", None)
                reply["id"] = row_name(name.partition("_")[2], reply["id"])
            return reply

        return {
            "attempts": [
                (attempt.job.job_id, attempt.redelivered,
                 reply_of(attempt.job.name, result.reply) if isinstance(result := attempt.result, Done) else result)
                for attempt in attempts
            ],
            "ledger": [
                (*(row[column] for column in ("job_id", "job", "outcome", "code", "detail", "digest")),
                 reply_of(row["job"], row["reply"]))
                for row in await self._sql.fetch("SELECT * FROM job_ledger ORDER BY job_id")
            ],
            "users": sorted(
                (row_name("user", row["id"]), row["email"], row["username"], row["hashed_password"], row["is_active"],
                 row["inactive_since"] and ("long ago" if row["inactive_since"].year == 2020 else "now"))
                for row in await self._sql.fetch("SELECT * FROM users")
            ),
            "posts": sorted(
                (row_name("post", row["id"]), row["title"], row["content"], row_name("user", row["author_id"]))
                for row in await self._sql.fetch("SELECT * FROM posts")
            ),
        }  # fmt: skip


@pytest.fixture(scope="module")
def ways(postgres: PostgresServer, template: str) -> Iterator[tuple[asyncio.Runner, Ways]]:
    async def run(statement: str) -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(statement)
        await connection.close()

    with asyncio.Runner() as runner:
        runner.run(run(f"CREATE DATABASE test_batch_property TEMPLATE {template}"))
        ways = Ways(postgres.url.rpartition("/")[0] + "/test_batch_property")
        try:
            yield runner, runner.run(ways.__aenter__())
            runner.run(ways.__aexit__())
        finally:
            runner.run(run("DROP DATABASE test_batch_property WITH (FORCE)"))


@pytest.mark.timeout(1200)  # shrinking a failure takes long
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=False,
    print_blob=True,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=list(HealthCheck),
)
@given(claims=streams(), size=st.sampled_from([2, 3, 4, 8, 8, 8]))
def test_batches_end_as_their_jobs_end_singly(
    ways: tuple[asyncio.Runner, Ways], claims: list[list[Delivery]], size: int
) -> None:
    runner, both = ways
    batches = [batch for claim in claims for batch in batches_of(claim, both.batches.accepts, size)]

    singly = runner.run(both.outcome(batches, both.singly))
    shared = runner.run(both.outcome(batches, both.shared))

    differences = [
        f"{part}: only {way} {item}"
        for part in singly
        for way, ours, theirs in (("singly", singly[part], shared[part]), ("in batches", shared[part], singly[part]))
        for item in ours
        if item not in theirs
    ]
    assert not differences, "\n".join(["", *map(repr, batches), "end in", *differences])
