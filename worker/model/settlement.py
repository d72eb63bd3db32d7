"""How a claim ends, named as the scripts that carry it out: complete, retry, release, bury.

`counts` is what the settlement adds to the queue's counters (see `worker.queue.counters`); empty for a job that was
not attempted.
"""

from typing import NamedTuple

from worker.model.job import Lease


class Complete(NamedTuple):
    """The job is done or rejected. Its result is stored and published on its producer's channel (empty: none)."""

    lease: Lease
    result: bytes
    channel: str
    counts: str = ""


class Bury(NamedTuple):
    """The job is dead. It is kept as a dead letter, with a record of its death."""

    lease: Lease
    result: bytes
    channel: str
    record: bytes
    counts: str = ""


class Retry(NamedTuple):
    """The attempt failed. The job is due again after a delay."""

    lease: Lease
    delay_ms: int
    counts: str = ""


class Release(NamedTuple):
    """The attempt could not be made or finished. The job is due again at once and no attempt is counted."""

    lease: Lease
    counts: str = ""


Settlement = Complete | Bury | Retry | Release
