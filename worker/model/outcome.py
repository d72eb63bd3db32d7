"""The result of an attempt: the job's outcome, or why it has none yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from producers.errors import DeadCode, RejectedCode

Link = dict[str, Any]
"""One exception of a chain, as the log holds it: see `worker.model.failures.causes`."""


@dataclass(frozen=True, slots=True)
class Done:
    """The effect is committed. `reply` is the reply's JSON."""

    reply: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request cannot be honoured and left no trace. A cancelled job is rejected, too."""

    code: RejectedCode | Literal["cancelled"]
    detail: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The job was given up and left no trace."""

    code: DeadCode
    detail: str
    causes: Sequence[Link] = field(default=(), compare=False, repr=False)
    """The exception that killed it, for the log; empty when there was none or it is no longer known."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed, left no trace and counts. `code` is the job's code of death when no attempts are left."""

    code: DeadCode
    detail: str
    causes: Sequence[Link] = field(default=(), compare=False, repr=False)
    """The exception, for the log."""


@dataclass(frozen=True, slots=True)
class Release:
    """The attempt could not be made, through no fault of the job. It does not count."""

    detail: str
    outage: bool = True
    """Whether the database is down, so that no other job can be attempted either."""


Outcome = Done | Rejected | Dead
"""How a job ends. It is written to the ledger once and never changes."""

AttemptResult = Outcome | Retry | Release
"""The result of one attempt."""


def label(result: AttemptResult) -> str:
    """The result's name in logs, counters and traces.

    >>> label(Done("{}")), label(Release("the database is starting up"))
    ('done', 'release')
    """
    match result:
        case Done():
            return "done"
        case Rejected():
            return "rejected"
        case Dead():
            return "dead"
        case Retry():
            return "retry"
        case Release():
            return "release"
        case _:
            assert_never(result)


def code_of(result: AttemptResult) -> str:
    """The result's code; empty when it has none.

    >>> code_of(Rejected("conflict", "email is already taken")), code_of(Done("{}"))
    ('conflict', '')
    """
    return "" if isinstance(result, Done | Release) else result.code
