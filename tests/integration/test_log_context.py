"""Do lines of handlers and of libraries below say whose they are; and is a name that may be anything left out?"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
import structlog
from arq.worker import Worker
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from producers import Producer, User, keys, wire
from producers.messages import CreateUser
from tests.integration.conftest import Logged
from tests.integration.running import burst, settings_of, user
from worker import app
from worker.database import ledger
from worker.engine import executor as execution
from worker.engine.transaction import Transaction
from worker.jobs import REGISTRY, JobType
from worker.jobs.users import create_user, create_users
from worker.settings import Settings

QUEUE = keys.DEFAULT_QUEUE
SECRET = "S3cret.lovelace"


async def _said_below() -> None:
    logging.getLogger("sqlalchemy.pool").warning("said by a library")


async def talkative(session: AsyncSession, message: CreateUser) -> User:
    structlog.get_logger("handler").info("said by the handler")
    await asyncio.create_task(_said_below())
    return await create_user(session, message)


async def talkative_together(session: AsyncSession, messages: Sequence[CreateUser]) -> Any:
    await talkative_about(len(messages))
    if any(message.username == "breaks" for message in messages):
        raise LookupError
    return await create_users(session, messages)


async def talkative_about(_count: int) -> None:
    logging.getLogger("handler").warning("said by the set-based form")


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobType("create_user", CreateUser, talkative)
    job.batch(talkative_together)
    monkeypatch.setitem(REGISTRY, "create_user", job)


@pytest.fixture
async def redis(redis_url: str) -> Any:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def stock_burst(settings: Settings) -> None:
    """Run a worker of arq until the queue is empty."""
    worker = Worker(**app.worker_settings(settings, burst=True) | {"poll_delay": 0.005}, handle_signals=False)
    try:
        await worker.async_run()
    finally:
        await worker.close()


def said(lines: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What was said in the handlers, and about which jobs."""
    return [
        (line["event"], {name: line[name] for name in ("job_id", "job", "try", "batch") if name in line})
        for line in lines
        if line["event"].startswith("said by")
    ]


async def test_a_job_with_a_session_of_its_own(redis_url: str, database_url: str, logged: Logged) -> None:
    settings = settings_of(redis_url, database_url, concurrency=2)
    async with Producer(redis_url) as producer:
        jobs = await producer.enqueue_many([user(f"ada{number}") for number in range(4)])
    with logged() as lines:
        await burst(settings)
        told = said(lines())

    expected = [{"job_id": job.job_id, "job": "create_user", "try": 1} for job in jobs]
    for event in ("said by the handler", "said by a library"):
        assert sorted((about for name, about in told if name == event), key=str) == sorted(expected, key=str)


async def test_jobs_that_share_a_session(redis_url: str, database_url: str, logged: Logged) -> None:
    # Given: four jobs, one of which breaks each batch that it is in.
    settings = settings_of(redis_url, database_url, batch_size=4)
    async with Producer(redis_url) as producer:
        jobs = await producer.enqueue_many([user(name) for name in ("ada", "bea", "cal", "breaks")])
    with logged() as lines:
        await burst(settings)
        told = said(lines())
        done = [line for line in lines() if line["event"] == "job_done"]

    # Then: parts are told with their sizes, and who is alone by name.
    sizes = [about for name, about in told if name == "said by the set-based form"]
    assert sizes == [{"job": "create_user", "batch": size} for size in (4, 2, 2)]
    alone = [{"job_id": job.job_id, "job": "create_user", "try": 1} for job in jobs[2:]]
    assert [about for name, about in told if name == "said by the handler"] == alone
    # A job's own line is about that job alone.
    assert {line["job_id"] for line in done} == {job.job_id for job in jobs}
    assert not any("batch" in line for line in done)


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq, as it closes its pool
async def test_a_job_of_the_stock_worker(redis_url: str, database_url: str, logged: Logged) -> None:
    settings = settings_of(redis_url, database_url)
    async with Producer(redis_url) as producer:
        job = await producer.enqueue(user("ada"))
    with logged() as lines:
        await stock_burst(settings)
        told = said(lines())
    about = {"job_id": job.job_id, "job": "create_user", "try": 1}
    assert told == [("said by the handler", about), ("said by a library", about)]


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq, as it closes its pool
@pytest.mark.parametrize("run", [burst, stock_burst])
async def test_lines_of_jobs_done_can_be_left_out(
    redis_url: str, database_url: str, logged: Logged, run: Callable[[Settings], Awaitable[None]]
) -> None:
    async with Producer(redis_url) as producer:
        await producer.enqueue_many([user("ada"), user("ada")])
    with logged() as lines:
        await run(settings_of(redis_url, database_url, log_success_sample=0))
        events = [line["event"] for line in lines() if line["event"].startswith("job_")]
    assert events == ["job_rejected"]


