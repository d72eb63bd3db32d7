"""Every exception that a producer raises, and every code of an outcome other than done.

ProducerError
├── InvalidMessage        (ValueError)       the message breaks the contract; nothing was sent
├── EnqueueError
│   ├── RedisUnavailable  (ConnectionError)  no connection; nothing was accepted
│   ├── RedisRefused                         Redis takes no writes (memory, replica, disk, rights); nothing was accepted
│   ├── EnqueueUnconfirmed (TimeoutError)    the answer was lost: the job may have been accepted; repeating is safe
│   ├── IdempotencyConflict                  the idempotency key was used for other content
│   ├── QueueFull                            the queue has reached its maximum length
│   └── PartialEnqueueError                  some of many jobs were not accepted: their errors, the others' handles
├── JobError                                 the job ended in an outcome other than done
│   ├── JobRejected                          conflict, not_found, invalid
│   ├── JobDead                              undecodable, unknown_job, too_large, expired, crashed, timeout, failed
│   └── JobCancelled                         cancelled
├── ResultTimeout         (TimeoutError)     no outcome yet; the job continues
└── JobNotFound           (LookupError)      Redis has neither the job nor its outcome
"""

from collections.abc import Sequence
from typing import Final, Literal, get_args

RejectedCode = Literal["conflict", "not_found", "invalid"]
DeadCode = Literal["undecodable", "unknown_job", "too_large", "expired", "crashed", "timeout", "failed"]

REJECTED_CODES: frozenset[str] = frozenset(get_args(RejectedCode))
DEAD_CODES: frozenset[str] = frozenset(get_args(DeadCode))
CANCELLED: Final = "cancelled"

DETAILS: dict[str, str] = {
    "conflict": "the username or e-mail address is taken, or the request contradicts the stored data",
    "not_found": "the request refers to something that does not exist",
    "invalid": "the fields are not those of the message",
    "undecodable": "the payload is not an envelope of this contract",
    "unknown_job": "no job of this name is known here",
    "too_large": "the payload is larger than the worker accepts",
    "expired": "the payload was gone before the job's turn came",
    "crashed": "the job took its worker down on its last attempt",
    "timeout": "the job ran for longer than allowed",
    "failed": "the job failed on every attempt",
    CANCELLED: "the job was cancelled",
}
"""What each code means. It is the detail of an outcome, unless there is a more precise one."""


class ProducerError(Exception):
    """The base of all errors of this package."""


class InvalidMessage(ProducerError, ValueError):
    """The message breaks the contract. `problems` has one line per problem, without values."""

    def __init__(self, job: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"{job}: " + "; ".join(problems))
        self.job = job
        self.problems = problems


class EnqueueError(ProducerError):
    """The job was not accepted, or it is unknown whether it was."""


class RedisUnavailable(EnqueueError, ConnectionError):
    """Redis cannot be reached: nothing was accepted, or a read got no reply."""


class RedisRefused(EnqueueError):
    """Redis answered and refused the write: nothing was accepted. The text is Redis's own reason."""


class EnqueueUnconfirmed(EnqueueError, TimeoutError):
    """The answer was lost: the job may or may not be in the queue.

    Repeat the same call with `idempotency_key=error.idempotency_key`: the job is accepted once.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        self.job_id = job_id
        self.idempotency_key = job_id.partition("@")[0]
        super().__init__(
            f"job {job_id} may or may not have been accepted ({reason}): "
            f"repeat the call with idempotency_key={self.idempotency_key!r}"
        )


class IdempotencyConflict(EnqueueError):
    """The idempotency key was used for other content: use a new key, or send the same content again."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"job {job_id}: this idempotency key was used for other content: use a new key for a new request"
        )
        self.job_id = job_id


class QueueFull(EnqueueError):
    """The queue holds as many jobs as the producer allows: try again later, or add workers."""

    def __init__(self, job_id: str, max_queued: int) -> None:
        super().__init__(f"job {job_id}: the queue holds {max_queued} jobs or more: try again later, or add workers")
        self.job_id = job_id
        self.max_queued = max_queued


class PartialEnqueueError(EnqueueError):
    """Some of many jobs were not accepted, or it is unknown whether they were.

    Attributes:
        outcomes: for each job in the order given, its `JobHandle` or its `EnqueueError`.
    """

    def __init__(self, outcomes: Sequence[object]) -> None:
        errors = [outcome for outcome in outcomes if isinstance(outcome, EnqueueError)]
        super().__init__(f"{len(errors)} of {len(outcomes)} jobs were not accepted; the first: {errors[0]}")
        self.outcomes = outcomes


class JobError(ProducerError):
    """The job ended in an outcome other than done. `code` is one of `DETAILS`, `detail` a sentence without values."""

    def __init__(self, code: str, detail: str, job_id: str | None = None) -> None:
        super().__init__(f"{code}: {detail}" if job_id is None else f"job {job_id}: {code}: {detail}")
        self.code = code
        self.detail = detail
        self.job_id = job_id


class JobRejected(JobError):
    """The request cannot be honoured: an answer, not a fault.

    Enqueueing the same id again returns the same rejection.
    """


class JobDead(JobError):
    """The job failed for good. Its dead letter can be replayed once the cause is fixed."""


class JobCancelled(JobError):
    """The job was cancelled before it was done."""


class ResultTimeout(ProducerError, TimeoutError):
    """There was no outcome within the timeout. The job continues: wait again."""

    def __init__(self, job_id: str, timeout: float, reason: str = "") -> None:
        super().__init__(f"job {job_id}: no outcome within {timeout:g} s{reason}; the job continues: wait again")
        self.job_id = job_id
        self.timeout = timeout


class JobNotFound(ProducerError, LookupError):
    """Redis has neither the job nor its outcome: it was never accepted, or its result has expired.

    If it had ended, the ledger still has its outcome for the retention period: enqueue the same content under the
    same idempotency key to get it. If it was never accepted, that runs it now.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"job {job_id} is neither queued nor does it have a result: it was never accepted, or its result has "
            "expired; enqueue the same content under the same idempotency key to get the outcome, or to run it now"
        )
        self.job_id = job_id


def job_error(code: str, detail: str, job_id: str | None = None) -> JobError:
    """The exception for a code.

    >>> job_error("conflict", "email is taken")
    JobRejected('conflict: email is taken')
    """
    if code in REJECTED_CODES:
        return JobRejected(code, detail, job_id)
    if code == CANCELLED:
        return JobCancelled(code, detail, job_id)
    return JobDead(code, detail, job_id)
