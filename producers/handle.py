"""A hold on one accepted job: its status, its result, its cancellation."""

import asyncio
from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from producers import keys
from producers._result_waiter import Results
from producers.cancellation import Answer, cancel
from producers.errors import (
    JobCancelled,
    JobDead,
    JobNotFound,
    JobRejected,
    RedisUnavailable,
    ResultTimeout,
    job_error,
)
from producers.messages import Reply
from producers.wire import Result, WireError, decode_result

ReplyT = TypeVar("ReplyT", bound=Reply)


class JobStatus(StrEnum):
    """Where a job is on its way."""

    DEFERRED = "deferred"
    """In the queue; its time has not come."""
    QUEUED = "queued"
    """In the queue; due, or waiting behind another job of its ordering key."""
    RUNNING = "running"
    """Claimed by a worker."""
    DONE = "done"
    REJECTED = "rejected"
    DEAD = "dead"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Neither queued nor remembered."""


class JobHandle(Generic[ReplyT]):
    """A job by its id. Made by a `Producer`; holds no connection of its own.

    Attributes:
        job_id: the job's id, with its ordering key if it has one.
        accepted: False when a job of this id was known already, so that this enqueue changed nothing.
    """

    def __init__(
        self,
        job_id: str,
        reply: type[ReplyT],
        *,
        accepted: bool,
        redis: Redis,
        queue: str,
        results: Results,
    ) -> None:
        self.job_id = job_id
        self.accepted = accepted
        self._reply = reply
        self._redis = redis
        self._queue = queue
        self._results = results

    def __repr__(self) -> str:
        return f"<JobHandle {self.job_id}>"

    async def status(self) -> JobStatus:
        """Where the job is now.

        Raises:
            RedisUnavailable: when Redis did not tell.
        """
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(keys.result(self.job_id))
                pipeline.exists(keys.in_progress(self.job_id))
                pipeline.zscore(self._queue, self.job_id)
                pipeline.time()
                result, running, score, (seconds, microseconds) = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise RedisUnavailable(f"job {self.job_id}: Redis did not tell its status: {error}") from error
        if result is not None:
            return _ended(result)
        if score is None:
            return JobStatus.UNKNOWN
        if running:
            return JobStatus.RUNNING
        deferred = seconds * 1000 + microseconds / 1000 < score < keys.PARKED_MS
        return JobStatus.DEFERRED if deferred else JobStatus.QUEUED

    async def result(self, timeout: float | None = None) -> ReplyT:
        """Wait for the job's end and return its reply.

        Args:
            timeout: how long to wait, in seconds; None: without a limit, also while Redis is away.

        Raises:
            JobRejected, JobDead, JobCancelled: when the job ended otherwise than done.
            ResultTimeout: when there is no outcome yet; the job goes on.
            JobNotFound: when Redis knows neither the job nor its outcome.
        """
        outcome = await self.outcome(timeout)
        if (error := outcome.error) is not None:
            raise job_error(error.code, error.detail, self.job_id)
        try:
            return self._reply.model_validate(outcome.r)
        except ValidationError:
            raise self._foreign() from None

    async def outcome(self, timeout: float | None = None) -> Result:
        """Wait for the job's end and return all that is known of it: tries, times, and the reply or the error.

        Args:
            timeout: as of `result`.

        Raises:
            ResultTimeout, JobNotFound: as `result`.
            JobDead: when what is stored under the job's id is not a result of this contract.
        """
        try:
            data = await asyncio.wait_for(self._results.wait(self.job_id), timeout)
        except TimeoutError:
            raise ResultTimeout(self.job_id, timeout or 0, self._results.trouble) from None
        if data is None:
            raise JobNotFound(self.job_id)
        try:
            return decode_result(data)
        except WireError:
            raise self._foreign() from None

    async def cancel(self) -> JobStatus:
        """Cancel the job, if it can still be cancelled. Safe to repeat.

        Returns what became of it:
            CANCELLED: it will have no effect. It waited, and is gone from the queue; or it was cancelled before.
            RUNNING, QUEUED: a worker runs it, or had it before and gave it back: workers were asked to cancel it. It is
                cancelled within moments, unless its COMMIT is under way or past; `result` tells which.
            DONE, REJECTED, DEAD: it had ended already; nothing was changed.
            UNKNOWN: Redis knows neither the job nor its outcome.

        A job that was cancelled while it waited leaves no trace in the ledger: a client that puts the same id and
        payload into the queue by hand makes it run. Its result is kept for as long as the workers keep theirs (an hour
        if none has run yet).

        Raises:
            RedisUnavailable: when Redis did not tell, so that it may have happened.
            RedisRefused: when Redis takes no writes, so that nothing has happened.
        """
        answer, result = await cancel(self._redis, self._queue, self.job_id)
        match answer:
            case Answer.CANCELLED:
                return JobStatus.CANCELLED
            case Answer.WORKER_ASKED:
                return JobStatus.RUNNING
            case Answer.NEXT_WORKER_ASKED:
                return JobStatus.QUEUED
            case Answer.NOT_QUEUED:
                return JobStatus.UNKNOWN if result is None else _ended(result)

    def _foreign(self) -> JobDead:
        # Somebody else's result under this id, or a worker of another contract.
        return JobDead("undecodable", "the stored result is not a reply of this contract", self.job_id)


def _ended(data: bytes) -> JobStatus:
    try:
        error = decode_result(data).error
    except WireError:
        return JobStatus.DEAD  # as `JobHandle.result` has it
    match error:
        case None:
            return JobStatus.DONE
        case JobRejected():
            return JobStatus.REJECTED
        case JobCancelled():
            return JobStatus.CANCELLED
        case _:
            return JobStatus.DEAD