# What may be anything


async def put(redis: Any, job_id: str, name: str) -> None:
    body = wire.encode(name, json.dumps({"email": SECRET}).encode(), enqueue_time_ms=round(time.time() * 1000))
    await redis.set(keys.job(job_id), body)
    await redis.zadd(QUEUE, {job_id: 1})


async def test_a_name_that_nobody_knows_is_not_logged_of_a_cancelled_job(
    redis_url: str, database_url: str, redis: Any, logged: Logged
) -> None:
    # Given: a job of such a name, as a client in any language can send it, that was claimed once, and that somebody
    # wants cancelled.
    await put(redis, "job-1", SECRET)
    await redis.set(keys.retry("job-1"), 1)
    async with Producer(redis_url) as producer:
        await producer.job("job-1", User).cancel()
    assert await redis.zcard(QUEUE) == 1
    with logged() as lines:
        await burst(settings_of(redis_url, database_url))
        told = [line for line in lines() if line.get("job_id") == "job-1"]
    assert [(line["event"], line["job"], line["code"]) for line in told] == [("job_rejected", "unknown", "cancelled")]
    assert SECRET not in json.dumps(told)


async def test_nor_of_one_whose_outcome_cannot_be_written_down_at_once(
    redis_url: str, database_url: str, redis: Any, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: a database that is away when the first outcome comes, and a fault of the engine's own at the second.
    errors: list[Exception] = [LookupError(SECRET), asyncpg.CannotConnectNowError(SECRET)]
    enter, settle = ledger.record, Transaction._settle

    async def enter_or_fail(*arguments: Any) -> Any:
        if len(errors) == 2:
            raise errors.pop()
        return await enter(*arguments)

    async def settle_or_fail(*arguments: Any) -> Any:
        if len(errors) == 1:
            raise errors.pop()
        return await settle(*arguments)

    monkeypatch.setattr(ledger, "enter", enter_or_fail)
    monkeypatch.setattr(Transaction, "_settle", settle_or_fail)
    monkeypatch.setattr(execution, "backoff_seconds", lambda _tries: 0.01)
    await put(redis, "job-1", SECRET)

    # When:
    with logged() as lines:
        await burst(settings_of(redis_url, database_url))
        told = [line for line in lines() if line.get("job_id") == "job-1"]

    # Then:
    assert [line["event"] for line in told] == ["job_released", "server_lost", "job_retried", "job_dead"]
    assert {line["job"] for line in told} == {"unknown"}
    assert SECRET not in json.dumps(lines())


async def test_a_tick_under_an_id_that_is_none_is_not_run(
    redis_url: str, database_url: str, redis: Any, logged: Logged, sql: Any
) -> None:
    await put(redis, f"no id: {SECRET}", "cron:purge_ledger")
    with logged() as lines:
        await burst(settings_of(redis_url, database_url))
        told = lines()
    assert [(line["event"], line["job_id"], line["code"]) for line in told if "code" in line] == [
        ("job_dead", None, "undecodable")
    ]
    assert not any(line["event"].startswith("tick_") for line in told)
    assert SECRET not in json.dumps(told)
    assert await sql("SELECT count(*) FROM job_ledger") == 0
