"""The producer on a real server: jobs are accepted once, and every uncertainty is an exception."""

import asyncio
import json
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job, ResultNotFound
from redis.asyncio import Redis

from producers import (
    CreatePost,
    Deleted,
    DeleteUser,
    EnqueueUnconfirmed,
    IdempotencyConflict,
    InvalidMessage,
    JobCancelled,
    JobDead,
    JobError,
    JobHandle,
    JobNotFound,
    JobRejected,
    JobStatus,
    PartialEnqueueError,
    Post,
    Producer,
    QueueFull,
    RedisRefused,
    RedisUnavailable,
    Request,
    ResultTimeout,
    User,
    arq_wire,
    keys,
    wire,
)
from tests.waiting import PATIENCE_SECONDS, Stopwatch, slowdown
from worker.embedded import ValkeyServer

HASH = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW"
QUEUE = keys.DEFAULT_QUEUE

Eventually = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Waits until a call returns a true value."""


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that reads Redis and stands in for a worker."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def producer(redis_url: str) -> AsyncIterator[Producer]:
    async with Producer(redis_url, name="test") as made:
        yield made


async def settle(redis: Redis, job_id: str, reply: object, *, done: bool = True) -> None:
    """End a job as a worker does."""
    envelope = {"f": "f", "k": {}, "a": [], "t": 1, "et": 1, "s": done, "r": reply, "st": 2, "ft": 3, "id": job_id}
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.zrem(QUEUE, job_id)
        pipeline.delete(keys.job(job_id), keys.in_progress(job_id))
        pipeline.set(keys.result(job_id), arq_wire.dumps(envelope), ex=60)
        await pipeline.execute()


async def queued(redis: Redis) -> list[str]:
    return [job_id.decode() for job_id in await redis.zrange(QUEUE, 0, -1)]


async def calls(redis: Redis, command: str) -> int:
    """How often the server has run a command since its statistics were reset."""
    statistics = await redis.info("commandstats")
    return int(statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def closed_port() -> int:
    """A port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Proxy:
    """A proxy between a producer and Redis that loses answers on request.

    Attributes:
        url: the URL of Redis through here.
        deaf: while true, answers of Redis are dropped.
        cut_answers: instead of this many answers the connection is closed.
    """

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition("@")[2].rpartition("/")[0].rpartition(":")
        self._server = (host, int(port))
        self._before, self._after = url.split(f"{host}:{port}")
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.deaf = False
        self.cut_answers = 0
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"{self._before}127.0.0.1:{server.sockets[0].getsockname()[1]}{self._after}"
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(*self._tasks)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        from_redis, to_redis = await asyncio.open_connection(*self._server)
        self._writers.add(to_redis)
        there = asyncio.create_task(self._forward(reader, to_redis))
        back = asyncio.create_task(self._answer(from_redis, writer))
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for half in (there, back):
            half.cancel()
        for end in (to_redis, writer):
            end.close()
        await asyncio.gather(there, back, to_redis.wait_closed(), writer.wait_closed(), return_exceptions=True)

    @staticmethod
    async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.cut_answers:
                self.cut_answers -= 1
                return
            if not self.deaf:
                writer.write(data)
                await writer.drain()


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(redis_url).listening() as listening:
        yield listening


# Enqueueing


async def test_every_job_is_queued_in_the_wire_format(producer: Producer, redis: Redis) -> None:
    jobs: list[JobHandle[Any]] = [
        await producer.create_user(email="ada@example.com", username="ada", hashed_password=HASH),
        await producer.update_user(42, is_active=False),
        await producer.delete_user(42),
        await producer.create_post(author_id=42, title="t", content="c"),
        await producer.update_post(7, title="t"),
        await producer.delete_post(7),
    ]

    assert all(job.accepted for job in jobs)
    assert await queued(redis) == [job.job_id for job in jobs]
    assert [job.job_id.partition("@")[2] for job in jobs] == ["", "user:42", "user:42", "", "post:7", "post:7"]
    envelopes = [wire.decode(await redis.get(keys.job(job.job_id)) or b"") for job in jobs]
    assert [(envelope.f, envelope.k) for envelope in envelopes] == [
        ("create_user", {"email": "ada@example.com", "username": "ada", "hashed_password": HASH, "is_active": True}),
        ("update_user", {"user_id": 42, "changes": {"is_active": False}}),
        ("delete_user", {"user_id": 42}),
        ("create_post", {"author_id": 42, "title": "t", "content": "c"}),
        ("update_post", {"post_id": 7, "changes": {"title": "t"}}),
        ("delete_post", {"post_id": 7}),
    ]
    # One header for all: workers notify this producer of its ended jobs
    (headers,) = {json.dumps(envelope.h) for envelope in envelopes}
    assert json.loads(headers)["producer"].startswith("test:")


