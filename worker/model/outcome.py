"""What became of a job: its outcome, or why it has none yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from producers.errors import DeadCode, RejectedCode
from worker.model.causes import Link


@dataclass(frozen=True, slots=True)
class Done:
    """The effect is committed. `reply` is the reply's JSON."""

    reply: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request cannot be honoured, and left no trace; or it was cancelled, which is an answer as well."""

    code: RejectedCode | Literal["cancelled"]
    detail: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The job was given up, and left no trace."""

    code: DeadCode
    detail: str
    causes: Sequence[Link] = field(default=(), compare=False, repr=False)
    """The exception that it died of, for the log; empty when there was none, or it is not known any more."""


@dataclass(frozen=True, slots=True)
class Retry:
    """This try failed and left no trace; it counts. `code` is what the job dies of when no tries are left."""

    code: DeadCode
    detail: str
    causes: Sequence[Link] = field(default=(), compare=False, repr=False)
    """The exception, for the log."""


@dataclass(frozen=True, slots=True)
class Release:
    """The job could not be tried, for no fault of its own: give it back without counting."""

    detail: str
    outage: bool = True
    """Whether the database is to blame, so that nothing else can be tried either."""


Outcome = Done | Rejected | Dead
"""What ends a job. It is written to the ledger once and never changes."""

Attempt = Outcome | Retry | Release
"""What one try comes to."""
