"""Does `worker status` say how the queue stands, who works on it and which server is away, at little cost?"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from producers import JobStatus, Producer, keys
from producers._redis import connect
from tests.integration.running import on_a_terminal, settings_of, user, working
from tests.waiting import PATIENCE_SECONDS
from worker.cli import app
from worker.queue.status import FORGOTTEN_SECONDS, MISSING_SECONDS, JobCounts, Status, status

QUEUE = keys.DEFAULT_QUEUE
NOWHERE_REDIS = "redis://:hush@127.0.0.1:1/0"
NOWHERE_DATABASE = "postgresql://someone:hush@127.0.0.1:1/none"

Command = Callable[..., Any]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, queue=QUEUE)
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


@pytest.fixture
def ask(redis: Redis, engine: AsyncEngine) -> Callable[[], Any]:
    async def look() -> Status:
        return await status(redis, QUEUE, engine)

    return look


@pytest.fixture
def command(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `worker status` as if in a pipe: its exit code, the JSON that it printed, and what it printed on stderr."""

    async def run(redis: str = redis_url, database: str = database_url) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setenv("REDIS_URL", redis)
        monkeypatch.setenv("DATABASE_URL", database)
        done = await asyncio.to_thread(CliRunner().invoke, app, ["status"])
        return done.exit_code, json.loads(done.stdout), done.stderr

    return run


async def beat(redis: Redis, name: str, age_seconds: float, **said: Any) -> None:
    """A worker's sign of life, so many seconds ago."""
    seconds, _ = await redis.time()
    said = {"at": seconds - age_seconds, "running": 1, "held": 0, "concurrency": 16, **said}
    await redis.hset(keys.workers(QUEUE), name, json.dumps(said))  # type: ignore[misc]


async def test_an_empty_queue(ask: Any) -> None:
    found: Status = await ask()

    assert found.jobs == JobCounts(0, 0, 0, 0, 0, None)
    assert found.workers == []
    assert found.reachable
    assert (found.redis.version or "").startswith("Valkey 9")
    assert (found.database.version or "").startswith("PostgreSQL 1")


async def test_jobs_are_told_by_where_they_are(redis: Redis, ask: Any) -> None:
    # Given two jobs that are due, three whose scores are ahead, of which workers hold two, one parked and one dead
    now_ms = time.time() * 1000
    ahead = {"c": now_ms + 60_000, "d": now_ms + 8_000, "e": now_ms + 9_000}
    await redis.zadd(QUEUE, {"a": now_ms - 90_000, "b": now_ms - 1000, **ahead, "f": 1e15})
    await redis.zadd(keys.dead(QUEUE), {"g": now_ms})
    await beat(redis, "alive:1", 1, held=1)
    await beat(redis, "alive:2", 1, held=1)
    await beat(redis, "killed:3", MISSING_SECONDS + 5, held=7)

    jobs: JobCounts = (await ask()).jobs

    # Then a killed worker's leases are not counted as held
    assert (jobs.due, jobs.deferred, jobs.claimed, jobs.parked, jobs.dead) == (2, 1, 2, 1, 1)
    assert jobs.oldest_due_seconds == pytest.approx(90, abs=5)


async def test_more_cannot_be_in_flight_than_there_is(redis: Redis, ask: Any) -> None:
    await redis.zadd(QUEUE, {"a": time.time() * 1000 + 5000})
    await beat(redis, "just-settled:1", 1, held=9)

    jobs: JobCounts = (await ask()).jobs

    assert (jobs.deferred, jobs.claimed) == (0, 1)


