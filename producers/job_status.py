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


def derive_status(
    *, ended: JobStatus | None, score_ms: float | None, now_ms: float, leased: bool, dead: bool
) -> JobStatus:
    """The state of a job, by one rule for handles, commands and pages.

    The result decides first, because an outcome never changes; then the queue, then the dead letters.

    Args:
        ended: the state by the job's result; None when there is no result.
        score_ms: its score in the queue; None when it is not there.
        now_ms: Redis's clock.
        leased: whether it has a lease.
        dead: whether it is a dead letter.

    >>> derive_status(ended=None, score_ms=1000.0, now_ms=2000.0, leased=False, dead=False).value
    'due'
    >>> derive_status(ended=None, score_ms=None, now_ms=2000.0, leased=False, dead=True).value
    'dead'
    """
    if ended is not None:
        return ended
    if score_ms is None:
        return JobStatus.DEAD if dead else JobStatus.UNKNOWN
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