async def test_an_invalid_message_sends_nothing(producer: Producer, redis: Redis) -> None:
    with pytest.raises(InvalidMessage):
        await producer.create_user(email="ada@example.com", username="ada", hashed_password="hunter2")
    with pytest.raises(InvalidMessage):
        await producer.update_user(42)
    with pytest.raises(ValueError, match="defer_by"):
        await producer.delete_user(42, defer_by=-1)
    with pytest.raises(ValueError, match="ordering key"):
        await producer.delete_user(42, ordering_key="a b")

    assert await redis.dbsize() == 0


async def test_the_url_and_the_queue_can_be_chosen(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    async with Producer(queue="other") as producer:
        job = await producer.delete_user(1)

        assert await job.status() is JobStatus.DUE
    assert await redis.zscore("other", job.job_id) is not None
    assert await queued(redis) == []


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "http://localhost", "redis://u:s3cret/x@localhost:y", "redis://localhost?s3cret=1"],
)
async def test_an_invalid_url_is_refused_without_being_quoted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)

    with pytest.raises(ValueError, match="redis://") as caught:
        Producer(url)

    # The cause would be shown in a traceback
    assert "s3cret" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or not url


async def test_a_name_longer_than_workers_accept_is_refused(redis_url: str, redis: Redis) -> None:
    async with Producer(redis_url, name="ä" * 256) as producer:
        job = await producer.delete_user(1)
    with pytest.raises(ValueError, match="name must have at most 256 characters"):
        Producer(redis_url, name="x" * 257)

    assert wire.decode(await redis.get(keys.job(job.job_id)) or b"").h["producer"].startswith("ä")


async def test_a_repeated_call_is_accepted_once_and_other_content_is_a_conflict(
    producer: Producer, redis: Redis
) -> None:
    first = await producer.delete_user(42, idempotency_key="a")
    again = await producer.delete_user(42, idempotency_key="a")

    assert (first.accepted, again.accepted) == (True, False)
    assert first.job_id == again.job_id == "a@user:42"
    with pytest.raises(IdempotencyConflict):
        await producer.delete_user(43, idempotency_key="a")

    await redis.set(keys.in_progress(first.job_id), "token")  # running
    with pytest.raises(IdempotencyConflict):
        await producer.delete_user(43, idempotency_key="a")

    await settle(redis, first.job_id, {"deleted": True})
    with pytest.raises(IdempotencyConflict):
        await producer.delete_user(43, idempotency_key="a")
    assert (await producer.delete_user(42, idempotency_key="a")).accepted is False

    await redis.delete(keys.result(first.job_id))  # its time to live is over
    with pytest.raises(IdempotencyConflict):
        await producer.delete_user(43, idempotency_key="a")
    assert await queued(redis) == []


async def test_concurrent_repeated_calls_are_accepted_once(producer: Producer, redis: Redis) -> None:
    jobs = await asyncio.gather(*(producer.delete_user(42, idempotency_key="a") for _ in range(100)))

    assert sum(job.accepted for job in jobs) == 1
    assert await queued(redis) == ["a@user:42"]


async def test_many_jobs_keep_their_order_over_several_calls(producer: Producer, redis: Redis) -> None:
    jobs = await producer.enqueue_many(DeleteUser(user_id=number) for number in range(1, 2001))

    assert all(job.accepted for job in jobs)
    assert [job.job_id.partition("@")[2] for job in jobs] == [f"user:{number}" for number in range(1, 2001)]
    assert await queued(redis) == [job.job_id for job in jobs]


