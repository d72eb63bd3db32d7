"""Everything that Redis knows of one job, read in one step.

A client may have written anything there: a key of another type counts as missing, and large values are only read in
part.
"""

from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from producers import keys, wire
from producers.job_status import JobStatus, derive_status, status_of_result
from worker.queue.dead_letters import DeadLetter, DeadLetters, Payload, payload_of

MAX_RESULT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """A job's place behind its ordering key."""

    key: bytes
    holder: bytes | None
    ahead: int | None
    """How many parked jobs come before it; None when it is not parked."""
    own_ms: float | None
    """The score that it will be put back to."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A job's result: decoded, or why it cannot be read."""

    result: wire.Result | None
    error: str | None
    ttl_ms: int | None


@dataclass(frozen=True, kw_only=True)
class JobSnapshot:
    """One observation of a job. Times are in milliseconds of Redis's clock."""

    job_id: bytes
    now_ms: float
    score: float | None
    """When it is due, or when its lease ends, or `PARKED_MS`; None: it is not in the queue."""
    payload: Payload | None
    """Of the job in the queue, or of the dead letter."""
    lease_ms: int | None
    """Until its lease ends."""
    attempts: int | None
    """How many have begun."""
    cancel_requested: bool
    stored: StoredResult | None
    order: Order | None
    letter: DeadLetter | None

    @property
    def result(self) -> wire.Result | None:
        """The job's result, if there is one that can be read."""
        return None if self.stored is None else self.stored.result

    @property
    def result_error(self) -> str | None:
        """Why the job's result cannot be read."""
        return None if self.stored is None else self.stored.error

    @property
    def result_ttl_ms(self) -> int | None:
        """How long the result is kept."""
        return None if self.stored is None else self.stored.ttl_ms

    @property
    def status(self) -> JobStatus:
        """Where the job is: see `derive_status`."""
        return derive_status(
            ended=self._ended,
            score_ms=self.score,
            now_ms=self.now_ms,
            leased=self.lease_ms is not None,
            dead=self.letter is not None,
        )

    @property
    def _ended(self) -> JobStatus | None:
        """How the job ended, by its result. A result that cannot be read counts as dead, as for a handle."""
        if self.stored is None:
            return None
        return JobStatus.DEAD if self.stored.result is None else status_of_result(self.stored.result)


async def read_job_snapshot(redis: Redis, queue: str, job_id: bytes, max_bytes: int) -> JobSnapshot:
    """Observe a job. Raises what the client raises.

    Args:
        redis: the client.
        queue: the queue's name.
        job_id: which job.
        max_bytes: a larger payload is not read.
    """
    facts = await _read_facts(redis, queue, job_id, max_bytes)
    letters = DeadLetters(redis, queue)
    letter = await letters.find(job_id)
    if letter is not None and facts["payload"] is None:
        facts["payload"] = await letters.payload(job_id, max_bytes)
    return JobSnapshot(job_id=job_id, letter=letter, **facts)


@dataclass(frozen=True, slots=True)
class OrderingKey:
    """The jobs of one ordering key."""

    key: bytes
    holder: bytes | None
    parked: int
    jobs: list[tuple[bytes, float]]
    """A page of the parked jobs, in order: ids and their own scores, which are times in milliseconds."""
    foreign: bool
    """Whether the list is a key of another type, written by another program."""


async def read_ordering_key(redis: Redis, queue: str, key: bytes, offset: int, count: int) -> OrderingKey:
    """Observe an ordering key and a page of its parked jobs. Raises what the client raises."""
    parked = keys.parked(queue, "").encode() + key
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hget(keys.holders(queue), cast("str", key))
        pipeline.zcard(parked)
        pipeline.zrange(parked, offset, offset + count - 1, withscores=True)
        holder, total, jobs = await pipeline.execute(raise_on_error=False)
    if isinstance(total, ResponseError):
        return OrderingKey(key, None, 0, [], foreign=True)
    return OrderingKey(key, None if isinstance(holder, ResponseError) else holder, total, jobs, foreign=False)


async def _read_facts(redis: Redis, queue: str, job_id: bytes, max_bytes: int) -> dict[str, Any]:
    payload_key, result_key = (keys.job("").encode() + job_id, keys.result("").encode() + job_id)
    key = job_id.partition(b"@")[2]
    parked = keys.parked(queue, "").encode() + key
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.time()
        pipeline.zscore(queue, cast("str", job_id))
        pipeline.pttl(keys.in_progress("").encode() + job_id)
        pipeline.getrange(keys.retry("").encode() + job_id, 0, 10)
        pipeline.zscore(keys.ABORT, cast("str", job_id))
        pipeline.type(payload_key)
        pipeline.strlen(payload_key)
        pipeline.getrange(payload_key, 0, max_bytes - 1)
        pipeline.exists(result_key)
        pipeline.getrange(result_key, 0, MAX_RESULT_BYTES)
        pipeline.pttl(result_key)
        pipeline.hget(keys.holders(queue), cast("str", key))
        pipeline.zrank(parked, job_id)
        pipeline.zscore(parked, cast("str", job_id))
        answers = await pipeline.execute(raise_on_error=False)
    # A key of another type belongs to another client and counts as missing.
    seconds, microseconds = answers[0]
    found: list[Any] = [None if isinstance(answer, ResponseError) else answer for answer in answers[1:]]
    score, lease_ms, attempts, abort, kind, size, data, has_result, result, ttl_ms, holder, ahead, own_ms = found
    return {
        "now_ms": seconds * 1000 + microseconds / 1000,
        "score": score,
        "payload": payload_of(kind, size, data, max_bytes),
        "lease_ms": lease_ms if lease_ms is not None and lease_ms >= 0 else None,
        "attempts": int(attempts) if attempts and attempts.isdigit() else None,
        "cancel_requested": abort is not None,
        "stored": _read_result(result, ttl_ms) if has_result else None,
        "order": Order(key, holder, ahead, own_ms) if key else None,
    }


def _read_result(data: bytes | None, ttl_ms: int | None) -> StoredResult:
    ttl_ms = ttl_ms if ttl_ms is not None and ttl_ms >= 0 else None
    try:
        return StoredResult(wire.decode_result(data or b""), None, ttl_ms)
    except wire.WireError as error:
        return StoredResult(None, str(error), ttl_ms)
