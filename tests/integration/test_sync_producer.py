"""The blocking producer: the same as the asynchronous one, from any thread, and no thread waits forever."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from producers import (
    CreatePost,
    Deleted,
    DeleteUser,
    EnqueueError,
    IdempotencyConflict,
    InvalidMessage,
    JobRejected,
    JobStatus,
    PartialEnqueueError,
    RedisUnavailable,
    ResultTimeout,
    SyncJobHandle,
    SyncProducer,
    arq_wire,
    keys,
)
from tests.waiting import PATIENCE_SECONDS

HASH = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"
QUEUE = keys.DEFAULT_QUEUE


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that reads Redis and stands in for a worker."""
    with redis.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def producer(redis_url: str) -> Iterator[SyncProducer]:
    with SyncProducer(redis_url) as made:
        yield made


def settle(client: redis.Redis, job_id: str, reply: object, *, done: bool = True) -> None:
    """End a job as a worker does."""
    envelope = {"f": "f", "k": {}, "a": [], "t": 1, "et": 1, "s": done, "r": reply, "st": 2, "ft": 3}
    with client.pipeline(transaction=True) as pipeline:
        pipeline.zrem(QUEUE, job_id)
        pipeline.delete(keys.job(job_id))
        pipeline.set(keys.result(job_id), arq_wire.dumps(envelope), ex=60)
        pipeline.execute()


def queued(client: redis.Redis) -> list[str]:
    found: Any = client.zrange(QUEUE, 0, -1)
    return [job_id.decode() for job_id in found]


def looked(client: redis.Redis) -> bool:
    """Whether a result was polled since the statistics were reset."""
    statistics: Any = client.info("commandstats")
    return "cmdstat_mget" in statistics


def producer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sync-producer"]


def test_every_job_can_be_enqueued(producer: SyncProducer, client: redis.Redis) -> None:
    jobs: list[SyncJobHandle[Any]] = [
        producer.create_user(email="ada@example.com", username="ada", hashed_password=HASH),
        producer.update_user(42, is_active=False),
        producer.delete_user(42),
        producer.create_post(author_id=42, title="t", content="c"),
        producer.update_post(7, title="t"),
        producer.delete_post(7),
        producer.enqueue(CreatePost(author_id=42, title="t", content="c"), idempotency_key="a"),
        *producer.enqueue_many([DeleteUser(user_id=1), DeleteUser(user_id=2)]),
    ]

    assert all(job.accepted for job in jobs)
    assert queued(client) == [job.job_id for job in jobs]
    assert repr(jobs[6]) == "<SyncJobHandle a>"


def test_a_handle_follows_a_job_to_its_reply(producer: SyncProducer, client: redis.Redis) -> None:
    job = producer.delete_user(1, idempotency_key="a")
    assert job.status() is JobStatus.DUE
    with pytest.raises(ResultTimeout):
        job.result(timeout=0.02)

    settle(client, job.job_id, {"deleted": True})

    assert job.result(timeout=PATIENCE_SECONDS) == Deleted(deleted=True)
    assert producer.job("a@user:1", Deleted).status() is JobStatus.DONE


def test_an_outcome_is_the_whole_result_of_a_job_that_ended(producer: SyncProducer, client: redis.Redis) -> None:
    done, rejected = producer.delete_user(1), producer.delete_user(2)
    with pytest.raises(ResultTimeout):
        done.outcome(timeout=0.02)

    settle(client, done.job_id, {"deleted": True})
    settle(client, rejected.job_id, JobRejected("not_found", "no such user"), done=False)

    outcome = done.outcome(timeout=PATIENCE_SECONDS)
    assert (outcome.s, outcome.r, outcome.error) == (True, {"deleted": True}, None)
    error = rejected.outcome(timeout=PATIENCE_SECONDS).error
    assert error is not None
    assert (error.code, error.detail) == ("not_found", "no such user")


def test_the_errors_are_those_of_the_asynchronous_producer(producer: SyncProducer, client: redis.Redis) -> None:
    job = producer.delete_user(1, idempotency_key="a")
    settle(client, job.job_id, JobRejected("not_found", "no such user"), done=False)

    with pytest.raises(JobRejected, match="not_found: no such user"):
        job.result(timeout=PATIENCE_SECONDS)
    with pytest.raises(InvalidMessage):
        producer.update_user(1)
    with pytest.raises(IdempotencyConflict):
        producer.delete_user(2, idempotency_key="a")
    with pytest.raises(ValueError, match="ordering key"):
        producer.delete_user(1, ordering_key="")


def test_a_missing_redis_is_an_error_within_the_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    with SyncProducer(f"redis://127.0.0.1:{port}", timeout_seconds=0.1) as producer:
        with pytest.raises(RedisUnavailable):
            producer.delete_user(1)
        with pytest.raises(PartialEnqueueError) as caught:
            producer.enqueue_many([DeleteUser(user_id=1)])

    assert all(isinstance(outcome, EnqueueError) for outcome in caught.value.outcomes)


def test_many_threads_share_one_producer(producer: SyncProducer, client: redis.Redis) -> None:
    def enqueue(number: int) -> bool:
        job = producer.delete_user(number // 2 + 1, idempotency_key=f"key-{number // 2}")
        settle(client, job.job_id, {"deleted": True})
        assert job.result(timeout=PATIENCE_SECONDS).deleted
        return job.accepted

    with ThreadPoolExecutor(16) as pool:
        accepted = list(pool.map(enqueue, range(400)))

    assert sum(accepted) == 200
    assert len(producer_threads()) == 1


def test_every_call_after_closing_raises_and_the_thread_has_ended(redis_url: str) -> None:
    with SyncProducer(redis_url) as producer:
        job = producer.delete_user(1)
    producer.close()

    assert producer_threads() == []
    for call in (lambda: producer.delete_user(1), job.status, lambda: job.result(timeout=PATIENCE_SECONDS)):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_closing_ends_the_calls_of_other_threads(redis_url: str, client: redis.Redis) -> None:
    producer = SyncProducer(redis_url)
    job = producer.delete_user(1)
    client.config_resetstat()

    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(job.result) for _ in range(4)]
        while not looked(client):
            assert not any(wait.done() for wait in waiting)
        closing = [pool.submit(producer.close) for _ in range(2)]

        for wait in waiting:
            assert isinstance(wait.exception(timeout=PATIENCE_SECONDS), RuntimeError)
        assert [closed.result(timeout=PATIENCE_SECONDS) for closed in closing] == [None, None]
    assert producer_threads() == []


def test_no_call_hangs_when_another_thread_closes(redis_url: str) -> None:
    def until_closed(producer: SyncProducer) -> str:
        try:
            while True:
                producer.delete_user(1)
        except RuntimeError as error:
            return str(error)

    for _ in range(5):
        producer = SyncProducer(redis_url)
        with ThreadPoolExecutor(4) as pool:
            busy = [pool.submit(until_closed, producer) for _ in range(4)]
            producer.delete_user(2)
            producer.close()

            assert {one.result(timeout=PATIENCE_SECONDS) for one in busy} == {
                "this SyncProducer is closed: make a new one"
            }


def test_a_failed_constructor_leaves_no_thread() -> None:
    with pytest.raises(ValueError, match="redis://"):
        SyncProducer("http://localhost")

    assert producer_threads() == []
