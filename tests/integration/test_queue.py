"""The queue's scripts: one suite, in memory and on the real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from producers import keys
from producers._redis import connect
from producers._script import ENQUEUE, NotSent
from tests.integration.conftest import Eventually
from tests.waiting import PATIENCE_SECONDS, slowdown
from worker.queue.queue import Burial, Claimed, Completion, GiveBack, PayloadState, Queue, Renewal, RetryLater
from worker.queue.scripts import REPLAY

NAME = keys.DEFAULT_QUEUE
LEASE_MS = 60_000
SHORT_MS = 1


@pytest.fixture(params=["memory", "server"])
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Redis]:
    client: Redis
    if request.param == "memory":
        client = FakeAsyncRedis()
    else:
        client = connect(request.getfixturevalue("redis_url"), queue=NAME)
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


async def do(redis: Redis, *command: str | bytes | int) -> Any:
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


def queue_of(redis: Redis, *, lease_ms: int = LEASE_MS, max_payload_bytes: int = 1000) -> Queue:
    return Queue(redis, NAME, lease_ms=lease_ms, result_ms=60_000, max_payload_bytes=max_payload_bytes)


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return queue_of(redis)


async def enqueue(redis: Redis, *job_ids: str, payload: bytes = b"{}") -> None:
    """Accept jobs as a producer does."""
    for job_id in job_ids:
        await ENQUEUE(redis, [NAME, keys.clock(NAME)], [keys.wake(NAME), 0, 1000, 1, job_id, payload])


async def claim(queue: Queue, count: int = 100) -> list[Claimed]:
    return (await queue.claim(count)).jobs


def ids(jobs: list[Claimed]) -> list[str]:
    return [job.lease.job_id.decode() for job in jobs]


def completion(job: Claimed) -> Completion:
    return Completion(job.lease, b'{"done":true}', "")


def burial(job: Claimed) -> Burial:
    return Burial(job.lease, b'{"dead":true}', "", b'{"code":"failed"}')


async def complete(queue: Queue, job: Claimed) -> bool:
    (held,) = await queue.complete([completion(job)])
    return held


async def expire(redis: Redis, job: Claimed) -> None:
    """Let a lease end, as time does."""
    await redis.delete(keys.in_progress(job.lease.job_id.decode()))
    await redis.zadd(NAME, {job.lease.job_id: 1})


async def keyspace(redis: Redis) -> set[str]:
    keyspace = {key.decode() for key in await redis.keys("*")}
    # What a worker last claimed is noted for as long as a lease, whatever becomes of the jobs.
    return {key for key in keyspace if not key.startswith(f"{NAME}:claim:")}


async def test_claims_come_in_accepted_order_with_their_payloads(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "c", "a", "b", payload=b'{"n":1}')

    first = await claim(queue, 2)
    rest = await claim(queue, 2)

    assert ids(first) == ["c", "a"]
    assert ids(rest) == ["b"]
    assert {job.payload for job in first + rest} == {b'{"n":1}'}
    assert {job.tries for job in first + rest} == {1}


async def test_a_claimed_job_is_out_of_sight_until_its_lease_ends(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    (job,) = await claim(queue)

    assert await claim(queue) == []
    await expire(redis, job)

    (again,) = await claim(queue)
    assert again.tries == 2
    assert again.lease.token != job.lease.token


async def test_who_lost_a_lease_changes_nothing(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    (zombie,) = await claim(queue)
    await expire(redis, zombie)
    (owner,) = await claim(queue)
    before = await redis.zscore(NAME, "a")

    assert await queue.complete([completion(zombie)]) == [False]
    assert await queue.bury([burial(zombie)]) == [False]
    assert await queue.retry([RetryLater(zombie.lease, 0)]) == [False]
    assert await queue.release([GiveBack(zombie.lease)]) == [False]
    assert await queue.renew([zombie.lease]) == [Renewal.LOST]

    assert await redis.zscore(NAME, "a") == before
    assert await redis.exists(keys.job("a")) == 1
    assert await redis.exists(keys.result("a")) == 0
    assert await complete(queue, owner)


async def test_a_completed_job_leaves_only_its_result(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b@k")
    for job in await claim(queue):
        assert await complete(queue, job)
        assert not await complete(queue, job)

    assert await keyspace(redis) == {keys.clock(NAME), keys.result("a"), keys.result("b@k")}
    assert await redis.get(keys.result("a")) == b'{"done":true}'
    assert 0 < await redis.pttl(keys.result("a")) <= 60_000


async def test_a_retry_keeps_the_tries_and_the_key(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a@k", "b@k")
    (job,) = await claim(queue)

    assert await queue.retry([RetryLater(job.lease, 60_000)]) == [True]
    assert await claim(queue) == []
    await redis.zadd(NAME, {"a@k": 1})

    (again,) = await claim(queue)
    assert (ids([again]), again.tries) == (["a@k"], 2)


async def test_a_released_job_is_due_at_its_place_and_not_counted(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b")
    (job,) = await claim(queue, 1)

    assert await queue.release([GiveBack(job.lease)]) == [True]

    again = await claim(queue)
    assert ids(again) == ["a", "b"]
    assert again[0].tries == 1


async def test_one_job_of_a_key_at_a_time_in_order(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", "x", "3@k", "1@other")

    first = await claim(queue)
    assert ids(first) == ["1@k", "x", "1@other"]
    for expected in ("2@k", "3@k"):
        holder = next(job for job in first if job.lease.job_id.endswith(b"@k"))
        assert await complete(queue, holder)
        first = await claim(queue)
        assert ids(first) == [expected]


async def test_a_key_goes_on_after_a_dead_letter(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", payload=b"\x80poison")
    (job,) = await claim(queue)

    assert await queue.bury([burial(job)]) == [True]

    assert ids(await claim(queue)) == ["2@k"]
    assert await redis.get(keys.dead_payload("1@k")) == b"\x80poison"
    assert await do(redis, "HGET", keys.dead_letters(NAME), "1@k") == b'{"code":"failed"}'
    assert await redis.exists(keys.job("1@k")) == 0


async def test_a_crashed_holder_keeps_its_key(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k")
    (job,) = await claim(queue)
    assert await claim(queue) == []
    await expire(redis, job)

    assert ids(await claim(queue)) == ["1@k"]


async def test_a_holder_taken_out_by_hand_frees_its_key_in_order(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", "3@k")
    await claim(queue)
    await claim(queue)
    await redis.zrem(NAME, "1@k")
    await enqueue(redis, "4@k")

    order = []
    for _ in range(3):
        (job,) = await claim(queue)
        order += ids([job])
        await complete(queue, job)
    assert order == ["2@k", "3@k", "4@k"]


async def test_the_sweep_frees_keys_that_nobody_would_ask_for_again(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", "1@kept", "2@kept")
    await claim(queue)
    await redis.zrem(NAME, "1@k")

    assert await queue.sweep() == 1
    assert await queue.sweep() == 0

    assert ids(await claim(queue)) == ["2@k"]


async def test_a_hot_key_does_not_hold_up_others(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, *(f"{number}@hot" for number in range(300)), "cold")

    assert ids(await claim(queue, 2)) == ["0@hot", "cold"]


async def test_renewing_moves_the_end_of_the_lease(redis: Redis) -> None:
    short, long = queue_of(redis, lease_ms=5_000), queue_of(redis)
    await enqueue(redis, "a")
    (job,) = await claim(short)
    before = await redis.zscore(NAME, "a")

    assert await long.renew([job.lease]) == [Renewal.RENEWED]

    after = await redis.zscore(NAME, "a")
    assert before is not None
    assert after is not None
    assert after - before > 50_000
    assert await redis.pttl(keys.in_progress("a")) > 50_000


async def test_a_job_to_be_cancelled_is_told_by_the_renewal(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    (job,) = await claim(queue)
    await redis.zadd("arq:abort", {"a": 1})

    assert await queue.renew([job.lease]) == [Renewal.CANCEL]


async def test_payloads_that_are_not_fetched(redis: Redis) -> None:
    queue = queue_of(redis, max_payload_bytes=10)
    await enqueue(redis, "large", payload=b"x" * 11)
    await enqueue(redis, "fits", payload=b"x" * 10)
    await do(redis, "LPUSH", keys.job("list"), "x")
    await do(redis, "ZADD", NAME, 1, "list", 2, "gone", 3, b"\xff\xfe")

    found = {job.lease.job_id: (job.payload, job.state) for job in await claim(queue)}

    assert found == {
        b"large": (None, PayloadState.TOO_LARGE),
        b"fits": (b"x" * 10, PayloadState.FRESH),
        b"list": (None, PayloadState.FOREIGN),
        b"gone": (None, PayloadState.MISSING),
        b"\xff\xfe": (None, PayloadState.MISSING),
    }


async def test_only_what_was_never_claimed_and_has_no_result_is_fresh(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "new")
    await enqueue(redis, "given-back")
    (new, back) = await claim(queue)
    await queue.release([GiveBack(back.lease)])
    await queue.complete([Completion(new.lease, b"{}", "")])
    await do(redis, "SET", keys.job("new"), "again")
    await do(redis, "ZADD", NAME, 1, "new")

    found = {job.lease.job_id: (job.state, job.tries) for job in await claim(queue)}

    assert (new.state, back.state) == (PayloadState.FRESH, PayloadState.FRESH)
    assert found == {b"new": (PayloadState.FETCHED, 1), b"given-back": (PayloadState.FETCHED, 1)}


async def test_a_payload_of_any_type_is_buried_whole(redis: Redis, queue: Queue) -> None:
    await do(redis, "LPUSH", keys.job("list"), "x", "y")
    await do(redis, "ZADD", NAME, 1, "list", 2, b"\xff")

    jobs = await claim(queue)
    assert await queue.bury([burial(job) for job in jobs]) == [True, True]

    assert await do(redis, "LRANGE", keys.dead_payload("list"), 0, -1) == [b"y", b"x"]
    assert await redis.zscore(keys.dead(NAME), b"\xff") is not None
    assert await redis.zcard(NAME) == 0


async def test_keys_of_another_type_stop_nothing(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a@k", "b@k")
    await redis.set(keys.retry("a@k"), "many")
    await do(redis, "LPUSH", keys.in_progress("a@k"), "x")
    await redis.set(f"{NAME}:parked:k", "x")

    (job,) = await claim(queue)
    assert (ids([job]), job.tries) == (["a@k"], 1)
    assert await complete(queue, job)
    assert ids(await claim(queue)) == ["b@k"]


async def test_a_foreign_holders_key_changes_nothing_at_all(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b@k")
    await redis.set(keys.holders(NAME), "x")
    before = await redis.zrange(NAME, 0, -1, withscores=True)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await claim(queue)

    assert await redis.zrange(NAME, 0, -1, withscores=True) == before
    assert await redis.exists(keys.in_progress("a"), keys.retry("a")) == 0


async def test_claims_tell_when_to_look_again(redis: Redis, queue: Queue) -> None:
    assert (await queue.claim(1)).next_due_ms is None
    await enqueue(redis, "a@k", "b@k")

    assert 0 < ((await queue.claim(10)).next_due_ms or 0) <= LEASE_MS


async def test_producers_are_told_once_a_channel(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b", "c")
    jobs = await claim(queue)
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe("one", "two")
        for _ in range(2):
            await pubsub.get_message(timeout=PATIENCE_SECONDS)

        await queue.complete([Completion(jobs[0].lease, b"{}", "one"), Completion(jobs[1].lease, b"{}", "one")])
        await queue.bury([Burial(jobs[2].lease, b"{}", "two", b"{}")])

        told = [await pubsub.get_message(timeout=PATIENCE_SECONDS) for _ in range(2)]
    assert [(said["channel"], said["data"]) for said in told if said] == [(b"one", b"a b"), (b"two", b"c")]


async def test_a_replayed_letter_keeps_its_id_and_begins_anew(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a@k", payload=b"x")
    (job,) = await claim(queue)
    await queue.bury([burial(job)])

    answers = await asyncio.gather(*(REPLAY(redis, [NAME], [keys.wake(NAME), "a@k", "b"]) for _ in range(2)))

    assert sorted(answers) == [[0, 0], [1, 0]]
    (again,) = await claim(queue)
    assert (again.lease.job_id, again.payload, again.tries) == (b"a@k", b"x", 1)
    assert (
        await redis.exists(keys.dead(NAME), keys.dead_letters(NAME), keys.dead_payload("a@k"), keys.result("a@k")) == 0
    )


async def test_what_a_lost_answer_had_claimed_is_given_back_uncounted(queue: Queue, redis: Redis) -> None:
    await enqueue(redis, "a", "b@k", "c@k")
    with lost_answers(queue):
        for _ in range(3):
            with pytest.raises(RedisConnectionError):
                await queue.claim(100)

    jobs = await claim(queue)

    assert ids(jobs) == ["a", "b@k"]
    assert [job.tries for job in jobs] == [1, 1]
    assert await complete(queue, jobs[0])
    assert await complete(queue, jobs[1])
    assert ids(await claim(queue)) == ["c@k"]


@pytest.mark.parametrize("error", [NotSent("no way"), RedisConnectionError("lost"), ResponseError("OOM")])
async def test_a_claim_that_was_answered_stands_whatever_becomes_of_the_next(
    queue: Queue, redis: Redis, error: Exception
) -> None:
    await enqueue(redis, "a", "b")
    (job,) = await claim(queue, 1)
    with broken(queue, error), pytest.raises(type(error)):
        await queue.claim(1)

    assert ids(await claim(queue)) == ["b"]
    assert await complete(queue, job)


async def test_what_a_lost_answer_had_claimed_stays_with_who_has_it_since(redis: Redis) -> None:
    first, other = queue_of(redis), queue_of(redis)
    await enqueue(redis, "a")
    with lost_answers(first), pytest.raises(RedisConnectionError):
        await first.claim(1)
    # The lease ends, while what the claim was is still noted.
    await do(redis, "DEL", keys.in_progress("a"))
    await do(redis, "ZADD", NAME, 1, "a")
    (job,) = await claim(other)

    assert await claim(first) == []
    assert await complete(other, job)


async def test_a_claim_is_bounded_in_bytes(redis: Redis) -> None:
    queue = queue_of(redis, max_payload_bytes=3 * 2**20)
    await enqueue(redis, *"abcdef", payload=b"x" * 3 * 2**20)

    assert [ids(await claim(queue)) for _ in range(3)] == [["a", "b", "c"], ["d", "e", "f"], []]


async def test_a_clock_that_steps_back_holds_up_nothing(redis: Redis, eventually: Eventually) -> None:
    queue = queue_of(redis, lease_ms=round(500 * slowdown()))
    # Given what an hour of another clock has left: Redis's own shows an hour less now.
    await enqueue(redis, "a")
    hour_us = 3_600_000_000
    now_us = int(await do(redis, "HGET", keys.clock(NAME), "now"))
    await do(redis, "HSET", keys.clock(NAME), "raw", now_us + hour_us, "now", now_us + hour_us)
    await do(redis, "ZADD", NAME, (now_us + hour_us) // 1000, "a")

    await enqueue(redis, "b@k", "c@k")

    assert ids(await claim(queue)) == ["a", "b@k"]
    assert ids(await claim(queue)) == []
    again = await eventually(lambda: claim(queue))  # as soon as the leases have ended
    assert ids(again) == ["a", "b@k"]
    assert [await complete(queue, job) for job in again] == [True, True]
    assert ids(await claim(queue)) == ["c@k"]


async def test_a_step_back_is_seen_although_nobody_enqueues(queue: Queue, redis: Redis) -> None:
    await claim(queue)
    noted_us = int(await do(redis, "HGET", keys.clock(NAME), "now"))

    await do(redis, "HSET", keys.clock(NAME), "now", noted_us - 2_000_000)  # two seconds pass
    await claim(queue)

    assert int(await do(redis, "HGET", keys.clock(NAME), "now")) >= noted_us


@pytest.mark.parametrize("now", ["nan", "inf", "1e300", "-inf", "noon"])
async def test_a_clock_that_somebody_has_spoilt_is_not_believed(queue: Queue, redis: Redis, now: str) -> None:
    await do(redis, "HSET", keys.clock(NAME), "raw", 1, "now", now)

    await enqueue(redis, "a@k", "b@k")

    jobs = await claim(queue)
    assert ids(jobs) == ["a@k"]
    assert await complete(queue, jobs[0])
    assert ids(await claim(queue)) == ["b@k"]


async def test_a_foreign_list_of_the_parked_holds_up_no_other_key(queue: Queue, redis: Redis) -> None:
    await enqueue(redis, "a@k", "b@l", "c@l")
    jobs = await claim(queue)
    assert ids(jobs) == ["a@k", "b@l"]
    await do(redis, "SET", f"{NAME}:parked:k", "x")

    assert await queue.complete([completion(job) for job in jobs]) == [True, True]

    assert ids(await claim(queue)) == ["c@l"]


@pytest.mark.parametrize("key", [keys.dead(NAME), f"{NAME}:dead-letters"])
async def test_a_foreign_key_where_the_dead_are_kept_is_put_aside(queue: Queue, redis: Redis, key: str) -> None:
    await do(redis, "SET", key, "x")
    await enqueue(redis, "a")
    (job,) = await claim(queue)

    assert await queue.bury([burial(job)]) == [True]

    assert await do(redis, "GET", f"{key}:foreign") == b"x"
    assert await redis.zrange(keys.dead(NAME), 0, -1) == [b"a"]


@contextmanager
def broken(queue: Queue, error: Exception) -> Iterator[None]:
    """Calls raise this, and nothing reaches Redis."""

    async def run(*_: Any) -> Any:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "_run", run)
        yield


@contextmanager
def lost_answers(queue: Queue) -> Iterator[None]:
    """Calls reach Redis, and their answers do not come back."""
    run = queue._run

    async def lossy(*arguments: Any) -> Any:
        await run(*arguments)
        raise RedisConnectionError("lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "_run", lossy)
        yield


async def test_scripts_that_redis_forgot_are_sent_again(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    await redis.script_flush()
    (job,) = await claim(queue)
    await redis.script_flush()
    assert await complete(queue, job)
