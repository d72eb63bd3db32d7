"""Everything that a producer may raise.

ProducerError
├── InvalidMessage        (ValueError)       the message breaks the contract; nothing was sent
├── EnqueueError
│   ├── RedisUnavailable  (ConnectionError)  no connection; nothing was accepted
│   ├── RedisRefused                         Redis takes no writes (memory, replica, disk, rights); nothing was accepted
│   ├── EnqueueUnconfirmed (TimeoutError)    the answer was lost; it may have been accepted, and may be repeated
│   ├── IdempotencyConflict                  the idempotency key stands for another content
│   ├── QueueFull                            the bound on the queue's length is reached
│   └── SomeRefused                          of many jobs, some were not accepted: their errors, the others' handles
├── JobError                                 the job ended otherwise than done
│   ├── JobRejected                          conflict, not_found, invalid
│   ├── JobDead                              undecodable, unknown_job, too_large, expired, crashed, timeout, failed
│   └── JobCancelled                         cancelled
├── ResultTimeout         (TimeoutError)     no outcome yet; the job goes on
└── JobNotFound           (LookupError)      Redis knows neither the job nor its outcome
"""

from collections.abc import Sequence
from typing import Literal, get_args

RejectedCode = Literal["conflict", "not_found", "invalid"]
DeadCode = Literal["undecodable", "unknown_job", "too_large", "expired", "crashed", "timeout", "failed"]
Code = RejectedCode | DeadCode | Literal["cancelled"]

REJECTED_CODES: frozenset[str] = frozenset(get_args(RejectedCode))
DEAD_CODES: frozenset[str] = frozenset(get_args(DeadCode))
CANCELLED = "cancelled"


class ProducerError(Exception):
    """The base of all errors of this package."""


class InvalidMessage(ProducerError, ValueError):
    """The message breaks the contract. `problems` has one line a problem, without values."""

    def __init__(self, job: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"{job}: " + "; ".join(problems))
        self.job = job
        self.problems = problems


class EnqueueError(ProducerError):
    """The job was not, or not surely, accepted."""


class RedisUnavailable(EnqueueError, ConnectionError):
    """Redis could not be reached: nothing was accepted, or nothing could be told."""


class RedisRefused(EnqueueError):
    """Redis answered and refused the write: nothing was accepted. The text is Redis's own reason."""


class EnqueueUnconfirmed(EnqueueError, TimeoutError):
    """The answer was lost, so the job may or may not be in the queue.

    Repeat the same call with `idempotency_key=error.idempotency_key`: it is accepted once.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        self.job_id = job_id
        self.idempotency_key = job_id.partition("@")[0]
        super().__init__(
            f"job {job_id} may or may not have been accepted ({reason}): "
            f"repeat the call with idempotency_key={self.idempotency_key!r}"
        )


class IdempotencyConflict(EnqueueError):
    """The idempotency key was used for another content: use a new key, or send the same content again."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"job {job_id}: this idempotency key stands for another content: use a new key for a new request"
        )
        self.job_id = job_id


class QueueFull(EnqueueError):
    """The queue holds as many jobs as the producer allows: try again later, or add workers."""

    def __init__(self, job_id: str, max_queued: int) -> None:
        super().__init__(f"job {job_id}: the queue holds {max_queued} jobs or more: try again later, or add workers")
        self.job_id = job_id
        self.max_queued = max_queued


class SomeRefused(EnqueueError):
    """Of many jobs, some were not, or not surely, accepted.

    Attributes:
        outcomes: for each job in the order given, its `JobHandle` or its `EnqueueError`.
    """

    def __init__(self, outcomes: Sequence[object]) -> None:
        errors = [outcome for outcome in outcomes if isinstance(outcome, EnqueueError)]
        super().__init__(f"{len(errors)} of {len(outcomes)} jobs were not accepted; the first: {errors[0]}")
        self.outcomes = outcomes


class JobError(ProducerError):
    """The job ended otherwise than done. `code` is one of the contract's, `detail` a sentence without values."""

    def __init__(self, code: str, detail: str, job_id: str | None = None) -> None:
        super().__init__(f"{code}: {detail}" if job_id is None else f"job {job_id}: {code}: {detail}")
        self.code = code
        self.detail = detail
        self.job_id = job_id


class JobRejected(JobError):
    """The request cannot be honoured: an answer, not a fault. Repeating it gives the same answer."""


class JobDead(JobError):
    """The job was given up; a dead letter may be replayed once its cause is mended."""


class JobCancelled(JobError):
    """Somebody cancelled the job before it was done."""


class ResultTimeout(ProducerError, TimeoutError):
    """No outcome within the time given. The job goes on: ask again."""

    def __init__(self, job_id: str, timeout: float, reason: str = "") -> None:
        super().__init__(f"job {job_id}: no outcome within {timeout:g} s{reason}; it goes on: ask again")
        self.job_id = job_id
        self.timeout = timeout


class JobNotFound(ProducerError, LookupError):
    """Redis knows neither the job nor its outcome: never accepted, or ended longer ago than results are kept.

    The outcome is still in the ledger: enqueue the same content under the same idempotency key to be told it.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"job {job_id}: neither queued nor remembered: if it was accepted, its result is past its time to live; "
            "enqueue the same content under the same idempotency key to be told the outcome"
        )
        self.job_id = job_id


def job_error(code: str, detail: str, job_id: str | None = None) -> JobError:
    """The error for a code of the contract.

    >>> job_error("conflict", "email is taken")
    JobRejected('conflict: email is taken')
    """
    if code in REJECTED_CODES:
        return JobRejected(code, detail, job_id)
    if code == CANCELLED:
        return JobCancelled(code, detail, job_id)
    return JobDead(code, detail, job_id)
