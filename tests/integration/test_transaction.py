"""Is a job's effect there exactly once, with its one outcome, whatever happens to the try, on a real PostgreSQL?"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from producers.messages import CreateUser, Deleted, Message, Reply, User
from tests.waiting import slowdown
from worker.database import users
from worker.database.guarded_session import GuardedSession
from worker.database.session import Timeouts, create_engine, create_sessions
from worker.engine.transaction import Claim, Transaction
from worker.jobs import REGISTRY, AnyJobType, JobType, Rejection
from worker.model.outcome import Attempt, Dead, Done, Rejected, Release, Retry

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"
MAX_TRIES = 3
Sessions = async_sessionmaker[Any]
Handler = Callable[[AsyncSession, Any], Awaitable[Reply]]

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND (state = 'active' OR state LIKE 'idle in transaction%')"
)


@dataclass
class Bench:
    """What the tests work with: transactions whose handlers are counted, and a look at what they leave."""

    url: str
    engine: AsyncEngine
    sql: Any
    eventually: Any
    calls: int = 0
    engines: list[AsyncEngine] = field(default_factory=list)

    def transaction(
        self, create_user: Handler | None = None, *, sessions: Sessions | None = None, timeout_seconds: float = 20.0
    ) -> Transaction:
        """All the real jobs, the handler of `create_user` replaced if one is given."""
        registry = {name: self._counted(job.message, job.handler) for name, job in REGISTRY.items()}
        if create_user is not None:
            registry["create_user"] = self._counted(CreateUser, create_user)
        sessions = sessions or create_sessions(self.engine)
        return Transaction(sessions, registry, max_tries=MAX_TRIES, timeout_seconds=timeout_seconds)

    def another_engine(self, url: str | None = None, *, pool_size: int = 8, **timeouts: float) -> AsyncEngine:
        engine = create_engine(url or self.url, pool_size=pool_size, timeouts=Timeouts(**timeouts))
        self.engines.append(engine)
        return engine

    async def users(self) -> list[str]:
        """The names of all users."""
        found: list[str] = await self.sql("SELECT coalesce(array_agg(username::text ORDER BY id), '{}') FROM users")
        return found

    async def ledger(self) -> list[tuple[str, str, str | None]]:
        """The id, the outcome and the code of every row."""
        row = "(job_id::text, outcome::text, code::text)"
        found: list[tuple[str, str, str | None]] = await self.sql(
            f"SELECT coalesce(array_agg({row} ORDER BY job_id), '{{}}') FROM job_ledger"  # noqa: S608  # from here
        )
        return found

    async def waiting(self, how_many: int = 1) -> None:
        """Until so many transactions wait for a lock."""
        await self.eventually(lambda: self.sql(f"SELECT ({WAITING}) >= $1", how_many))

    async def assert_nothing_left(self) -> None:
        """No connection is checked out, and no transaction open."""
        for engine in (self.engine, *self.engines):
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # it is a QueuePool
        # The server may need a moment to see that a connection is gone.
        await self.eventually(lambda: self.sql(f"SELECT ({OPEN}) = 0"))

    def _counted(self, message: type[Message[Any]], handler: Handler) -> AnyJobType:
        async def counted(session: AsyncSession, message: Any) -> Reply:
            self.calls += 1
            return await handler(session, message)

        return JobType(message.job, message, counted)


@pytest.fixture
async def bench(database_url: str, engine: AsyncEngine, sql: Any, eventually: Any) -> AsyncIterator[Bench]:
    bench = Bench(database_url, engine, sql, eventually)
    yield bench
    try:
        await bench.assert_nothing_left()
    finally:
        for other in bench.engines:
            await other.dispose()


class Claims:
    """The jobs of which there were claims in this test."""

    job_ids: ClassVar[set[str]] = set()
    known_to_be_first = False
    """Whether a first claim is known to be one."""


@pytest.fixture(autouse=True, params=["row-first", "row-last"])
def _first_claims(request: pytest.FixtureRequest) -> Iterator[None]:
    """All holds where nothing is known of a job, and where it is known that this is its first claim."""
    Claims.known_to_be_first = request.param == "row-last"
    yield
    Claims.job_ids.clear()


def claim(name: str = "ada", *, job_id: str = "job-1", tries: int = 1) -> Claim:
    """A claim of a job that creates a user."""
    fields = {"email": f"{name}@example.com", "username": name, "hashed_password": HASH}
    first = Claims.known_to_be_first and tries == 1 and job_id not in Claims.job_ids
    Claims.job_ids.add(job_id)
    return Claim(job_id, "create_user", fields, tries, first=first)


async def create_user(session: AsyncSession, message: CreateUser) -> User:
    return User.model_validate(await users.create_user(session, message))


# Done


async def test_effect_ledger_and_reply_are_one_transaction(bench: Bench) -> None:
    job = claim()

    attempt = await bench.transaction().run(job)

    assert isinstance(attempt, Done)
    reply = json.loads(attempt.reply)
    assert reply == {
        "id": 1, "email": "ada@example.com", "username": "ada", "is_active": True, "created_at": reply["created_at"],
    }  # fmt: skip
    assert (job.redelivered, job.committing) == (False, True)
    assert await bench.ledger() == [("job-1", "done", None)]
    # PostgreSQL's own mark of the transaction that wrote a row.
    assert await bench.sql("SELECT users.xmin = job_ledger.xmin FROM users, job_ledger")
    assert await bench.sql("SELECT reply::text FROM job_ledger") == attempt.reply
    row = await bench.sql("SELECT job_ledger::text FROM job_ledger")
    assert row.startswith("(job-1,create_user,done,")
    assert HASH not in row + attempt.reply


@pytest.mark.parametrize("_first_claims", ["row-first"], indirect=True)
async def test_nothing_is_to_be_seen_before_the_commit(bench: Bench) -> None:
    seen = []

    async def look(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        seen.extend([job.committing, await bench.users(), await bench.ledger()])
        # But to the handler's own transaction: its ledger row was there first.
        seen.append(await session.scalar(text("SELECT outcome FROM job_ledger")))
        return reply

    job = claim()
    assert isinstance(await bench.transaction(look).run(job), Done)
    assert seen == [False, [], [], "done"]
    assert await bench.users() == ["ada"]


@pytest.mark.parametrize("_first_claims", ["row-first"], indirect=True)
async def test_a_hundred_deliveries_are_one_effect_and_one_outcome(bench: Bench) -> None:
    # Given: a hundred deliveries of one job, sixteen at a time, from two engines with eight connections each.
    async def slow(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        await bench.waiting(15)  # until all the others are in the midst of it
        return reply

    transactions = [bench.transaction(slow, sessions=create_sessions(bench.another_engine())) for _ in range(2)]
    jobs = [claim(tries=number % MAX_TRIES + 1) for number in range(100)]
    places = asyncio.Semaphore(16)

    async def deliver(number: int) -> Attempt:
        async with places:
            return await transactions[number % 2].run(jobs[number])

    # When:
    attempts = await asyncio.gather(*(deliver(number) for number in range(100)))

    # Then:
    assert bench.calls == 1
    assert sum(job.redelivered for job in jobs) == 99
    assert len({repr(attempt) for attempt in attempts}) == 1
    assert isinstance(attempts[0], Done)
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


@pytest.mark.parametrize("_first_claims", ["row-last"], indirect=True)
async def test_a_first_try_that_another_has_overtaken_leaves_no_second_effect(bench: Bench) -> None:
    # Given: a first try that has had its effect and not yet its ledger row, and a second that began with the row.
    go = asyncio.Event()

    async def slow(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        await go.wait()
        return reply

    first, second = claim(), claim(tries=2)
    trying = asyncio.create_task(bench.transaction(slow).run(first))
    await bench.eventually(lambda: bench.sql(f"SELECT ({OPEN}) = 1"))
    overtaking = asyncio.create_task(bench.transaction().run(second))
    await bench.waiting()

    # When: each waits for what the other has, and PostgreSQL ends one of them.
    go.set()
    attempts = await asyncio.gather(trying, overtaking)

    # Then:
    (done,) = [attempt for attempt in attempts if isinstance(attempt, Done)]
    (failed,) = [attempt for attempt in attempts if not isinstance(attempt, Done)]
    assert isinstance(failed, Retry)
    assert await bench.transaction().run(claim(tries=3)) == done
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


@pytest.mark.parametrize("_first_claims", ["row-last"], indirect=True)
@pytest.mark.parametrize("name", ["ada", "bob"])
async def test_what_passes_for_a_first_try_and_is_none_has_the_outcome_of_the_first(bench: Bench, name: str) -> None:
    done = await bench.transaction().run(claim(job_id="job-1"))
    again = Claim("job-1", "create_user", claim(name).fields, 1, first=True)

    attempt = await bench.transaction().run(again)

    # With another content it is another request; and nothing of either is to be seen.
    assert (
        attempt == done if name == "ada" else attempt == Rejected("conflict", "this job id stands for another content")
    )
    assert again.redelivered
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


async def test_a_violation_that_the_handler_deals_with_in_a_savepoint_is_no_failure(bench: Bench) -> None:
    async def or_another_name(session: AsyncSession, message: CreateUser) -> User:
        with suppress(IntegrityError):
            async with session.begin_nested():
                return await create_user(session, message)
        return await create_user(session, message.model_copy(update={"username": "ada2", "email": "ada2@example.com"}))

    transaction = bench.transaction(or_another_name)
    assert isinstance(await transaction.run(claim(job_id="a")), Done)
    assert isinstance(await transaction.run(claim(job_id="b")), Done)
    assert await bench.users() == ["ada", "ada2"]


# Rejected


async def _reject(session: AsyncSession, message: CreateUser) -> User:
    await create_user(session, message)
    raise Rejection("not_found", "there is no such thing")


async def _too_long(session: AsyncSession, message: CreateUser) -> User:
    await create_user(session, message)
    return await create_user(session, message.model_copy(update={"username": "x" * 65, "email": "x"}))


async def _unchecked(session: AsyncSession, message: CreateUser) -> User:
    await create_user(session, message)
    await session.execute(text("UPDATE users SET hashed_password = NULL"))
    raise AssertionError


async def _twice(session: AsyncSession, message: CreateUser) -> User:
    await create_user(session, message)
    return await create_user(session, message.model_copy(update={"username": "other"}))


async def _without_author(session: AsyncSession, message: CreateUser) -> User:
    await create_user(session, message)
    await session.execute(text("INSERT INTO posts (title, content, author_id) VALUES ('t', 'c', 77)"))
    raise AssertionError


@pytest.mark.parametrize(
    ("handler", "rejected"),
    [
        (_reject, Rejected("not_found", "there is no such thing")),
        (_twice, Rejected("conflict", "email is already taken")),
        (_without_author, Rejected("not_found", "author_id names nothing that exists")),
        (_too_long, Rejected("invalid", "a value is not one that the database takes")),
        (_unchecked, Rejected("invalid", "a value is not one that the database takes")),
    ],
)
async def test_a_rejection_is_written_down_and_leaves_no_effect(
    bench: Bench, handler: Handler, rejected: Rejected
) -> None:
    first, second = claim(tries=MAX_TRIES), claim()
    transaction = bench.transaction(handler)

    assert await transaction.run(first) == rejected

    assert not first.redelivered
    assert await bench.users() == []
    assert await bench.ledger() == [("job-1", "rejected", rejected.code)]
    # Delivered again, it is answered from the ledger.
    assert await transaction.run(second) == rejected
    assert second.redelivered
    assert bench.calls == 1


async def test_real_jobs_are_rejected_with_their_codes(bench: Bench) -> None:
    transaction = bench.transaction()
    await transaction.run(claim())

    async def rejection(job: str, **fields: Any) -> tuple[str, str]:
        attempt = await transaction.run(Claim(f"{job}-{len(await bench.ledger())}", job, fields, 1))
        assert isinstance(attempt, Rejected)
        return attempt.code, attempt.detail

    taken = {"email": "ada@example.com", "username": "bob", "hashed_password": HASH}
    assert await rejection("create_user", **taken) == ("conflict", "email is already taken")
    taken |= {"email": "bob@example.com", "username": "ada"}
    assert await rejection("create_user", **taken) == ("conflict", "username is already taken")
    assert await rejection("update_user", user_id=9, changes={"is_active": False}) == (
        "not_found", "there is no such user",
    )  # fmt: skip
    assert await rejection("update_post", post_id=9, changes={"title": "t"}) == ("not_found", "there is no such post")
    assert await rejection("create_post", author_id=9, title="t", content="c") == (
        "not_found", "author_id names nothing that exists",
    )  # fmt: skip
    plain = {"email": "carl@example.com", "username": "carl", "hashed_password": "s3cret"}
    code, detail = await rejection("create_user", **plain)
    assert code == "invalid"
    assert detail.startswith("hashed_password: must be an encoded argon2")
    assert await bench.users() == ["ada"]
    # Deleting what is not there is an answer.
    attempt = await transaction.run(Claim("delete", "delete_user", {"user_id": 9}, 1))
    assert attempt == Done(Deleted(deleted=False).model_dump_json())


async def test_what_breaks_the_contract_is_rejected_without_running(bench: Bench) -> None:
    fields = {"user_id": 7, "s3cret": "ada@example.com"}
    transaction = bench.transaction()

    attempt = await transaction.run(Claim("job-1", "delete_user", fields, 1))

    assert attempt == Rejected("invalid", "s3cret: extra inputs are not permitted")
    assert await bench.ledger() == [("job-1", "rejected", "invalid")]
    again = Claim("job-1", "delete_user", dict(fields), 2)
    assert await transaction.run(again) == attempt
    assert again.redelivered
    assert bench.calls == 0
    assert "ada@example.com" not in await bench.sql("SELECT job_ledger::text FROM job_ledger")


async def test_a_constraint_that_fails_at_commit_is_a_rejection(bench: Bench) -> None:
    await bench.sql(
        "ALTER TABLE users ADD CONSTRAINT uq_users_hashed_password UNIQUE (hashed_password) DEFERRABLE"
        " INITIALLY DEFERRED"
    )
    transaction = bench.transaction()
    assert isinstance(await transaction.run(claim("ada", job_id="a")), Done)

    rejected = Rejected("conflict", "hashed_password is already taken")
    assert await transaction.run(claim("bob", job_id="b")) == rejected

    assert bench.calls == 2
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("a", "done", None), ("b", "rejected", "conflict")]
    assert await transaction.run(claim("bob", job_id="b")) == rejected
    assert bench.calls == 2


# One id, another content


@pytest.mark.parametrize("first_outcome", ["done", "rejected", "dead"])
async def test_the_same_id_with_another_content_is_a_conflict(bench: Bench, first_outcome: str) -> None:
    async def outcome(session: AsyncSession, message: CreateUser) -> User:
        match first_outcome:
            case "done":
                return await create_user(session, message)
            case "rejected":
                raise Rejection("invalid", "not today")
            case _:
                raise LookupError

    transaction = bench.transaction(outcome)
    await transaction.run(claim(tries=MAX_TRIES))
    before = await bench.sql("SELECT job_ledger::text FROM job_ledger")
    assert f",{first_outcome}," in before

    others = [claim("bob"), claim("bob", tries=MAX_TRIES + 1), Claim("job-1", "delete_user", {"user_id": 1}, 1)]
    others.append(Claim("job-1", "create_user", {"username": "ada"}, 1))
    for other in others:
        assert await transaction.run(other) == Rejected("conflict", "this job id stands for another content")
        assert other.redelivered

    assert bench.calls == 1
    assert await bench.sql("SELECT job_ledger::text FROM job_ledger") == before


async def test_the_same_content_in_other_words_is_the_same(bench: Bench) -> None:
    transaction = bench.transaction()
    first = await transaction.run(claim())
    job = claim()
    job.fields = {"is_active": True, **dict(reversed(job.fields.items()))}

    assert await transaction.run(job) == first
    assert job.redelivered


# Failures


async def _fail(session: AsyncSession, message: CreateUser) -> User:
    await create_user(session, message)
    raise LookupError(f"nothing of {message.email} with {message.hashed_password}")


async def test_a_failure_leaves_no_trace_and_is_retried(bench: Bench) -> None:
    transaction = bench.transaction(_fail)
    for tries in range(1, MAX_TRIES):
        attempt = await transaction.run(claim(tries=tries))
        assert isinstance(attempt, Retry)
        assert attempt.code == "failed"
        assert attempt.detail.startswith("LookupError at test_transaction.py:")
        assert attempt.detail.endswith(" in _fail")
        assert await bench.users() == []
        assert await bench.ledger() == []
        await bench.assert_nothing_left()

    # Then it may still be done.
    assert isinstance(await bench.transaction().run(claim(tries=MAX_TRIES)), Done)


async def test_a_failure_of_the_last_try_is_a_death_that_is_written_down(bench: Bench) -> None:
    transaction = bench.transaction(_fail)

    attempt = await transaction.run(claim(tries=MAX_TRIES))

    assert isinstance(attempt, Dead)
    assert attempt.code == "failed"
    assert "ada" not in attempt.detail
    assert await bench.users() == []
    assert await bench.ledger() == [("job-1", "dead", "failed")]
    # Also a handler that has been mended does not run any more.
    again = claim(tries=1)
    assert await bench.transaction().run(again) == attempt
    assert again.redelivered
    assert bench.calls == 1


async def test_a_job_with_more_tries_than_it_may_have_took_its_worker_down(bench: Bench) -> None:
    attempt = await bench.transaction().run(claim(tries=MAX_TRIES + 1))

    assert isinstance(attempt, Dead)
    assert attempt.code == "crashed"
    assert bench.calls == 0
    assert await bench.ledger() == [("job-1", "dead", "crashed")]


async def test_a_job_done_with_its_worker_dying_before_it_could_say_so_stays_done(bench: Bench) -> None:
    first = await bench.transaction().run(claim(tries=MAX_TRIES))
    assert await bench.transaction().run(claim(tries=MAX_TRIES + 1)) == first
    assert isinstance(first, Done)


async def test_a_job_of_an_unknown_name_is_dead(bench: Bench) -> None:
    attempt = await bench.transaction().run(Claim("job-1", "make_coffee", {"s3cret": 1}, 1))
    assert attempt == Dead("unknown_job", "no job of this name is known here")
    assert await bench.ledger() == [("job-1", "dead", "unknown_job")]


@pytest.mark.parametrize("job_id", ["", "a b", "ada\x00", "a@b@c", "-", "a" * 300, "ada@example.com\n"])
async def test_what_is_no_job_id_is_dead_and_not_written_down(bench: Bench, job_id: str) -> None:
    attempt = await bench.transaction().run(claim(job_id=job_id))
    assert isinstance(attempt, Dead)
    assert attempt.code == "undecodable"
    assert bench.calls == 0
    assert await bench.ledger() == []


async def test_the_longest_job_id_fits(bench: Bench) -> None:
    job_id = "a" * 128 + "@" + "b" * 128
    assert isinstance(await bench.transaction().run(claim(job_id=job_id)), Done)
    assert await bench.ledger() == [(job_id, "done", None)]


async def test_a_handler_that_rolls_back_by_itself_does_not_pass_for_done(bench: Bench) -> None:
    async def meddle(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        await session.rollback()
        return reply

    assert isinstance(await bench.transaction(meddle).run(claim()), Retry)
    assert await bench.ledger() == []


async def test_a_handler_that_commits_by_itself_is_refused_before_anything_is_committed(bench: Bench) -> None:
    async def meddle(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        await session.commit()
        return reply

    attempt = await bench.transaction(meddle).run(claim())
    assert isinstance(attempt, Retry)
    assert "TransactionEnded" in attempt.detail
    assert await bench.users() == []
    assert await bench.ledger() == []


async def test_a_handler_that_overlooks_an_error_of_the_database_does_not_pass_for_done(bench: Bench) -> None:
    async def overlook(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        with suppress(DBAPIError):
            await session.execute(text("SELECT nothing"))
        return reply

    attempt = await bench.transaction(overlook).run(claim())
    assert isinstance(attempt, Retry)
    assert "25P02" in attempt.detail  # the transaction was aborted
    assert await bench.users() == []
    assert await bench.ledger() == []


async def test_a_handler_that_misuses_the_driver_is_not_taken_for_a_lost_connection(bench: Bench) -> None:
    async def misuse(session: AsyncSession, _message: CreateUser) -> User:
        await (await session.connection()).exec_driver_sql("SELECT $1::int")
        raise AssertionError

    assert isinstance(await bench.transaction(misuse).run(claim()), Retry)


async def test_a_handler_that_leaves_its_transaction_idle_for_too_long_uses_up_a_try(bench: Bench) -> None:
    async def dawdle(session: AsyncSession, message: CreateUser) -> User:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        await bench.eventually(lambda: bench.sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid))
        return await create_user(session, message)

    engine = bench.another_engine(idle_in_transaction_seconds=0.2)
    attempt = await bench.transaction(dawdle, sessions=create_sessions(engine)).run(claim())
    assert isinstance(attempt, Retry)
    assert "LeftIdle[25P03]" in attempt.detail
    assert await bench.ledger() == []


# Time-outs and cancelling


async def _wait_in_python(session: AsyncSession, _message: CreateUser) -> User:
    await session.execute(text("SELECT 1"))
    await asyncio.Event().wait()
    raise AssertionError


async def _wait_in_the_database(session: AsyncSession, _message: CreateUser) -> User:
    await session.execute(text("SELECT pg_sleep(60)"))
    raise AssertionError


@pytest.mark.parametrize("wait", [_wait_in_python, _wait_in_the_database])
async def test_a_try_over_its_time_is_rolled_back_and_retried(bench: Bench, wait: Handler) -> None:
    async def slow(session: AsyncSession, message: CreateUser) -> User:
        await create_user(session, message)
        return User.model_validate(await wait(session, message))

    await bench.transaction().run(claim("warm", job_id="warm"))
    transaction = bench.transaction(slow, timeout_seconds=0.5 * slowdown())

    attempt = await transaction.run(claim(tries=1))
    assert isinstance(attempt, Retry)
    assert (attempt.code, attempt.detail.partition(" ")[0]) == ("timeout", "TimeoutError")
    await bench.assert_nothing_left()
    assert await bench.users() == ["warm"]
    assert len(await bench.ledger()) == 1

    dead = await transaction.run(claim(tries=MAX_TRIES))
    assert isinstance(dead, Dead)
    assert await bench.ledger() == [("job-1", "dead", "timeout"), ("warm", "done", None)]


@pytest.mark.parametrize("wait", [_wait_in_python, _wait_in_the_database])
async def test_a_cancelled_try_leaves_no_trace(bench: Bench, wait: Handler) -> None:
    # Given: a handler at work.
    at_work = asyncio.Event()

    async def slow(session: AsyncSession, message: CreateUser) -> User:
        await create_user(session, message)
        at_work.set()
        return User.model_validate(await wait(session, message))

    job = claim(tries=MAX_TRIES)
    running = asyncio.create_task(bench.transaction(slow).run(job))
    await at_work.wait()

    # When:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    # Then:
    assert not job.committing
    await bench.assert_nothing_left()
    assert await bench.users() == []
    assert await bench.ledger() == []
    assert isinstance(await bench.transaction().run(claim()), Done)


@pytest.mark.parametrize("_first_claims", ["row-first"], indirect=True)
async def test_a_delivery_that_is_cancelled_while_it_waits_for_the_first_leaves_no_trace(bench: Bench) -> None:
    go = asyncio.Event()

    async def slow(session: AsyncSession, message: CreateUser) -> User:
        await go.wait()
        return await create_user(session, message)

    first = asyncio.create_task(bench.transaction(slow).run(claim()))
    await bench.eventually(lambda: bench.sql(f"SELECT ({OPEN}) = 1"))
    second = asyncio.create_task(bench.transaction(slow).run(claim()))
    await bench.waiting()

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()

    assert isinstance(await first, Done)
    assert await bench.users() == ["ada"]


@asynccontextmanager
async def gate_at_commit(bench: Bench) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
    """Until the gate is opened, a transaction that has added a user waits in its COMMIT."""
    await bench.sql(
        "CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END'"
    )
    await bench.sql(
        "CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON users"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_gate()"
    )
    keeper = await asyncpg.connect(bench.url)

    async def open_gate() -> None:
        await keeper.execute("SELECT pg_advisory_unlock_all()")

    await keeper.execute("SELECT pg_advisory_lock(7)")
    try:
        yield open_gate
    finally:
        await keeper.close()


async def test_a_try_says_that_it_is_committing_and_can_then_be_awaited(bench: Bench) -> None:
    async with gate_at_commit(bench) as open_gate:
        job = claim()
        running = asyncio.create_task(bench.transaction().run(job))
        await bench.waiting()
        assert job.committing
        await open_gate()
        assert isinstance(await running, Done)
    assert await bench.users() == ["ada"]


@pytest.mark.parametrize("opened", [False, True], ids=["before-the-server-ends", "as-the-server-ends"])
async def test_a_try_that_is_cancelled_in_its_commit_is_there_once_after_redelivery(bench: Bench, opened: bool) -> None:
    # Given: a COMMIT under way.
    async with gate_at_commit(bench) as open_gate:
        job = claim()
        running = asyncio.create_task(bench.transaction().run(job))
        await bench.waiting()
        assert job.committing

        # When: it is cancelled all the same, before the server's answer can have been read.
        opening = asyncio.create_task(open_gate()) if opened else None
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await (opening or open_gate())

        # Then: the caller cannot know whether it is there; the next delivery finds out.
        again = claim(tries=2)
        attempt = await bench.transaction().run(again)
    assert isinstance(attempt, Done)
    assert again.redelivered == (bench.calls == 1)
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


# Frozen workers


class Held(AsyncSession):
    """A session that stops once it has its connection, until it is let go."""

    stopped: asyncio.Event
    go: asyncio.Event

    async def run_sync(self, work: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override]  # any work will do
        await self.connection()
        self.stopped.set()
        await self.go.wait()
        return await super().run_sync(work, *args, **options)


async def test_a_frozen_first_try_cannot_commit_what_was_buried(bench: Bench) -> None:
    # Given: a first try that stops after BEGIN and before its first statement.
    Held.stopped, Held.go = asyncio.Event(), asyncio.Event()
    sessions = async_sessionmaker(bench.engine, class_=Held, expire_on_commit=False, sync_session_class=GuardedSession)
    frozen_job = claim(tries=MAX_TRIES)
    frozen = asyncio.create_task(bench.transaction(sessions=sessions).run(frozen_job))
    await Held.stopped.wait()

    # When: the job is taken for one that kills its workers, and buried.
    buried = await bench.transaction().run(claim(tries=MAX_TRIES + 1))
    assert isinstance(buried, Dead)

    # Then: the first try, going on, finds that out.
    Held.go.set()
    assert await frozen == buried
    assert frozen_job.redelivered
    assert bench.calls == 0
    assert await bench.users() == []
    assert await bench.ledger() == [("job-1", "dead", "crashed")]


async def test_what_a_first_try_may_still_commit_is_not_buried(bench: Bench) -> None:
    # Given: a first try that stops after its ledger row.
    stopped, go = asyncio.Event(), asyncio.Event()

    async def stop(session: AsyncSession, message: CreateUser) -> User:
        stopped.set()
        await go.wait()
        return await create_user(session, message)

    frozen = asyncio.create_task(bench.transaction(stop).run(claim(tries=MAX_TRIES)))
    await stopped.wait()

    # When: it is to be buried. Then: it is not, for its outcome is not known.
    impatient = bench.transaction(sessions=create_sessions(bench.another_engine(lock_seconds=0.2)))
    attempt = await impatient.run(claim(tries=MAX_TRIES + 1))
    assert isinstance(attempt, Release)

    # When: the first try goes on. Then: that is its outcome.
    go.set()
    done = await frozen
    assert isinstance(done, Done)
    assert await impatient.run(claim(tries=MAX_TRIES + 1)) == done
    assert await bench.ledger() == [("job-1", "done", None)]


# Locks


async def test_of_two_jobs_in_a_deadlock_one_is_done_and_one_retried(bench: Bench) -> None:
    await bench.sql("INSERT INTO users (email, username, hashed_password) VALUES ('1', 'one', 'h'), ('2', 'two', 'h')")
    both = asyncio.Barrier(2)

    async def cross(session: AsyncSession, message: CreateUser) -> User:
        first, second = ("one", "two") if message.username == "ada" else ("two", "one")
        touch = text("UPDATE users SET is_active = false WHERE username = :name")
        await session.execute(touch, {"name": first})
        await both.wait()
        await session.execute(touch, {"name": second})
        return await create_user(session, message)

    transaction = bench.transaction(cross)
    attempts = await asyncio.gather(
        transaction.run(claim("ada", job_id="a")), transaction.run(claim("bob", job_id="b"))
    )

    (lost,) = (attempt for attempt in attempts if isinstance(attempt, Retry))
    (_won,) = (attempt for attempt in attempts if isinstance(attempt, Done))
    assert "[40P01]" in lost.detail
    assert lost.code == "failed"
    assert len(await bench.users()) == 3
    assert len(await bench.ledger()) == 1


async def test_a_lock_that_is_not_had_in_time_is_a_retry(bench: Bench) -> None:
    await bench.sql("INSERT INTO users (email, username, hashed_password) VALUES ('1', 'one', 'h')")
    sessions = create_sessions(bench.another_engine(lock_seconds=0.1))
    holder = await asyncpg.connect(bench.url)
    try:
        await holder.execute("BEGIN; UPDATE users SET is_active = false")
        attempt = await bench.transaction(sessions=sessions).run(
            Claim("job-1", "update_user", {"user_id": 1, "changes": {"is_active": True}}, 1)
        )
    finally:
        await holder.close()
    assert isinstance(attempt, Retry)
    assert "[55P03]" in attempt.detail
    assert await bench.ledger() == []


async def test_a_statement_over_its_time_is_a_retry(bench: Bench) -> None:
    sessions = create_sessions(bench.another_engine(statement_seconds=0.3))
    attempt = await bench.transaction(_wait_in_the_database, sessions=sessions).run(claim())
    assert isinstance(attempt, Retry)
    assert "[57014]" in attempt.detail
    assert await bench.ledger() == []


# The database away


async def test_a_database_that_nobody_listens_for_is_no_try(bench: Bench) -> None:
    with socket.socket() as taken:  # bound, so that nobody else comes to listen there
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://postgres:s3cret@127.0.0.1:{taken.getsockname()[1]}/worker"
        transaction = bench.transaction(sessions=create_sessions(bench.another_engine(url)))
        # Its last try is no other; nor is one over the last, or a rejection that cannot be written down.
        jobs = [claim(tries=tries) for tries in (1, MAX_TRIES, MAX_TRIES + 1)]
        for job in (*jobs, Claim("job-1", "delete_user", {}, 1)):
            attempt = await transaction.run(job)
            assert isinstance(attempt, Release)
            assert "s3cret" not in attempt.detail
    assert bench.calls == len([job for job in jobs if job.first])  # the others ask the ledger before


async def test_a_database_that_lets_nobody_in_is_no_try(bench: Bench) -> None:
    database = bench.url.rpartition("/")[2]
    await bench.sql(f"REVOKE CONNECT ON DATABASE {database} FROM public")
    await bench.sql("CREATE ROLE outsider LOGIN PASSWORD 's3cret'")
    server = bench.url.rpartition("@")[2].partition("/")[0]
    try:
        for login in ("postgres:wrong", "nobody:s3cret", "outsider:s3cret"):
            url = f"postgresql://{login}@{server}/{database}"
            transaction = bench.transaction(sessions=create_sessions(bench.another_engine(url)))
            for tries in (1, MAX_TRIES):
                assert isinstance(await transaction.run(claim(tries=tries)), Release), login
        transaction = bench.transaction(sessions=create_sessions(bench.another_engine(bench.url + "_missing")))
        assert isinstance(await transaction.run(claim()), Release)
    finally:
        await bench.sql("DROP ROLE outsider")


async def test_a_pool_that_is_used_up_is_no_try(bench: Bench) -> None:
    engine = bench.another_engine(pool_size=1, connect_seconds=0.5 * slowdown())
    async with engine.connect():
        attempt = await bench.transaction(sessions=create_sessions(engine)).run(claim())
    assert isinstance(attempt, Release)


@pytest.mark.parametrize("timeout_seconds", [0.1, 20.0], ids=["within-the-try", "before-its-end"])
async def test_a_database_that_does_not_answer_a_connection_is_no_try(bench: Bench, timeout_seconds: float) -> None:
    with socket.socket() as mute:  # the kernel accepts, and nobody answers
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"postgresql://postgres:s3cret@127.0.0.1:{mute.getsockname()[1]}/worker"
        sessions = create_sessions(bench.another_engine(url, connect_seconds=0.5))
        transaction = bench.transaction(sessions=sessions, timeout_seconds=timeout_seconds)
        assert isinstance(await transaction.run(claim()), Release)


async def test_a_server_that_goes_silent_late_in_a_job_is_no_try(bench: Bench) -> None:
    async with silenceable(bench.url) as (url, silence):

        async def slow(session: AsyncSession, message: CreateUser) -> User:
            await create_user(session, message)
            silence.set()
            return User.model_validate(await session.scalar(text("SELECT 1")))

        # Given a job whose time is over before that of a statement is.
        sessions = create_sessions(bench.another_engine(url, pool_size=2))
        transaction = bench.transaction(slow, sessions=sessions, timeout_seconds=0.5 * slowdown())

        attempt = await transaction.run(claim(tries=1))

        assert isinstance(attempt, Release)
        assert attempt.outage


@asynccontextmanager
async def silenceable(url: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The same server behind a proxy that passes nothing on once it is told to be silent."""
    silence = asyncio.Event()
    parsed = urlsplit(url)
    tasks: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not silence.is_set():
                    writer.write(data)
        finally:
            writer.transport.abort()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(parsed.hostname, parsed.port)
        tasks.extend(asyncio.create_task(pump(*ends)) for ends in ((reader, back), (there, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield url.replace(f":{parsed.port}/", f":{port}/").replace(parsed.hostname or "", "127.0.0.1"), silence
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _terminate_own_backend(bench: Bench, session: AsyncSession) -> None:
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    await bench.sql("SELECT pg_terminate_backend($1)", pid)
    await bench.eventually(lambda: bench.sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid))


@pytest.mark.parametrize("when", ["between statements", "in a statement", "before the commit"])
async def test_a_connection_that_is_lost_under_the_handler_is_no_try(bench: Bench, when: str) -> None:
    terminate: list[asyncio.Task[None]] = []

    async def lose(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        if when == "between statements":
            await _terminate_own_backend(bench, session)
            await session.execute(text("SELECT 1"))
        elif when == "in a statement":
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            asleep = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"

            async def end() -> None:
                await bench.eventually(lambda: bench.sql(asleep, pid))
                await bench.sql("SELECT pg_terminate_backend($1)", pid)

            terminate.append(asyncio.create_task(end()))
            await session.execute(text("SELECT pg_sleep(60)"))
        else:
            await _terminate_own_backend(bench, session)
        return reply

    attempt = await bench.transaction(lose).run(claim(tries=MAX_TRIES))
    await asyncio.gather(*terminate)
    assert isinstance(attempt, Release)
    assert await bench.users() == []
    assert await bench.ledger() == []

    again = claim(tries=MAX_TRIES)
    assert isinstance(await bench.transaction().run(again), Done)
    assert not again.redelivered
    assert await bench.users() == ["ada"]


class Proxy:
    """Stands between an engine and PostgreSQL, and loses what it is told to."""

    def __init__(self, url: str) -> None:
        self._login, _, rest = url.rpartition("@")
        self._server, _, self._database = rest.partition("/")
        self._connections: set[asyncio.Task[None]] = set()
        self.refusing = False
        self.silent = False
        self.lose_answer_to: bytes | None = None
        self.lost = asyncio.Event()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[str]:
        """Listens; the URL that leads through it."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"{self._login}@127.0.0.1:{listener.sockets[0].getsockname()[1]}/{self._database}"
        finally:
            listener.close()
            await self.cut()

    async def cut(self) -> None:
        """Ends all connections."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with _aborted(writer):
            if self.refusing:
                return
            host, _, port = self._server.partition(":")
            server_reader, server_writer = await asyncio.open_connection(host, int(port))
            losing = asyncio.Event()
            with _aborted(server_writer):
                pumps = {
                    asyncio.create_task(self._to_server(reader, server_writer, losing)),
                    asyncio.create_task(self._to_client(server_reader, writer, losing)),
                }
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)

    async def _to_server(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if self.lose_answer_to is not None and self.lose_answer_to in data:
                losing.set()
            if not self.silent:
                writer.write(data)

    async def _to_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await reader.read(65_536):
            if losing.is_set():
                self.lost.set()
                return
            if not self.silent:
                writer.write(data)


@contextmanager
def _aborted(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()


async def test_a_commit_whose_answer_is_lost_is_found_by_the_redelivery(bench: Bench) -> None:
    proxy = Proxy(bench.url)
    async with proxy() as url:
        transaction = bench.transaction(sessions=create_sessions(bench.another_engine(url)))
        assert isinstance(await transaction.run(claim("warm", job_id="warm")), Done)

        # When: the server commits, and its answer does not arrive.
        proxy.lose_answer_to = b"COMMIT"
        first = await transaction.run(claim(tries=MAX_TRIES))
        proxy.lose_answer_to = None

        # Then: nothing is said of the job, though its effect is there.
        assert isinstance(first, Release)
        assert proxy.lost.is_set()
        assert await bench.users() == ["warm", "ada"]

        # When: it comes again.
        again = claim(tries=MAX_TRIES)
        attempt = await transaction.run(again)

    # Then:
    assert isinstance(attempt, Done)
    assert again.redelivered
    assert json.loads(attempt.reply)["username"] == "ada"
    assert bench.calls == 2
    assert await bench.users() == ["warm", "ada"]


async def test_a_recorded_rejection_whose_answer_is_lost_is_found_by_the_redelivery(bench: Bench) -> None:
    proxy = Proxy(bench.url)
    async with proxy() as url:
        transaction = bench.transaction(_reject, sessions=create_sessions(bench.another_engine(url)))
        proxy.lose_answer_to = b"COMMIT"
        assert isinstance(await transaction.run(claim()), Release)
        proxy.lose_answer_to = None
        again = claim(tries=2)
        assert await transaction.run(again) == Rejected("not_found", "there is no such thing")
    assert again.redelivered
    assert bench.calls == 1


@pytest.mark.parametrize("when", ["in the handler", "at the commit"])
async def test_a_server_that_falls_silent_is_no_try(bench: Bench, when: str) -> None:
    proxy = Proxy(bench.url)

    async def and_then_silence(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        if when == "in the handler":
            proxy.silent = True
            await session.execute(text("SELECT 1"))
        return reply

    class SilentAtCommit(AsyncSession):
        async def commit(self) -> None:
            proxy.silent = proxy.silent or when == "at the commit"
            await super().commit()

    async with proxy() as url:
        engine = bench.another_engine(url, answer_seconds=0.5)
        sessions = async_sessionmaker(
            engine, class_=SilentAtCommit, expire_on_commit=False, sync_session_class=GuardedSession
        )
        first = await bench.transaction(and_then_silence, sessions=sessions).run(claim())
        assert isinstance(first, Release)
        proxy.silent = False
        assert isinstance(await bench.transaction(sessions=create_sessions(engine)).run(claim(tries=MAX_TRIES)), Done)
    assert await bench.users() == ["ada"]


async def test_a_rejection_that_cannot_be_written_down_is_not_given(bench: Bench) -> None:
    proxy = Proxy(bench.url)

    async def reject(session: AsyncSession, message: CreateUser) -> User:
        await create_user(session, message)
        proxy.refusing = True
        await proxy.cut()
        raise Rejection("invalid", "not today")

    async with proxy() as url:
        transaction = bench.transaction(reject, sessions=create_sessions(bench.another_engine(url)))
        attempt = await transaction.run(claim(tries=MAX_TRIES))
        assert isinstance(attempt, Release)
    assert await bench.ledger() == []


async def test_a_ledger_that_is_not_there_is_an_outage_and_no_try(bench: Bench) -> None:
    await bench.sql("DROP TABLE job_ledger")

    attempt = await bench.transaction().run(claim(tries=MAX_TRIES))

    assert isinstance(attempt, Release)
    assert attempt.outage
    assert bench.calls == 0
