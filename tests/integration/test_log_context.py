"""Lines that handlers and libraries log during an attempt name its job; unknown names and invalid ids are left out."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from producers import Producer, User, keys, wire
from producers.messages import CreateUser
from tests.integration.conftest import Logged
from tests.integration.running import burst, settings_of, stock_burst, user
from worker.database import ledger
from worker.engine import settler
from worker.engine.transaction import Transaction
from worker.jobs import REGISTRY, JobType
from worker.jobs.users import create_user, create_users
from worker.settings import Settings

QUEUE = keys.DEFAULT_QUEUE
SECRET = "S3cret.lovelace"


async def log_as_library() -> None:
    logging.getLogger("sqlalchemy.pool").warning("line of a library")


async def logging_handler(session: AsyncSession, message: CreateUser) -> User:
    structlog.get_logger("handler").info("line of the handler")
    await asyncio.create_task(log_as_library())
    return await create_user(session, message)


async def logging_batch_handler(session: AsyncSession, messages: Sequence[CreateUser]) -> Any:
    logging.getLogger("handler").warning("line of the batch handler")
    if any(message.username == "breaks" for message in messages):
        raise LookupError
    return await create_users(session, messages)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobType("create_user", CreateUser, logging_handler)
    job.batch(logging_batch_handler)
    monkeypatch.setitem(REGISTRY, "create_user", job)


@pytest.fixture
async def redis(redis_url: str) -> Any:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


def contexts(lines: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The lines logged in handlers, each with its context fields."""
    return [
        (line["event"], {name: line[name] for name in ("job_id", "job", "attempt", "batch") if name in line})
        for line in lines
        if line["event"].startswith("line of")
    ]


async def test_lines_of_jobs_with_sessions_of_their_own_name_the_job(
    redis_url: str, database_url: str, logged: Logged
) -> None:
    settings = settings_of(redis_url, database_url, concurrency=2)
    async with Producer(redis_url) as producer:
        jobs = await producer.enqueue_many([user(f"ada{number}") for number in range(4)])
    with logged() as lines:
        await burst(settings)
        found = contexts(lines())

    expected = [{"job_id": job.job_id, "job": "create_user", "attempt": 1} for job in jobs]
    for event in ("line of the handler", "line of a library"):
        assert sorted((fields for name, fields in found if name == event), key=str) == sorted(expected, key=str)


async def test_lines_of_jobs_that_share_a_session_have_the_size_of_the_batch(
    redis_url: str, database_url: str, logged: Logged
) -> None:
    # Given four jobs, one of which makes every batch fail that contains it
    settings = settings_of(redis_url, database_url, batch_size=4)
    async with Producer(redis_url) as producer:
        jobs = await producer.enqueue_many([user(name) for name in ("ada", "bea", "cal", "breaks")])
    with logged() as lines:
        await burst(settings)
        found = contexts(lines())
        done = [line for line in lines() if line["event"] == "job_done"]

    # Then lines of batches have their sizes, and lines of jobs that run alone name the job
    sizes = [fields for name, fields in found if name == "line of the batch handler"]
    assert sizes == [{"job": "create_user", "batch": size} for size in (4, 2, 2)]
    alone = [{"job_id": job.job_id, "job": "create_user", "attempt": 1} for job in jobs[2:]]
    assert [fields for name, fields in found if name == "line of the handler"] == alone
    # And the final line of each job names that job only
    assert {line["job_id"] for line in done} == {job.job_id for job in jobs}
    assert not any("batch" in line for line in done)


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq, when it closes its pool
async def test_lines_of_jobs_of_the_stock_worker_name_the_job(
    redis_url: str, database_url: str, logged: Logged
) -> None:
    settings = settings_of(redis_url, database_url)
    async with Producer(redis_url) as producer:
        job = await producer.enqueue(user("ada"))
    with logged() as lines:
        await stock_burst(settings)
        found = contexts(lines())
    fields = {"job_id": job.job_id, "job": "create_user", "attempt": 1}
    assert found == [("line of the handler", fields), ("line of a library", fields)]


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq, when it closes its pool
@pytest.mark.parametrize("run", [burst, stock_burst])
async def test_a_sample_of_0_leaves_out_the_lines_of_done_jobs(
    redis_url: str, database_url: str, logged: Logged, run: Callable[[Settings], Awaitable[None]]
) -> None:
    async with Producer(redis_url) as producer:
        await producer.enqueue_many([user("ada"), user("ada")])
    with logged() as lines:
        await run(settings_of(redis_url, database_url, log_success_sample=0))
        events = [line["event"] for line in lines() if line["event"].startswith("job_")]
    assert events == ["job_rejected"]


