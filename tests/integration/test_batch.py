"""Does a batch give each of its jobs what it would have got alone, whatever happens to it, on a real PostgreSQL?"""

import asyncio
import json
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from redis.asyncio import Redis
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from worker.engine.job import Job

from producers import CreateUser, JobHandle, JobStatus, Producer, User, keys
from producers._redis import connect
from tests.integration.conftest import Logged
from tests.integration.running import burst, run_all, settings_of, user, working
from tests.integration.test_transaction import (
    HASH,
    MAX_TRIES,
    OPEN,
    Bench,
    Handler,
    Proxy,
    Sessions,
    claim,
    create_user,
    gate_at_commit,
    silenceable,
)
from tests.waiting import PATIENCE_SECONDS, Stopwatch, slowdown
from worker.database.guarded_session import GuardedSession
from worker.database.session import create_sessions
from worker.engine.batch import Batches
from worker.engine.transaction import Claim, Transaction
from worker.engine.worker import EngineWorker
from worker.jobs import REGISTRY, JobType
from worker.jobs.users import create_users
from worker.model.outcome import Attempt, Done, Rejected, Release, Retry
from worker.queue.leases import interrupt
from worker.queue.queue import Claimed, Lease, PayloadState
from worker.settings import Settings

Answers = Callable[[AsyncSession, Sequence[CreateUser]], Awaitable[Sequence[Any]]]
TAKEN = Rejected("conflict", "email is already taken")
EFFECTS = "SELECT (SELECT count(*) FROM users WHERE id <> 1000) + (SELECT count(*) FROM posts)"


