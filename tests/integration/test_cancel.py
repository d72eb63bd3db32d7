"""Cancelling a job in each of its states: waiting, parked, claimed, committing, ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from redis.asyncio import Redis

from producers import (
    Deleted,
    JobCancelled,
    JobHandle,
    JobStatus,
    Producer,
    RedisRefused,
    RedisUnavailable,
    SyncProducer,
    User,
    keys,
)
from producers._redis import connect
from producers.cancellation import DEFAULT_RESULT_MS
from producers.keys import PARKED_MS
from tests.integration.running import BREAK, MEND, burst, run_all, settings_of, user, working
from tests.waiting import PATIENCE_SECONDS
from worker.settings import Settings

QUEUE = keys.DEFAULT_QUEUE


@dataclass
class Stage:
    """A producer, direct access to Redis and the database, and a worker's settings."""

    producer: Producer
    redis: Redis
    settings: Settings
    sql: Any
    eventually: Any

    async def enqueue(self, name: str = "ada", **options: Any) -> JobHandle[Any]:
        return await self.producer.enqueue(user(name), **options)

    async def users(self) -> list[str]:
        found: list[str] = await self.sql("SELECT coalesce(array_agg(username::text ORDER BY id), '{}') FROM users")
        return found

    async def ledger(self, job: JobHandle[Any]) -> tuple[str, str | None] | None:
        """The outcome and the code."""
        found: tuple[str, str | None] | None = await self.sql(
            "SELECT (outcome::text, code::text) FROM job_ledger WHERE job_id = $1", job.job_id
        )
        return found

    async def keyspace(self) -> set[str]:
        keyspace = {key.decode() for key in await self.redis.keys("*")}
        # A worker's last claim is kept for as long as a lease, whatever happens to its jobs.
        return {key for key in keyspace if not key.startswith(keys.claim(QUEUE, ""))}

    async def result_ms(self, job: JobHandle[Any]) -> int:
        """How long the result of a job is still kept."""
        return int(await self.redis.pttl(keys.result(job.job_id)))

    async def status_is(self, job: JobHandle[Any], status: JobStatus) -> None:
        async def reached() -> bool:
            return await job.status() is status

        await self.eventually(reached)

    async def waiting_for_a_lock(self) -> None:
        await self.eventually(
            lambda: self.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ),
        )

    @asynccontextmanager
    async def locked(self, statement: str) -> AsyncIterator[None]:
        """Hold a lock in a transaction of its own."""
        connection = await asyncpg.connect(self.settings.database_url.get_secret_value())
        try:
            await connection.execute("BEGIN")
            await connection.execute(statement)
            yield
            await connection.execute("ROLLBACK")
        finally:
            await connection.close()

    async def cancelled(self, job: JobHandle[Any]) -> None:
        """Wait until a job has ended as cancelled."""
        with pytest.raises(JobCancelled):
            await job.result(PATIENCE_SECONDS)


@pytest.fixture
async def stage(
    redis_url: str, database_url: str, sql: Any, eventually: Any, logging_kept: None
) -> AsyncIterator[Stage]:
    redis = connect(redis_url, queue=QUEUE)
    async with Producer(redis_url) as producer:
        yield Stage(producer, redis, settings_of(redis_url, database_url), sql, eventually)
    await redis.aclose()
    await redis.connection_pool.disconnect()


# Jobs that no worker has claimed


@pytest.mark.parametrize("options", [{}, {"defer_by": 3600.0}, {"ordering_key": "k"}])
async def test_a_waiting_job_is_cancelled_at_once_and_never_runs(stage: Stage, options: dict[str, Any]) -> None:
    job = await stage.enqueue(**options)

    assert await job.cancel() is JobStatus.CANCELLED

    await stage.cancelled(job)
    assert await job.status() is JobStatus.CANCELLED
    assert await stage.keyspace() <= {keys.result(job.job_id), keys.clock(QUEUE)}
    await burst(stage.settings)
    assert await stage.users() == []
    assert await stage.ledger(job) is None


async def test_the_result_of_a_waiting_job_is_kept_as_long_as_the_workers_keep_theirs(stage: Stage) -> None:
    before, after = await stage.enqueue("ada"), await stage.enqueue("bob", defer_by=3600)
    await before.cancel()
    settings = stage.settings.model_copy(update={"result_ttl_seconds": 7 * 3600})
    async with working(settings):
        await stage.eventually(lambda: stage.redis.exists(keys.config(QUEUE)))

    await after.cancel()

    assert await stage.result_ms(before) == pytest.approx(DEFAULT_RESULT_MS, abs=60_000)
    assert await stage.result_ms(after) == pytest.approx(7 * 3600 * 1000, abs=60_000)


