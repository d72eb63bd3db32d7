"""A job that this worker has claimed, from its claim to its settlement."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from producers import ids, wire
from producers.errors import DETAILS
from worker.model.log_context import UNKNOWN
from worker.model.outcome import AttemptResult, Dead


class Lease(NamedTuple):
    """A claim as Redis knows it. The id is bytes: a member of the queue need not be a job id, nor text."""

    job_id: bytes
    token: bytes
    score: bytes
    """The score that the job had when it was claimed, as Redis prints it."""


class PayloadState(IntEnum):
    """What claim.lua found at the payload's key."""

    FETCHED = 0
    MISSING = 1
    TOO_LARGE = 2
    FOREIGN = 3
    """The key is not a string."""
    CANCEL = 4
    """Fetched, and a cancellation of the job is requested."""
    FRESH = 5
    """Fetched, and Redis knows nothing of the job: no claim before this one, and no result."""


_NO_PAYLOAD = {
    PayloadState.MISSING: Dead("expired", DETAILS["expired"]),
    PayloadState.TOO_LARGE: Dead("too_large", "the payload is larger than WORKER_MAX_PAYLOAD_BYTES"),
    PayloadState.FOREIGN: Dead("undecodable", "the payload's key is not a string"),
}


@dataclass(slots=True, eq=False)
class Progress:
    """How far a claimed job has come. Written by the stage that holds the job."""

    started_ms: float = 0.0
    """When its attempt began; 0 while it waits for a session."""
    committing: bool = False
    """COMMIT has been sent: from here on the attempt must not be cancelled, only awaited."""
    cancel_requested: bool = False
    lease_lost: bool = False
    """Its lease ended while it was held: another worker may have it."""
    task: "asyncio.Task[None] | None" = None
    """What runs it, alone or with the jobs of `batch`."""
    batch: "Sequence[ClaimedJob]" = ()
    """The jobs that its task runs, itself among them."""


@dataclass(frozen=True, slots=True, eq=False)
class ClaimedJob:
    """A job under a lease. What does not change about it; the rest is its `progress`."""

    job_id: str
    """As text; what is not ASCII or UTF-8 is escaped, and is then no job id."""
    name: str
    """The name of its job type; `unknown` when the payload cannot be read."""
    fields: dict[str, Any]
    attempt: int
    """The number of this attempt, from 1."""
    lease: Lease
    due_ms: float = 0.0
    """When it became due, in milliseconds of Redis's clock."""
    enqueued_ms: int = 0
    """When its client enqueued it, by the client's clock."""
    headers: Mapping[str, str] = field(default_factory=dict)
    ledger_last: bool = False
    """Whether its ledger row may be written last, with the reply: no other delivery of it is known."""
    unreadable: Dead | None = None
    """Its outcome when there is nothing to run."""
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a job, and what it came to."""

    job: ClaimedJob
    result: AttemptResult
    redelivered: bool = False
    """The job had its outcome already, so that no handler ran."""
    trace: tuple[str, str] | None = None
    """The ids of the trace and span that cover it, if one does."""
    splits: int = 0
    """How often a batch was split that this job headed."""


def read_job(
    lease: Lease, payload: bytes | None, state: PayloadState, attempt: int, *, remembered_since_ms: float
) -> ClaimedJob:
    """Decode what was claimed.

    Args:
        lease: the claim.
        payload: None when there is none to be read, which `state` explains.
        state: what was found.
        attempt: the number of the attempt that begins.
        remembered_since_ms: Redis still has the result of every job that ended since this time.
    """
    job_id = lease.job_id.decode("utf-8", "backslashreplace")
    # A client may write any score, negative ones included.
    due_ms = max(0.0, float(lease.score))
    if payload is None:
        return ClaimedJob(job_id, UNKNOWN, {}, attempt, lease, due_ms, unreadable=_NO_PAYLOAD[state])
    try:
        envelope = wire.decode(payload)
    except wire.WireError as error:
        return ClaimedJob(job_id, UNKNOWN, {}, attempt, lease, due_ms, unreadable=Dead("undecodable", str(error)))
    return ClaimedJob(
        job_id,
        envelope.f,
        envelope.k,
        attempt,
        lease,
        due_ms,
        envelope.et,
        envelope.h,
        state is PayloadState.FRESH and _is_first_delivery(job_id, remembered_since_ms),
        None,
        Progress(cancel_requested=state is PayloadState.CANCEL),
    )


def _is_first_delivery(job_id: str, remembered_since_ms: float) -> bool:
    """Whether a job that Redis knows nothing of cannot have ended before: its result would still be there."""
    made_ms = ids.made_ms(job_id)
    if made_ms is None or made_ms <= remembered_since_ms:
        return False
    # A job with an ordering key changes existing rows. A second delivery must wait on the ledger row, not on the locks
    # of those rows, so the ledger row comes first.
    return ids.ordering_key_of(job_id) is None
