"""A hold on one accepted job: its status, its result."""

import asyncio
from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import ValidationError
from redis.asyncio import Redis

from producers import keys
from producers.errors import JobCancelled, JobDead, JobNotFound, JobRejected, ResultTimeout
from producers.messages import Reply
from producers.results import Results
from producers.wire import WireError, decode_result

ReplyT = TypeVar("ReplyT", bound=Reply)


class JobStatus(StrEnum):
    """Where a job is on its way."""

    DEFERRED = "deferred"
    """In the queue; its time has not come."""
    QUEUED = "queued"
    """In the queue; due."""
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
        """Where the job is now."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(keys.result(self.job_id))
            pipeline.exists(keys.in_progress(self.job_id))
            pipeline.zscore(self._queue, self.job_id)
            pipeline.time()
            result, running, score, (seconds, microseconds) = await pipeline.execute()
        if result is not None:
            match decode_result(result).error:
                case None:
                    return JobStatus.DONE
                case JobRejected():
                    return JobStatus.REJECTED
                case JobCancelled():
                    return JobStatus.CANCELLED
                case _:
                    return JobStatus.DEAD
        if score is None:
            return JobStatus.UNKNOWN
        if running:
            return JobStatus.RUNNING
        return JobStatus.DEFERRED if score > seconds * 1000 + microseconds / 1000 else JobStatus.QUEUED

    async def result(self, timeout: float | None = None) -> ReplyT:
        """Wait for the job's end and return its reply.

        Args:
            timeout: how long to wait, in seconds; None: without a limit, also while Redis is away.

        Raises:
            JobRejected, JobDead, JobCancelled: when the job ended otherwise than done.
            ResultTimeout: when there is no outcome yet; the job goes on.
            JobNotFound: when Redis knows neither the job nor its outcome.
        """
        try:
            data = await asyncio.wait_for(self._results.wait(self.job_id), timeout)
        except TimeoutError:
            raise ResultTimeout(self.job_id, timeout or 0, self._results.trouble) from None
        if data is None:
            raise JobNotFound(self.job_id)
        return self._read(data)

    def _read(self, data: bytes) -> ReplyT:
        try:
            result = decode_result(data)
            if (error := result.error) is not None:
                error.job_id = self.job_id
                raise error
            return self._reply.model_validate(result.r)
        except (WireError, ValidationError):
            # Somebody else's result under this id, or a worker of another contract.
            raise JobDead("undecodable", "the stored result is not a reply of this contract", self.job_id) from None
