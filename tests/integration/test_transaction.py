"""A job's effect happens exactly once, with its one outcome, whatever happens to the attempt."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from producers.messages import CreateUser, Deleted, User
from tests.integration.bench import MAX_TRIES, OPEN, Bench, Handler, closed_clean, create_user
from tests.integration.proxy import Proxy
from tests.jobs import HASH, claimed_job
from tests.waiting import slowdown
from worker.database import sql
from worker.database.session import create_sessions
from worker.jobs import Rejection
from worker.model.job import Attempt
from worker.model.outcome import Dead, Done, Rejected, Release, Retry

OTHER_CONTENT = Rejected("conflict", "this job id stands for another content")


@pytest.fixture(params=["row-first", "row-last"])
async def bench(
    database_url: str, engine: AsyncEngine, sql: Any, eventually: Any, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    """Every test holds wherever the first delivery of a job writes its ledger row, unless it chooses one place."""
    made = Bench(database_url, engine, sql, eventually, ledger_last=request.param == "row-last")
    async with closed_clean(made) as bench:
        yield bench


Step = Callable[[AsyncSession, CreateUser], Awaitable[Any]]


def create_and(step: Step) -> Handler:
    """A handler that creates the user and then takes a step."""

    async def handler(session: AsyncSession, message: CreateUser) -> User:
        reply = await create_user(session, message)
        await step(session, message)
        return reply

    return handler


def statement(sql: str) -> Step:
    return lambda session, _message: session.execute(text(sql))


row_first = pytest.mark.parametrize("bench", ["row-first"], indirect=True)
row_last = pytest.mark.parametrize("bench", ["row-last"], indirect=True)


# Done


async def test_a_done_job_has_effect_ledger_row_and_reply_from_one_transaction(bench: Bench) -> None:
    job = bench.job()

    attempt = await bench.transaction().run(job)

    assert isinstance(attempt.result, Done)
    reply = json.loads(attempt.result.reply)
    assert reply == {
        "id": 1, "email": "ada@example.com", "username": "ada", "is_active": True, "created_at": reply["created_at"],
    }  # fmt: skip
    assert attempt == Attempt(job, attempt.result)
    assert not job.progress.committing
    assert await bench.ledger() == [("job-1", "done", None)]
    # PostgreSQL's own mark of the transaction that wrote a row.
    assert await bench.sql("SELECT users.xmin = job_ledger.xmin FROM users, job_ledger")
    assert await bench.sql("SELECT reply::text FROM job_ledger") == attempt.result.reply
    row = await bench.sql("SELECT job_ledger::text FROM job_ledger")
    assert row.startswith("(job-1,create_user,done,")
    assert HASH not in row + attempt.result.reply


@row_first
async def test_an_effect_is_invisible_to_others_before_the_commit(bench: Bench) -> None:
    found: list[object] = []

    async def observe(session: AsyncSession, _message: CreateUser) -> None:
        found.extend([job.progress.committing, await bench.users(), await bench.ledger()])
        # The handler's own transaction sees its ledger row, which came first.
        found.append(await session.scalar(text("SELECT outcome FROM job_ledger")))

    job = bench.job()
    assert isinstance((await bench.transaction(create_and(observe)).run(job)).result, Done)
    assert found == [False, [], [], "done"]
    assert await bench.users() == ["ada"]


@row_first
async def test_a_job_delivered_a_hundred_times_has_one_effect_and_one_outcome(bench: Bench) -> None:
    # Given: a hundred deliveries of one job, sixteen at a time, from two engines with eight connections each.
    until_all_wait = create_and(lambda *_: bench.lock_waits(15))
    transactions = [bench.transaction(until_all_wait, sessions=bench.sessions()) for _ in range(2)]
    places = asyncio.Semaphore(16)

    async def deliver(number: int) -> Attempt:
        async with places:
            return await transactions[number % 2].run(bench.job(attempt=number % MAX_TRIES + 1))

    # When:
    attempts = await asyncio.gather(*(deliver(number) for number in range(100)))

    # Then:
    assert bench.calls == 1
    assert sum(attempt.redelivered for attempt in attempts) == 99
    assert len({repr(attempt.result) for attempt in attempts}) == 1
    assert isinstance(attempts[0].result, Done)
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


@row_last
async def test_a_first_attempt_overtaken_by_a_second_leaves_one_effect(bench: Bench) -> None:
    # Given: a first attempt with its effect and not yet its ledger row, and a second that began with the row.
    go = asyncio.Event()

    slow = create_and(lambda *_: go.wait())
    first = asyncio.create_task(bench.transaction(slow).run(bench.job()))
    await bench.eventually(lambda: bench.sql(f"SELECT ({OPEN}) = 1"))
    second = asyncio.create_task(bench.transaction().run(bench.job(attempt=2)))
    await bench.lock_waits()

    # When: each waits for what the other has, and PostgreSQL ends one of them.
    go.set()
    results = [attempt.result for attempt in await asyncio.gather(first, second)]

    # Then:
    (done,) = [result for result in results if isinstance(result, Done)]
    (failed,) = [result for result in results if not isinstance(result, Done)]
    assert isinstance(failed, Retry)
    assert (await bench.transaction().run(bench.job(attempt=3))).result == done
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


@row_last
@pytest.mark.parametrize("username", ["ada", "bob"])
async def test_a_second_delivery_taken_for_the_first_gets_the_stored_outcome(bench: Bench, username: str) -> None:
    done = await bench.transaction().run(bench.job())
    bench.delivered.clear()

    again = await bench.transaction().run(bench.job(username))

    # Other content under the same id is another request; either way no second effect is left.
    assert again.result == (done.result if username == "ada" else OTHER_CONTENT)
    assert again.redelivered
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


async def test_a_violation_that_a_handler_handles_in_a_savepoint_is_no_failure(bench: Bench) -> None:
    async def or_another_name(session: AsyncSession, message: CreateUser) -> User:
        with suppress(IntegrityError):
            async with session.begin_nested():
                return await create_user(session, message)
        return await create_user(session, message.model_copy(update={"username": "ada2", "email": "ada2@example.com"}))

    transaction = bench.transaction(or_another_name)
    for job_id in ("a", "b"):
        assert isinstance((await transaction.run(bench.job(job_id=job_id))).result, Done)
    assert await bench.users() == ["ada", "ada2"]


# Rejected


async def _reject(_session: AsyncSession, _message: CreateUser) -> None:
    raise Rejection("not_found", "there is no such thing")


async def _create_same_email(session: AsyncSession, message: CreateUser) -> None:
    await create_user(session, message.model_copy(update={"username": "other"}))


async def _create_too_long(session: AsyncSession, message: CreateUser) -> None:
    await create_user(session, message.model_copy(update={"username": "x" * 65, "email": "x"}))


@pytest.mark.parametrize(
    ("step", "rejected"),
    [
        (_reject, Rejected("not_found", "there is no such thing")),
        (_create_same_email, Rejected("conflict", "email is already taken")),
        (
            statement("INSERT INTO posts (title, content, author_id) VALUES ('t', 'c', 77)"),
            Rejected("not_found", "author_id names nothing that exists"),
        ),
        (_create_too_long, Rejected("invalid", "a value is not one that the database takes")),
        (
            statement("UPDATE users SET hashed_password = NULL"),
            Rejected("invalid", "a value is not one that the database takes"),
        ),
    ],
)
async def test_a_rejection_is_recorded_and_leaves_no_effect(bench: Bench, step: Step, rejected: Rejected) -> None:
    job = bench.job(attempt=MAX_TRIES)
    transaction = bench.transaction(create_and(step))

    assert await transaction.run(job) == Attempt(job, rejected)

    assert await bench.users() == []
    assert await bench.ledger() == [("job-1", "rejected", rejected.code)]
    # A second delivery is answered from the ledger.
    again = bench.job()
    assert await transaction.run(again) == Attempt(again, rejected, redelivered=True)
    assert bench.calls == 1


@pytest.mark.parametrize(
    ("name", "fields", "code", "detail"),
    [
        ("create_user", {"email": "ada@example.com", "username": "bob"}, "conflict", "email is already taken"),
        ("create_user", {"email": "bob@example.com", "username": "ada"}, "conflict", "username is already taken"),
        ("update_user", {"user_id": 9, "changes": {"is_active": False}}, "not_found", "there is no such user"),
        ("update_post", {"post_id": 9, "changes": {"title": "t"}}, "not_found", "there is no such post"),
        (
            "create_post", {"author_id": 9, "title": "t", "content": "c"},
            "not_found", "author_id names nothing that exists",
        ),
        (
            "create_user", {"email": "carl@example.com", "username": "carl", "hashed_password": "s3cret"},
            "invalid", "hashed_password: must be an encoded argon2",
        ),
    ],
)  # fmt: skip
async def test_a_real_job_is_rejected_with_its_code(
    bench: Bench, name: str, fields: dict[str, Any], code: str, detail: str
) -> None:
    transaction = bench.transaction()
    await transaction.run(bench.job())
    if name == "create_user":
        fields = {"hashed_password": HASH, **fields}

    result = (await transaction.run(claimed_job(name, fields, job_id="job-2"))).result

    assert isinstance(result, Rejected)
    assert result.code == code
    assert result.detail.startswith(detail)
    assert await bench.users() == ["ada"]


async def test_a_deletion_of_a_missing_row_is_done(bench: Bench) -> None:
    attempt = await bench.transaction().run(claimed_job("delete_user", {"user_id": 9}))
    assert attempt.result == Done(Deleted(deleted=False).model_dump_json())


async def test_an_invalid_message_is_rejected_without_a_run(bench: Bench) -> None:
    fields = {"user_id": 7, "s3cret": "ada@example.com"}
    transaction = bench.transaction()

    attempt = await transaction.run(claimed_job("delete_user", fields))

    assert attempt.result == Rejected("invalid", "s3cret: extra inputs are not permitted")
    assert await bench.ledger() == [("job-1", "rejected", "invalid")]
    again = claimed_job("delete_user", dict(fields), attempt=2)
    assert await transaction.run(again) == Attempt(again, attempt.result, redelivered=True)
    assert bench.calls == 0
    assert "ada@example.com" not in await bench.sql("SELECT job_ledger::text FROM job_ledger")


async def test_a_constraint_that_fails_at_commit_is_a_rejection(bench: Bench) -> None:
    await bench.sql(
        "ALTER TABLE users ADD CONSTRAINT uq_users_hashed_password UNIQUE (hashed_password) DEFERRABLE"
        " INITIALLY DEFERRED"
    )
    transaction = bench.transaction()
    assert isinstance((await transaction.run(bench.job("ada", job_id="a"))).result, Done)

    for _ in range(2):
        result = (await transaction.run(bench.job("bob", job_id="b"))).result
        assert result == Rejected("conflict", "hashed_password is already taken")

        assert bench.calls == 2
        assert await bench.users() == ["ada"]
        assert await bench.ledger() == [("a", "done", None), ("b", "rejected", "conflict")]


# One id, other content


@pytest.mark.parametrize("outcome", ["done", "rejected", "dead"])
async def test_an_id_with_other_content_is_a_conflict(bench: Bench, outcome: str) -> None:
    async def end(session: AsyncSession, message: CreateUser) -> User:
        match outcome:
            case "done":
                return await create_user(session, message)
            case "rejected":
                raise Rejection("invalid", "not today")
            case _:
                raise LookupError

    transaction = bench.transaction(end)
    await transaction.run(bench.job(attempt=MAX_TRIES))
    before = await bench.sql("SELECT job_ledger::text FROM job_ledger")
    assert f",{outcome}," in before

    for other in (
        bench.job("bob"),
        bench.job("bob", attempt=MAX_TRIES + 1),
        claimed_job("delete_user", {"user_id": 1}),
        claimed_job("create_user", {"username": "ada"}),
    ):
        assert await transaction.run(other) == Attempt(other, OTHER_CONTENT, redelivered=True)

    assert bench.calls == 1
    assert await bench.sql("SELECT job_ledger::text FROM job_ledger") == before


async def test_an_id_with_the_same_content_spelled_otherwise_is_the_same_job(bench: Bench) -> None:
    transaction = bench.transaction()
    first = bench.job()
    result = (await transaction.run(first)).result

    again = claimed_job(fields={"is_active": True, **dict(reversed(first.fields.items()))})
    assert await transaction.run(again) == Attempt(again, result, redelivered=True)


# Failures


async def _fail(_session: AsyncSession, message: CreateUser) -> None:
    raise LookupError(f"nothing of {message.email} with {message.hashed_password}")


async def test_a_failed_attempt_leaves_no_trace_and_is_retried(bench: Bench) -> None:
    transaction = bench.transaction(create_and(_fail))
    for attempt in range(1, MAX_TRIES):
        result = (await transaction.run(bench.job(attempt=attempt))).result
        assert isinstance(result, Retry)
        assert result.code == "failed"
        assert result.detail.startswith("LookupError at test_transaction.py:")
        assert result.detail.endswith(" in _fail")
        await bench.assert_no_trace()
        await bench.assert_nothing_open()

    # The last attempt may still succeed.
    assert isinstance((await bench.transaction().run(bench.job(attempt=MAX_TRIES))).result, Done)


@pytest.mark.parametrize("statement", ["by the session", "by the driver"])
async def test_a_failed_statement_is_placed_where_the_handler_sent_it(bench: Bench, statement: str) -> None:
    async def divide(session: AsyncSession, _message: CreateUser) -> None:
        if statement == "by the session":
            await session.execute(text("SELECT * FROM nothing_of_this_name"))
        else:
            await sql.fetch(session, "SELECT * FROM nothing_of_this_name")

    result = (await bench.transaction(create_and(divide)).run(bench.job())).result

    assert isinstance(result, Retry)
    assert "UndefinedTableError[42P01] at test_transaction.py:" in result.detail
    assert result.detail.endswith(" in divide")


async def test_a_failed_last_attempt_is_recorded_as_a_death(bench: Bench) -> None:
    result = (await bench.transaction(create_and(_fail)).run(bench.job(attempt=MAX_TRIES))).result

    assert isinstance(result, Dead)
    assert result.code == "failed"
    assert "ada" not in result.detail
    assert await bench.users() == []
    assert await bench.ledger() == [("job-1", "dead", "failed")]
    # A handler that was mended meanwhile does not run any more.
    again = bench.job(attempt=1)
    assert await bench.transaction().run(again) == Attempt(again, result, redelivered=True)
    assert bench.calls == 1


async def test_a_job_with_more_attempts_than_allowed_is_dead_as_crashed(bench: Bench) -> None:
    result = (await bench.transaction().run(bench.job(attempt=MAX_TRIES + 1))).result

    assert isinstance(result, Dead)
    assert result.code == "crashed"
    assert bench.calls == 0
    assert await bench.ledger() == [("job-1", "dead", "crashed")]


async def test_a_job_stays_done_when_its_worker_died_before_it_settled(bench: Bench) -> None:
    first = await bench.transaction().run(bench.job(attempt=MAX_TRIES))
    again = await bench.transaction().run(bench.job(attempt=MAX_TRIES + 1))
    assert again.result == first.result
    assert isinstance(first.result, Done)


async def test_a_job_of_an_unknown_name_is_dead(bench: Bench) -> None:
    attempt = await bench.transaction().run(claimed_job("make_coffee", {"s3cret": 1}))
    assert attempt.result == Dead("unknown_job", "no job of this name is known here")
    assert await bench.ledger() == [("job-1", "dead", "unknown_job")]


@pytest.mark.parametrize("job_id", ["", "a b", "ada\x00", "a@b@c", "-", "a" * 300, "ada@example.com\n"])
async def test_a_job_under_an_id_that_is_not_one_is_dead_and_not_recorded(bench: Bench, job_id: str) -> None:
    result = (await bench.transaction().run(bench.job(job_id=job_id))).result
    assert isinstance(result, Dead)
    assert result.code == "undecodable"
    assert bench.calls == 0
    assert await bench.ledger() == []


async def test_the_longest_job_id_fits_the_ledger(bench: Bench) -> None:
    job_id = "a" * 128 + "@" + "b" * 128
    assert isinstance((await bench.transaction().run(bench.job(job_id=job_id))).result, Done)
    assert await bench.ledger() == [(job_id, "done", None)]


async def _ignore_an_error(session: AsyncSession, _message: CreateUser) -> None:
    with suppress(DBAPIError):
        await session.execute(text("SELECT nothing"))


async def _misuse_the_driver(session: AsyncSession, _message: CreateUser) -> None:
    await (await session.connection()).exec_driver_sql("SELECT $1::int")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (lambda session, _: session.rollback(), "TransactionEnded"),
        (lambda session, _: session.commit(), "TransactionEnded"),
        (_ignore_an_error, "25P02"),  # the transaction was aborted
        (_misuse_the_driver, "InterfaceError"),  # not taken for a lost connection
    ],
)
async def test_a_handler_that_misuses_its_session_fails_and_leaves_no_trace(
    bench: Bench, step: Step, error: str
) -> None:
    result = (await bench.transaction(create_and(step)).run(bench.job())).result
    assert isinstance(result, Retry)
    assert error in result.detail
    await bench.assert_no_trace()


async def test_a_handler_that_leaves_its_transaction_idle_too_long_uses_up_an_attempt(bench: Bench) -> None:
    async def dawdle(session: AsyncSession, message: CreateUser) -> User:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        await bench.eventually(lambda: bench.sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid))
        return await create_user(session, message)

    sessions = bench.sessions(idle_in_transaction_seconds=0.2)
    result = (await bench.transaction(dawdle, sessions=sessions).run(bench.job())).result
    assert isinstance(result, Retry)
    assert "LeftIdle[25P03]" in result.detail
    assert await bench.ledger() == []


# Timeouts and cancellation


async def _wait_in_python(session: AsyncSession, _message: CreateUser) -> None:
    await session.execute(text("SELECT 1"))
    await asyncio.Event().wait()


_wait_in_the_database = statement("SELECT pg_sleep(60)")


@pytest.mark.parametrize("wait", [_wait_in_python, _wait_in_the_database])
async def test_an_attempt_over_its_time_is_rolled_back_and_retried(bench: Bench, wait: Step) -> None:
    await bench.transaction().run(bench.job("warm", job_id="warm"))
    transaction = bench.transaction(create_and(wait), timeout_seconds=0.5 * slowdown())

    result = (await transaction.run(bench.job(attempt=1))).result
    assert isinstance(result, Retry)
    assert (result.code, result.detail.partition(" ")[0]) == ("timeout", "TimeoutError")
    await bench.assert_nothing_open()
    assert await bench.users() == ["warm"]
    assert len(await bench.ledger()) == 1

    assert isinstance((await transaction.run(bench.job(attempt=MAX_TRIES))).result, Dead)
    assert await bench.ledger() == [("job-1", "dead", "timeout"), ("warm", "done", None)]


@pytest.mark.parametrize("wait", [_wait_in_python, _wait_in_the_database])
async def test_a_cancelled_attempt_leaves_no_trace(bench: Bench, wait: Step) -> None:
    # Given: a handler at work.
    at_work = asyncio.Event()

    async def slow(session: AsyncSession, message: CreateUser) -> None:
        at_work.set()
        await wait(session, message)

    job = bench.job(attempt=MAX_TRIES)
    running = asyncio.create_task(bench.transaction(create_and(slow)).run(job))
    await at_work.wait()

    # When:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    # Then:
    assert not job.progress.committing
    await bench.assert_nothing_open()
    await bench.assert_no_trace()
    assert isinstance((await bench.transaction().run(bench.job())).result, Done)


@row_first
async def test_a_delivery_cancelled_while_it_waits_for_the_first_leaves_no_trace(bench: Bench) -> None:
    go = asyncio.Event()

    async def slow(session: AsyncSession, message: CreateUser) -> User:
        await go.wait()
        return await create_user(session, message)

    first = asyncio.create_task(bench.transaction(slow).run(bench.job()))
    await bench.eventually(lambda: bench.sql(f"SELECT ({OPEN}) = 1"))
    second = asyncio.create_task(bench.transaction(slow).run(bench.job()))
    await bench.lock_waits()

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()

    assert isinstance((await first).result, Done)
    assert await bench.users() == ["ada"]


@pytest.mark.parametrize(
    "cancel", [None, "before-the-commit-ends", "as-the-commit-ends"], ids=lambda value: str(value).lower()
)
async def test_an_attempt_in_its_commit_has_one_effect_cancelled_or_not(bench: Bench, cancel: str | None) -> None:
    # Given: a COMMIT under way.
    async with bench.commits_held() as let_go:
        job = bench.job()
        running = asyncio.create_task(bench.transaction().run(job))
        await bench.lock_waits()
        assert job.progress.committing

        if cancel is None:
            await let_go()
            attempt = await running
            assert not attempt.redelivered
        else:
            # When: it is cancelled all the same, before the server's answer can have been read.
            opening = asyncio.create_task(let_go()) if cancel == "as-the-commit-ends" else None
            await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await (opening or let_go())

            # Then: the caller cannot know whether it was committed; the next delivery finds out.
            attempt = await bench.transaction().run(bench.job(attempt=2))
            assert attempt.redelivered == (bench.calls == 1)
    assert isinstance(attempt.result, Done)
    assert await bench.users() == ["ada"]
    assert await bench.ledger() == [("job-1", "done", None)]


# Frozen workers


class Held(AsyncSession):
    """A session that stops once it has its connection, until it may go on."""

    stopped: asyncio.Event
    go: asyncio.Event

    async def run_sync(self, work: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override]  # any work will do
        await self.connection()
        self.stopped.set()
        await self.go.wait()
        return await super().run_sync(work, *args, **options)


async def test_a_frozen_attempt_cannot_commit_a_job_that_was_buried(bench: Bench) -> None:
    # Given: a first attempt that stops after BEGIN and before its first statement.
    Held.stopped, Held.go = asyncio.Event(), asyncio.Event()
    job = bench.job(attempt=MAX_TRIES)
    frozen = asyncio.create_task(bench.transaction(sessions=create_sessions(bench.engine, Held)).run(job))
    await Held.stopped.wait()

    # When: the job is taken for one that kills its workers, and buried.
    buried = (await bench.transaction().run(bench.job(attempt=MAX_TRIES + 1))).result
    assert isinstance(buried, Dead)

    # Then: the first attempt finds that out when it goes on.
    Held.go.set()
    assert await frozen == Attempt(job, buried, redelivered=True)
    assert bench.calls == 0
    assert await bench.users() == []
    assert await bench.ledger() == [("job-1", "dead", "crashed")]


async def test_a_job_is_not_buried_while_an_earlier_attempt_may_commit(bench: Bench) -> None:
    # Given: a first attempt that stops after its ledger row.
    stopped, go = asyncio.Event(), asyncio.Event()

    async def stop(session: AsyncSession, message: CreateUser) -> User:
        stopped.set()
        await go.wait()
        return await create_user(session, message)

    frozen = asyncio.create_task(bench.transaction(stop).run(bench.job(attempt=MAX_TRIES)))
    await stopped.wait()

    # When: it is to be buried. Then: it is not, for its outcome is not known.
    impatient = bench.transaction(sessions=bench.sessions(lock_seconds=0.2))
    assert isinstance((await impatient.run(bench.job(attempt=MAX_TRIES + 1))).result, Release)

    # When: the first attempt goes on. Then: that is its outcome.
    go.set()
    done = (await frozen).result
    assert isinstance(done, Done)
    assert (await impatient.run(bench.job(attempt=MAX_TRIES + 1))).result == done
    assert await bench.ledger() == [("job-1", "done", None)]


# Locks


async def test_two_jobs_in_a_deadlock_end_as_one_done_and_one_retried(bench: Bench) -> None:
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
    attempts = await asyncio.gather(*(transaction.run(bench.job(name, job_id=name)) for name in ("ada", "bob")))

    (lost,) = (attempt.result for attempt in attempts if isinstance(attempt.result, Retry))
    (_won,) = (attempt.result for attempt in attempts if isinstance(attempt.result, Done))
    assert "[40P01]" in lost.detail
    assert lost.code == "failed"
    assert len(await bench.users()) == 3
    assert len(await bench.ledger()) == 1


async def test_a_lock_that_does_not_become_free_in_time_is_a_retry(bench: Bench) -> None:
    await bench.sql("INSERT INTO users (email, username, hashed_password) VALUES ('1', 'one', 'h')")
    holder = await asyncpg.connect(bench.url)
    try:
        await holder.execute("BEGIN; UPDATE users SET is_active = false")
        attempt = await bench.transaction(sessions=bench.sessions(lock_seconds=0.1)).run(
            claimed_job("update_user", {"user_id": 1, "changes": {"is_active": True}})
        )
    finally:
        await holder.close()
    assert isinstance(attempt.result, Retry)
    assert "[55P03]" in attempt.result.detail
    assert await bench.ledger() == []


async def test_a_statement_over_its_time_is_a_retry(bench: Bench) -> None:
    sessions = bench.sessions(statement_seconds=0.3)
    result = (await bench.transaction(create_and(_wait_in_the_database), sessions=sessions).run(bench.job())).result
    assert isinstance(result, Retry)
    assert "[57014]" in result.detail
    assert await bench.ledger() == []


# The database is down: the job is released and no attempt is counted


async def test_a_job_is_released_when_the_database_refuses_connections(bench: Bench) -> None:
    with socket.socket() as taken:  # bound, so that no other process listens there
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql://postgres:s3cret@127.0.0.1:{taken.getsockname()[1]}/worker"
        transaction = bench.transaction(sessions=bench.sessions(url))
        # The same for a last attempt, for one too many, and for a rejection that cannot be recorded.
        jobs = [bench.job(attempt=attempt) for attempt in (1, MAX_TRIES, MAX_TRIES + 1)]
        for job in (*jobs, claimed_job("delete_user", {})):
            result = (await transaction.run(job)).result
            assert isinstance(result, Release)
            assert "s3cret" not in result.detail
    assert bench.calls == len([job for job in jobs if job.ledger_last])  # the others read the ledger first


async def test_a_job_is_released_when_the_database_refuses_the_login(bench: Bench) -> None:
    database = bench.url.rpartition("/")[2]
    await bench.sql(f"REVOKE CONNECT ON DATABASE {database} FROM public")
    await bench.sql("CREATE ROLE outsider LOGIN PASSWORD 's3cret'")
    server = bench.url.rpartition("@")[2].partition("/")[0]
    urls = [f"postgresql://{login}@{server}/{database}" for login in ("postgres:wrong", "no:s3cret", "outsider:s3cret")]
    try:
        for url in (*urls, bench.url + "_missing"):
            transaction = bench.transaction(sessions=bench.sessions(url))
            for attempt in (1, MAX_TRIES):
                assert isinstance((await transaction.run(bench.job(attempt=attempt))).result, Release), url
    finally:
        await bench.sql("DROP ROLE outsider")


async def test_a_job_is_released_when_no_connection_of_the_pool_is_free(bench: Bench) -> None:
    sessions = bench.sessions(pool_size=1, connect_seconds=0.5 * slowdown())
    async with sessions.kw["bind"].connect():
        assert isinstance((await bench.transaction(sessions=sessions).run(bench.job())).result, Release)


@pytest.mark.parametrize("timeout_seconds", [0.1, 20.0], ids=["within-the-attempt", "before-its-end"])
async def test_a_job_is_released_when_the_database_accepts_and_does_not_answer(
    bench: Bench, timeout_seconds: float
) -> None:
    with socket.socket() as mute:  # the kernel accepts, and no process answers
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"postgresql://postgres:s3cret@127.0.0.1:{mute.getsockname()[1]}/worker"
        transaction = bench.transaction(
            sessions=bench.sessions(url, connect_seconds=0.5), timeout_seconds=timeout_seconds
        )
        assert isinstance((await transaction.run(bench.job())).result, Release)


async def _terminate_own_backend(bench: Bench, session: AsyncSession) -> None:
    pid = await session.scalar(text("SELECT pg_backend_pid()"))
    await bench.sql("SELECT pg_terminate_backend($1)", pid)
    await bench.eventually(lambda: bench.sql("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1", pid))


@pytest.mark.parametrize("when", ["between statements", "in a statement", "before the commit"])
async def test_a_job_is_released_when_its_connection_is_lost(bench: Bench, when: str) -> None:
    terminate: list[asyncio.Task[None]] = []

    async def lose(session: AsyncSession, _message: CreateUser) -> None:
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

    attempt = await bench.transaction(create_and(lose)).run(bench.job(attempt=MAX_TRIES))
    await asyncio.gather(*terminate)
    assert isinstance(attempt.result, Release)
    await bench.assert_no_trace()

    again = await bench.transaction().run(bench.job(attempt=MAX_TRIES))
    assert isinstance(again.result, Done)
    assert not again.redelivered
    assert await bench.users() == ["ada"]


async def test_a_commit_whose_answer_is_lost_is_found_by_the_redelivery(bench: Bench) -> None:
    proxy = Proxy(bench.url)
    async with proxy() as url:
        transaction = bench.transaction(sessions=bench.sessions(url))
        assert isinstance((await transaction.run(bench.job("warm", job_id="warm"))).result, Done)

        # When: the server commits, and its answer does not arrive.
        proxy.lose_answer_to = b"COMMIT"
        first = await transaction.run(bench.job(attempt=MAX_TRIES))
        proxy.lose_answer_to = None

        # Then: the job has no outcome yet, though its effect was committed.
        assert isinstance(first.result, Release)
        assert proxy.lost.is_set()
        assert await bench.users() == ["warm", "ada"]

        # When: it comes again.
        again = await transaction.run(bench.job(attempt=MAX_TRIES))

    # Then:
    assert isinstance(again.result, Done)
    assert again.redelivered
    assert json.loads(again.result.reply)["username"] == "ada"
    assert bench.calls == 2
    assert await bench.users() == ["warm", "ada"]


async def test_a_recorded_rejection_whose_answer_is_lost_is_found_by_the_redelivery(bench: Bench) -> None:
    proxy = Proxy(bench.url)
    async with proxy() as url:
        transaction = bench.transaction(create_and(_reject), sessions=bench.sessions(url))
        proxy.lose_answer_to = b"COMMIT"
        assert isinstance((await transaction.run(bench.job())).result, Release)
        proxy.lose_answer_to = None
        again = bench.job(attempt=2)
        rejected = Rejected("not_found", "there is no such thing")
        assert await transaction.run(again) == Attempt(again, rejected, redelivered=True)
    assert bench.calls == 1


@pytest.mark.parametrize("when", ["in a statement", "until the attempt is over", "at the commit"])
async def test_a_job_is_released_when_the_database_falls_silent(bench: Bench, when: str) -> None:
    proxy = Proxy(bench.url)

    async def silence(session: AsyncSession, _message: CreateUser) -> None:
        if when != "at the commit":
            proxy.silent = True
            await session.execute(text("SELECT 1"))

    class SilentAtCommit(AsyncSession):
        async def commit(self) -> None:
            proxy.silent = proxy.silent or when == "at the commit"
            await super().commit()

    # Either a statement's time is over first, or the attempt's.
    late = when == "until the attempt is over"
    async with proxy() as url:
        sessions = bench.sessions(url, kind=SilentAtCommit, answer_seconds=60.0 if late else 0.5)
        timeout_seconds = 0.5 * slowdown() if late else 20.0
        transaction = bench.transaction(create_and(silence), sessions=sessions, timeout_seconds=timeout_seconds)
        first = (await transaction.run(bench.job())).result
        assert isinstance(first, Release)
        assert first.outage
        proxy.silent = False
        again = bench.transaction(sessions=create_sessions(sessions.kw["bind"]))
        assert isinstance((await again.run(bench.job(attempt=MAX_TRIES))).result, Done)
    assert await bench.users() == ["ada"]


async def test_a_rejection_that_cannot_be_recorded_is_a_release(bench: Bench) -> None:
    proxy = Proxy(bench.url)

    async def reject(_session: AsyncSession, _message: CreateUser) -> None:
        proxy.refusing = True
        await proxy.cut()
        raise Rejection("invalid", "not today")

    async with proxy() as url:
        transaction = bench.transaction(create_and(reject), sessions=bench.sessions(url))
        assert isinstance((await transaction.run(bench.job(attempt=MAX_TRIES))).result, Release)
    assert await bench.ledger() == []


async def test_a_missing_ledger_is_an_outage_and_no_attempt(bench: Bench) -> None:
    await bench.sql("DROP TABLE job_ledger")

    result = (await bench.transaction().run(bench.job(attempt=MAX_TRIES))).result

    assert isinstance(result, Release)
    assert result.outage
    assert bench.calls == 0