@pytest.mark.parametrize(
    "value", ["", "soon", "0", "-5", "1.5", "1e9", "0x10", "nan", "inf", "9" * 16, "9" * 400, b"\xff\x00"]
)
async def test_a_configured_time_that_is_no_positive_number_is_ignored(stage: Stage, value: str | bytes) -> None:
    await stage.redis.hset(keys.config(QUEUE), "result_ms", value)  # type: ignore[misc, arg-type]
    job = await stage.enqueue()

    assert await job.cancel() is JobStatus.CANCELLED

    assert await stage.result_ms(job) == pytest.approx(DEFAULT_RESULT_MS, abs=60_000)


async def test_a_configuration_of_another_type_stops_neither_clients_nor_workers(stage: Stage) -> None:
    await stage.redis.set(keys.config(QUEUE), "x")
    cancelled, done = await stage.enqueue("ada"), await stage.enqueue("bob")

    assert await cancelled.cancel() is JobStatus.CANCELLED

    assert await stage.result_ms(cancelled) == pytest.approx(DEFAULT_RESULT_MS, abs=60_000)
    async with working(stage.settings):
        assert (await done.result(PATIENCE_SECONDS)).username == "bob"
        await stage.eventually(lambda: stage.redis.hlen(keys.workers(QUEUE)))
    assert await stage.redis.get(keys.config(QUEUE)) == b"x"


async def test_the_result_of_a_waiting_job_names_the_job_and_holds_no_value(stage: Stage) -> None:
    job = await stage.enqueue()

    await job.cancel()

    result = await job.outcome(PATIENCE_SECONDS)
    assert (result.f, result.t, result.q, result.id) == ("create_user", 0, QUEUE, job.job_id)
    assert 0 < result.et <= result.ft
    assert b"example.com" not in (await stage.redis.get(keys.result(job.job_id)) or b"")


async def test_a_cancelled_job_can_be_cancelled_again_but_not_enqueued_again(stage: Stage) -> None:
    job = await stage.enqueue(idempotency_key="a")
    await job.cancel()

    assert await job.cancel() is JobStatus.CANCELLED
    again = await stage.enqueue(idempotency_key="a")
    assert not again.accepted
    assert await again.status() is JobStatus.CANCELLED


async def test_a_producer_that_waits_for_a_cancelled_job_is_notified(stage: Stage) -> None:
    job = await stage.enqueue()
    waiting = asyncio.create_task(job.result())
    channels = await stage.eventually(lambda: stage.redis.pubsub_channels(keys.results(QUEUE, "*")))
    async with stage.redis.pubsub() as listener:
        await listener.subscribe(*channels)
        await listener.get_message(timeout=PATIENCE_SECONDS)

        async with Producer(stage.settings.redis_url.get_secret_value()) as other:
            assert await other.job(job.job_id, User).cancel() is JobStatus.CANCELLED

        message = await listener.get_message(timeout=PATIENCE_SECONDS)
    assert message is not None
    assert message["data"] == job.job_id.encode()
    with pytest.raises(JobCancelled):
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)


async def test_cancelling_a_parked_job_leaves_its_ordering_key_to_the_others(stage: Stage) -> None:
    # Given three jobs of one key, of which one runs and two are parked
    first, second, third = [await stage.enqueue(name, ordering_key="k") for name in ("ada", "bob", "cyd")]
    async with stage.locked("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"), working(stage.settings):
        await stage.waiting_for_a_lock()
        await stage.eventually(lambda: stage.redis.exists(keys.parked(QUEUE, "k")))

        # When the second is cancelled
        assert await second.cancel() is JobStatus.CANCELLED
        assert await stage.redis.zcard(keys.parked(QUEUE, "k")) == 1

    # Then the others are done, in order, and the key is free
    await burst(stage.settings)
    assert await stage.users() == ["ada", "cyd"]
    assert [await job.status() for job in (first, third)] == [JobStatus.DONE] * 2
    assert not await stage.redis.exists(keys.holders(QUEUE), keys.parked(QUEUE, "k"))


