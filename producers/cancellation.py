"""Cancelling a job: at once while no worker has claimed it, and by asking the workers from then on."""

import json
from enum import IntEnum

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from producers import keys, wire
from producers._script import CANCEL, NotSent
from producers.errors import CANCELLED, RedisRefused, RedisUnavailable

RESULT_MS = 60 * 60 * 1000
"""How long the result of a job that was cancelled at once is kept: as long as workers keep theirs by default."""
LONGEST_READ_BYTES = 1024 * 1024
"""A longer payload is not read for its name."""


class Answer(IntEnum):
    """What cancelling a job came to."""

    NOT_QUEUED = 0
    """It is not in the queue: it has ended, or was never accepted."""
    CANCELLED = 1
    """It was in the queue, and no worker had claimed it. Now it is gone."""
    WORKER_ASKED = 2
    """A worker runs it, and was asked to cancel it."""
    NEXT_WORKER_ASKED = 3
    """It is in the queue, but may have its outcome already. The next worker asks the ledger, and cancels it if not."""


async def cancel(redis: Redis, queue: str, job_id: str) -> tuple[Answer, bytes | None]:
    """Cancel a job; what that came to, and the job's result when it has ended already. Safe to repeat.

    Raises:
        RedisUnavailable: when Redis did not tell, so that it may have happened.
        RedisRefused: when it took no writes, so that nothing has happened.
    """
    try:
        envelope, now_ms = await _read(redis, job_id)
        producer = "" if envelope is None else envelope.h.get("producer", "")
        arguments: list[str | bytes | int] = [
            job_id,
            _result(job_id, queue, envelope, now_ms),
            RESULT_MS,
            keys.control(queue),
            keys.wake(queue),
            keys.results(queue, producer) if producer else "",
        ]
        answer, result = await CANCEL(redis, [queue], arguments)
    except (RedisError, OSError) as error:
        raise _error(job_id, error) from error
    return Answer(answer), result


async def _read(redis: Redis, job_id: str) -> tuple[wire.Envelope | None, int]:
    """What the job's payload says, if it can be read, and the time of Redis's clock."""
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.getrange(keys.job(job_id), 0, LONGEST_READ_BYTES)
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
    failure = {"code": CANCELLED, "detail": "the job was cancelled"}
    return wire.encode_result(
        job_id=job_id, job="unknown" if envelope is None else envelope.f, tries=0, queue=queue, done=False,
        reply=json.dumps(failure).encode(), enqueued_ms=0 if envelope is None else envelope.et, started_ms=now_ms,
        ended_ms=now_ms,
    )  # fmt: skip


def _error(job_id: str, error: RedisError | OSError) -> RedisUnavailable | RedisRefused:
    told = error.__cause__ if isinstance(error, NotSent) else error
    if isinstance(told, AuthenticationError | ResponseError):
        return RedisRefused(f"job {job_id}: Redis refused to cancel it: {error}")
    return RedisUnavailable(f"job {job_id}: Redis did not tell whether it is cancelled: {error}: cancel it again")
