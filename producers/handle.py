"""A handle on one job: its status, its result, its cancellation."""

import asyncio
from typing import Generic, TypeVar

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from producers import keys
from producers._result_waiter import ResultWaiter
from producers.cancellation import Answer, cancel
from producers.errors import (
    JobDead,
    JobNotFound,
    RedisUnavailable,
    ResultTimeout,
    job_error,
)
from producers.job_status import JobStatus, derive_status, status_of_stored_result
from producers.messages import Reply
from producers.wire import Result, WireError, decode_result

ReplyT = TypeVar("ReplyT", bound=Reply)


class JobHandle(Generic[ReplyT]):
    """A job by its id. Made by a `Producer`; holds no connection of its own.

    Attributes:
        job_id: the job's id, with its ordering key if it has one.
        accepted: False if a job of this id was known already and the enqueue changed nothing.
    """

    def __init__(
        self,
        job_id: str,
        reply: type[ReplyT],
        *,
        accepted: bool,
        redis: Redis,
        queue: str,
        results: ResultWaiter,
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
        """The job's current state.

        Raises:
            RedisUnavailable: Redis did not answer.
        """
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.get(keys.result(self.job_id))
                pipeline.exists(keys.in_progress(self.job_id))
                pipeline.zscore(self._queue, self.job_id)
                pipeline.time()
                pipeline.zscore(keys.dead(self._queue), self.job_id)
                result, leased, score, (seconds, microseconds), died = await pipeline.execute()
        except (RedisError, OSError) as error:
            raise RedisUnavailable(
                f"job {self.job_id}: Redis did not answer when asked for the job's status: {error}"
            ) from error
        return derive_status(
            ended=None if result is None else status_of_stored_result(result),
            score_ms=score,
            now_ms=seconds * 1000 + microseconds / 1000,
            leased=bool(leased),
            dead=died is not None,
        )

    async def result(self, timeout: float | None = None) -> ReplyT:
        """Wait until the job ends and return its reply.

        Args:
            timeout: how long to wait, in seconds. None: without a limit, even while Redis is down.

        Raises:
            JobRejected, JobDead, JobCancelled: the job ended in an outcome other than done.
            ResultTimeout: there is no outcome yet; the job continues.
            JobNotFound: Redis has neither the job nor its outcome.
        """
        outcome = await self.outcome(timeout)
        if (error := outcome.error) is not None:
            raise job_error(error.code, error.detail, self.job_id)
        try:
            return self._reply.model_validate(outcome.r)
        except ValidationError:
            raise self._foreign() from None

    async def outcome(self, timeout: float | None = None) -> Result:
        """Wait until the job ends and return its whole result: attempts, times, and the reply or the error.

        Args:
            timeout: as for `result`.

        Raises:
            ResultTimeout, JobNotFound: as for `result`.
            JobDead: the value stored under the job's id is not a result of this contract.
        """
        try:
            data = await asyncio.wait_for(self._results.wait(self.job_id), timeout)
        except TimeoutError:
            raise ResultTimeout(self.job_id, timeout or 0, self._results.last_error) from None
        if data is None:
            raise JobNotFound(self.job_id)
        try:
            return decode_result(data)
        except WireError:
            raise self._foreign() from None

    async def cancel(self) -> JobStatus:
        """Cancel the job, if it can still be cancelled. Safe to repeat.

        Returns its state:
            CANCELLED: it has no effect. It was removed from the queue, or had been cancelled before.
            CLAIMED, DUE: its cancellation was requested from the worker that holds or next claims it. It is cancelled
                shortly, unless its COMMIT has begun; wait for its `result`.
            DONE, REJECTED, DEAD: it had ended already; nothing was changed.
            UNKNOWN: Redis has neither the job nor its outcome.

        A job that was cancelled while it waited leaves no trace in the ledger: a client that puts the same id and
        payload into the queue by hand makes it run. Its result is kept for as long as the workers keep theirs (an hour
        if none has run yet).

        Raises:
            RedisUnavailable: Redis did not answer; the job may have been cancelled.
            RedisRefused: Redis takes no writes; nothing was changed.
        """
        answer, result = await cancel(self._redis, self._queue, self.job_id)
        match answer:
            case Answer.CANCELLED:
                return JobStatus.CANCELLED
            case Answer.REQUESTED_FROM_WORKER:
                return JobStatus.CLAIMED
            case Answer.REQUESTED_FROM_NEXT_WORKER:
                return JobStatus.DUE
            case Answer.NOT_QUEUED:
                return JobStatus.UNKNOWN if result is None else status_of_stored_result(result)

    def _foreign(self) -> JobDead:
        # Another client wrote a result under this id, or a worker of another contract did.
        return JobDead("undecodable", "the stored result is not a reply of this contract", self.job_id)
