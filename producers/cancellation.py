"""Cancelling a job: at once while no worker has claimed it, by a request to the workers from then on."""

import json
from enum import IntEnum

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from producers import keys, wire
from producers._script import CANCEL, NotSent
from producers.errors import CANCELLED, DETAILS, RedisRefused, RedisUnavailable

DEFAULT_RESULT_MS = 60 * 60 * 1000
"""How long the result of a job cancelled at once is kept, until a worker has written how long it keeps its own."""
MAX_READ_BYTES = 1024 * 1024
"""How much of a payload is read to find the job's name and producer."""


class Answer(IntEnum):
    """What the cancel script did."""

    NOT_QUEUED = 0
    """Nothing: the job is not in the queue. It has ended, or was never accepted."""
    CANCELLED = 1
    """It removed the job from the queue: no worker had claimed it."""
    REQUESTED_FROM_WORKER = 2
    """It requested the cancellation from the worker that runs the job."""
    REQUESTED_FROM_NEXT_WORKER = 3
    """The job may have its outcome already: the next worker cancels it unless the ledger has one."""


async def cancel(redis: Redis, queue: str, job_id: str) -> tuple[Answer, bytes | None]:
    """Cancel a job. Returns what was done, and the job's result if it has ended already. Safe to repeat.

    Raises:
        RedisUnavailable: Redis did not answer; the job may have been cancelled.
        RedisRefused: Redis takes no writes; nothing was changed.
    """
    try:
        envelope, now_ms = await _read(redis, job_id)
        producer = "" if envelope is None else envelope.h.get("producer", "")
        arguments: list[str | bytes | int] = [
            job_id,
            _result(job_id, queue, envelope, now_ms),
            DEFAULT_RESULT_MS,
            keys.control(queue),
            keys.wake(queue),
            keys.results(queue, producer) if producer else "",
        ]
        answer, result = await CANCEL(redis, [queue], arguments)
    except (RedisError, OSError) as error:
        raise _error(job_id, error) from error
    return Answer(answer), result


async def _read(redis: Redis, job_id: str) -> tuple[wire.Envelope | None, int]:
    """The job's envelope, if it can be read, and the time of Redis's clock."""
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.getrange(keys.job(job_id), 0, MAX_READ_BYTES)
        pipeline.time()
        payload, now = await pipeline.execute(raise_on_error=False)
    if isinstance(now, Exception):
        raise now
    seconds, microseconds = now
    now_ms = seconds * 1000 + microseconds // 1000
    try:
        return (wire.decode(payload) if isinstance(payload, bytes) else None), now_ms
    except wire.WireError:
        return None, now_ms


def _result(job_id: str, queue: str, envelope: wire.Envelope | None, now_ms: int) -> bytes:
    failure = {"code": CANCELLED, "detail": DETAILS[CANCELLED]}
    return wire.encode_result(
        job_id=job_id, job="unknown" if envelope is None else envelope.f, attempt=0, queue=queue, done=False,
        reply=json.dumps(failure).encode(), enqueued_ms=0 if envelope is None else envelope.et, started_ms=now_ms,
        ended_ms=now_ms,
    )  # fmt: skip


def _error(job_id: str, error: RedisError | OSError) -> RedisUnavailable | RedisRefused:
    cause = error.__cause__ if isinstance(error, NotSent) else error
    if isinstance(cause, AuthenticationError | ResponseError):
        return RedisRefused(f"job {job_id}: Redis refused to cancel it: {error}")
    return RedisUnavailable(f"job {job_id} may or may not be cancelled ({error}): cancel it again")
