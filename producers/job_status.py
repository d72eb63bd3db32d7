"""The states of a job, for handles, commands, metrics and pages."""

from enum import StrEnum

from producers import keys
from producers.errors import JobCancelled, JobError, JobRejected
from producers.wire import Result, WireError, decode_result


class JobStatus(StrEnum):
    """The state of a job."""

    DEFERRED = "deferred"
    """In the queue; the job, or its next attempt, is not due yet."""
    DUE = "due"
    """In the queue; the next free worker claims it."""
    PARKED = "parked"
    """In the queue, behind another job of its ordering key."""
    CLAIMED = "claimed"
    """A worker holds it."""
    DONE = "done"
    REJECTED = "rejected"
    DEAD = "dead"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Redis has neither the job nor its outcome."""

    @property
    def is_final(self) -> bool:
        """Whether the state never changes again. A dead job can be replayed."""
        return self in {JobStatus.DONE, JobStatus.REJECTED, JobStatus.CANCELLED}


def status_in_queue(score_ms: float, now_ms: float, *, leased: bool) -> JobStatus:
    """The state of a job in the queue.

    Args:
        score_ms: its score in the queue.
        now_ms: Redis's clock.
        leased: whether it has a lease.

    >>> status_in_queue(1000.0, 2000.0, leased=False).value, status_in_queue(3000.0, 2000.0, leased=False).value
    ('due', 'deferred')
    """
    if leased:
        return JobStatus.CLAIMED
    if score_ms >= keys.PARKED_MS:
        return JobStatus.PARKED
    return JobStatus.DEFERRED if score_ms > now_ms else JobStatus.DUE


def status_of_result(result: Result) -> JobStatus:
    """The state of a job with this result."""
    return status_of_error(result.error)


def status_of_error(error: JobError | None) -> JobStatus:
    """The state of a job that ended with this error; None: it is done."""
    match error:
        case None:
            return JobStatus.DONE
        case JobRejected():
            return JobStatus.REJECTED
        case JobCancelled():
            return JobStatus.CANCELLED
        case _:
            return JobStatus.DEAD


def status_of_stored_result(data: bytes) -> JobStatus:
    """The state of a job with this stored result; dead if it is not a result of this contract."""
    try:
        return status_of_result(decode_result(data))
    except WireError:
        return JobStatus.DEAD
