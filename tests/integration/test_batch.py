"""A batch gives each of its jobs what it would have got alone, whatever happens to the batch."""

import asyncio
import json
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from redis.asyncio import Redis
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from producers import CreateUser, JobHandle, JobStatus, Producer, User, keys
from producers._redis import connect
from tests.integration.bench import MAX_TRIES, OPEN, Bench, Handler, Sessions, closed_clean, create_user
from tests.integration.conftest import Logged
from tests.integration.proxy import Proxy
from tests.integration.running import burst, run_all, settings_of, user, working
from tests.jobs import HASH, claimed_job, user_fields
from tests.waiting import PATIENCE_SECONDS, Stopwatch, slowdown
from worker.database.session import create_sessions
from worker.engine.batch import Batches
from worker.engine.dispatcher import Dispatcher
from worker.engine.transaction import Transaction
from worker.engine.worker import EngineWorker
from worker.jobs import REGISTRY, JobType
from worker.jobs.users import create_users
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import Done, Rejected, Release, Retry
from worker.queue.leases import cancel_unless_committing
from worker.settings import Settings

SetBased = Callable[[AsyncSession, Sequence[CreateUser]], Awaitable[Sequence[Any]]]
TYPES = ["create_user", "create_post"]
EFFECTS = "SELECT (SELECT count(*) FROM users WHERE id <> 1000) + (SELECT count(*) FROM posts)"
AUTHOR = "INSERT INTO users (id, email, username, hashed_password) VALUES (1000, 'a', 'a', 'h')"