# Names and ids that can be anything


async def put(redis: Any, job_id: str, name: str) -> None:
    body = wire.encode(name, json.dumps({"email": SECRET}).encode(), enqueue_time_ms=round(time.time() * 1000))
    await redis.set(keys.job(job_id), body)
    await redis.zadd(QUEUE, {job_id: 1})


async def test_the_unknown_name_of_a_cancelled_job_is_not_logged(
    redis_url: str, database_url: str, redis: Any, logged: Logged
) -> None:
    # Given a job with an unknown name, as any client can enqueue it, that was claimed before and is cancelled
    await put(redis, "job-1", SECRET)
    await redis.set(keys.retry("job-1"), 1)
    async with Producer(redis_url) as producer:
        await producer.job("job-1", User).cancel()
    assert await redis.zcard(QUEUE) == 1
    with logged() as lines:
        await burst(settings_of(redis_url, database_url))
        found = [line for line in lines() if line.get("job_id") == "job-1"]
    assert [(line["event"], line["job"], line["code"]) for line in found] == [("job_rejected", "unknown", "cancelled")]
    assert SECRET not in json.dumps(found)


async def test_the_unknown_name_of_a_job_whose_outcome_is_recorded_late_is_not_logged(
    redis_url: str, database_url: str, redis: Any, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a database that is down at the first outcome, and a bug in the engine at the second
    errors: list[Exception] = [LookupError(SECRET), asyncpg.CannotConnectNowError(SECRET)]
    record_in_ledger, record = ledger.record, Transaction._record

    async def record_in_ledger_or_fail(*arguments: Any) -> Any:
        if len(errors) == 2:
            raise errors.pop()
        return await record_in_ledger(*arguments)

    async def record_or_fail(*arguments: Any) -> Any:
        if len(errors) == 1:
            raise errors.pop()
        return await record(*arguments)

    monkeypatch.setattr(ledger, "record", record_in_ledger_or_fail)
    monkeypatch.setattr(Transaction, "_record", record_or_fail)
    monkeypatch.setattr(settler, "backoff_seconds", lambda _attempt: 0.01)
    await put(redis, "job-1", SECRET)

    # When a worker runs the job
    with logged() as lines:
        await burst(settings_of(redis_url, database_url))
        found = [line for line in lines() if line.get("job_id") == "job-1"]

    # Then no line has the name
    assert [line["event"] for line in found] == ["job_released", "server_lost", "job_retried", "job_dead"]
    assert {line["job"] for line in found} == {"unknown"}
    assert SECRET not in json.dumps(lines())


async def test_a_tick_with_an_invalid_id_does_not_run(
    redis_url: str, database_url: str, redis: Any, logged: Logged, sql: Any
) -> None:
    await put(redis, f"no id: {SECRET}", "cron:purge_ledger")
    with logged() as lines:
        await burst(settings_of(redis_url, database_url))
        found = lines()
    assert [(line["event"], line["job_id"], line["code"]) for line in found if "code" in line] == [
        ("job_dead", None, "undecodable")
    ]
    assert not any(line["event"].startswith("tick_") for line in found)
    assert SECRET not in json.dumps(found)
    assert await sql("SELECT count(*) FROM job_ledger") == 0
