"""Where a job is: one enumeration for handles, commands, metrics and pages."""

from enum import StrEnum

from producers import keys
from producers.errors import JobCancelled, JobRejected
from producers.wire import Result, WireError, decode_result


class JobStatus(StrEnum):
    """Where a job is on its way."""

    DEFERRED = "deferred"
    """In the queue; its time, or that of its next attempt, has not come."""
    DUE = "due"
    """In the queue; the next free worker claims it."""
    PARKED = "parked"
    """In the queue, behind another job of its ordering key."""
    CLAIMED = "claimed"
    """A worker has it."""
    DONE = "done"
    REJECTED = "rejected"
    DEAD = "dead"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    """Neither in the queue nor remembered."""

    @property
    def is_final(self) -> bool:
        """Whether the job has ended for good: a dead one may be replayed."""
        return self in {JobStatus.DONE, JobStatus.REJECTED, JobStatus.CANCELLED}


def status_in_queue(score_ms: float, now_ms: float, *, leased: bool) -> JobStatus:
    """Where a job of the queue is.

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
    """How a job with this result has ended."""
    match result.error:
        case None:
            return JobStatus.DONE
        case JobRejected():
            return JobStatus.REJECTED
        case JobCancelled():
            return JobStatus.CANCELLED
        case _:
            return JobStatus.DEAD


def status_of_stored_result(data: bytes) -> JobStatus:
    """How a job with these bytes as its result has ended; dead when they are not a result of this contract."""
    try:
        return status_of_result(decode_result(data))
    except WireError:
        return JobStatus.DEAD