@dataclass
class BatchBench(Bench):
    """A database, and batches in it. Its `calls` are those of handlers of single jobs."""

    shared_calls: int = 0
    """How often a set-based handler was called."""

    def batches(
        self,
        shared: SetBased = create_users,
        single: Handler = create_user,
        *,
        sessions: Sessions | None = None,
        timeout_seconds: float = 20.0,
    ) -> Batches:
        """All real job types, both handlers of `create_user` replaced by those that are given."""

        async def counted(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
            self.shared_calls += 1
            return await shared(session, messages)

        handler = self.counted(CreateUser, single).handler
        registry = REGISTRY | {"create_user": JobType("create_user", CreateUser, handler, counted)}
        sessions = sessions or create_sessions(self.engine)
        transaction = Transaction(sessions, registry, max_tries=MAX_TRIES, timeout_seconds=timeout_seconds)
        return Batches(transaction, sessions, registry, timeout_seconds=timeout_seconds)

    async def run(self, batches: Batches, jobs: Sequence[ClaimedJob]) -> list[Attempt]:
        """Run a batch. Returns the attempt of each of these jobs, of which there is one."""
        ended: dict[ClaimedJob, Attempt] = {}
        async with aclosing(batches.run(jobs)) as parts:
            async for attempts in parts:
                for attempt in attempts:
                    assert attempt.job not in ended, f"{attempt.job.job_id} ended twice"
                    ended[attempt.job] = attempt
        assert not any(job.progress.committing for job in jobs)
        return [ended[job] for job in jobs]

    async def run_jobs(self, count: int = 8, **handlers: Any) -> list[Attempt]:
        """Run a batch of jobs that create users."""
        return await self.run(self.batches(**handlers), self.jobs("create_user", count))

    def jobs(self, name: str, count: int = 8) -> list[ClaimedJob]:
        """Jobs that create users in the order of their names, or posts: only the ledger knows a post's second delivery.

        A post needs `AUTHOR`.
        """
        if name == "create_user":
            return [self.job(username, job_id=f"job-{username}") for username in names(count)]
        fields = {"author_id": 1000, "title": "t", "content": ""}
        return [claimed_job("create_post", dict(fields), job_id=f"post-{number}") for number in range(count)]

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
async def bench(database_url: str, engine: Any, sql: Any, eventually: Any) -> AsyncIterator[BatchBench]:
    async with closed_clean(BatchBench(database_url, engine, sql, eventually)) as bench:
        yield bench


def create_and(step: Callable[[AsyncSession, Sequence[CreateUser]], Awaitable[Any]]) -> SetBased:
    """A set-based handler that creates the users and then takes a step."""

    async def handler(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        replies = await create_users(session, messages)
        await step(session, messages)
        return replies

    return handler


def names(count: int = 8) -> list[str]:
    return [f"user{number:02}" for number in range(count)]


def results_of(attempts: Sequence[Attempt]) -> list[Any]:
    return [attempt.result for attempt in attempts]


def all_done(attempts: Sequence[Attempt]) -> bool:
    return all(isinstance(result, Done) for result in results_of(attempts))


# One transaction


async def test_a_batch_writes_effects_replies_and_ledger_rows_in_one_transaction(bench: BatchBench) -> None:
    with bench.transactions() as begun:
        results = results_of(await bench.run_jobs())

    assert len(begun) == 1
    assert (bench.shared_calls, bench.calls) == (1, 0)
    assert [json.loads(result.reply)["username"] for result in results] == names() == await bench.users()
    # PostgreSQL's own mark of the transaction that wrote a row.
    marks = "SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM users UNION ALL SELECT xmin FROM job_ledger) x"
    assert await bench.sql(marks) == 1
    stored = await bench.sql("SELECT array_agg(reply::text ORDER BY job_id) FROM job_ledger")
    assert stored == [result.reply for result in results]


async def test_a_batch_decides_rejections_in_the_same_transaction(bench: BatchBench) -> None:
    await bench.run(bench.batches(), [bench.job("ada", job_id="before"), bench.job("bob", job_id="before-2")])
    jobs = [
        *bench.jobs("create_user", 3),
        bench.job("ada", job_id="taken", username="another"),
        bench.job("user00", job_id="twin", email="another@example.com"),
        bench.job("zoe", job_id="last"),
    ]

    with bench.transactions() as begun:
        attempts = await bench.run(bench.batches(), jobs)

    assert len(begun) == 1
    assert bench.calls == 0
    assert results_of(attempts[3:5]) == [
        Rejected("conflict", "email is already taken"), Rejected("conflict", "username is already taken"),
    ]  # fmt: skip
    assert all_done(attempts[:3] + attempts[5:])
    assert await bench.users() == ["ada", "bob", *names(3), "zoe"]
    rejected = {row[:2] for row in await bench.ledger() if row[1] == "rejected"}
    assert rejected == {("taken", "rejected"), ("twin", "rejected")}


@pytest.mark.parametrize(
    ("job", "accepted"),
    [
        (claimed_job(attempt=1), True),
        (claimed_job(attempt=2), True),  # a killed worker had most likely not begun it
        (claimed_job(attempt=3), False),  # it may be the one that takes its worker down
        (claimed_job(attempt=MAX_TRIES + 1), False),
        (claimed_job(job_id="ada@example.com\n"), False),
        (claimed_job("make_coffee", {}), False),
    ],
)
def test_a_job_may_share_a_session_only_while_it_is_harmless(
    bench: BatchBench, job: ClaimedJob, accepted: bool
) -> None:
    assert bench.batches().accepts(job) is accepted


# Splits


async def test_a_poisoned_job_costs_its_batch_a_logarithm_of_transactions(bench: BatchBench) -> None:
    async def poison(_session: AsyncSession, messages: Sequence[CreateUser]) -> None:
        if any(message.username == "user37" for message in messages):
            raise LookupError

    async def single(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        await poison(session, [message])
        return reply

    with bench.transactions() as begun:
        attempts = await bench.run_jobs(64, shared=create_and(poison), single=single)

    assert len(begun) <= 2 * math.log2(64) + 2
    assert sum(attempt.splits for attempt in attempts) == math.log2(64)
    assert isinstance(attempts.pop(37).result, Retry)
    assert all_done(attempts)
    assert sorted(await bench.users()) == [name for name in names(64) if name != "user37"]
    assert len(await bench.ledger()) == 63


# A unique value that no ON CONFLICT knows of.
ONE_INACTIVE = """
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT count(*) > 1 FROM users WHERE NOT is_active)
    THEN RAISE unique_violation USING CONSTRAINT = 'uq_users_is_active', TABLE = 'users'; END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER look AFTER INSERT ON users
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION look()
"""


async def test_a_violation_that_only_the_commit_finds_rejects_one_job(bench: BatchBench) -> None:
    await run_all(bench.sql, ONE_INACTIVE)
    jobs = bench.jobs("create_user")
    jobs[2].fields["is_active"] = jobs[5].fields["is_active"] = False

    results = results_of(await bench.run(bench.batches(), jobs))

    assert [result for result in results if not isinstance(result, Done)] == [
        Rejected("conflict", "is_active is already taken")
    ]
    assert len(await bench.users()) == 7
    assert len(await bench.ledger()) == 8


@pytest.mark.parametrize(
    ("end", "change"),
    [
        ("commit", list), ("rollback", list), ("close", list),  # ends the transaction
        ("", lambda replies: replies[:-1]), ("", lambda replies: [*replies, None]),  # not one reply for each message
        ("", lambda _: []), ("", lambda _: "xyz"),
    ],
)  # fmt: skip
async def test_a_set_based_handler_that_breaks_its_contract_is_replaced_by_the_single_form(
    bench: BatchBench, end: str, change: Callable[[Any], Any]
) -> None:
    async def shared(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        replies = await create_users(session, messages)
        if end:
            await getattr(session, end)()
        changed: Sequence[Any] = change(replies)
        return changed

    assert all_done(await bench.run_jobs(shared=shared))
    assert bench.calls == 8
    assert await bench.users() == names()
    assert len(await bench.ledger()) == 8


# Redelivery


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("conflict", [False, True], ids=["same-content", "other-content"])
async def test_a_redelivered_job_gets_its_outcome_and_the_rest_of_its_batch_theirs(
    bench: BatchBench, name: str, conflict: bool
) -> None:
    await bench.sql(AUTHOR)
    batches = bench.batches()
    before = results_of(await bench.run(batches, bench.jobs(name)[2:5]))
    jobs = bench.jobs(name)
    if conflict:
        jobs[3].fields["hashed_password" if name == "create_user" else "title"] = HASH.replace("t=3", "t=4")
        before[1] = Rejected("conflict", "this job id stands for another content")

    attempts = await bench.run(batches, jobs)

    assert results_of(attempts[2:5]) == before
    assert [attempt.redelivered for attempt in attempts] == [False] * 2 + [True] * 3 + [False] * 3
    assert all_done(attempts[:2] + attempts[5:])
    assert await bench.sql(EFFECTS) == 8
    assert bench.calls == 0
    assert results_of(await bench.run(batches, jobs)) == results_of(attempts)


@pytest.mark.parametrize("name", TYPES)
async def test_two_engines_with_the_same_batch_leave_one_effect_and_both_get_the_outcomes(
    bench: BatchBench, name: str
) -> None:
    # Given: two engines, of which the first to commit waits until the other one waits for it.
    await bench.sql(AUTHOR)

    class Patient(AsyncSession):
        async def commit(self) -> None:
            await bench.lock_waits()
            await super().commit()

    async def deliver(kind: type[AsyncSession]) -> list[Attempt]:
        return await bench.run(bench.batches(sessions=bench.sessions(kind=kind)), bench.jobs(name))

    # When: both are given the same batch.
    first = asyncio.create_task(deliver(Patient))
    await bench.eventually(lambda: bench.sql(f"SELECT ({OPEN}) = 1"))
    second = await deliver(AsyncSession)

    # Then:
    assert results_of(await first) == results_of(second)
    assert all_done(second)
    assert await bench.sql(EFFECTS) == 8
    assert len(await bench.ledger()) == 8


@pytest.mark.parametrize("name", [*TYPES, "delete_user"])
async def test_a_job_that_is_twice_in_a_batch_is_one_job(bench: BatchBench, name: str) -> None:
    await bench.sql(AUTHOR)
    fields: dict[str, dict[str, Any]] = {
        "create_user": user_fields(), "create_post": {"author_id": 1000, "title": "t", "content": ""},
        "delete_user": {"user_id": 1000},
    }  # fmt: skip
    twins = [claimed_job(name, fields[name], job_id="twin") for _ in range(2)]
    other = claimed_job(name, user_fields("bob") if name == "create_user" else fields[name], job_id="other")

    attempts = await bench.run(bench.batches(), [twins[0], other, twins[1]])

    assert all_done(attempts)
    results = results_of(attempts)
    assert results[0] == results[2]
    assert attempts[2].redelivered
    assert await bench.sql(EFFECTS) == (0 if name == "delete_user" else 2)
    assert await bench.sql("SELECT reply::text FROM job_ledger WHERE job_id = 'twin'") == results[0].reply


async def test_jobs_for_one_row_keep_their_order_when_their_batch_is_split(bench: BatchBench) -> None:
    await bench.sql(AUTHOR)
    for post_id in (1, 2, 3):
        await bench.sql("INSERT INTO posts (id, title, content, author_id) VALUES ($1, 't', '', 1000)", post_id)
    await bench.sql("ALTER TABLE posts ADD CONSTRAINT ck_posts_title CHECK (title <> 'poison')")

    updates = [
        claimed_job("update_post", {"post_id": post_id, "changes": {"title": title}}, job_id=f"to-{title}")
        for post_id, title in [(1, "x"), (2, "poison"), (3, "z"), (1, "y")]
    ]
    await bench.run(bench.batches(), updates)

    assert await bench.sql("SELECT array_agg(title::text ORDER BY id) FROM posts") == ["y", "t", "z"]


# Timeouts, outages, cancellation


async def _wait(session: AsyncSession, _messages: Sequence[CreateUser]) -> Sequence[Any]:
    await session.execute(text("SELECT 1"))
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_batch_over_its_time_is_run_singly(bench: BatchBench) -> None:
    assert all_done(await bench.run_jobs(shared=_wait, timeout_seconds=slowdown()))
    assert (bench.shared_calls, bench.calls) == (1, 8)
    assert await bench.users() == names()


async def test_a_silent_database_holds_a_batch_no_longer_than_one_job(bench: BatchBench) -> None:
    proxy = Proxy(bench.url)

    async def and_silence(session: AsyncSession, messages: Sequence[CreateUser]) -> Sequence[Any]:
        proxy.silent = True
        return await create_users(session, messages)

    async with proxy() as url:
        seconds = 0.5 * slowdown()
        watch = Stopwatch()

        attempts = await bench.run_jobs(64, shared=and_silence, sessions=bench.sessions(url), timeout_seconds=seconds)

        assert watch.seconds() < 64 * 0.5 / 2
        assert all(isinstance(result, Release) and result.outage for result in results_of(attempts))
        assert bench.calls <= 1
    assert await bench.users() == []


@pytest.mark.parametrize("splits", [0, 1])
async def test_a_connection_lost_in_a_batch_or_a_part_of_it_releases_all_its_jobs(
    bench: BatchBench, splits: int
) -> None:
    async def lose(session: AsyncSession, messages: Sequence[CreateUser]) -> None:
        if splits and len(messages) == 8:
            raise LookupError
        await bench.sql("SELECT pg_terminate_backend($1)", await session.scalar(text("SELECT pg_backend_pid()")))

    attempts = await bench.run_jobs(shared=create_and(lose))

    assert all(isinstance(result, Release) for result in results_of(attempts))
    assert (bench.shared_calls, bench.calls) == (1 + splits, 0)
    assert sum(attempt.splits for attempt in attempts) == splits
    await bench.assert_no_trace()
    assert all_done(await bench.run_jobs())
    assert await bench.users() == names()


@pytest.mark.parametrize("name", TYPES)
async def test_a_commit_whose_answer_is_lost_is_found_by_the_redelivery(bench: BatchBench, name: str) -> None:
    await bench.sql(AUTHOR)
    proxy = Proxy(bench.url)
    async with proxy() as url:
        batches = bench.batches(sessions=bench.sessions(url))
        proxy.lose_answer_to = b"COMMIT"
        lost = await bench.run(batches, bench.jobs(name))
        proxy.lose_answer_to = None

        assert all(isinstance(result, Release) for result in results_of(lost))
        assert await bench.sql(EFFECTS) == 8
        again = await bench.run(batches, bench.jobs(name))

    assert all_done(again)
    assert all(attempt.redelivered for attempt in again)
    assert bench.calls == 0
    assert await bench.sql(EFFECTS) == 8


async def test_a_batch_cancelled_before_its_commit_leaves_no_trace(bench: BatchBench) -> None:
    at_work = asyncio.Event()

    async def wait(session: AsyncSession, messages: Sequence[CreateUser]) -> None:
        at_work.set()
        await _wait(session, messages)

    running = asyncio.create_task(bench.run_jobs(shared=create_and(wait)))
    await at_work.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await bench.assert_nothing_open()
    await bench.assert_no_trace()
    assert bench.calls == 0


@pytest.mark.parametrize("insist", [False, True])
async def test_a_commit_of_a_batch_is_not_cancelled_and_found_later_if_it_is(bench: BatchBench, insist: bool) -> None:
    async with bench.commits_held() as let_go:
        jobs = bench.jobs("create_user")
        running = asyncio.create_task(bench.run(bench.batches(), jobs))
        for job in jobs:
            job.progress.task, job.progress.batch = running, jobs  # type: ignore[assignment]  # the dispatcher's part
        await bench.lock_waits()
        assert all(job.progress.committing for job in jobs)

        cancel_unless_committing(jobs[3:4])

        assert not running.cancelling()
        if insist:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert not any(job.progress.committing for job in jobs)
        await let_go()
        attempts = await bench.run_jobs() if insist else await running
    assert all_done(attempts)
    assert await bench.users() == names()
    assert len(await bench.ledger()) == 8


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
    """Eight jobs that one worker claims together."""

    bench: BatchBench
    redis: Redis
    settings: Settings
    jobs: list[JobHandle[Any]]

    @asynccontextmanager
    async def at_work(self, lock: str = LOCK) -> AsyncIterator[tuple[EngineWorker, asyncpg.Connection]]:
        """A worker in the midst of the batch, and the connection that it waits for."""
        keeper = await asyncpg.connect(self.bench.url)
        try:
            await keeper.execute(f"BEGIN; {lock}")
            async with working(self.settings) as worker:
                await self.bench.lock_waits()
                assert len(dispatcher_of(worker).running) == 8
                assert len(dispatcher_of(worker).tasks) == 1
                yield worker, keeper
        finally:
            await keeper.close()

    async def results(self) -> list[dict[str, Any]]:
        return [json.loads(await self.redis.get(keys.result(job.job_id)) or b"{}") for job in self.jobs]

    async def all_ended(self) -> bool:
        return all(await self.results())

    async def assert_cancelled(self, *places: int) -> None:
        """These jobs were cancelled and left no effect; all others are done."""
        statuses = [JobStatus.CANCELLED if place in places else JobStatus.DONE for place in range(8)]
        assert [await job.status() for job in self.jobs] == statuses
        assert sorted(await self.bench.users()) == [name for place, name in enumerate(names()) if place not in places]
        for place in places:
            assert (self.jobs[place].job_id, "rejected", "cancelled") in await self.bench.ledger()


def dispatcher_of(worker: EngineWorker) -> Dispatcher:
    assert worker._pipeline is not None
    return worker._pipeline._dispatcher


@pytest.fixture
async def stage(bench: BatchBench, redis_url: str, logging_kept: None) -> AsyncIterator[Stage]:
    redis = connect(redis_url, queue=keys.DEFAULT_QUEUE)
    async with Producer(redis_url) as producer:
        jobs = await producer.enqueue_many([user(name) for name in names()])
        yield Stage(bench, redis, settings_of(redis_url, bench.url, batch_size=8), jobs)
    await redis.aclose()
    await redis.connection_pool.disconnect()


async def test_a_cancelled_job_leaves_the_rest_of_its_batch_to_be_done(stage: Stage) -> None:
    async with stage.at_work() as (_, keeper):
        assert await stage.jobs[5].cancel() is JobStatus.CLAIMED
        await keeper.execute("ROLLBACK")
        await stage.bench.eventually(stage.all_ended)

    await stage.assert_cancelled(5)


async def test_a_second_job_of_a_batch_can_be_cancelled_after_a_first(stage: Stage) -> None:
    # Given: a batch of which one was cancelled, so that the others go on singly, and the second of them waits.
    await run_all(stage.bench.sql, GATE)
    async with stage.at_work("SELECT pg_advisory_xact_lock(7)"):
        await stage.jobs[5].cancel()
        await stage.bench.eventually(lambda: stage.redis.exists(keys.result(stage.jobs[0].job_id)))
        await stage.bench.lock_waits()

        # When: that one is cancelled as well. Then: it does not wait any longer.
        watch = Stopwatch()
        await stage.jobs[1].cancel()
        await stage.bench.eventually(stage.all_ended)
        assert watch.seconds() < 4

    await stage.assert_cancelled(1, 5)
    assert await stage.bench.users() == sorted(await stage.bench.users())  # run in their order


async def test_a_second_signal_releases_a_batch_uncounted(stage: Stage) -> None:
    async with stage.at_work() as (worker, _):

        async def is_idle() -> bool:
            return not dispatcher_of(worker).tasks

        worker.handle_sig(signal.SIGTERM)
        worker.handle_sig(signal.SIGTERM)
        await stage.bench.eventually(is_idle)

    await stage.bench.assert_no_trace()
    assert await stage.redis.zcard(keys.DEFAULT_QUEUE) == 8
    for job in stage.jobs:
        assert await stage.redis.get(keys.retry(job.job_id)) == b"0"
        assert await stage.redis.exists(keys.in_progress(job.job_id)) == 0
    await burst(stage.settings)
    assert await stage.bench.users() == names()


async def test_a_batch_has_the_results_dead_letters_messages_and_logs_of_single_jobs(
    stage: Stage, logged: Logged
) -> None:
    await run_all(stage.bench.sql, POISON)
    await stage.bench.sql("INSERT INTO users (email, username, hashed_password) VALUES ('x', 'user05', 'h')")
    settings = stage.settings.model_copy(update={"max_tries": 2})
    job_ids = [job.job_id for job in stage.jobs]
    published: set[str] = set()

    async with stage.redis.pubsub() as listener:
        await listener.psubscribe(keys.results(keys.DEFAULT_QUEUE, "*"))
        with logged() as lines:
            await burst(settings)
            written = [line for line in lines() if "job_id" in line]
        while published < set(job_ids):
            message = await listener.get_message(timeout=PATIENCE_SECONDS)
            assert message is not None
            if message["type"] == "pmessage":
                published.update(message["data"].decode().split())

    results = await stage.results()
    assert [result["s"] for result in results] == [place not in {3, 5} for place in range(8)]
    assert results[3]["r"]["code"] == "failed"
    assert results[5]["r"] == {"code": "conflict", "detail": "username is already taken"}
    assert results[0]["r"]["username"] == "user00"
    assert [result["t"] for result in results] == [2 if place == 3 else 1 for place in range(8)]
    assert all(result["et"] <= result["st"] <= result["ft"] for result in results)
    assert await stage.redis.zrange(keys.dead(keys.DEFAULT_QUEUE), 0, -1) == [job_ids[3].encode()]
    assert sorted(line["job_id"] for line in written) == sorted([*job_ids, job_ids[3]])
    assert sorted(line["event"] for line in written) == ["job_dead", *["job_done"] * 6, "job_rejected", "job_retried"]