async def test_jobs_before_an_exception_of_the_iterable_are_accepted_in_whole_calls(
    producer: Producer, redis: Redis
) -> None:
    def jobs() -> Iterator[DeleteUser]:
        for number in range(1, 502):
            yield DeleteUser(user_id=number)
        raise LookupError

    with pytest.raises(LookupError):
        await producer.enqueue_many(jobs())

    # The first call was being sent while the rest were made, and is completed
    assert len(await queued(redis)) == 500


async def test_enqueue_many_raises_with_the_errors_and_the_handles_of_the_others(
    producer: Producer, redis: Redis
) -> None:
    await producer.delete_user(1, idempotency_key="a")
    jobs = [Request(DeleteUser(user_id=number), idempotency_key=key) for number, key in ((2, "b"), (3, "a"), (4, "c"))]

    with pytest.raises(PartialEnqueueError) as caught:
        await producer.enqueue_many(jobs)

    first, second, third = caught.value.outcomes
    assert isinstance(first, JobHandle)
    assert isinstance(second, IdempotencyConflict)
    assert isinstance(third, JobHandle)
    assert await queued(redis) == ["a@user:1", "b@user:2", "c@user:4"]
    assert str(caught.value).startswith("1 of 3 jobs were not accepted; the first: job a@user:3: ")


async def test_a_full_queue_refuses_a_job(redis_url: str, redis: Redis) -> None:
    async with Producer(redis_url, max_queued=1) as producer:
        await producer.delete_user(1)

        with pytest.raises(QueueFull):
            await producer.delete_user(2)
    assert await redis.zcard(QUEUE) == 1


async def test_workers_are_woken_in_the_same_round_trip(producer: Producer, redis: Redis) -> None:
    async with redis.pubsub() as listener:
        await listener.subscribe(keys.wake(QUEUE))
        await listener.get_message(timeout=PATIENCE_SECONDS)

        await producer.delete_user(1)

        message = await listener.get_message(timeout=PATIENCE_SECONDS)
        assert message is not None
        assert message["channel"] == keys.wake(QUEUE).encode()


async def test_a_flushed_script_is_sent_again(producer: Producer, redis: Redis) -> None:
    await producer.delete_user(1)
    await redis.script_flush()

    assert (await producer.delete_user(2)).accepted
    assert await redis.zcard(QUEUE) == 2


# Failures of Redis


async def test_a_missing_redis_is_an_error_within_the_timeout() -> None:
    watch = Stopwatch()
    async with Producer(f"redis://127.0.0.1:{closed_port()}", timeout_seconds=0.2) as producer:
        with pytest.raises(RedisUnavailable, match="nothing was accepted"):
            await producer.delete_user(1)
        with pytest.raises(RedisUnavailable):
            await producer.job("a", Deleted).status()
        with pytest.raises(ResultTimeout, match="Error"):
            await producer.job("a", Deleted).result(timeout=0.5)

    assert watch.seconds() < 3


async def test_a_missing_redis_is_an_error_for_each_of_many_jobs() -> None:
    async with Producer(f"redis://127.0.0.1:{closed_port()}", timeout_seconds=0.1) as producer:
        with pytest.raises(PartialEnqueueError) as caught:
            await producer.enqueue_many([DeleteUser(user_id=1), DeleteUser(user_id=2)])

    assert [type(outcome) for outcome in caught.value.outcomes] == [RedisUnavailable, RedisUnavailable]


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR max number of clients reached\r\n"]
)
async def test_another_server_in_place_of_redis_is_an_error_within_the_timeout(answer: bytes) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(1)
        writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    watch = Stopwatch()
    async with Producer(f"redis://127.0.0.1:{port}", timeout_seconds=0.3) as producer:
        with pytest.raises(RedisUnavailable):
            await producer.delete_user(1)

    assert watch.seconds() < 3
    for writer in connections:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in connections), return_exceptions=True)
    server.close()
    await server.wait_closed()


