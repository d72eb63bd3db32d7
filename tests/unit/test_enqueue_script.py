"""The enqueue script: it accepts each job once, in one order, and changes nothing when it refuses."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from producers import (
    DeleteUser,
    EnqueueError,
    IdempotencyConflict,
    QueueFull,
    RedisRefused,
    Request,
    UpdateUser,
    UserChanges,
    keys,
)
from producers._encoding import Encoded
from producers._script import ENQUEUE
from producers._sender import IDEMPOTENCY_MS, JOBS_PER_CALL, Sender, chunks
from tests.waiting import PATIENCE_SECONDS

QUEUE = keys.DEFAULT_QUEUE
CLOCK = keys.clock(QUEUE)
FAR_US = 4_102_444_800_000_000  # the year 2100


def sender(redis: Redis, **options: Any) -> Sender:
    return Sender(redis, QUEUE, **{"max_queued": 0, "timeout_seconds": 1.0, **options})


def job(user_id: int = 1, **options: Any) -> Encoded:
    return Request(DeleteUser(user_id=user_id), **options).encode()


async def send(redis: Redis, *jobs: Encoded, **options: Any) -> list[bool | EnqueueError]:
    return await sender(redis, **options).send(jobs)


async def contents(redis: Redis) -> dict[str, Any]:
    """The whole content of Redis, by key."""
    held: dict[str, Any] = {}
    for key in sorted(await redis.keys()):
        match await redis.type(key):
            case b"string":
                held[key.decode()] = await redis.get(key)
            case b"zset":
                held[key.decode()] = await redis.zrange(key, 0, -1, withscores=True)
            case other:
                held[key.decode()] = other
    return held


async def queued(redis: Redis) -> list[str]:
    """The ids in the queue, in order."""
    return [job_id.decode() for job_id in await redis.zrange(QUEUE, 0, -1)]


async def make_hash(redis: Redis, key: str) -> None:
    """Store a value of another type under a key of the script."""
    async with redis.pipeline() as pipeline:
        pipeline.hset(key, "field", "value")
        await pipeline.execute()


async def test_an_accepted_job_is_queued_now_with_its_payload(redis: Redis) -> None:
    before_ms = time.time() * 1000
    one = job()

    assert await send(redis, one) == [True]

    ((job_id, score_ms),) = await redis.zrange(QUEUE, 0, -1, withscores=True)
    assert job_id.decode() == one.job_id
    assert before_ms - 1 <= score_ms <= time.time() * 1000 + 1
    assert await redis.get(keys.job(one.job_id)) == one.payload
    assert await clock_us(redis) == round(score_ms * 1000)


async def test_the_same_id_is_accepted_once(redis: Redis) -> None:
    one = job()
    await send(redis, one)
    held = await contents(redis)

    assert await send(redis, one) == [False]
    assert await contents(redis) == held


async def test_the_same_id_twice_in_one_call_is_accepted_once(redis: Redis) -> None:
    one = job()

    assert await send(redis, one, one) == [True, False]
    assert await queued(redis) == [one.job_id]


@pytest.mark.parametrize("stage", ["queued", "running", "ended"])
async def test_an_idempotency_key_is_known_in_every_state_of_its_job(redis: Redis, stage: str) -> None:
    one = job(idempotency_key="a")
    await send(redis, one)
    if stage == "running":
        await redis.set(keys.in_progress(one.job_id), "token")
    if stage == "ended":
        await redis.zrem(QUEUE, one.job_id)
        await redis.delete(keys.job(one.job_id))
        await redis.set(keys.result(one.job_id), "{}")

    assert await send(redis, job(idempotency_key="a")) == [False]
    assert len(await queued(redis)) == (0 if stage == "ended" else 1)


@pytest.mark.parametrize("stage", ["queued", "ended", "forgotten"])
async def test_an_idempotency_key_with_other_content_is_a_conflict_and_changes_nothing(
    redis: Redis, stage: str
) -> None:
    def update(*, is_active: bool) -> Encoded:
        message = UpdateUser(user_id=1, changes=UserChanges(is_active=is_active))
        return Request(message, idempotency_key="a").encode()

    await send(redis, one := update(is_active=True))
    if stage != "queued":
        await redis.zrem(QUEUE, one.job_id)
        await redis.delete(keys.job(one.job_id))
    if stage == "ended":
        await redis.set(keys.result(one.job_id), "{}")
    held = await contents(redis)

    (answer,) = await send(redis, update(is_active=False))

    assert isinstance(answer, IdempotencyConflict)
    assert answer.job_id == "a@user:1"
    assert await contents(redis) == held


async def test_an_idempotency_key_under_another_ordering_key_is_a_conflict(redis: Redis) -> None:
    await send(redis, job(idempotency_key="a", ordering_key="tenant:1"))

    (answer,) = await send(redis, job(idempotency_key="a", ordering_key="tenant:2"))

    assert isinstance(answer, IdempotencyConflict)
    assert await queued(redis) == ["a@tenant:1"]


async def test_a_job_is_accepted_again_when_its_result_has_expired(redis: Redis) -> None:
    await send(redis, one := job(idempotency_key="a"))
    await redis.zrem(QUEUE, one.job_id)
    await redis.delete(keys.job(one.job_id))

    assert await send(redis, job(idempotency_key="a")) == [True]


async def test_an_idempotency_key_is_remembered_for_a_day_from_its_last_use(redis: Redis) -> None:
    await send(redis, job(idempotency_key="a"))
    await redis.pexpire(keys.idempotency("a"), 1000)

    await send(redis, job(idempotency_key="a"))

    assert IDEMPOTENCY_MS - 5000 < await redis.pttl(keys.idempotency("a")) <= IDEMPOTENCY_MS


async def test_a_job_without_an_idempotency_key_leaves_no_other_key(redis: Redis) -> None:
    await send(redis, one := job())

    assert set(await contents(redis)) == {QUEUE, CLOCK, keys.job(one.job_id)}


async def test_an_unconfirmed_job_repeated_under_its_idempotency_key_is_the_same_job(redis: Redis) -> None:
    await send(redis, one := job())

    assert await send(redis, job(idempotency_key=one.job_id.partition("@")[0])) == [False]
    assert await queued(redis) == [one.job_id]


async def test_jobs_keep_the_order_of_acceptance_within_and_between_calls(redis: Redis) -> None:
    # The ids sort in reverse order, so that a tie of scores would be noticed.
    first = [job(idempotency_key=f"z{number:03}") for number in range(200, 100, -1)]
    then = [job(idempotency_key=f"a{number:03}") for number in range(200, 100, -1)]

    await send(redis, *first)
    await send(redis, *then)

    assert await queued(redis) == [one.job_id for one in [*first, *then]]
    scores = [score for _, score in await redis.zrange(QUEUE, 0, -1, withscores=True)]
    assert len(set(scores)) == 200


async def test_the_options_of_each_job_apply_in_a_call_of_the_largest_size(
    redis: Redis,
) -> None:
    due = datetime.now(UTC) + timedelta(days=1)
    kinds: list[dict[str, Any]] = [{}, {"idempotency_key": "z"}, {"defer_by": 60}, {}, {"defer_until": due}]
    jobs = [
        job(number + 1, **{**kind, **({"idempotency_key": f"z{number}"} if "idempotency_key" in kind else {})})
        for number in range(JOBS_PER_CALL)
        for kind in [kinds[number % len(kinds)]]
    ]

    assert await send(redis, *jobs) == [True] * JOBS_PER_CALL

    at_once = [one.job_id for one in jobs if not one.delay_ms and not one.due_ms]
    delayed = {one.job_id for one in jobs if one.delay_ms}
    at_a_time = {one.job_id for one in jobs if one.due_ms}
    order = await queued(redis)
    assert order[: len(at_once)] == at_once
    assert set(order[len(at_once) : -len(at_a_time)]) == delayed
    assert set(order[-len(at_a_time) :]) == at_a_time
    payloads = await redis.mget([keys.job(one.job_id) for one in jobs])
    assert payloads == [one.payload for one in jobs]
    digests = [one.digest.encode() for one in jobs if one.idempotency_key]
    assert await redis.mget([keys.idempotency(one.idempotency_key) for one in jobs if one.idempotency_key]) == digests


async def test_new_jobs_are_accepted_in_order_when_others_of_the_call_are_known(redis: Redis) -> None:
    known = [job(number) for number in range(1, 51)]
    fresh = [job(number) for number in range(1, 51)]
    await send(redis, *known)
    await redis.set(keys.result(fresh[7].job_id), "{}")  # this job has ended already

    answers = await send(redis, *(one for pair in zip(fresh, known, strict=True) for one in pair))

    assert answers == [new and number != 7 for number in range(50) for new in (True, False)]
    assert await queued(redis) == [one.job_id for one in [*known, *fresh[:7], *fresh[8:]]]


async def test_an_idempotency_key_twice_in_one_call_is_accepted_once_or_a_conflict(redis: Redis) -> None:
    first, same = job(1, idempotency_key="a"), job(1, idempotency_key="a")
    other, others_own = job(2, idempotency_key="a"), job(2, idempotency_key="b")

    answers = await send(redis, first, same, other, others_own)

    assert (answers[0], answers[1], answers[3]) == (True, False, True)
    assert isinstance(answers[2], IdempotencyConflict)
    assert await queued(redis) == [first.job_id, others_own.job_id]


async def test_the_order_holds_when_the_clock_steps_back(redis: Redis) -> None:
    # Given a last score that is ahead of the clock, as after a step back
    await set_clock(redis, str(FAR_US))

    await send(redis, one := job(idempotency_key="b"))
    await send(redis, other := job(idempotency_key="a"))

    assert await queued(redis) == [one.job_id, other.job_id]
    scores = [score for _, score in await redis.zrange(QUEUE, 0, -1, withscores=True)]
    assert scores[0] == FAR_US / 1000 + 0.001  # the order continues from there
    assert scores[0] < scores[1] < scores[0] + 10_000


@pytest.mark.parametrize("invalid", ["noon", b"\xff"])
async def test_an_invalid_clock_is_replaced(redis: Redis, invalid: str | bytes) -> None:
    await redis.set(CLOCK, invalid)
    assert await send(redis, job()) == [True]
    assert await clock_us(redis) > 1_700_000_000_000_000

    await set_clock(redis, invalid)
    assert await send(redis, job()) == [True]
    assert await clock_us(redis) > 1_700_000_000_000_000


async def clock_us(redis: Redis) -> int:
    return int(await do(redis, "HGET", CLOCK, "now"))


async def set_clock(redis: Redis, value: str | bytes) -> None:
    await do(redis, "DEL", CLOCK)
    await do(redis, "HSET", CLOCK, "raw", value, "now", value)


async def do(redis: Redis, *command: str | bytes) -> Any:
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def test_a_deferred_job_is_due_after_its_delay_and_wakes_no_worker(redis: Redis) -> None:
    async with redis.pubsub() as listener:
        await listener.subscribe(keys.wake(QUEUE))
        await listener.get_message(timeout=PATIENCE_SECONDS)
        before_ms = time.time() * 1000

        await send(redis, one := job(defer_by=60))

        score = await redis.zscore(QUEUE, one.job_id)
        assert score is not None
        assert before_ms + 60_000 - 1 <= score <= time.time() * 1000 + 60_000 + 1
        assert not await redis.exists(CLOCK)
        assert await listener.get_message(timeout=0) is None


async def test_a_job_deferred_until_a_time_is_due_at_that_time(redis: Redis) -> None:
    due = datetime.now(UTC).replace(microsecond=123_000) + timedelta(days=1)

    await send(redis, one := job(defer_until=due))

    assert await redis.zscore(QUEUE, one.job_id) == round(due.timestamp() * 1000)


@pytest.mark.parametrize("past", [timedelta(seconds=1), timedelta(days=20_000), timedelta(days=300_000)])
async def test_a_past_due_time_counts_as_now_and_overtakes_no_job(redis: Redis, past: timedelta) -> None:
    async with redis.pubsub() as listener:
        await listener.subscribe(keys.wake(QUEUE))
        await listener.get_message(timeout=PATIENCE_SECONDS)
        await send(redis, first := job())
        assert await listener.get_message(timeout=PATIENCE_SECONDS) is not None

        await send(redis, second := job(defer_until=datetime.now(UTC) - past))

        assert await queued(redis) == [first.job_id, second.job_id]
        assert await listener.get_message(timeout=PATIENCE_SECONDS) is not None


async def test_one_call_wakes_the_workers_of_its_queue_once(redis: Redis) -> None:
    async with redis.pubsub() as listener:
        await listener.subscribe(keys.wake(QUEUE))
        await listener.get_message(timeout=PATIENCE_SECONDS)

        await send(redis, job(), job(), job(defer_by=60))

        message = await listener.get_message(timeout=PATIENCE_SECONDS)
        assert message is not None
        assert message["type"] == "message"
        assert await listener.get_message(timeout=0) is None


async def test_a_call_that_accepts_nothing_wakes_no_worker(redis: Redis) -> None:
    await send(redis, one := job())
    async with redis.pubsub() as listener:
        await listener.subscribe(keys.wake(QUEUE))
        await listener.get_message(timeout=PATIENCE_SECONDS)

        await send(redis, one)

        assert await listener.get_message(timeout=0) is None


async def test_a_full_queue_accepts_what_fits_and_still_knows_its_jobs(redis: Redis) -> None:
    one, two, three = job(1, idempotency_key="a"), job(2), job(3, idempotency_key="c")
    await send(redis, one)

    answers = await send(redis, one, two, three, max_queued=2)

    assert answers[:2] == [False, True]
    assert isinstance(answers[2], QueueFull)
    assert (answers[2].job_id, answers[2].max_queued) == (three.job_id, 2)
    assert await queued(redis) == [one.job_id, two.job_id]
    assert await redis.exists(keys.job(three.job_id), keys.idempotency("c")) == 0


async def test_a_queue_of_another_type_refuses_all_and_changes_nothing(redis: Redis) -> None:
    await make_hash(redis, QUEUE)
    held = await contents(redis)

    answers = await send(redis, job(1), job(2, idempotency_key="a"))

    assert [type(answer) for answer in answers] == [RedisRefused, RedisRefused]
    assert "WRONGTYPE" in str(answers[0])
    assert await contents(redis) == held


async def test_an_idempotency_key_of_another_type_is_a_conflict_for_that_job_alone(redis: Redis) -> None:
    await make_hash(redis, keys.idempotency("a"))

    answers = await send(redis, job(1, idempotency_key="a"), other := job(2))

    assert isinstance(answers[0], IdempotencyConflict)
    assert answers[1] is True
    assert await queued(redis) == [other.job_id]


@pytest.mark.parametrize("key", [keys.job("a@user:1"), keys.result("a@user:1")])
async def test_a_payload_key_of_another_type_counts_as_known_and_is_left_unchanged(redis: Redis, key: str) -> None:
    await make_hash(redis, key)

    held = await contents(redis)

    assert await send(redis, job(1, idempotency_key="a")) == [False]
    assert await contents(redis) == held | {keys.idempotency("a"): job(1, idempotency_key="a").digest.encode()}


async def test_a_call_without_jobs_is_no_error(redis: Redis) -> None:
    assert await ENQUEUE(redis, [QUEUE, CLOCK], [keys.wake(QUEUE), 0, IDEMPOTENCY_MS, 0]) == []
    assert await contents(redis) == {}


async def test_a_flushed_script_is_sent_again(redis: Redis) -> None:
    await send(redis, job())
    await redis.script_flush()

    assert await send(redis, job()) == [True]


async def test_a_refusal_has_the_text_of_redis(redis: Redis) -> None:
    with pytest.raises(ResponseError):
        await ENQUEUE(redis, [], [])


async def test_calls_are_limited_in_jobs_and_in_bytes() -> None:
    small = [job() for _ in range(1001)]
    large = [Encoded("id", b"x" * 1_500_000, 0, 0, None, "", DeleteUser.reply_type()) for _ in range(5)]

    assert [len(chunk) async for chunk in chunks(small)] == [500, 500, 1]
    assert [len(chunk) async for chunk in chunks(large)] == [2, 2, 1]
    assert [one async for chunk in chunks(small) for one in chunk] == small
    assert [chunk async for chunk in chunks([])] == []