class Desk(Bench):
    """Batches whose handlers are counted, and a look at what they leave."""

    together = 0
    """How often a set-based handler was called; `calls`: how often the handler itself."""

    def batches(
        self,
        together: Answers = create_users,
        single: Handler = create_user,
        *,
        sessions: Sessions | None = None,
        timeout_seconds: float = 20.0,
    ) -> Batches:
        """All the real jobs, the handlers of `create_user` replaced by those that are given."""

        async def counted(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
            self.together += 1
            return await together(session, messages)

        handler = self._counted(CreateUser, single).handler
        registry = REGISTRY | {"create_user": JobType("create_user", CreateUser, handler, counted)}
        sessions = sessions or create_sessions(self.engine)
        transaction = Transaction(sessions, registry, max_tries=MAX_TRIES, timeout_seconds=timeout_seconds)
        return Batches(transaction, sessions, registry, timeout_seconds=timeout_seconds)

    async def run(self, batches: Batches, claims: Sequence[Claim]) -> list[Attempt]:
        """What each of these claims comes to; each is told of once."""
        told: dict[int, Attempt] = {}

        def tell(attempts: Sequence[tuple[Claim, Attempt]]) -> None:
            for tried, attempt in attempts:
                assert id(tried) not in told, f"{tried.job_id} was told of twice"
                told[id(tried)] = attempt

        await batches.run(claims, tell)
        assert not any(claim.committing for claim in claims)
        return [told[id(claim)] for claim in claims]

    @contextmanager
    def transactions(self) -> Iterator[list[None]]:
        """One item for each transaction that the engine begins."""
        begun: list[None] = []

        def note(*_: object) -> None:
            begun.append(None)

        event.listen(self.engine.sync_engine, "begin", note)
        yield begun
        event.remove(self.engine.sync_engine, "begin", note)


@pytest.fixture
async def desk(database_url: str, engine: Any, sql: Any, eventually: Any) -> AsyncIterator[Desk]:
    desk = Desk(database_url, engine, sql, eventually)
    yield desk
    try:
        await desk.assert_nothing_left()
    finally:
        for other in desk.engines:
            await other.dispose()


def some(count: int) -> list[Claim]:
    """Claims of jobs that create users, in the order of their names."""
    return [claim(f"user{number:02}", job_id=f"job-{number:02}") for number in range(count)]


async def some_posts(desk: Desk, count: int) -> list[Claim]:
    """Claims of jobs that create posts: nothing but the ledger tells when one of them comes again."""
    await desk.sql(
        "INSERT INTO users (id, email, username, hashed_password) VALUES (1000, 'a', 'a', 'h') ON CONFLICT DO NOTHING"
    )
    fields = {"author_id": 1000, "title": "t", "content": ""}
    return [Claim(f"post-{number}", "create_post", dict(fields), 1) for number in range(count)]


def names(count: int) -> list[str]:
    return [f"user{number:02}" for number in range(count)]


def all_done(attempts: Sequence[Attempt]) -> bool:
    return all(isinstance(attempt, Done) for attempt in attempts)


# One transaction


async def test_effects_replies_and_ledger_rows_of_all_are_one_transaction(desk: Desk) -> None:
    with desk.transactions() as begun:
        attempts = await desk.run(desk.batches(), some(8))

    assert len(begun) == 1
    assert (desk.together, desk.calls) == (1, 0)
    assert [json.loads(a.reply)["username"] for a in attempts if isinstance(a, Done)] == names(8) == await desk.users()
    # PostgreSQL's own mark of the transaction that wrote a row.
    marks = "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM users UNION ALL SELECT xmin FROM job_ledger) x"
    assert await desk.sql(marks) == 1
    stored = await desk.sql("SELECT array_agg(reply::text ORDER BY job_id) FROM job_ledger")
    assert stored == [a.reply for a in attempts if isinstance(a, Done)]


async def test_rejections_are_decided_in_the_same_transaction(desk: Desk) -> None:
    await desk.run(desk.batches(), [claim("ada", job_id="before"), claim("bob", job_id="before-2")])
    claims = [*some(3), claim("ada", job_id="taken"), claim("user00", job_id="twin"), claim("zoe", job_id="last")]
    claims[3].fields["username"] = "another"
    claims[4].fields["email"] = "another@example.com"

    with desk.transactions() as begun:
        attempts = await desk.run(desk.batches(), claims)

    assert len(begun) == 1
    assert desk.calls == 0
    assert attempts[3:5] == [TAKEN, Rejected("conflict", "username is already taken")]
    assert all_done(attempts[:3] + attempts[5:])
    assert await desk.users() == ["ada", "bob", *names(3), "zoe"]
    assert {row[:2] for row in await desk.ledger() if row[1] == "rejected"} == {
        ("taken", "rejected"), ("twin", "rejected"),
    }  # fmt: skip


async def test_what_must_not_share_a_session_does_not(desk: Desk) -> None:
    batches = desk.batches()
    # What a killed worker had claimed was most likely not begun.
    assert all(batches.takes(claim(tries=tries)) for tries in (1, 2))
    # A job that was tried more often may be the one that takes its worker down, above all on its last try.
    assert not any(batches.takes(claim(tries=tries)) for tries in (3, MAX_TRIES, MAX_TRIES + 1))
    assert not batches.takes(claim(job_id="ada@example.com\n"))
    assert not batches.takes(Claim("job-1", "make_coffee", {}, 1))


# Splitting


async def test_one_poisoned_job_costs_a_logarithm(desk: Desk) -> None:
    async def together(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        replies = await create_users(session, messages)
        if any(message.username == "user37" for message in messages):
            raise LookupError
        return replies

    async def single(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        if message.username == "user37":
            raise LookupError
        return reply

    claims = some(64)
    with desk.transactions() as begun:
        attempts = await desk.run(desk.batches(together, single), claims)

    assert len(begun) <= 2 * math.log2(64) + 2
    assert sum(member.splits for member in claims) == math.log2(64)
    assert isinstance(attempts.pop(37), Retry)
    assert all_done(attempts)
    assert sorted(await desk.users()) == [name for name in names(64) if name != "user37"]
    assert len(await desk.ledger()) == 63


# A unique value that no ON CONFLICT knows of.
ONE_INACTIVE = """
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT count(*) > 1 FROM users WHERE NOT is_active)
    THEN RAISE unique_violation USING CONSTRAINT = 'uq_users_is_active', TABLE = 'users'; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER look AFTER INSERT ON users
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look()
"""


async def test_a_violation_that_only_the_commit_sees_fails_nobody_else(desk: Desk) -> None:
    await run_all(desk.sql, ONE_INACTIVE)
    claims = some(8)
    claims[2].fields["is_active"] = claims[5].fields["is_active"] = False

    attempts = await desk.run(desk.batches(), claims)

    assert [attempt for attempt in attempts if not isinstance(attempt, Done)] == [
        Rejected("conflict", "is_active is already taken")
    ]
    assert len(await desk.users()) == 7
    assert len(await desk.ledger()) == 8


async def _commit(session: AsyncSession) -> None:
    await session.commit()


async def _roll_back(session: AsyncSession) -> None:
    await session.rollback()


async def _close(session: AsyncSession) -> None:
    await session.close()


@pytest.mark.parametrize("meddle", [_commit, _roll_back, _close])
async def test_a_set_based_handler_that_ends_the_transaction_is_refused(
    desk: Desk, meddle: Callable[[AsyncSession], Awaitable[None]]
) -> None:
    async def together(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        replies = await create_users(session, messages)
        await meddle(session)
        return replies

    attempts = await desk.run(desk.batches(together), some(8))

    assert all_done(attempts)
    assert desk.calls == 8
    assert await desk.users() == names(8)
    assert len(await desk.ledger()) == 8


@pytest.mark.parametrize("wrong", [lambda told: told[:-1], lambda told: [*told, None], lambda _: [], lambda _: "xyz"])
async def test_answers_that_are_not_one_for_each_are_not_believed(desk: Desk, wrong: Callable[[Any], Any]) -> None:
    async def together(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        replies: Sequence[Any] = wrong(await create_users(session, messages))
        return replies

    assert all_done(await desk.run(desk.batches(together), some(8)))

    assert desk.calls == 8
    assert await desk.users() == names(8)


# Delivered again


@pytest.mark.parametrize("kind", ["create_user", "create_post"])
@pytest.mark.parametrize("conflict", [False, True], ids=["same-content", "other-content"])
async def test_a_job_that_was_delivered_before_has_its_outcome_and_the_others_theirs(
    desk: Desk, kind: str, conflict: bool
) -> None:
    batches = desk.batches()
    claims = some(8) if kind == "create_user" else await some_posts(desk, 8)
    before = await desk.run(batches, deepcopy(claims[2:5]))
    if conflict:
        claims[3].fields["hashed_password" if kind == "create_user" else "title"] = HASH.replace("t=3", "t=4")

    attempts = await desk.run(batches, claims)

    expected = [before[0], Rejected("conflict", "this job id stands for another content"), before[2]]
    assert attempts[2:5] == (expected if conflict else before)
    assert [claim.redelivered for claim in claims] == [False] * 2 + [True] * 3 + [False] * 3
    assert all_done(attempts[:2] + attempts[5:])
    assert await desk.sql(EFFECTS) == 8
    assert desk.calls == 0
    assert await desk.run(batches, claims) == attempts


@pytest.mark.parametrize("kind", ["create_user", "create_post"])
async def test_of_two_engines_with_the_same_batch_one_has_the_effects_and_both_the_outcomes(
    desk: Desk, kind: str
) -> None:
    # Given: two engines, of which the first to commit waits until the other one waits for it.
    class Patient(AsyncSession):
        async def commit(self) -> None:
            await desk.waiting()
            await super().commit()

    claims = some(8) if kind == "create_user" else await some_posts(desk, 8)

    async def deliver(session: type[AsyncSession]) -> list[Attempt]:
        sessions = async_sessionmaker(
            desk.another_engine(), class_=session, expire_on_commit=False, sync_session_class=GuardedSession
        )
        return await desk.run(desk.batches(sessions=sessions), deepcopy(claims))

    # When: both are given the same batch.
    first = asyncio.create_task(deliver(Patient))
    await desk.eventually(lambda: desk.sql(f"SELECT ({OPEN}) = 1"))
    second = await deliver(AsyncSession)

    # Then:
    assert await first == second
    assert all_done(second)
    assert await desk.sql(EFFECTS) == 8
    assert len(await desk.ledger()) == 8


@pytest.mark.parametrize("kind", ["create_post", "delete_user", "create_user"])
async def test_two_deliveries_of_one_job_in_one_batch_are_one_job(desk: Desk, kind: str) -> None:
    await desk.sql("INSERT INTO users (id, email, username, hashed_password) VALUES (1000, 'a', 'a', 'h')")
    fields: dict[str, dict[str, Any]] = {
        "create_user": claim().fields, "create_post": {"author_id": 1000, "title": "t", "content": ""},
        "delete_user": {"user_id": 1000},
    }  # fmt: skip
    twins = [Claim("twin", kind, fields[kind], 1) for _ in range(2)]
    other = Claim("other", kind, claim("bob").fields if kind == "create_user" else fields[kind], 1)

    attempts = await desk.run(desk.batches(), [twins[0], other, twins[1]])

    assert all_done(attempts)
    assert attempts[0] == attempts[2]
    assert twins[1].redelivered
    assert await desk.sql(EFFECTS) == (0 if kind == "delete_user" else 2)
    assert await desk.sql("SELECT reply::text FROM job_ledger WHERE job_id = 'twin'") == attempts[0].reply  # type: ignore[union-attr]


# The order


async def test_jobs_for_one_row_keep_their_order_when_their_batch_is_split(desk: Desk) -> None:
    await desk.sql("INSERT INTO users (id, email, username, hashed_password) VALUES (1000, 'a', 'a', 'h')")
    for post_id in (1, 2, 3):
        await desk.sql("INSERT INTO posts (id, title, content, author_id) VALUES ($1, 't', '', 1000)", post_id)
    await desk.sql("ALTER TABLE posts ADD CONSTRAINT ck_posts_title CHECK (title <> 'poison')")

    def update(post_id: int, title: str) -> Claim:
        return Claim(f"to-{title}", "update_post", {"post_id": post_id, "changes": {"title": title}}, 1)

    await desk.run(desk.batches(), [update(1, "x"), update(2, "poison"), update(3, "z"), update(1, "y")])

    assert await desk.sql("SELECT array_agg(title::text ORDER BY id) FROM posts") == ["y", "t", "z"]


# Time-outs, outages, cancelling


async def _wait(session: AsyncSession, _messages: Sequence[CreateUser]) -> Sequence[Any]:
    await session.execute(text("SELECT 1"))
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_batch_over_its_time_is_tried_singly(desk: Desk) -> None:
    assert all_done(await desk.run(desk.batches(_wait, timeout_seconds=1.0), some(8)))
    assert (desk.together, desk.calls) == (1, 8)
    assert await desk.users() == names(8)


async def test_a_database_that_goes_silent_holds_a_lane_for_no_more_than_one_job(desk: Desk) -> None:
    async with silenceable(desk.url) as (url, silence):

        async def and_silence(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
            silence.set()
            return await create_users(session, messages)

        sessions = create_sessions(desk.another_engine(url))
        seconds = 0.5 * slowdown()
        watch = Stopwatch()

        attempts = await desk.run(desk.batches(and_silence, sessions=sessions, timeout_seconds=seconds), some(64))

        assert watch.seconds() < 64 * 0.5 / 2
        assert all(isinstance(attempt, Release) and attempt.outage for attempt in attempts)
        assert desk.calls <= 1
    assert await desk.users() == []


async def test_a_connection_lost_in_a_batch_is_no_try_of_any_of_its_jobs(desk: Desk) -> None:
    async def lose(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        replies = await create_users(session, messages)
        await desk.sql("SELECT pg_terminate_backend($1)", await session.scalar(text("SELECT pg_backend_pid()")))
        return replies

    attempts = await desk.run(desk.batches(lose), some(8))

    assert all(isinstance(attempt, Release) for attempt in attempts)
    assert (desk.together, desk.calls) == (1, 0)
    assert (await desk.users(), await desk.ledger()) == ([], [])
    assert all_done(await desk.run(desk.batches(), some(8)))
    assert await desk.users() == names(8)


@pytest.mark.parametrize("kind", ["create_user", "create_post"])
async def test_a_commit_whose_answer_is_lost_is_found_when_the_jobs_come_again(desk: Desk, kind: str) -> None:
    proxy = Proxy(desk.url)
    claims = some(8) if kind == "create_user" else await some_posts(desk, 8)
    async with proxy() as url:
        batches = desk.batches(sessions=create_sessions(desk.another_engine(url)))
        proxy.lose_answer_to = b"COMMIT"
        lost = await desk.run(batches, claims)
        proxy.lose_answer_to = None

        assert all(isinstance(attempt, Release) for attempt in lost)
        assert await desk.sql(EFFECTS) == 8
        assert all_done(await desk.run(batches, claims))

    assert all(claim.redelivered for claim in claims)
    assert desk.calls == 0
    assert await desk.sql(EFFECTS) == 8


async def test_a_batch_that_is_cancelled_before_its_commit_leaves_no_trace(desk: Desk) -> None:
    at_work = asyncio.Event()

    async def slow(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        await create_users(session, messages)
        at_work.set()
        return await _wait(session, messages)

    running = asyncio.create_task(desk.run(desk.batches(slow), some(8)))
    await at_work.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await desk.assert_nothing_left()
    assert (await desk.users(), await desk.ledger(), desk.calls) == ([], [], 0)


def jobs_of(claims: Sequence[Claim], task: asyncio.Task[Any]) -> list[Job]:
    """Jobs of one lane, as its worker holds them."""
    lease = Lease(b"", b"", b"0")
    jobs = [Job(Claimed(lease, b"", PayloadState.FETCHED, 1), claim, task=task) for claim in claims]
    for job in jobs:
        job.lane = jobs
    return jobs


@pytest.mark.parametrize("insists", [False, True])
async def test_a_commit_is_not_interrupted_and_found_later_if_it_is_all_the_same(desk: Desk, insists: bool) -> None:
    async with gate_at_commit(desk) as open_gate:
        claims = some(8)
        running = asyncio.create_task(desk.run(desk.batches(), claims))
        await desk.waiting()
        assert all(claim.committing for claim in claims)

        interrupt(jobs_of(claims, running)[3:4])

        assert not running.cancelling()
        if insists:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert not any(claim.committing for claim in claims)
        await open_gate()
        attempts = await desk.run(desk.batches(), some(8)) if insists else await running
    assert all_done(attempts)
    assert await desk.users() == names(8)
    assert len(await desk.ledger()) == 8


# The whole engine

# Every creation of this user fails, for no reason that a set-based form foresees.
POISON = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
CREATE TRIGGER fail AFTER INSERT ON users FOR EACH ROW WHEN (NEW.username = 'user03') EXECUTE FUNCTION fail()
"""
GATE = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
CREATE TRIGGER wait BEFORE INSERT ON users FOR EACH ROW WHEN (NEW.username = 'user01') EXECUTE FUNCTION wait()
"""
LOCK = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"


@dataclass
class Stage:
    """Eight jobs that one worker claims together, and a look at what becomes of them."""

    desk: Desk
    redis: Redis
    settings: Settings
    jobs: list[JobHandle[Any]]

    @asynccontextmanager
    async def at_work(self, lock: str = LOCK) -> AsyncIterator[tuple[EngineWorker, asyncpg.Connection]]:
        """A worker in the midst of the batch, and the connection that it waits for."""
        keeper = await asyncpg.connect(self.desk.url)
        try:
            await keeper.execute(f"BEGIN; {lock}")
            async with working(self.settings) as worker:
                await self.desk.waiting()
                assert len(worker._lanes.running) == 8
                assert len(worker._lanes.tasks) == 1
                yield worker, keeper
        finally:
            await keeper.close()

    async def results(self) -> list[dict[str, Any]]:
        return [json.loads(await self.redis.get(keys.result(job.job_id)) or b"{}") for job in self.jobs]

    async def all_ended(self) -> bool:
        return all(await self.results())


@pytest.fixture
async def stage(desk: Desk, redis_url: str, logging_kept: None) -> AsyncIterator[Stage]:
    redis = connect(redis_url, queue=keys.DEFAULT_QUEUE)
    async with Producer(redis_url) as producer:
        jobs = await producer.enqueue_many([user(name) for name in names(8)])
        yield Stage(desk, redis, settings_of(redis_url, desk.url, batch_size=8), jobs)
    await redis.aclose()
    await redis.connection_pool.disconnect()


async def test_a_job_that_is_cancelled_leaves_the_rest_of_its_batch_to_be_done(stage: Stage) -> None:
    async with stage.at_work() as (_, keeper):
        assert await stage.jobs[5].cancel() is JobStatus.CLAIMED
        await keeper.execute("ROLLBACK")
        await stage.desk.eventually(stage.all_ended)

    assert [await job.status() for job in stage.jobs] == [
        JobStatus.CANCELLED if place == 5 else JobStatus.DONE for place in range(8)
    ]
    assert sorted(await stage.desk.users()) == [name for name in names(8) if name != "user05"]
    assert (stage.jobs[5].job_id, "rejected", "cancelled") in await stage.desk.ledger()


async def test_after_one_of_a_batch_was_cancelled_another_can_be(stage: Stage) -> None:
    # Given: a batch of which one was cancelled, so that the others go on singly, and the second of them waits.
    await run_all(stage.desk.sql, GATE)
    async with stage.at_work("SELECT pg_advisory_xact_lock(7)"):
        await stage.jobs[5].cancel()
        await stage.desk.eventually(lambda: stage.redis.exists(keys.result(stage.jobs[0].job_id)))
        await stage.desk.waiting()

        # When: that one is cancelled as well. Then: it does not wait any longer.
        await stage.jobs[1].cancel()
        await stage.desk.eventually(stage.all_ended, seconds=4)

    assert [place for place in range(8) if await stage.jobs[place].status() is not JobStatus.DONE] == [1, 5]
    assert await stage.desk.users() == [name for name in names(8) if name not in {"user01", "user05"}]


async def test_the_second_signal_gives_all_of_a_batch_back_uncounted(stage: Stage) -> None:
    async with stage.at_work() as (worker, _):
        worker.handle_sig(signal.SIGTERM)
        worker.handle_sig(signal.SIGTERM)
        await stage.desk.eventually(lambda: _is_gone(worker))

    assert (await stage.desk.users(), await stage.desk.ledger()) == ([], [])
    assert await stage.redis.zcard(keys.DEFAULT_QUEUE) == 8
    for job in stage.jobs:
        assert await stage.redis.get(keys.retry(job.job_id)) == b"0"
        assert await stage.redis.exists(keys.in_progress(job.job_id)) == 0
    await burst(stage.settings)
    assert await stage.desk.users() == names(8)


async def _is_gone(worker: EngineWorker) -> bool:
    return not worker._lanes.tasks


async def test_results_letters_news_and_logs_are_those_of_single_jobs(stage: Stage, logged: Logged) -> None:
    await run_all(stage.desk.sql, POISON)
    await stage.desk.sql("INSERT INTO users (email, username, hashed_password) VALUES ('x', 'user05', 'h')")
    settings = stage.settings.model_copy(update={"max_tries": 2})
    job_ids = [job.job_id for job in stage.jobs]
    told: set[str] = set()

    async with stage.redis.pubsub() as listener:
        await listener.psubscribe(keys.results(keys.DEFAULT_QUEUE, "*"))
        with logged() as lines:
            await burst(settings)
            about = [line for line in lines() if "job_id" in line]
        while told < set(job_ids):
            message = await listener.get_message(timeout=PATIENCE_SECONDS)
            assert message is not None
            if message["type"] == "pmessage":
                told.update(message["data"].decode().split())

    said = await stage.results()
    assert [result["s"] for result in said] == [place not in {3, 5} for place in range(8)]
    assert said[3]["r"]["code"] == "failed"
    assert said[5]["r"] == {"code": "conflict", "detail": "username is already taken"}
    assert said[0]["r"]["username"] == "user00"
    assert [result["t"] for result in said] == [2 if place == 3 else 1 for place in range(8)]
    assert all(result["et"] <= result["st"] <= result["ft"] for result in said)
    letters = await stage.redis.zrange(keys.dead(keys.DEFAULT_QUEUE), 0, -1)
    assert letters == [job_ids[3].encode()]
    assert sorted(line["job_id"] for line in about) == sorted([*job_ids, job_ids[3]])
    assert sorted(line["event"] for line in about) == ["job_dead", *["job_done"] * 6, "job_rejected", "job_retried"]