async def test_an_enqueue_waits_for_redis_to_return(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path) as server:
        async with Producer(server.url) as producer:
            await producer.delete_user(1)
            await asyncio.to_thread(server.stop)
            waiting = asyncio.create_task(producer.delete_user(2, idempotency_key="a"))
            handle = producer.job("a@user:2", Deleted)
            with pytest.raises(RedisUnavailable):
                await handle.status()

            await asyncio.to_thread(server.start)

            assert (await waiting).accepted
            assert await handle.status() is JobStatus.DUE


async def test_a_lost_answer_is_unconfirmed_and_the_repeated_call_is_accepted_once(proxy: Proxy, redis: Redis) -> None:
    async with Producer(proxy.url, timeout_seconds=0.5 * slowdown()) as producer:
        await producer.delete_user(1)
        proxy.deaf = True
        with pytest.raises(EnqueueUnconfirmed) as caught:
            await producer.delete_user(42)
        proxy.deaf = False

        again = await producer.delete_user(42, idempotency_key=caught.value.idempotency_key)

        assert again.accepted is False  # the answer was lost, not the job
        assert again.job_id == caught.value.job_id
    assert (await queued(redis))[1:] == [again.job_id]


async def test_a_connection_closed_before_the_answer_is_replaced_within_the_call(proxy: Proxy, redis: Redis) -> None:
    async with Producer(proxy.url) as producer:
        await producer.delete_user(1)
        proxy.cut_answers = 1

        fresh = await producer.delete_user(2)
        proxy.cut_answers = 1
        (keyed,) = await producer.enqueue_many([Request(DeleteUser(user_id=3), idempotency_key="a")])

        assert proxy.cut_answers == 0
        assert fresh.accepted is True  # no other call can have made this id
        assert keyed.accepted is False  # another call may have used this key before
    assert (await queued(redis))[1:] == [fresh.job_id, keyed.job_id]


async def test_a_cancelled_enqueue_leaves_no_answer_for_the_next_one(
    proxy: Proxy, redis: Redis, eventually: Eventually
) -> None:
    async with Producer(proxy.url) as producer:
        await producer.delete_user(1)
        proxy.deaf = True
        cancelled = asyncio.create_task(producer.delete_user(2, idempotency_key="a"))
        await eventually(lambda: redis.zscore(QUEUE, "a@user:2"))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        proxy.deaf = False

        jobs = [await producer.delete_user(3, idempotency_key="b") for _ in range(3)]

    assert [job.accepted for job in jobs] == [True, False, False]


async def test_a_wrong_password_is_refused_at_once(valkey: ValkeyServer, redis_url: str) -> None:
    watch = Stopwatch()
    for user in ("", ":wrong-s3cret@", "unknown:wrong-s3cret@"):
        async with Producer(f"redis://{user}127.0.0.1:{valkey.port}") as producer:
            with pytest.raises(RedisRefused) as caught:
                await producer.delete_user(1)
            assert "s3cret" not in str(caught.value)

    assert watch.seconds() < 5


async def test_a_missing_database_number_is_refused_at_once(redis_url: str) -> None:
    async with Producer(redis_url.rpartition("/")[0] + "/99") as producer:
        with pytest.raises(RedisRefused, match="out of range"):
            await producer.delete_user(1)


async def test_redis_without_memory_refuses_and_writes_nothing(producer: Producer, redis: Redis) -> None:
    await producer.delete_user(1)
    before = await redis.dbsize()
    await redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(RedisRefused, match="maxmemory"):
            await producer.delete_user(2, idempotency_key="a")
        with pytest.raises(PartialEnqueueError):
            await producer.enqueue_many(DeleteUser(user_id=number) for number in range(1, 1000))
    finally:
        await redis.config_set("maxmemory", "0")

    assert await redis.dbsize() == before
    assert await redis.zcard(QUEUE) == 1
    assert (await producer.delete_user(2, idempotency_key="a")).accepted


