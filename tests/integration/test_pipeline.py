"""The engine on a real Redis, with runner that are scripted: retries, last attempts, outages, the end."""

import asyncio
import json
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from producers import keys, wire
from producers._redis import connect
from tests.integration.conftest import Eventually
from tests.waiting import PATIENCE_SECONDS
from worker.database.session import create_engine, create_sessions
from worker.embedded import ValkeyServer
from worker.engine import settler
from worker.engine.arq_functions import functions
from worker.engine.context import BatchRunner, Runtime, put_runtime
from worker.engine.job_log import JobLog
from worker.engine.pipeline import Options
from worker.engine.worker import EngineWorker
from worker.jobs import REGISTRY
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import AttemptResult, Dead, Done, Rejected, Retry
from worker.queue.queue import Queue

NAME = keys.DEFAULT_QUEUE
MAX_TRIES = 3

Script = Callable[[ClaimedJob], Awaitable[AttemptResult]]


class ScriptedRunner:
    """Runs jobs as the test scripts it, by the name of the job."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.attempts: defaultdict[str, list[int]] = defaultdict(list)
        self.running: Counter[str] = Counter()
        self.most_at_once = 0

    async def run(self, job: ClaimedJob) -> Attempt:
        self.attempts[job.job_id].append(job.attempt)
        self.running[job.job_id] += 1
        self.most_at_once = max(self.most_at_once, self.running.total())
        try:
            return Attempt(job, await self.scripts.get(job.name, _done)(job))
        finally:
            self.running[job.job_id] -= 1

    async def record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        return Attempt(job, outcome)  # there is no ledger


class NoBatches:
    """Accepts no job."""

    def accepts(self, _job: ClaimedJob) -> bool:
        return False

    async def run(self, _jobs: Sequence[ClaimedJob]) -> AsyncGenerator[Sequence[Attempt], None]:
        yield pytest.fail("no job may share a session")


async def _done(_job: ClaimedJob) -> AttemptResult:
    return Done("null")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, queue=NAME)
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner()


def worker_of(
    url: str,
    runner: ScriptedRunner,
    *,
    burst: bool = False,
    concurrency: int = 4,
    batches: BatchRunner | None = None,
    **options: Any,
) -> EngineWorker:
    """A worker without a database."""

    async def startup(ctx: dict[Any, Any]) -> None:
        engine = create_engine("postgresql://localhost/none", pool_size=1)  # opens nothing
        sessions = create_sessions(engine)
        put_runtime(ctx, Runtime(engine, sessions, runner, batches or NoBatches(), {}, JobLog(REGISTRY)))

    values: dict[str, Any] = {
        "concurrency": concurrency, "lease_seconds": 3, "max_tries": MAX_TRIES, "grace_seconds": 5,
        "result_ttl_seconds": 60, "max_payload_bytes": 10_000,
    } | options  # fmt: skip
    return EngineWorker(
        options=Options(**values), on_startup=startup,
        functions=functions(REGISTRY.values(), 30), redis_pool=connect(url, queue=NAME), queue_name=NAME, burst=burst,
        handle_signals=False,
    )  # fmt: skip


@asynccontextmanager
async def running(worker: EngineWorker) -> AsyncIterator[EngineWorker]:
    task = asyncio.create_task(worker.main())
    try:
        yield worker
    finally:
        worker.handle_sig(signal.SIGTERM)
        await asyncio.wait_for(task, PATIENCE_SECONDS)
        await worker.close()


async def burst(worker: EngineWorker) -> None:
    await asyncio.wait_for(worker.main(), PATIENCE_SECONDS)
    await worker.close()


async def enqueue(redis: Redis, *jobs: tuple[str, str]) -> None:
    """Jobs as a client that only knows the wire writes them: id and name."""
    for place, (job_id, name) in enumerate(jobs):
        await redis.set(keys.job(job_id), wire.encode(name, b"{}", enqueue_time_ms=1_700_000_000_000))
        await redis.zadd(NAME, {job_id: 1_700_000_000_000 + place})


async def result(redis: Redis, job_id: str) -> dict[str, Any]:
    data = await redis.get(keys.result(job_id))
    assert data is not None, f"{job_id} has no result"
    loaded: dict[str, Any] = json.loads(data)
    return loaded


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "backoff_seconds", lambda _attempts: 0.0)


async def test_outcomes_become_results(redis: Redis, redis_url: str, runner: ScriptedRunner) -> None:
    async def reject(_job: ClaimedJob) -> AttemptResult:
        return Rejected("conflict", "taken")

    async def die(_job: ClaimedJob) -> AttemptResult:
        return Dead("failed", "a bug")

    runner.scripts = {"reject": reject, "die": die}
    await enqueue(redis, ("a", "fine"), ("b", "reject"), ("c", "die"))

    await burst(worker_of(redis_url, runner, burst=True))

    assert [(await result(redis, job_id))["r"] for job_id in "abc"] == [
        None,
        {"code": "conflict", "detail": "taken"},
        {"code": "failed", "detail": "a bug"},
    ]
    assert await redis.zrange(keys.dead(NAME), 0, -1) == [b"c"]
    assert await redis.exists(keys.dead_payload("c")) == 1


@pytest.mark.usefixtures("no_backoff")
async def test_a_retried_job_holds_its_ordering_key_until_it_is_dead(
    redis: Redis, redis_url: str, runner: ScriptedRunner
) -> None:
    async def fail(job: ClaimedJob) -> AttemptResult:
        return Retry("failed", "no") if job.attempt < MAX_TRIES else Dead("failed", "no")

    runner.scripts = {"fail": fail}
    await enqueue(redis, ("1@k", "fail"), ("2@k", "fine"))

    await burst(worker_of(redis_url, runner, burst=True))

    assert runner.attempts == {"1@k": [1, 2, 3], "2@k": [1]}
    assert list(runner.attempts) == ["1@k", "2@k"]
    assert (await result(redis, "1@k"))["t"] == MAX_TRIES


@pytest.mark.usefixtures("no_backoff")
async def test_a_job_on_its_last_attempt_runs_alone(redis: Redis, redis_url: str, runner: ScriptedRunner) -> None:
    alone: list[int] = []

    async def last(job: ClaimedJob) -> AttemptResult:
        if job.attempt < MAX_TRIES:
            return Retry("failed", "no")
        for _ in range(50):
            await asyncio.sleep(0)  # a job that could run beside it would begin now
        alone.append(runner.running.total())
        return Done("null")

    async def brief(_job: ClaimedJob) -> AttemptResult:
        await asyncio.sleep(0)
        return Done("null")

    runner.scripts = {"last": last, "x": brief}
    await enqueue(
        redis, *[(f"l{number}", "last") for number in range(3)], *[(f"x{number}", "x") for number in range(40)]
    )

    await burst(worker_of(redis_url, runner, burst=True))

    assert alone == [1, 1, 1]
    assert runner.most_at_once > 1


async def test_an_unreadable_payload_is_buried_whole_and_delays_no_other_job(
    redis: Redis, redis_url: str, runner: ScriptedRunner
) -> None:
    poison = {
        b"pickle": b"\x80\x04\x95.",
        b"nested": b"[" * 5000,
        b"wrong": b'{"f":["x"],"k":[],"a":{},"t":"x","et":1e99}',
        b"huge": b"x" * 10_001,
        b"\xff\xfe no id": b"{}",
        b"nul\x00": b"\x00",
    }
    for job_id, payload in poison.items():
        await redis.set(b"arq:job:" + job_id, payload)
        await redis.execute_command("ZADD", NAME, 1, job_id)  # type: ignore[no-untyped-call]
    await enqueue(redis, ("good", "fine"))

    await burst(worker_of(redis_url, runner, burst=True))

    assert (await result(redis, "good"))["s"] is True
    for job_id, payload in poison.items():
        assert await redis.get(b"arq:dead:" + job_id) == payload
    assert set(await redis.zrange(keys.dead(NAME), 0, -1)) == set(poison)
    assert (await result(redis, "huge"))["r"]["code"] == "too_large"
    assert (await result(redis, "wrong"))["r"]["code"] == "undecodable"


async def test_an_idle_worker_claims_when_a_client_publishes_a_wake_up(
    redis: Redis, redis_url: str, runner: ScriptedRunner, eventually: Eventually
) -> None:
    async with running(worker_of(redis_url, runner, poll_seconds=600)):
        await eventually(lambda: _heard(redis))
        await enqueue(redis, ("a", "fine"))
        await redis.publish(keys.wake(NAME), "1")
        await eventually(lambda: redis.exists(keys.result("a")))


async def test_a_job_without_a_wake_up_is_found_by_polling(
    redis: Redis, redis_url: str, runner: ScriptedRunner, eventually: Eventually
) -> None:
    async with running(worker_of(redis_url, runner, poll_seconds=0.05)):
        await eventually(lambda: _heard(redis))
        await enqueue(redis, ("a", "fine"))
        await eventually(lambda: redis.exists(keys.result("a")))


async def test_redis_out_of_memory_is_logged_once_and_survived(
    redis: Redis, redis_url: str, runner: ScriptedRunner, eventually: Eventually
) -> None:
    with capture_logs() as logs:
        async with running(worker_of(redis_url, runner, poll_seconds=0.02)):
            await eventually(lambda: _heard(redis))
            await enqueue(redis, ("a", "fine"))
            await eventually(lambda: redis.exists(keys.result("a")))
            await redis.config_set("maxmemory", 1)
            try:
                await eventually(lambda: _logged(logs, "server_lost"))
            finally:
                await redis.config_set("maxmemory", 0)
            await enqueue(redis, ("b", "fine"))
            await eventually(lambda: redis.exists(keys.result("b")))
    lost = [entry for entry in logs if entry["event"] == "server_lost"]
    assert [entry["server"] for entry in lost] == ["redis"]
    assert "maxmemory" in lost[0]["reason"]
    assert [entry["event"] for entry in logs].count("server_back") == 1


async def test_an_eviction_policy_that_can_lose_jobs_is_logged(
    redis: Redis, redis_url: str, runner: ScriptedRunner, valkey: ValkeyServer
) -> None:
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with capture_logs() as logs:
            await burst(worker_of(redis_url, runner, burst=True))
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    assert "redis_may_evict_jobs" in [entry["event"] for entry in logs]


async def test_a_stopping_worker_finishes_running_jobs_and_releases_the_rest(
    redis: Redis, redis_url: str, runner: ScriptedRunner, eventually: Eventually
) -> None:
    go = asyncio.Event()

    async def slow(_job: ClaimedJob) -> AttemptResult:
        await go.wait()
        return Done("null")

    runner.scripts = {"slow": slow}
    await enqueue(redis, *[(f"s{number}", "slow") for number in range(6)])
    worker = worker_of(redis_url, runner, concurrency=2)
    task = asyncio.create_task(worker.main())
    await eventually(lambda: _count(runner, 2))

    worker.handle_sig(signal.SIGTERM)
    await eventually(lambda: _queued(redis, 6))
    go.set()
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    await worker.close()

    done = [number for number in range(6) if await redis.exists(keys.result(f"s{number}"))]
    assert done == [0, 1]
    assert {await redis.get(keys.retry(f"s{number}")) for number in range(2, 6)} <= {None, b"0"}
    assert await redis.keys("arq:in-progress:*") == []


async def test_a_second_signal_releases_running_jobs_at_once(
    redis: Redis, redis_url: str, runner: ScriptedRunner, eventually: Eventually
) -> None:
    async def forever(_job: ClaimedJob) -> AttemptResult:
        await asyncio.Event().wait()
        return Done("null")

    runner.scripts = {"forever": forever}
    await enqueue(redis, ("f@k", "forever"))
    worker = worker_of(redis_url, runner, grace_seconds=600)
    task = asyncio.create_task(worker.main())
    await eventually(lambda: _count(runner, 1))

    worker.handle_sig(signal.SIGTERM)
    worker.handle_sig(signal.SIGTERM)
    await asyncio.wait_for(task, PATIENCE_SECONDS)
    await worker.close()

    assert await redis.zscore(NAME, "f@k") == 1_700_000_000_000
    assert await redis.get(keys.retry("f@k")) == b"0"
    assert await redis.exists(keys.in_progress("f@k")) == 0


async def test_each_job_of_a_batch_that_is_released_at_a_stop_has_its_log_line(
    redis: Redis, redis_url: str, runner: ScriptedRunner, eventually: Eventually
) -> None:
    class HangingBatches(NoBatches):
        def accepts(self, _job: ClaimedJob) -> bool:
            return True

        async def run(self, jobs: Sequence[ClaimedJob]) -> AsyncGenerator[Sequence[Attempt], None]:
            runner.running.update(job.job_id for job in jobs)
            await asyncio.Event().wait()
            yield []

    await enqueue(redis, *[(f"b{number}", "fine") for number in range(3)])
    with capture_logs() as lines:
        worker = worker_of(redis_url, runner, batches=HangingBatches(), batch_size=8, grace_seconds=0)
        task = asyncio.create_task(worker.main())
        await eventually(lambda: _count(runner, 3))
        worker.handle_sig(signal.SIGTERM)
        await asyncio.wait_for(task, PATIENCE_SECONDS)
        await worker.close()

    released = [line for line in lines if line["event"] == "job_released"]
    assert sorted(line["job_id"] for line in released) == ["b0", "b1", "b2"]
    assert {line["detail"] for line in released} == {"the worker stops"}
    assert {await redis.get(keys.retry(f"b{number}")) for number in range(3)} == {b"0"}


async def test_a_lease_is_renewed_while_its_job_runs(
    redis: Redis, redis_url: str, runner: ScriptedRunner, eventually: Eventually
) -> None:
    go = asyncio.Event()

    async def slow(_job: ClaimedJob) -> AttemptResult:
        await go.wait()
        return Done("null")

    runner.scripts = {"slow": slow}
    await enqueue(redis, ("a", "slow"))
    async with running(worker_of(redis_url, runner, lease_seconds=0.6)):
        await eventually(lambda: _count(runner, 1))
        first = await redis.zscore(NAME, "a")
        assert first is not None
        await eventually(lambda: _later(redis, first + 1000))
        go.set()
        await eventually(lambda: redis.exists(keys.result("a")))
    assert runner.attempts == {"a": [1]}


async def _heard(redis: Redis) -> bool:
    ((_, subscribers),) = await redis.pubsub_numsub(keys.wake(NAME))
    return bool(subscribers)


async def _logged(logs: list[Any], event: str) -> bool:
    return any(entry["event"] == event for entry in logs)


async def _count(runner: ScriptedRunner, running: int) -> bool:
    return runner.running.total() == running


async def _queued(redis: Redis, jobs: int) -> bool:
    # A released job has no lease any more.
    return await redis.zcard(NAME) == jobs and len(await redis.keys("arq:in-progress:*")) == 2


async def _later(redis: Redis, score: float) -> bool:
    now = await redis.zscore(NAME, "a")
    return now is not None and now > score


@pytest.mark.usefixtures("no_backoff")
async def test_a_fault_of_the_engine_buries_the_job_after_its_tries_and_the_worker_goes_on(
    redis: Redis, redis_url: str, runner: ScriptedRunner
) -> None:
    async def break_down(_job: ClaimedJob) -> AttemptResult:
        raise AssertionError("a secret")

    runner.scripts = {"broken": break_down}
    await enqueue(redis, ("b@k", "broken"), ("c@k", "fine"))

    await burst(worker_of(redis_url, runner, burst=True))

    assert (await result(redis, "b@k"))["r"]["code"] == "failed"
    assert "secret" not in (await result(redis, "b@k"))["r"]["detail"]
    assert (await result(redis, "c@k"))["s"] is True


async def test_batches_are_off_when_jobs_have_a_single_try(
    redis: Redis, redis_url: str, runner: ScriptedRunner
) -> None:
    # A job that takes the worker down would take the others of its batch along, for good.
    class AnyBatch(NoBatches):
        def accepts(self, _job: ClaimedJob) -> bool:
            return True

    await enqueue(redis, ("a", "fine"), ("b", "fine"))

    with capture_logs() as lines:
        await burst(worker_of(redis_url, runner, burst=True, batches=AnyBatch(), batch_size=8, max_tries=1))

    assert runner.attempts == {"a": [1], "b": [1]}
    assert [line["reason"] for line in lines if line["event"] == "batches_off"] == [
        "WORKER_MAX_TRIES is 1; batches need 2 or more"
    ]


@pytest.mark.parametrize("jobs", [[("1@k", "fine"), ("2@k", "fine")], [("again", "fail_once")]])
async def test_the_next_job_of_a_key_and_a_retry_do_not_wait_for_a_poll(
    redis: Redis,
    redis_url: str,
    runner: ScriptedRunner,
    *,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    jobs: list[tuple[str, str]],
) -> None:
    async def fail_once(job: ClaimedJob) -> AttemptResult:
        return Retry("failed", "no") if job.attempt == 1 else Done("null")

    runner.scripts = {"fail_once": fail_once}
    monkeypatch.setattr(settler, "backoff_seconds", lambda _attempts: 0.05)
    for name in ("complete", "retry"):
        monkeypatch.setattr(Queue, name, _late(getattr(Queue, name)))
    await enqueue(redis, *jobs)

    # Neither a poll nor the end of a lease can wake it while the test waits.
    async with running(worker_of(redis_url, runner, poll_seconds=600, lease_seconds=600)):
        await eventually(lambda: _is_empty(redis))

    assert sum(map(len, runner.attempts.values())) == 2


def _late(settle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def late(*arguments: Any) -> Any:
        await asyncio.sleep(0.1)  # so that the claim after a job's end comes before its settlement
        return await settle(*arguments)

    return late


async def _is_empty(redis: Redis) -> bool:
    return not await redis.zcard(NAME)
