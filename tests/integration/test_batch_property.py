"""Do batches come to what their jobs would have come to one after the other, whatever the jobs are? (P11)

Random jobs run twice from the same rows on a real PostgreSQL: each in a session of its own, and in batches. What they
came to, what the ledger says of them and the rows that they left must be the same. Order between kinds is not promised,
so both ways go through the jobs in the order of the batches.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from worker.database.session import create_engine, create_sessions
from worker.embedded import PostgresServer
from worker.engine.batch import Batches
from worker.engine.transaction import Claim, Transaction
from worker.jobs import REGISTRY
from worker.model.outcome import Attempt, Done

EXAMPLES = int(os.environ.get("BATCH_EXAMPLES", "60"))
MAX_TRIES = 3
MISSING = 10**9
HASHES = {f"$2b$12${letter * 53}": f"hash-{letter}" for letter in "xy"}

# What no set-based form foresees: a value that breaks every statement it is in, and one that breaks its COMMIT.
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
class Given:
    """A job as it is delivered."""

    job_id: str
    job: str
    fields: dict[str, Any] = field(hash=False)
    tries: int

    def __repr__(self) -> str:
        shown = repr(self.fields)
        for value, name in HASHES.items():
            shown = shown.replace(value, name)
        return f"{self.job_id}: {self.job} {shown.replace('@example.com', '@')}" + f", try {self.tries}" * (
            self.tries > 1
        )

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))  # what Hypothesis shows of a failure

    @property
    def claim(self) -> Claim:
        return Claim(**asdict(self))


# The jobs: few values, so that many are about the same rows and names.

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
KINDS = ["update_user", "create_user", *FIELDS, "create_user", "update_user"]  # the two that can go wrong the most
WRONG: dict[str, Any] = {"email": "a", "hashed_password": "s3cret", "user_id": 0, "post_id": "1", "title": "\x00"}
now_and_then = st.integers(0, 9).map(lambda number: number == 9)


@st.composite
def streams(draw: st.DrawFn) -> list[list[Given]]:
    """What a worker claims, claim by claim; each of few kinds, so that batches are full."""
    claimed: list[list[Given]] = []
    before: list[Given] = []
    for _ in range(draw(st.sampled_from([1, 2, 3, 4, 4]))):
        kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2))
        claimed.append([])
        for _ in range(draw(st.sampled_from([1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8, 8]))):
            made = draw(deliveries(kinds, before, claimed[-1], f"j{sum(map(len, claimed)) + 1}"))
            claimed[-1].append(made)
        before += claimed[-1]
    return claimed


@st.composite
def deliveries(draw: st.DrawFn, kinds: list[str], before: list[Given], claimed: list[Given], job_id: str) -> Given:
    if draw(now_and_then) and claimed:
        return draw(st.sampled_from(claimed))  # Redis had forgotten that it was claimed
    if draw(now_and_then) and before:
        again = draw(st.sampled_from(before))
        if again.job not in kinds or draw(st.booleans()):
            return again
        job_id = again.job_id  # with other content, perhaps
    job = draw(st.sampled_from(kinds))
    fields = draw(st.fixed_dictionaries(FIELDS[job]))
    if draw(now_and_then):
        fields |= {name: wrong for name, wrong in WRONG.items() if name in fields} or {"surplus": 1}
    tries = draw(st.sampled_from([2, MAX_TRIES, MAX_TRIES + 1])) if draw(now_and_then) else 1
    return Given(job_id, job, fields, tries)


def batches_of(claimed: Sequence[Given], takes: Callable[[Claim], bool], size: int) -> Iterator[list[Given]]:
    """Those of one claim that share a session, in the order in which their first ones were claimed."""
    batches: list[list[Given]] = []
    unfilled: dict[str, list[Given]] = {}
    for job in claimed:
        if not takes(job.claim):
            batches.append([job])
        elif len(unfilled.get(job.job, [])) in {0, size}:
            batches.append([job])
            unfilled[job.job] = batches[-1]
        else:
            unfilled[job.job].append(job)
    yield from batches


class Ways:
    """A database, and both ways to give jobs their effects in it."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> "Ways":
        self.engine = create_engine(self._url, pool_size=2)
        sessions = create_sessions(self.engine)
        self.singly = Transaction(sessions, REGISTRY, max_tries=MAX_TRIES, timeout_seconds=20)
        self.together = Batches(self.singly, sessions, REGISTRY, timeout_seconds=20)
        self._sql = await asyncpg.connect(self._url)
        await self._sql.execute(TRIGGERS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sql.close()
        await self.engine.dispose()

    async def run_singly(self, batch: Sequence[Claim]) -> list[Attempt]:
        return [await self.singly.run(claim) for claim in batch]

    async def run_together(self, batch: Sequence[Claim]) -> list[Attempt]:
        if len(batch) == 1:
            return await self.run_singly(batch)
        told: dict[int, Attempt] = {}

        def tell(attempts: Sequence[tuple[Claim, Attempt]]) -> None:
            for claim, attempt in attempts:
                assert id(claim) not in told, f"{claim.job_id} was told of twice"
                told[id(claim)] = attempt

        await self.together.run(batch, tell)
        return [told[id(claim)] for claim in batch]

    async def come_to(
        self, batches: Sequence[Sequence[Given]], run: Callable[[Sequence[Claim]], Awaitable[list[Attempt]]]
    ) -> dict[str, list[Any]]:
        """Run jobs one way, from the same rows as ever; all that is to be seen of it."""
        await self._sql.execute(ROWS)
        came_to: list[tuple[Claim, Attempt]] = []
        for batch in batches:
            claims = [job.claim for job in batch]
            came_to += zip(claims, await run(claims), strict=True)
        # Ids are given anew each time: rows are called by the jobs that made them.
        made = {
            (claim.job, json.loads(attempt.reply)["id"]): claim.job_id
            for claim, attempt in came_to
            if claim.job.startswith("create") and isinstance(attempt, Done)
        }
        times = {row["id"]: row["created_at"] for row in await self._sql.fetch("SELECT id, created_at FROM users")}

        def reply(job: str, text: str | None) -> Any:
            said = json.loads(text or "null")
            if isinstance(said, dict) and "id" in said:
                if "created_at" in said and said["id"] in times:
                    assert said.pop("created_at") == times[said["id"]].isoformat().replace("+00:00", "Z")
                said.pop("created_at", None)
                said["id"] = called(job.partition("_")[2], said["id"])
            return said

        def called(table: str, row_id: int) -> str:
            return str(row_id) if row_id < 4 else made.get((f"create_{table}", row_id), "made by nobody")

        return {
            "attempts": [
                (claim.job_id, reply(claim.job, attempt.reply) if isinstance(attempt, Done) else attempt)
                + ("redelivered",) * claim.redelivered
                for claim, attempt in came_to
            ],
            "ledger": [
                (row["job_id"], row["job"], row["outcome"], row["code"], row["detail"], reply(row["job"], row["reply"]),
                 row["digest"])
                for row in await self._sql.fetch("SELECT * FROM job_ledger ORDER BY job_id")
            ],
            "users": sorted(
                (called("user", row["id"]), row["email"], row["username"], row["hashed_password"], row["is_active"],
                 row["inactive_since"] and ("long ago" if row["inactive_since"].year == 2020 else "now"))
                for row in await self._sql.fetch("SELECT * FROM users")
            ),
            "posts": sorted(
                (called("post", row["id"]), row["title"], row["content"], called("user", row["author_id"]))
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


@pytest.mark.timeout(1200)  # making a failure small takes its time
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=False,
    print_blob=True,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=list(HealthCheck),
)
@given(claimed=streams(), size=st.sampled_from([2, 3, 4, 8, 8, 8]))
def test_batches_come_to_what_their_jobs_come_to_singly(
    ways: tuple[asyncio.Runner, Ways], claimed: list[list[Given]], size: int
) -> None:
    runner, both = ways
    batches = [batch for jobs in claimed for batch in batches_of(jobs, both.together.takes, size)]

    singly = runner.run(both.come_to(batches, both.run_singly))
    together = runner.run(both.come_to(batches, both.run_together))

    differences = [
        f"{what}: {said} {item}"
        for what in singly
        for said, ours, theirs in (
            ("singly", singly[what], together[what]),
            ("in batches", together[what], singly[what]),
        )
        for item in ours
        if item not in theirs
    ]
    assert not differences, "\n".join(["", *map(repr, batches), "come to", *differences])
