"""`worker status` reports the queue, its workers and both servers at little cost."""

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
from worker.queue.status import FORGOTTEN_SECONDS, MISSING_SECONDS, JobCounts
from worker.views.status import Status, read_status

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
def read(redis: Redis, engine: AsyncEngine) -> Callable[[], Any]:
    async def read() -> Status:
        return await read_status(redis, QUEUE, engine)

    return read


@pytest.fixture
def command(redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `worker status` as if in a pipe: its exit code, the JSON that it printed, and what it printed on stderr."""

    async def run(redis: str = redis_url, database: str = database_url) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setenv("REDIS_URL", redis)
        monkeypatch.setenv("DATABASE_URL", database)
        done = await asyncio.to_thread(CliRunner().invoke, app, ["status"])
        return done.exit_code, json.loads(done.stdout), done.stderr

    return run


async def beat(redis: Redis, name: str, age_seconds: float, **state: Any) -> None:
    """Write a worker's heartbeat of this age."""
    seconds, _ = await redis.time()
    state = {"at": seconds - age_seconds, "running": 1, "held": 0, "concurrency": 16, **state}
    await redis.hset(keys.workers(QUEUE), name, json.dumps(state))  # type: ignore[misc]


async def test_an_empty_queue_has_no_jobs_and_no_workers(read: Any) -> None:
    found: Status = await read()

    assert found.jobs == JobCounts(0, 0, 0, 0, 0, None)
    assert found.workers == []
    assert found.reachable
    assert (found.redis.version or "").startswith("Valkey 9")
    assert (found.database.version or "").startswith("PostgreSQL 1")


async def test_jobs_are_counted_by_state(redis: Redis, read: Any) -> None:
    # Given two due jobs, three whose scores are in the future, two of them claimed, one parked and one dead
    now_ms = time.time() * 1000
    ahead = {"c": now_ms + 60_000, "d": now_ms + 8_000, "e": now_ms + 9_000}
    await redis.zadd(QUEUE, {"a": now_ms - 90_000, "b": now_ms - 1000, **ahead, "f": 1e15})
    await redis.zadd(keys.dead(QUEUE), {"g": now_ms})
    await beat(redis, "alive:1", 1, held=1)
    await beat(redis, "alive:2", 1, held=1)
    await beat(redis, "killed:3", MISSING_SECONDS + 5, held=7)

    jobs: JobCounts = (await read()).jobs

    # Then a killed worker's leases are not counted as held
    assert (jobs.due, jobs.deferred, jobs.claimed, jobs.parked, jobs.dead) == (2, 1, 2, 1, 1)
    assert jobs.oldest_due_seconds == pytest.approx(90, abs=5)


async def test_claimed_jobs_never_exceed_the_jobs_of_the_queue(redis: Redis, read: Any) -> None:
    await redis.zadd(QUEUE, {"a": time.time() * 1000 + 5000})
    await beat(redis, "just-settled:1", 1, held=9)

    jobs: JobCounts = (await read()).jobs

    assert (jobs.deferred, jobs.claimed) == (0, 1)


@pytest.mark.usefixtures("logging_kept")
async def test_a_running_job_is_claimed_and_its_worker_is_listed(
    redis_url: str, database_url: str, eventually: Any, read: Any
) -> None:
    # Given a worker with a job that waits for a lock
    connection = await asyncpg.connect(database_url)
    await connection.execute("BEGIN")
    await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
    async with Producer(redis_url) as producer, working(settings_of(redis_url, database_url)) as worker:
        job = await producer.enqueue(user("ada"))

        async def runs() -> bool:
            return worker.state()["running"] == 1 and await job.status() is JobStatus.CLAIMED

        await eventually(runs)

        # When it writes its next heartbeat
        await worker._beat()
        found: Status = await read()
        await connection.close()

        # Then both are reported
        assert found.jobs is not None
        assert (found.jobs.claimed, found.jobs.due, found.jobs.deferred) == (1, 0, 0)
        (reported,) = found.workers
        assert (reported.name.decode(), reported.missing) == (worker.name, False)
        assert (reported.state.running, reported.state.held, reported.state.concurrency) == (1, 1, 4)
        (running,) = reported.state.jobs
        assert (running.id, running.job, running.attempt) == (job.job_id, "create_user", 1)
        await job.result(PATIENCE_SECONDS)

    # And after it has stopped, neither is
    after: Status = await read()
    assert after.workers == []
    assert after.jobs == JobCounts(0, 0, 0, 0, 0, None)


async def test_a_worker_without_heartbeats_is_missing_and_forgotten_after_an_hour(redis: Redis, read: Any) -> None:
    await beat(redis, "alive", MISSING_SECONDS - 5)
    await beat(redis, "missing", MISSING_SECONDS + 5)
    await beat(redis, "long-gone", FORGOTTEN_SECONDS + 60)
    await redis.hset(keys.workers(QUEUE), mapping={b"\xff": b"\xfe", "odd": '{"at":"noon"}'})  # type: ignore[misc]

    found: Status = await read()

    assert {worker.name: worker.missing for worker in found.workers} == {
        b"alive": False, b"missing": True, b"\xff": True, b"odd": True,
    }  # fmt: skip
    assert await redis.hexists(keys.workers(QUEUE), "long-gone") is False  # type: ignore[misc]
    assert await redis.hlen(keys.workers(QUEUE)) == 4  # type: ignore[misc]


async def test_reading_sends_no_command_whose_cost_grows_with_the_queue(redis: Redis, read: Any) -> None:
    await redis.zadd(QUEUE, {str(number): number for number in range(1000)})
    await redis.config_resetstat()

    await read()

    sent = {name.removeprefix("cmdstat_") for name in await redis.info("commandstats")}
    assert sent <= {"time", "info", "multi", "exec", "zcount", "zcard", "zrange", "hgetall", "config|resetstat",
                     "client|setinfo", "auth", "select", "ping", "hello"}  # fmt: skip


async def test_a_long_queue_exits_with_0_and_a_pipe_gets_json(redis: Redis, command: Command) -> None:
    await redis.zadd(QUEUE, {"a": 1, "b": 2})

    code, answer, err = await command()

    assert (code, err) == (0, "")
    assert answer["jobs"] == {"due": 2, "deferred": 0, "claimed": 0, "parked": 0, "dead": 0}
    assert answer["oldest_due_seconds"] > 1e9
    assert answer["redis"]["reachable"] is answer["database"]["reachable"] is True


@pytest.mark.parametrize("down", ["redis", "database"])
async def test_an_unreachable_server_is_reported_beside_the_other(command: Command, down: str) -> None:
    urls = {"redis": NOWHERE_REDIS} if down == "redis" else {"database": NOWHERE_DATABASE}

    code, answer, err = await command(**urls)

    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("Redis cannot be used: " if down == "redis" else "the database cannot be reached")
    assert err.endswith(
        "check the server and REDIS_URL\n" if down == "redis" else "check the server and DATABASE_URL\n"
    )
    assert answer[down]["reachable"] is False
    assert answer[down]["error"]
    assert answer["database" if down == "redis" else "redis"]["reachable"] is True
    assert (answer["jobs"] is None) is (down == "redis")
    assert "hush" not in err + json.dumps(answer)


async def test_a_queue_of_another_type_is_reported(redis: Redis, command: Command) -> None:
    await redis.set(QUEUE, "x")

    code, answer, err = await command()

    assert code == 1
    assert "WRONGTYPE" in err
    assert answer["jobs"] is None


async def test_a_terminal_gets_words_and_colours(redis: Redis, redis_url: str, database_url: str) -> None:
    await redis.zadd(QUEUE, {"a": (time.time() - 300) * 1000})
    await beat(redis, "host\x1b[2J:7", 1)

    code, printed = await on_a_terminal(settings_of(redis_url, database_url), "status")

    assert code == 0
    assert "PostgreSQL" in printed
    assert "the oldest has been due for 5 min" in printed
    assert r"host\x1b[2J:7" in printed
    assert "\x1b[2J" not in printed
    assert "\x1b[32m" in printed