async def test_cancelling_the_holder_of_an_ordering_key_unparks_the_next_job(stage: Stage) -> None:
    # Given a job that was parked, holds its ordering key now, and was not claimed yet
    first, second, third = [await stage.enqueue(name, ordering_key="k") for name in ("ada", "bob", "cyd")]
    async with stage.locked("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"), working(stage.settings):
        await stage.waiting_for_a_lock()
        await stage.eventually(lambda: stage.redis.exists(keys.parked(QUEUE, "k")))
        await first.cancel()
        await stage.cancelled(first)
    # (whether the stopping worker claimed the second job is a matter of timing)
    await stage.redis.delete(keys.retry(second.job_id))

    assert await second.cancel() is JobStatus.CANCELLED

    assert await stage.redis.hget(keys.holders(QUEUE), "k") == third.job_id.encode()  # type: ignore[misc]
    assert await third.status() is JobStatus.DUE
    assert (await stage.redis.zscore(QUEUE, third.job_id) or PARKED_MS) < PARKED_MS
    await burst(stage.settings)
    assert await stage.users() == ["cyd"]
    assert await third.status() is JobStatus.DONE


async def test_a_job_with_an_unreadable_payload_can_be_cancelled(stage: Stage) -> None:
    await stage.redis.rpush(keys.job("list"), "x")  # type: ignore[misc]
    await stage.redis.set(keys.job("garbage"), b"\x80\x04")
    await stage.redis.zadd(QUEUE, {"list": 1, "garbage": 2, "missing": 3})

    for job_id in ("list", "garbage", "missing"):
        job = stage.producer.job(job_id, Deleted)
        assert await job.cancel() is JobStatus.CANCELLED
        assert (await job.outcome(PATIENCE_SECONDS)).f == "unknown"
    assert await stage.redis.zcard(QUEUE) == 0
    assert not await stage.redis.exists(keys.job("list"), keys.job("garbage"))


# Jobs that a worker has claimed


async def test_a_running_job_is_rolled_back_when_it_is_cancelled(stage: Stage) -> None:
    job = await stage.enqueue()
    async with stage.locked("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"), working(stage.settings):
        await stage.waiting_for_a_lock()

        assert await job.cancel() is JobStatus.CLAIMED

        await stage.cancelled(job)
    assert await stage.users() == []
    assert await stage.ledger(job) == ("rejected", "cancelled")
    left = {keys.result(job.job_id), keys.clock(QUEUE), keys.health(QUEUE), keys.counters(QUEUE)}
    assert await stage.keyspace() <= left | {keys.config(QUEUE)}


async def test_a_worker_that_missed_the_request_finds_it_when_it_renews(stage: Stage) -> None:
    job = await stage.enqueue()
    settings = stage.settings.model_copy(update={"lease_seconds": 2.0})
    async with stage.locked("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"), working(settings):
        await stage.waiting_for_a_lock()
        # Without the message that cancel.lua publishes
        await stage.redis.zadd(keys.ABORT, {job.job_id: 1})

        await stage.cancelled(job)
    assert await stage.users() == []


async def test_a_job_whose_commit_has_begun_is_done_although_it_is_cancelled(stage: Stage) -> None:
    # Given a COMMIT that waits
    await stage.sql("CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
                    " 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END'")  # fmt: skip
    await stage.sql("CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED"
                    " FOR EACH ROW EXECUTE FUNCTION wait()")  # fmt: skip
    job = await stage.enqueue()
    async with working(stage.settings):
        async with stage.locked("SELECT pg_advisory_xact_lock(7)"):
            await stage.waiting_for_a_lock()

            # When the job is cancelled
            assert await job.cancel() is JobStatus.CLAIMED

        # Then it is done, and the request is gone
        assert (await job.result(PATIENCE_SECONDS)).username == "ada"
    assert await job.cancel() is JobStatus.DONE
    assert await stage.users() == ["ada"]
    assert not await stage.redis.exists(keys.ABORT)


async def test_a_job_claimed_ahead_is_cancelled_before_it_begins(stage: Stage) -> None:
    # Given a worker that runs one job at a time and has claimed a second one
    settings = stage.settings.model_copy(update={"concurrency": 1})
    first = await stage.enqueue("ada")
    second = await stage.enqueue("bob")
    async with working(settings):
        async with stage.locked("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"):
            await stage.waiting_for_a_lock()
            await stage.status_is(second, JobStatus.CLAIMED)

            assert await second.cancel() is JobStatus.CLAIMED

        assert (await first.result(PATIENCE_SECONDS)).username == "ada"
        await stage.cancelled(second)
    assert await stage.users() == ["ada"]
    assert await stage.ledger(second) == ("rejected", "cancelled")


