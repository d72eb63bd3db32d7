"""Does arq's own worker give every job its one outcome, and count no try that was none?"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from arq.worker import Retry as ArqRetry
from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.ext.asyncio import AsyncSession

from producers import keys, wire
from producers.messages import CreateUser, User
from tests.waiting import slowdown
from worker import app
from worker.database import users
from worker.database.connections import ConnectionLost
from worker.engine import arq_functions as stock
from worker.engine.job_log import Journal
from worker.jobs import REGISTRY, JobType
from worker.model.outcome import Release
from worker.settings import Settings

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"
ADA = {"email": "ada@example.com", "username": "ada", "hashed_password": HASH}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"),  # by arq, as it closes its pool
    pytest.mark.usefixtures("logging_kept"),
]


async def create_user(session: AsyncSession, message: CreateUser) -> User:
    return User.model_validate(await users.create_user(session, message))


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    # One try: whatever is counted by mistake is the job's death.
    return Settings.load(DATABASE_URL=database_url, REDIS_URL=redis_url, max_tries=1)


@pytest.fixture
async def redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(stock, "RELEASE_SECONDS", 0.01)
    monkeypatch.setattr(stock, "backoff_seconds", lambda _tries: 0.01)
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[AsyncSession, CreateUser], Awaitable[User]]], None]:
    """Puts another handler in the place of that of `create_user`."""

    def replace(handler: Callable[[AsyncSession, CreateUser], Awaitable[User]]) -> None:
        monkeypatch.setitem(REGISTRY, "create_user", JobType("create_user", CreateUser, handler))

    return replace


async def enqueue(redis: Any, job_id: str = "job-1") -> None:
    now_ms = round(time.time() * 1000)
    await redis.set(keys.job(job_id), wire.encode("create_user", json.dumps(ADA).encode(), enqueue_time_ms=now_ms))
    await redis.zadd(keys.DEFAULT_QUEUE, {job_id: now_ms})


async def result(redis: Any, job_id: str = "job-1") -> Any:
    """The reply, or the code."""
    found = json.loads(await redis.get(keys.result(job_id)))
    return found["r"] if found["s"] else found["r"]["code"]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Worker]:
    """A worker that runs until the end of the block, and is then told to stop."""
    arguments = app.worker_settings(settings) | {"poll_delay": 0.005}
    worker = Worker(**arguments, handle_signals=False)
    task = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        await worker.close()
        with suppress(asyncio.CancelledError):
            await task


async def run_until_empty(settings: Settings) -> None:
    worker = Worker(**(app.worker_settings(settings, burst=True) | {"poll_delay": 0.005}), handle_signals=False)
    try:
        await worker.async_run()
    finally:
        await worker.close()


async def test_a_job_that_comes_again_is_answered_from_the_ledger(settings: Settings, redis: Any, sql: Any) -> None:
    await enqueue(redis)
    await run_until_empty(settings)
    first = await result(redis)
    assert first["username"] == "ada"
    await redis.flushall()

    await enqueue(redis)
    await run_until_empty(settings)

    assert await result(redis) == first
    assert await sql("SELECT count(*) FROM users") == 1


async def test_a_job_that_could_not_be_tried_is_tried_again_uncounted(
    settings: Settings, redis: Any, handle: Any
) -> None:
    calls = 0

    async def lose_the_connection(session: AsyncSession, message: CreateUser) -> User:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise ConnectionLost
        return await create_user(session, message)

    handle(lose_the_connection)
    await enqueue(redis)
    await run_until_empty(settings)

    assert (await result(redis))["username"] == "ada"
    assert calls == 4


# The stock worker leaves its pipeline open when it is cancelled in the midst of it, and redis-py says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_worker_that_stops_gives_its_jobs_back_uncounted(
    settings: Settings, redis: Any, handle: Any, sql: Any
) -> None:
    # Given: a job at work.
    at_work = asyncio.Event()

    async def wait(session: AsyncSession, message: CreateUser) -> User:
        await create_user(session, message)
        at_work.set()
        await asyncio.Event().wait()
        raise AssertionError

    handle(wait)
    await enqueue(redis)

    # When: its worker stops.
    async with running(settings):
        await at_work.wait()

    # Then: it is in the queue again, as if it had not begun.
    assert await redis.zscore(keys.DEFAULT_QUEUE, "job-1") is not None
    assert int(await redis.get(keys.retry("job-1"))) == 0
    assert await sql("SELECT count(*) FROM users") == 0

    handle(create_user)
    await run_until_empty(settings)
    assert (await result(redis))["username"] == "ada"


async def test_a_job_that_does_not_heed_its_time_is_counted_and_dies_of_it(
    settings: Settings, redis: Any, handle: Any, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def stubborn(session: AsyncSession, message: CreateUser) -> User:
        nonlocal calls
        calls += 1
        await create_user(session, message)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()  # ended by the job's time limit,
        await asyncio.Event().wait()  # and this by arq's
        raise AssertionError

    handle(stubborn)
    # Long enough for the job to reach its handler, and for the first limit to be heard before the second one.
    monkeypatch.setattr(stock, "ARQ_EXTRA_SECONDS", slowdown())
    settings = settings.model_copy(update={"job_timeout_seconds": 2 * slowdown()})
    await enqueue(redis)
    await run_until_empty(settings)

    assert calls == 1
    assert await result(redis) == "crashed"
    assert await sql("SELECT outcome || ' ' || code FROM job_ledger") == "dead crashed"
    assert await sql("SELECT count(*) FROM users") == 0


async def test_a_job_is_given_back_even_if_redis_cannot_be_told_so() -> None:
    class Away:
        async def decr(self, _key: str) -> int:
            raise RedisConnectionError

    class Released:
        async def run(self, _claim: object) -> Release:
            return Release("the database is away")

    (function,) = stock.functions([REGISTRY["create_user"]], 30)
    ctx = {
        "transaction": Released(),
        "journal": Journal(),
        "redis": Away(),
        "job_id": "job-1",
        "job_try": 1,
        "score": 0,
    }
    # What arq takes for the job's end is any other exception.
    with pytest.raises(ArqRetry):
        await function.coroutine(ctx, **ADA)
