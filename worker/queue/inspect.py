"""All that Redis and the ledger know of one job.

What is read may be anything that anybody has written there: a key of another type says so, and of what is large only
the beginning is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids, keys, wire
from producers.errors import JobCancelled, JobDead
from producers.keys import PARKED_MS
from worker.database import ledger
from worker.database.connections import DATABASE_ERRORS, describe_error
from worker.queue.dead_letters import DeadLetter, DeadLetters, Payload, payload_of

MAX_RESULT_BYTES = 64 * 1024


class State(StrEnum):
    """Where a job is, in the words of the whole project."""

    DUE = "due"
    DEFERRED = "deferred"
    RETRY = "waiting for its next try"
    PARKED = "parked"
    CLAIMED = "in flight"
    DONE = "done"
    REJECTED = "rejected"
    DEAD = "dead"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self in {State.DONE, State.REJECTED, State.CANCELLED}


@dataclass(frozen=True, slots=True)
class Order:
    """A job's place behind its ordering key."""

    key: bytes
    holder: bytes | None
    ahead: int | None
    """How many parked jobs come before it; None when it is not parked."""
    own_ms: float | None
    """The place in the queue that it will be put back to."""


@dataclass(frozen=True, slots=True)
class Story:
    """See above. Times are in milliseconds of Redis's clock, but `recorded_at`."""

    job_id: bytes
    now_ms: float
    score: float | None
    """When it is due, or when its lease ends, or `PARKED_MS`; None: it is not in the queue."""
    payload: Payload | None
    """Of the job in the queue, or of the dead letter."""
    lease_ms: int | None
    """How long its lease lasts yet."""
    tries: int | None
    """How many have begun."""
    cancelling: bool
    result: wire.Result | None
    result_trouble: str | None
    """Why there is a result that cannot be read."""
    result_ms: int | None
    """How long the result is kept yet."""
    order: Order | None
    letter: DeadLetter | None
    recorded: ledger.LedgerEntry | None
    recorded_at: datetime | None
    ledger_trouble: str | None
    """Why the ledger could not be asked."""

    @property
    def known(self) -> bool:
        """Whether there is any trace of it."""
        return any((self.score is not None, self.payload, self.result, self.result_trouble, self.letter, self.recorded))

    @property
    def state(self) -> State:
        """Where the job is."""
        if self.score is not None:
            return self._state_in_queue(self.score)
        if self.letter is not None:
            return State.DEAD
        error = None if self.result is None else self.result.error
        if isinstance(error, JobCancelled):
            return State.CANCELLED
        if self.recorded is not None:
            return State(self.recorded.outcome)
        if self.result is not None:
            return State.DONE if error is None else State.DEAD if isinstance(error, JobDead) else State.REJECTED
        return State.UNKNOWN

    def _state_in_queue(self, score: float) -> State:
        if self.lease_ms is not None:
            return State.CLAIMED
        if score >= PARKED_MS:
            return State.PARKED
        if score > self.now_ms:
            return State.RETRY if self.tries else State.DEFERRED
        return State.DUE


async def read(
    redis: Redis, queue: str, sessions: async_sessionmaker[AsyncSession], job_id: bytes, max_bytes: int
) -> Story:
    """Ask both servers. Raises what the Redis client raises; a database that is away is a part of the story."""
    traces = await _traces(redis, queue, job_id, max_bytes)
    letters = DeadLetters(redis, queue)
    letter = await letters.find(job_id)
    if letter is not None and traces["payload"] is None:
        traces["payload"] = await letters.payload(job_id, max_bytes)
    recorded, trouble = await _recorded(sessions, job_id)
    entry, at = recorded or (None, None)
    return Story(job_id=job_id, letter=letter, recorded=entry, recorded_at=at, ledger_trouble=trouble, **traces)


async def _traces(redis: Redis, queue: str, job_id: bytes, max_bytes: int) -> dict[str, Any]:
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
    # A key of another type is somebody else's, and tells nothing.
    seconds, micros = answers[0]
    found: list[Any] = [None if isinstance(answer, ResponseError) else answer for answer in answers[1:]]
    score, lease_ms, tries, abort, kind, size, data, result_there, result, result_ms, holder, ahead, own_ms = found
    return {
        "now_ms": seconds * 1000 + micros / 1000,
        "score": score,
        "payload": payload_of(kind, size, data, max_bytes),
        "lease_ms": lease_ms if lease_ms is not None and lease_ms >= 0 else None,
        "tries": int(tries) if tries and tries.isdigit() else None,
        "cancelling": abort is not None,
        **_result(there=bool(result_there), data=result, ttl_ms=result_ms),
        "order": Order(key, holder, ahead, own_ms) if key else None,
    }


def _result(*, there: bool, data: bytes | None, ttl_ms: int) -> Mapping[str, Any]:
    result, trouble = None, None
    if there:
        try:
            result = wire.decode_result(data or b"")
        except wire.WireError as error:
            trouble = str(error)
    return {"result": result, "result_trouble": trouble, "result_ms": ttl_ms if ttl_ms and ttl_ms >= 0 else None}


async def _recorded(
    sessions: async_sessionmaker[AsyncSession], job_id: bytes
) -> tuple[tuple[ledger.LedgerEntry, datetime] | None, str | None]:
    text = job_id.decode("ascii", "replace")
    if not ids.is_job_id(text):
        return None, None  # the ledger holds no other
    try:
        async with sessions() as session:
            return await ledger.find_with_time(session, text, MAX_RESULT_BYTES), None
    except DATABASE_ERRORS as error:
        return None, describe_error(error)