async def test_a_job_that_waits_for_its_next_attempt_is_cancelled_without_it(stage: Stage) -> None:
    # Given a job whose first attempt failed, and whose next is an hour away
    job = await stage.enqueue()
    await run_all(stage.sql, BREAK)
    async with working(stage.settings):
        await stage.eventually(lambda: stage.redis.exists(keys.retry(job.job_id)))
        await stage.status_is(job, JobStatus.DEFERRED)
    await stage.sql(MEND)
    await stage.redis.zincrby(QUEUE, 3_600_000, job.job_id)

    # When it is cancelled, then the next worker cancels it at once
    assert await job.cancel() is JobStatus.DUE
    async with working(stage.settings):
        await stage.cancelled(job)
    assert await stage.users() == []
    assert await stage.ledger(job) == ("rejected", "cancelled")


async def test_a_job_released_after_its_commit_is_done_although_it_is_cancelled(stage: Stage) -> None:
    # Given a committed job that its worker released without knowing of the commit
    job = await stage.enqueue()
    payload = await stage.redis.get(keys.job(job.job_id))
    await burst(stage.settings)
    await stage.redis.delete(keys.result(job.job_id))
    await stage.redis.set(keys.job(job.job_id), payload or b"")
    await stage.redis.set(keys.retry(job.job_id), "0")
    await stage.redis.zadd(QUEUE, {job.job_id: 1})

    # When it is cancelled, then its result is the outcome in the ledger
    assert await job.cancel() is JobStatus.DUE
    await burst(stage.settings)
    assert (await job.result(PATIENCE_SECONDS)).username == "ada"
    assert await stage.ledger(job) == ("done", None)
    assert not await stage.redis.exists(keys.ABORT)


async def test_a_released_job_counts_as_claimed(stage: Stage) -> None:
    job = await stage.enqueue()
    async with stage.locked("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"), working(stage.settings):
        await stage.waiting_for_a_lock()
    assert await job.status() is JobStatus.DUE

    assert await job.cancel() is JobStatus.DUE

    await burst(stage.settings)
    await stage.cancelled(job)


# Jobs that have ended, and servers that do not answer


async def test_cancelling_an_ended_job_changes_nothing(stage: Stage) -> None:
    done, rejected = await stage.enqueue("ada"), await stage.enqueue("ada")
    await burst(stage.settings)
    before = await stage.redis.mget(keys.result(done.job_id), keys.result(rejected.job_id))

    assert await done.cancel() is JobStatus.DONE
    assert await rejected.cancel() is JobStatus.REJECTED
    assert await stage.producer.job("never-enqueued", Deleted).cancel() is JobStatus.UNKNOWN
    assert await stage.redis.mget(keys.result(done.job_id), keys.result(rejected.job_id)) == before
    assert not await stage.redis.exists(keys.ABORT)


async def test_cancelling_raises_redis_unavailable_without_redis() -> None:
    async with Producer("redis://127.0.0.1:1") as producer:
        with pytest.raises(RedisUnavailable, match="cancel it again"):
            await producer.job("a", Deleted).cancel()


@pytest.mark.parametrize("key", [keys.holders(QUEUE), keys.parked(QUEUE, "k"), keys.ABORT])
async def test_cancelling_is_refused_and_changes_nothing_when_a_key_has_another_type(stage: Stage, key: str) -> None:
    job = await stage.enqueue(ordering_key="k")
    await stage.redis.set(key, "x")

    with pytest.raises(RedisRefused, match="WRONGTYPE"):
        await job.cancel()

    assert await stage.redis.zscore(QUEUE, job.job_id) is not None
    assert await stage.redis.exists(keys.job(job.job_id)) == 1
    assert await job.status() is JobStatus.DUE


async def test_a_worker_runs_jobs_although_the_cancel_set_has_another_type(stage: Stage) -> None:
    await stage.redis.set(keys.ABORT, "x")
    job = await stage.enqueue(ordering_key="k")
    next_job = await stage.enqueue("bob", ordering_key="k")

    await burst(stage.settings)

    assert [await each.status() for each in (job, next_job)] == [JobStatus.DONE] * 2


def test_a_sync_producer_cancels_a_job(redis_url: str) -> None:
    with SyncProducer(redis_url) as producer:
        job = producer.enqueue(user("ada"))

        assert job.cancel() is JobStatus.CANCELLED
        with pytest.raises(JobCancelled):
            job.result(PATIENCE_SECONDS)
