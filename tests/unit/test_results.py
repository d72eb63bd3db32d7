"""Waiting for results: one poller for all, and each outcome as a reply or an exception."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from producers import (
    Deleted,
    JobCancelled,
    JobDead,
    JobError,
    JobHandle,
    JobNotFound,
    JobRejected,
    JobStatus,
    RedisUnavailable,
    ResultTimeout,
    keys,
)
from producers._result_waiter import ResultWaiter
from tests.waiting import PATIENCE_SECONDS

QUEUE = keys.DEFAULT_QUEUE
FAR_MS = 4_102_444_800_000  # the year 2100


@pytest.fixture
async def results(redis: Redis) -> AsyncIterator[ResultWaiter]:
    waiting = ResultWaiter(redis, QUEUE)
    yield waiting
    await waiting.close()


def handle(redis: Redis, results: ResultWaiter, job_id: str = "a") -> JobHandle[Deleted]:
    return JobHandle(job_id, Deleted, accepted=True, redis=redis, queue=QUEUE, results=results)


def outcome(reply: object, *, done: bool = True) -> bytes:
    """A result as a worker writes it."""
    envelope = {"f": "delete_user", "k": {}, "a": [], "t": 1, "et": 1, "s": done, "r": reply, "st": 2, "ft": 3}
    return json.dumps(envelope).encode()


async def end(redis: Redis, job_id: str, reply: object, *, done: bool = True) -> None:
    """End a job, as a worker does."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.zrem(QUEUE, job_id)
        pipeline.delete(keys.job(job_id))
        pipeline.set(keys.result(job_id), outcome(reply, done=done))
        await pipeline.execute()


async def enqueue(redis: Redis, job_id: str, score_ms: float = 1.0) -> None:
    await redis.set(keys.job(job_id), "{}")
    await redis.zadd(QUEUE, {job_id: score_ms})


async def test_a_reply_is_typed(redis: Redis, results: ResultWaiter) -> None:
    await end(redis, "a", {"deleted": True})

    assert await handle(redis, results).result(timeout=PATIENCE_SECONDS) == Deleted(deleted=True)


async def test_result_waits_for_a_later_reply(redis: Redis, results: ResultWaiter) -> None:
    await enqueue(redis, "a")
    waiting = asyncio.create_task(handle(redis, results).result(timeout=PATIENCE_SECONDS))
    await asyncio.sleep(0)

    await end(redis, "a", {"deleted": False})

    assert await waiting == Deleted(deleted=False)


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        ("conflict", JobRejected, JobStatus.REJECTED),
        ("failed", JobDead, JobStatus.DEAD),
        ("of a later version", JobDead, JobStatus.DEAD),
        ("cancelled", JobCancelled, JobStatus.CANCELLED),
    ],
)
async def test_an_outcome_other_than_done_is_raised_and_names_the_job(
    redis: Redis, results: ResultWaiter, code: str, kind: type[JobError], status: JobStatus
) -> None:
    await end(redis, "a@user:1", {"code": code, "detail": "taken"}, done=False)
    job = handle(redis, results, "a@user:1")

    with pytest.raises(kind) as caught:
        await job.result(timeout=PATIENCE_SECONDS)

    assert (caught.value.code, caught.value.detail, caught.value.job_id) == (code, "taken", "a@user:1")
    assert str(caught.value) == f"job a@user:1: {code}: taken"
    assert await job.status() is status


@pytest.mark.parametrize("data", [b"", b"not json", b"\x80\x04", outcome({"surprise": 1}), outcome(None)])
async def test_a_value_that_is_no_reply_of_the_contract_is_undecodable(
    redis: Redis, results: ResultWaiter, data: bytes
) -> None:
    await redis.set(keys.result("a"), data)

    with pytest.raises(JobDead) as caught:
        await handle(redis, results).result(timeout=PATIENCE_SECONDS)

    assert caught.value.code == "undecodable"


async def test_an_unknown_job_is_not_found(redis: Redis, results: ResultWaiter) -> None:
    with pytest.raises(JobNotFound) as caught:
        await handle(redis, results).result(timeout=PATIENCE_SECONDS)

    assert caught.value.job_id == "a"


async def test_result_can_be_called_again_after_a_timeout(redis: Redis, results: ResultWaiter) -> None:
    await enqueue(redis, "a")
    job = handle(redis, results)

    with pytest.raises(ResultTimeout) as caught:
        await job.result(timeout=0.01)
    await end(redis, "a", {"deleted": True})

    assert (caught.value.job_id, caught.value.timeout) == ("a", 0.01)
    assert (await job.result(timeout=PATIENCE_SECONDS)).deleted is True