async def test_a_replica_refuses_a_job(producer: Producer, redis: Redis) -> None:
    await redis.replicaof("127.0.0.1", str(closed_port()))
    try:
        with pytest.raises(RedisRefused):
            await producer.delete_user(1)
    finally:
        await redis.replicaof("NO", "ONE")

    assert (await producer.delete_user(1)).accepted


async def test_connections_closed_by_the_server_are_replaced(producer: Producer, redis: Redis) -> None:
    await asyncio.gather(*(producer.delete_user(1) for _ in range(10)))
    await redis.client_kill_filter(_type="normal", skipme=True)

    jobs = await asyncio.gather(*(producer.delete_user(1) for _ in range(10)))

    assert all(job.accepted for job in jobs)
    assert await redis.zcard(QUEUE) == 20


# Outcomes


async def test_a_handle_follows_a_job_from_the_queue_to_its_reply(producer: Producer, redis: Redis) -> None:
    job = await producer.create_user(email="a@example.com", username="a", hashed_password=HASH)
    assert await job.status() is JobStatus.DUE
    await redis.set(keys.in_progress(job.job_id), "token")
    assert await job.status() is JobStatus.CLAIMED
    waiting = asyncio.create_task(job.result(timeout=PATIENCE_SECONDS))

    reply = {
        "id": 1,
        "email": "a@example.com",
        "username": "a",
        "is_active": True,
        "created_at": "2025-01-01T00:00:00Z",
    }
    await settle(redis, job.job_id, reply)

    user = await waiting
    assert isinstance(user, User)
    assert (user.id, user.created_at.isoformat()) == (1, "2025-01-01T00:00:00+00:00")
    assert await job.status() is JobStatus.DONE
    assert await producer.job(job.job_id, User).result(timeout=PATIENCE_SECONDS) == user


async def test_a_deferred_job_has_the_status_deferred(producer: Producer) -> None:
    job = await producer.delete_user(1, defer_by=60)

    assert await job.status() is JobStatus.DEFERRED


@pytest.mark.parametrize(
    "error",
    [
        JobRejected("not_found", "some reason"),
        JobDead("crashed", "some reason"),
        JobCancelled("cancelled", "some reason"),
    ],
    ids=lambda error: error.code,
)
async def test_an_outcome_other_than_done_is_raised(producer: Producer, redis: Redis, error: JobError) -> None:
    job = await producer.update_post(7, title="t")
    await settle(redis, job.job_id, error, done=False)

    with pytest.raises(type(error), match=f"{error.code}: some reason"):
        await job.result(timeout=PATIENCE_SECONDS)


async def test_result_distinguishes_a_running_job_from_an_unknown_one(producer: Producer, redis: Redis) -> None:
    job = await producer.delete_user(1)
    with pytest.raises(ResultTimeout):
        await job.result(timeout=0.05)

    await redis.flushdb()
    with pytest.raises(JobNotFound):
        await job.result(timeout=PATIENCE_SECONDS)
    assert await job.status() is JobStatus.UNKNOWN


async def test_a_published_result_is_fetched_at_once(producer: Producer, redis: Redis, eventually: Eventually) -> None:
    job = await producer.delete_user(1)
    channel = keys.results(QUEUE, wire.decode(await redis.get(keys.job(job.job_id)) or b"").h["producer"])
    waiting = asyncio.create_task(job.result(timeout=PATIENCE_SECONDS))

    async def listening() -> int:
        ((_, listeners),) = await redis.pubsub_numsub(channel)
        return int(listeners)

    await eventually(listening)
    await settle(redis, job.job_id, {"deleted": True})
    await redis.publish(channel, f"others {job.job_id} \xff")

    assert (await waiting).deleted is True


async def test_many_waiting_calls_cost_redis_no_more_than_one(
    producer: Producer, redis: Redis, eventually: Eventually
) -> None:
    jobs = await producer.enqueue_many(DeleteUser(user_id=number) for number in range(1, 1001))
    await redis.config_resetstat()

    async def looked() -> bool:
        return await calls(redis, "mget") >= 3

    waiting = [asyncio.create_task(job.result(timeout=PATIENCE_SECONDS)) for job in jobs]
    await eventually(looked)
    for job in jobs:
        await settle(redis, job.job_id, {"deleted": True})
    replies = await asyncio.gather(*waiting)

    assert len(replies) == 1000
    # One by one, each poll would be a thousand commands.
    assert await calls(redis, "mget") == await calls(redis, "zmscore") < 500
    assert await calls(redis, "zscore") == 0