@pytest.mark.usefixtures("logging_kept")
async def test_a_running_job_is_in_flight_and_its_worker_is_there(
    redis_url: str, database_url: str, eventually: Any, ask: Any
) -> None:
    # Given a worker with a job that waits for a lock
    connection = await asyncpg.connect(database_url)
    await connection.execute("BEGIN")
    await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
    async with Producer(redis_url) as producer, working(settings_of(redis_url, database_url)) as worker:
        job = await producer.enqueue(user("ada"))

        async def runs() -> bool:
            return bool(worker._lanes.running) and await job.status() is JobStatus.CLAIMED

        await eventually(runs)

        # When it gives its next sign of life
        await worker._beat()
        found: Status = await ask()
        await connection.close()

        # Then both are seen
        assert found.jobs is not None
        assert (found.jobs.claimed, found.jobs.due, found.jobs.deferred) == (1, 0, 0)
        (seen,) = found.workers
        assert (seen.name.decode(), seen.missing) == (worker.name, False)
        assert (seen.beat.running, seen.beat.held, seen.beat.concurrency) == (1, 1, 4)
        await job.result(PATIENCE_SECONDS)

    # And when it has stopped, neither is
    after: Status = await ask()
    assert after.workers == []
    assert after.jobs == JobCounts(0, 0, 0, 0, 0, None)


async def test_a_worker_that_is_not_heard_of_is_missing_and_forgotten_after_a_day(redis: Redis, ask: Any) -> None:
    await beat(redis, "alive", MISSING_SECONDS - 5)
    await beat(redis, "missing", MISSING_SECONDS + 5)
    await beat(redis, "long-gone", FORGOTTEN_SECONDS + 60)
    await redis.hset(keys.workers(QUEUE), mapping={b"\xff": b"\xfe", "odd": '{"at":"noon"}'})  # type: ignore[misc]

    found: Status = await ask()

    assert {seen.name: seen.missing for seen in found.workers} == {
        b"alive": False, b"missing": True, b"\xff": True, b"odd": True,
    }  # fmt: skip
    assert await redis.hexists(keys.workers(QUEUE), "long-gone") is False  # type: ignore[misc]
    assert await redis.hlen(keys.workers(QUEUE)) == 4  # type: ignore[misc]


async def test_it_asks_nothing_that_takes_longer_for_more_jobs(redis: Redis, ask: Any) -> None:
    await redis.zadd(QUEUE, {str(number): number for number in range(1000)})
    await redis.config_resetstat()

    await ask()

    asked = {name.removeprefix("cmdstat_") for name in await redis.info("commandstats")}
    assert asked <= {"time", "info", "multi", "exec", "zcount", "zcard", "zrange", "hgetall", "config|resetstat",
                     "client|setinfo", "auth", "select", "ping", "hello"}  # fmt: skip


async def test_a_busy_queue_is_no_failure_and_a_pipe_gets_json(redis: Redis, command: Command) -> None:
    await redis.zadd(QUEUE, {"a": 1, "b": 2})

    code, told, err = await command()

    assert (code, err) == (0, "")
    assert told["jobs"] == {"due": 2, "deferred": 0, "claimed": 0, "parked": 0, "dead": 0}
    assert told["oldest_due_seconds"] > 1e9
    assert told["redis"]["reachable"] is told["database"]["reachable"] is True


@pytest.mark.parametrize("away", ["redis", "database"])
async def test_a_server_that_is_away_is_told_and_the_other_is_asked_all_the_same(command: Command, away: str) -> None:
    urls = {"redis": NOWHERE_REDIS} if away == "redis" else {"database": NOWHERE_DATABASE}

    code, told, err = await command(**urls)

    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("Redis cannot be used: " if away == "redis" else "the database cannot be used: ")
    assert told[away]["reachable"] is False
    assert told[away]["error"]
    assert told["database" if away == "redis" else "redis"]["reachable"] is True
    assert (told["jobs"] is None) is (away == "redis")
    assert "hush" not in err + json.dumps(told)


async def test_a_key_of_another_type_is_told(redis: Redis, command: Command) -> None:
    await redis.set(QUEUE, "x")

    code, told, err = await command()

    assert code == 1
    assert "WRONGTYPE" in err
    assert told["jobs"] is None


async def test_a_person_sees_words_and_colours(redis: Redis, redis_url: str, database_url: str) -> None:
    await redis.zadd(QUEUE, {"a": (time.time() - 300) * 1000})
    await beat(redis, "host\x1b[2J:7", 1)

    code, printed = await on_a_terminal(settings_of(redis_url, database_url), "status")

    assert code == 0
    assert "PostgreSQL" in printed
    assert "the oldest has been due for 5 min" in printed
    assert r"host\x1b[2J:7" in printed
    assert "\x1b[2J" not in printed
    assert "\x1b[32m" in printed