async def test_all_waiting_calls_of_many_jobs_are_answered(redis: Redis, results: ResultWaiter) -> None:
    jobs = [f"job-{number}" for number in range(1500)]
    for job_id in jobs:
        await enqueue(redis, job_id)
    waiting = [
        asyncio.create_task(handle(redis, results, job_id).result(timeout=PATIENCE_SECONDS)) for job_id in jobs * 2
    ]
    await asyncio.sleep(0)

    for number, job_id in enumerate(jobs):
        await end(redis, job_id, {"deleted": number % 2 == 0})

    replies = await asyncio.gather(*waiting)
    assert [reply.deleted for reply in replies] == [number % 2 == 0 for number in range(1500)] * 2


async def test_a_timeout_of_one_call_leaves_the_others_waiting(redis: Redis, results: ResultWaiter) -> None:
    await enqueue(redis, "a")
    gives_up, stays = (asyncio.create_task(handle(redis, results).result(timeout=PATIENCE_SECONDS)) for _ in range(2))
    await asyncio.sleep(0)

    gives_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gives_up
    await end(redis, "a", {"deleted": True})

    assert (await stays).deleted is True


async def test_polling_stops_when_no_call_waits(redis: Redis, results: ResultWaiter) -> None:
    await end(redis, "a", {"deleted": True})
    await handle(redis, results).result(timeout=PATIENCE_SECONDS)

    for task in asyncio.all_tasks():
        if task.get_name() == "results":
            await asyncio.wait_for(task, PATIENCE_SECONDS)


async def test_a_published_result_is_fetched_before_the_next_poll(redis: Redis) -> None:
    results = ResultWaiter(redis, QUEUE, "ended-jobs")
    await enqueue(redis, "a")
    # Given a waiter that does not poll again, but listens
    waiting = asyncio.create_task(handle(redis, results).result(timeout=PATIENCE_SECONDS))
    assert results._listener is not None
    await asyncio.wait_for(results._listener.listening.wait(), PATIENCE_SECONDS)
    results._next_poll = asyncio.get_running_loop().time() + 3600

    await end(redis, "a", {"deleted": True})
    await redis.publish("ended-jobs", "another-job a")

    assert (await waiting).deleted is True
    await results.close()


async def test_closing_cancels_waiting_calls(redis: Redis) -> None:
    results = ResultWaiter(redis, QUEUE)
    await enqueue(redis, "a")
    waiting = asyncio.create_task(handle(redis, results).result())
    await asyncio.sleep(0)

    await results.close()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "results"]


async def test_an_error_of_redis_is_survived_and_named_by_the_timeout(
    redis: Redis, results: ResultWaiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await end(redis, "a", {"deleted": True})
    real = redis.pipeline

    def fail(**_: Any) -> Any:
        raise RedisConnectionError("connection refused")

    monkeypatch.setattr(redis, "pipeline", fail)
    with pytest.raises(ResultTimeout, match="connection refused"):
        await handle(redis, results).result(timeout=0.5)
    with pytest.raises(RedisUnavailable, match="connection refused"):
        await handle(redis, results).status()

    waiting = asyncio.create_task(handle(redis, results).result(timeout=PATIENCE_SECONDS))
    monkeypatch.setattr(redis, "pipeline", real)
    assert (await waiting).deleted is True


@pytest.mark.parametrize(
    ("score_ms", "running", "status"),
    [
        (None, False, JobStatus.UNKNOWN),
        (None, True, JobStatus.UNKNOWN),
        (1.0, False, JobStatus.DUE),
        (FAR_MS, False, JobStatus.DEFERRED),
        (FAR_MS, True, JobStatus.CLAIMED),
        (1e15, False, JobStatus.PARKED),  # parked behind another job of its ordering key
    ],
)
async def test_the_status_of_a_job_in_the_queue_follows_from_its_score_and_lease(
    redis: Redis, results: ResultWaiter, score_ms: float | None, running: bool, status: JobStatus
) -> None:
    if score_ms is not None:
        await enqueue(redis, "a", score_ms)
    if running:
        await redis.set(keys.in_progress("a"), "token")

    assert await handle(redis, results).status() is status


async def test_an_ended_job_has_the_status_of_its_outcome(redis: Redis, results: ResultWaiter) -> None:
    job = handle(redis, results)

    await end(redis, "a", {"deleted": True})
    assert await job.status() is JobStatus.DONE

    await redis.set(keys.result("a"), b"not a result")
    assert await job.status() is JobStatus.DEAD
