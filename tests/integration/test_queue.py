"""The queue's scripts, through `Queue`: one suite, in memory and on the real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from producers import ids, keys, wire
from producers._redis import connect
from producers._script import ENQUEUE, NotSent
from tests.integration.conftest import Eventually
from tests.waiting import PATIENCE_SECONDS, slowdown
from worker.model.job import ClaimedJob
from worker.model.settlement import Bury, Complete, Release, Retry
from worker.queue.queue import Queue, Renewal
from worker.queue.scripts import REPLAY

NAME = keys.DEFAULT_QUEUE
LEASE_MS = 60_000
PAYLOAD = wire.encode("create_user", b'{"n":1}', enqueue_time_ms=1)


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


async def enqueue(redis: Redis, *job_ids: str, payload: bytes = PAYLOAD) -> None:
    """Accept jobs as a producer does."""
    for job_id in job_ids:
        await ENQUEUE(redis, [NAME, keys.clock(NAME)], [keys.wake(NAME), 0, 1000, 1, job_id, payload])


async def claim(queue: Queue, count: int = 100) -> list[ClaimedJob]:
    return (await queue.claim(count)).jobs


async def claimed_ids(queue: Queue, count: int = 100) -> list[str]:
    return ids_of(await claim(queue, count))


def ids_of(jobs: list[ClaimedJob]) -> list[str]:
    return [job.job_id for job in jobs]


def completion(job: ClaimedJob) -> Complete:
    return Complete(job.lease, b'{"done":true}', "")


def burial(job: ClaimedJob) -> Bury:
    return Bury(job.lease, b'{"dead":true}', "", b'{"code":"failed"}')


async def complete(queue: Queue, job: ClaimedJob) -> bool:
    (held,) = await queue.complete([completion(job)])
    return held


async def expire(redis: Redis, job: ClaimedJob) -> None:
    """Let a lease end, as time does."""
    await redis.delete(keys.in_progress(job.job_id))
    await redis.zadd(NAME, {job.lease.job_id: 1})


# Claims and leases


async def test_claims_come_in_accepted_order_with_their_payloads(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "c", "a", "b")

    first, rest = await claim(queue, 2), await claim(queue, 2)

    assert (ids_of(first), ids_of(rest)) == (["c", "a"], ["b"])
    assert [(job.name, job.fields, job.attempt) for job in first + rest] == [("create_user", {"n": 1}, 1)] * 3


async def test_a_claimed_job_is_out_of_sight_until_its_lease_ends(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    (job,) = await claim(queue)

    assert await claim(queue) == []
    await expire(redis, job)

    (again,) = await claim(queue)
    assert again.attempt == 2
    assert again.lease.token != job.lease.token


async def test_a_worker_that_lost_a_lease_changes_nothing(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    (zombie,) = await claim(queue)
    await expire(redis, zombie)
    (owner,) = await claim(queue)
    before = await redis.zscore(NAME, "a")

    assert await queue.complete([completion(zombie)]) == [False]
    assert await queue.bury([burial(zombie)]) == [False]
    assert await queue.retry([Retry(zombie.lease, 0)]) == [False]
    assert await queue.release([Release(zombie.lease)]) == [False]
    assert await queue.renew([zombie.lease]) == [Renewal.LOST]

    assert await redis.zscore(NAME, "a") == before
    assert await redis.exists(keys.job("a")) == 1
    assert await redis.exists(keys.result("a")) == 0
    assert await complete(queue, owner)


async def test_a_renewal_moves_the_end_of_the_lease(redis: Redis) -> None:
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


async def test_a_renewal_and_a_claim_report_that_a_job_is_to_be_cancelled(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    (job,) = await claim(queue)
    assert not job.progress.cancel_requested
    await redis.zadd(keys.ABORT, {"a": 1})

    assert await queue.renew([job.lease]) == [Renewal.CANCEL]
    await queue.release([Release(job.lease)])
    (again,) = await claim(queue)
    assert again.progress.cancel_requested


async def test_a_claim_reports_when_the_next_job_is_due(redis: Redis, queue: Queue) -> None:
    assert (await queue.claim(1)).next_due_ms is None
    await enqueue(redis, "a@k", "b@k")

    assert 0 < ((await queue.claim(10)).next_due_ms or 0) <= LEASE_MS


# Settlements


async def test_a_completed_job_leaves_only_its_result(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b@k")
    for job in await claim(queue):
        assert await complete(queue, job)
        assert not await complete(queue, job)

    left = {key.decode() for key in await redis.keys("*")}
    # The last claim of each worker is noted for as long as a lease, whatever becomes of the jobs.
    left = {key for key in left if not key.startswith(f"{NAME}:claim:")}
    assert left == {keys.clock(NAME), keys.result("a"), keys.result("b@k")}
    assert await redis.get(keys.result("a")) == b'{"done":true}'
    assert 0 < await redis.pttl(keys.result("a")) <= 60_000


async def test_a_retried_job_keeps_its_attempts_and_its_key(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a@k", "b@k")
    (job,) = await claim(queue)

    assert await queue.retry([Retry(job.lease, 60_000)]) == [True]
    assert await claim(queue) == []
    await redis.zadd(NAME, {"a@k": 1})

    (again,) = await claim(queue)
    assert (again.job_id, again.attempt) == ("a@k", 2)


async def test_a_released_job_is_due_at_its_place_and_not_counted(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b")
    (job,) = await claim(queue, 1)

    assert await queue.release([Release(job.lease)]) == [True]

    again = await claim(queue)
    assert ids_of(again) == ["a", "b"]
    assert again[0].attempt == 1


async def test_producers_hear_of_results_once_for_each_channel(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b", "c")
    leases = [job.lease for job in await claim(queue)]
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe("one", "two")
        for _ in range(2):
            await pubsub.get_message(timeout=PATIENCE_SECONDS)

        await queue.complete([Complete(lease, b"{}", "one") for lease in leases[:2]])
        await queue.bury([Bury(leases[2], b"{}", "two", b"{}")])

        messages = [await pubsub.get_message(timeout=PATIENCE_SECONDS) for _ in range(2)]
    assert [(message["channel"], message["data"]) for message in messages if message] == [
        (b"one", b"a b"), (b"two", b"c"),
    ]  # fmt: skip


async def test_a_replayed_dead_letter_keeps_its_id_and_has_all_attempts_again(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a@k")
    (job,) = await claim(queue)
    await queue.bury([burial(job)])

    answers = await asyncio.gather(*(REPLAY(redis, [NAME], [keys.wake(NAME), "a@k", "b"]) for _ in range(2)))

    assert sorted(answers) == [[0, 0], [1, 0]]
    (again,) = await claim(queue)
    assert (again.job_id, again.fields, again.attempt) == ("a@k", {"n": 1}, 1)
    assert (
        await redis.exists(keys.dead(NAME), keys.dead_letters(NAME), keys.dead_payload("a@k"), keys.result("a@k")) == 0
    )


# Ordering keys


async def test_jobs_of_a_key_are_claimed_one_at_a_time_in_order(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", "x", "3@k", "1@other")

    jobs = await claim(queue)
    assert ids_of(jobs) == ["1@k", "x", "1@other"]
    for expected in ("2@k", "3@k"):
        assert await complete(queue, jobs[0])
        jobs = await claim(queue)
        assert ids_of(jobs) == [expected]


async def test_a_key_goes_on_after_a_dead_letter(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", payload=b"\x80poison")
    (job,) = await claim(queue)

    assert await queue.bury([burial(job)]) == [True]

    assert await claimed_ids(queue) == ["2@k"]
    assert await redis.get(keys.dead_payload("1@k")) == b"\x80poison"
    assert await do(redis, "HGET", keys.dead_letters(NAME), "1@k") == b'{"code":"failed"}'
    assert await redis.exists(keys.job("1@k")) == 0


async def test_a_crashed_holder_keeps_its_key(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k")
    (job,) = await claim(queue)
    assert await claim(queue) == []
    await expire(redis, job)

    assert await claimed_ids(queue) == ["1@k"]


async def test_a_key_goes_on_in_order_when_its_holder_was_removed_by_hand(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", "3@k")
    await claim(queue)
    await claim(queue)
    await redis.zrem(NAME, "1@k")
    await enqueue(redis, "4@k")

    order = []
    for _ in range(3):
        (job,) = await claim(queue)
        order.append(job.job_id)
        await complete(queue, job)
    assert order == ["2@k", "3@k", "4@k"]


async def test_the_sweep_frees_keys_whose_holders_were_removed_by_hand(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "1@k", "2@k", "1@kept", "2@kept")
    await claim(queue)
    await redis.zrem(NAME, "1@k")

    assert await queue.sweep() == 1
    assert await queue.sweep() == 0

    assert await claimed_ids(queue) == ["2@k"]


async def test_a_hot_key_does_not_delay_other_jobs(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, *(f"{number}@hot" for number in range(300)), "cold")

    assert await claimed_ids(queue, 2) == ["0@hot", "cold"]


# Payloads


async def test_a_payload_that_cannot_be_fetched_makes_its_job_unreadable(redis: Redis) -> None:
    queue = queue_of(redis, max_payload_bytes=len(PAYLOAD))
    await enqueue(redis, "large", payload=PAYLOAD + b" ")
    await enqueue(redis, "fits")
    await do(redis, "LPUSH", keys.job("list"), "x")
    await do(redis, "ZADD", NAME, 1, "list", 2, "gone", 3, b"\xff\xfe")

    found = {job.lease.job_id: (job.unreadable and job.unreadable.code, job.fields) for job in await claim(queue)}

    assert found == {
        b"large": ("too_large", {}),
        b"fits": (None, {"n": 1}),
        b"list": ("undecodable", {}),
        b"gone": ("expired", {}),
        b"\xff\xfe": ("expired", {}),
    }


async def test_the_ledger_row_comes_last_only_before_the_first_claim_and_result(redis: Redis, queue: Queue) -> None:
    done, released = ids.new_id(), ids.new_id()
    await enqueue(redis, done, released)
    first = await claim(queue)
    await queue.complete([Complete(first[0].lease, b"{}", "")])
    await queue.release([Release(first[1].lease)])
    await do(redis, "SET", keys.job(done), PAYLOAD)
    await do(redis, "ZADD", NAME, 1, done)

    again = await claim(queue)

    assert [(job.job_id, job.ledger_last) for job in first] == [(done, True), (released, True)]
    assert [(job.job_id, job.ledger_last, job.attempt) for job in again] == [(done, False, 1), (released, False, 1)]


async def test_a_payload_of_any_type_is_buried_whole(redis: Redis, queue: Queue) -> None:
    await do(redis, "LPUSH", keys.job("list"), "x", "y")
    await do(redis, "ZADD", NAME, 1, "list", 2, b"\xff")

    jobs = await claim(queue)
    assert await queue.bury([burial(job) for job in jobs]) == [True, True]

    assert await do(redis, "LRANGE", keys.dead_payload("list"), 0, -1) == [b"y", b"x"]
    assert await redis.zscore(keys.dead(NAME), b"\xff") is not None
    assert await redis.zcard(NAME) == 0


async def test_a_claim_is_bounded_in_bytes(redis: Redis) -> None:
    queue = queue_of(redis, max_payload_bytes=3 * 2**20)
    await enqueue(redis, *"abcdef", payload=b"x" * 3 * 2**20)

    assert [await claimed_ids(queue) for _ in range(3)] == [["a", "b", "c"], ["d", "e", "f"], []]


# Keys of another type, written by foreign clients


async def test_foreign_keys_of_one_job_stop_nothing(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a@k", "b@k")
    await redis.set(keys.retry("a@k"), "many")
    await do(redis, "LPUSH", keys.in_progress("a@k"), "x")
    await redis.set(keys.parked(NAME, "k"), "x")

    (job,) = await claim(queue)
    assert (job.job_id, job.attempt) == ("a@k", 1)
    assert await complete(queue, job)
    assert await claimed_ids(queue) == ["b@k"]


async def test_a_foreign_list_of_parked_jobs_delays_no_other_key(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a@k", "b@l", "c@l")
    jobs = await claim(queue)
    assert ids_of(jobs) == ["a@k", "b@l"]
    await redis.set(keys.parked(NAME, "k"), "x")

    assert await queue.complete([completion(job) for job in jobs]) == [True, True]

    assert await claimed_ids(queue) == ["c@l"]


async def test_a_foreign_key_of_the_holders_fails_a_claim_that_changes_nothing(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a", "b@k")
    await redis.set(keys.holders(NAME), "x")
    before = await redis.zrange(NAME, 0, -1, withscores=True)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await claim(queue)

    assert await redis.zrange(NAME, 0, -1, withscores=True) == before
    assert await redis.exists(keys.in_progress("a"), keys.retry("a")) == 0


@pytest.mark.parametrize("key", [keys.dead(NAME), keys.dead_letters(NAME)])
async def test_a_foreign_key_of_the_dead_letters_is_moved_away(queue: Queue, redis: Redis, key: str) -> None:
    await redis.set(key, "x")
    await enqueue(redis, "a")
    (job,) = await claim(queue)

    assert await queue.bury([burial(job)]) == [True]

    assert await redis.get(f"{key}:foreign") == b"x"
    assert await redis.zrange(keys.dead(NAME), 0, -1) == [b"a"]


# Lost answers


@contextmanager
def broken(queue: Queue, error: Exception, *, answers_only: bool) -> Iterator[None]:
    """Calls raise this; they reach Redis only if it is their answers that are lost."""
    run = queue._run

    async def fail(*arguments: Any) -> Any:
        if answers_only:
            await run(*arguments)
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "_run", fail)
        yield


LOST = RedisConnectionError("lost")


async def test_jobs_whose_claim_was_not_answered_are_released_uncounted(queue: Queue, redis: Redis) -> None:
    await enqueue(redis, "a", "b@k", "c@k")
    with broken(queue, LOST, answers_only=True):
        for _ in range(3):
            with pytest.raises(RedisConnectionError):
                await queue.claim(100)

    jobs = await claim(queue)

    assert [(job.job_id, job.attempt) for job in jobs] == [("a", 1), ("b@k", 1)]
    assert await complete(queue, jobs[0])
    assert await complete(queue, jobs[1])
    assert await claimed_ids(queue) == ["c@k"]


@pytest.mark.parametrize("error", [NotSent("no way"), LOST, ResponseError("OOM")])
async def test_an_answered_claim_stays_valid_when_the_next_one_fails(
    queue: Queue, redis: Redis, error: Exception
) -> None:
    await enqueue(redis, "a", "b")
    (job,) = await claim(queue, 1)
    with broken(queue, error, answers_only=False), pytest.raises(type(error)):
        await queue.claim(1)

    assert await claimed_ids(queue) == ["b"]
    assert await complete(queue, job)


async def test_a_job_whose_claim_was_not_answered_stays_with_a_later_claimer(redis: Redis) -> None:
    first, other = queue_of(redis), queue_of(redis)
    await enqueue(redis, "a")
    with broken(first, LOST, answers_only=True), pytest.raises(RedisConnectionError):
        await first.claim(1)
    # The lease ends, while the claim is still noted.
    await redis.delete(keys.in_progress("a"))
    await redis.zadd(NAME, {"a": 1})
    (job,) = await claim(other)

    assert await claim(first) == []
    assert await complete(other, job)


async def test_scripts_that_redis_forgot_are_sent_again(redis: Redis, queue: Queue) -> None:
    await enqueue(redis, "a")
    await redis.script_flush()
    (job,) = await claim(queue)
    await redis.script_flush()
    assert await complete(queue, job)


# The clock


async def test_a_clock_that_steps_back_delays_nothing(redis: Redis, eventually: Eventually) -> None:
    queue = queue_of(redis, lease_ms=round(500 * slowdown()))
    # Given: what an hour of another clock has left; Redis's own shows an hour less now.
    await enqueue(redis, "a")
    hour_us = 3_600_000_000
    now_us = int(await do(redis, "HGET", keys.clock(NAME), "now"))
    await do(redis, "HSET", keys.clock(NAME), "raw", now_us + hour_us, "now", now_us + hour_us)
    await do(redis, "ZADD", NAME, (now_us + hour_us) // 1000, "a")

    await enqueue(redis, "b@k", "c@k")

    assert await claimed_ids(queue) == ["a", "b@k"]
    assert await claim(queue) == []
    again = await eventually(lambda: claim(queue))  # as soon as the leases have ended
    assert ids_of(again) == ["a", "b@k"]
    assert [await complete(queue, job) for job in again] == [True, True]
    assert await claimed_ids(queue) == ["c@k"]


async def test_a_step_back_is_noticed_without_an_enqueue(queue: Queue, redis: Redis) -> None:
    await claim(queue)
    noted_us = int(await do(redis, "HGET", keys.clock(NAME), "now"))

    await do(redis, "HSET", keys.clock(NAME), "now", noted_us - 2_000_000)  # two seconds pass
    await claim(queue)

    assert int(await do(redis, "HGET", keys.clock(NAME), "now")) >= noted_us


@pytest.mark.parametrize("now", ["nan", "inf", "1e300", "-inf", "noon"])
async def test_a_clock_of_impossible_values_is_ignored(queue: Queue, redis: Redis, now: str) -> None:
    await do(redis, "HSET", keys.clock(NAME), "raw", 1, "now", now)

    await enqueue(redis, "a@k", "b@k")

    (job,) = await claim(queue)
    assert job.job_id == "a@k"
    assert await complete(queue, job)
    assert await claimed_ids(queue) == ["b@k"]