# Stock arq


async def test_a_producer_follows_a_job_enqueued_by_stock_arq(producer: Producer, redis_url: str, redis: Redis) -> None:
    stock = await create_pool(
        RedisSettings.from_dsn(redis_url), job_serializer=arq_wire.dumps, job_deserializer=arq_wire.loads
    )
    async with stock:
        job = await stock.enqueue_job("delete_user", _job_id="import-1@user:1", user_id=1)
        assert job is not None
        assert await job.status() == "queued"
        info = await job.info()
        assert info is not None
        assert (info.function, info.kwargs) == ("delete_user", {"user_id": 1})

    envelope = wire.decode(await redis.get(keys.job("import-1@user:1")) or b"")
    assert (envelope.f, envelope.k, envelope.v) == ("delete_user", {"user_id": 1}, 1)
    ours = producer.job("import-1@user:1", Deleted)
    assert await ours.status() is JobStatus.DUE
    assert (await producer.delete_user(1, idempotency_key="import-1")).accepted is False
    await settle(redis, "import-1@user:1", {"deleted": True})
    assert (await ours.result(timeout=PATIENCE_SECONDS)).deleted is True


async def test_stock_arq_follows_a_job_enqueued_by_a_producer(producer: Producer, redis_url: str, redis: Redis) -> None:
    done = await producer.create_post(author_id=1, title="t", content="c")
    rejected = await producer.create_post(author_id=2, title="t", content="c")
    cancelled = await producer.create_post(author_id=3, title="t", content="c")
    stock = await create_pool(
        RedisSettings.from_dsn(redis_url), job_serializer=arq_wire.dumps, job_deserializer=arq_wire.loads
    )
    async with stock:
        in_queue = await stock.queued_jobs()
        assert [(job.function, job.job_id) for job in in_queue] == [
            ("create_post", handle.job_id) for handle in (done, rejected, cancelled)
        ]
        await settle(redis, done.job_id, Post(id=1, title="t", content="c", author_id=1))
        await settle(redis, rejected.job_id, JobRejected("not_found", "no such author"), done=False)
        await settle(redis, cancelled.job_id, asyncio.CancelledError(), done=False)

        def stock_job(handle: JobHandle[Any]) -> Job:
            return Job(handle.job_id, stock, _deserializer=arq_wire.loads)

        assert await stock_job(done).result(timeout=PATIENCE_SECONDS) == {
            "id": 1,
            "title": "t",
            "content": "c",
            "author_id": 1,
        }
        with pytest.raises(JobRejected, match="not_found: no such author"):
            await stock_job(rejected).result(timeout=PATIENCE_SECONDS)
        with pytest.raises(asyncio.CancelledError):
            await stock_job(cancelled).result(timeout=PATIENCE_SECONDS)
        with pytest.raises(ResultNotFound):
            await Job("nope", stock, _deserializer=arq_wire.loads).result(timeout=PATIENCE_SECONDS)
        assert len(await stock.all_job_results()) == 3


async def test_any_client_enqueues_with_the_two_commands_of_the_wire(producer: Producer, redis: Redis) -> None:
    payload: dict[str, Any] = {"f": "delete_user", "k": {"user_id": 1}, "a": [], "t": None, "et": 1700000000000}
    seconds, microseconds = await redis.time()
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.set(keys.job("from-elsewhere@user:1"), json.dumps(payload), nx=True)
        pipeline.zadd(QUEUE, {"from-elsewhere@user:1": seconds * 1000 + microseconds / 1000}, nx=True)
        await pipeline.execute()

    then = await producer.enqueue(CreatePost(author_id=1, title="t", content="c"))

    assert await queued(redis) == ["from-elsewhere@user:1", then.job_id]
    assert await producer.job("from-elsewhere@user:1", Deleted).status() is JobStatus.DUE
