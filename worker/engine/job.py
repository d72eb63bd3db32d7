"""A job under way in this worker, from its claim to its settlement."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from producers import ids, wire
from worker.engine.transaction import Claim
from worker.model.outcome import Dead
from worker.queue.queue import Claimed, PayloadState

_NO_PAYLOAD = {
    PayloadState.MISSING: Dead("expired", "the payload was gone before the job's turn came"),
    PayloadState.TOO_LARGE: Dead("too_large", "the payload is larger than WORKER_MAX_PAYLOAD_BYTES"),
    PayloadState.FOREIGN: Dead("undecodable", "the payload's key is no string"),
}


@dataclass(slots=True, eq=False)
class Job:
    """A job under way in this worker."""

    claimed: Claimed
    claim: Claim
    unreadable: Dead | None = None
    """Why there is nothing to try."""
    producer: str | None = None
    """Who is told of its end."""
    enqueued_ms: int = 0
    started_ms: float = 0.0
    """0 until it is tried: it has been claimed ahead."""
    task: "asyncio.Task[None] | None" = None
    lane: "Sequence[Job]" = ()
    """The jobs that its task runs, itself among them."""
    cancelled: bool = False
    """Somebody wants it cancelled."""
    lost: bool = False
    """Its lease ended while it ran: it is another worker's."""


def read(claimed: Claimed, *, remembered_since_ms: float) -> Job:
    """Decode what was claimed, when Redis remembers what ended since a time."""
    claim = Claim(claimed.lease.job_id.decode("utf-8", "backslashreplace"), "unknown", {}, claimed.tries)
    # A score may be anything that somebody has written, below all times as well.
    claim.due_ms = max(0.0, float(claimed.lease.score))
    if claimed.payload is None:
        return Job(claimed, claim, _NO_PAYLOAD[claimed.state])
    try:
        envelope = wire.decode(claimed.payload)
    except wire.WireError as error:
        return Job(claimed, claim, Dead("undecodable", str(error)))
    claim.job, claim.fields, claim.headers = envelope.f, envelope.k, envelope.h
    # What had ended before would be remembered, for it cannot have ended before it was made.
    made_ms = ids.made_ms(claim.job_id) if claimed.state is PayloadState.FRESH else None
    # One with an ordering key is about rows that exist: a second delivery has to wait for its ledger row, not for them.
    keyed = ids.ordering_key_of(claim.job_id) is not None
    claim.first = not keyed and made_ms is not None and made_ms > remembered_since_ms
    cancelled = claimed.state is PayloadState.CANCEL
    return Job(claimed, claim, None, envelope.h.get("producer"), envelope.et, cancelled=cancelled)
