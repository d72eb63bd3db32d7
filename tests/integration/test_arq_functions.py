"""arq's own worker gives every job its one outcome, and counts only attempts that were made."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from arq.worker import Retry as ArqRetry
from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.ext.asyncio import AsyncSession

from producers import keys, wire
from producers.messages import CreateUser, User
from tests.integration.bench import create_user
from tests.integration.running import settings_of, stock_burst
from tests.jobs import user_fields
from tests.waiting import slowdown
from worker import app
from worker.database.connections import ConnectionLost
from worker.engine import arq_functions
from worker.engine.context import Runtime, put_runtime
from worker.engine.job_log import JobLog
from worker.jobs import REGISTRY, JobType
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import Release
from worker.settings import Settings

Handler = Callable[[AsyncSession, CreateUser], Awaitable[User]]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"),  # by arq, when it closes its pool
    pytest.mark.usefixtures("logging_kept"),
]


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    # One attempt: whatever is counted by mistake is the job's death.
    return settings_of(redis_url, database_url, max_tries=1)


@pytest.fixture
async def redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(arq_functions, "RELEASE_SECONDS", 0.01)
    monkeypatch.setattr(arq_functions, "backoff_seconds", lambda _failures: 0.01)
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], None]:
    """Replaces the handler of `create_user`."""
    return lambda handler: monkeypatch.setitem(REGISTRY, "create_user", JobType("create_user", CreateUser, handler))


async def enqueue(redis: Any) -> None:
    now_ms = round(time.time() * 1000)
    payload = wire.encode("create_user", json.dumps(user_fields()).encode(), enqueue_time_ms=now_ms)
    await redis.set(keys.job("job-1"), payload)
    await redis.zadd(keys.DEFAULT_QUEUE, {"job-1": now_ms})


async def result(redis: Any) -> Any:
    """The reply, or the code."""
    found = json.loads(await redis.get(keys.result("job-1")))
    return found["r"] if found["s"] else found["r"]["code"]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """A worker that runs until the end of the block and is then stopped."""
    worker = Worker(**app.stock_arguments(settings) | {"poll_delay": 0.005}, handle_signals=False)
    task = asyncio.create_task(worker.async_run())
    try:
        yield
    finally:
        await worker.close()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_redelivered_job_is_answered_from_the_ledger(settings: Settings, redis: Any, sql: Any) -> None:
    await enqueue(redis)
    await stock_burst(settings)
    first = await result(redis)
    assert first["username"] == "ada"
    await redis.flushall()

    await enqueue(redis)
    await stock_burst(settings)

    assert await result(redis) == first
    assert await sql("SELECT count(*) FROM users") == 1


async def test_a_released_job_runs_again_uncounted(settings: Settings, redis: Any, handle: Any) -> None:
    calls = 0

    async def lose_the_connection(session: AsyncSession, message: CreateUser) -> User:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise ConnectionLost
        return await create_user(session, message)

    handle(lose_the_connection)
    await enqueue(redis)
    await stock_burst(settings)

    assert (await result(redis))["username"] == "ada"
    assert calls == 4


# The stock worker leaves its pipeline open when it is cancelled in the midst of it, and redis-py warns of that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_worker_that_stops_releases_its_jobs_uncounted(
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
    await stock_burst(settings)
    assert (await result(redis))["username"] == "ada"


async def test_a_job_that_ignores_its_timeout_is_counted_and_dies_of_it(
    settings: Settings, redis: Any, handle: Any, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def stubborn(session: AsyncSession, message: CreateUser) -> User:
        nonlocal calls
        calls += 1
        await create_user(session, message)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()  # ended by the job's timeout,
        await asyncio.Event().wait()  # and this by arq's
        raise AssertionError

    handle(stubborn)
    # Long enough for the job to reach its handler, and for the first timeout to come before the second one.
    monkeypatch.setattr(arq_functions, "ARQ_EXTRA_SECONDS", slowdown())
    settings = settings.model_copy(update={"job_timeout_seconds": 2 * slowdown()})
    await enqueue(redis)
    await stock_burst(settings)

    assert calls == 1
    assert await result(redis) == "crashed"
    assert await sql("SELECT outcome || ' ' || code FROM job_ledger") == "dead crashed"
    assert await sql("SELECT count(*) FROM users") == 0


async def test_a_job_is_released_even_when_redis_is_down() -> None:
    class Down:
        async def decr(self, _key: str) -> int:
            raise RedisConnectionError

    class Released:
        async def run(self, job: ClaimedJob) -> Attempt:
            return Attempt(job, Release("the database is down"))

    (function,) = arq_functions.functions([REGISTRY["create_user"]], 30)
    unused = cast("Any", None)
    ctx: dict[Any, Any] = {"redis": Down(), "job_id": "job-1", "job_try": 1, "score": 0}
    put_runtime(ctx, Runtime(unused, unused, cast("Any", Released()), unused, {}, JobLog(REGISTRY)))
    # arq takes any other exception for the job's end.
    with pytest.raises(ArqRetry):
        await function.coroutine(ctx, **user_fields())
