"""The one line that a job leaves in the log each time it was tried."""

import zlib
from collections.abc import Container
from typing import Any

import structlog

from worker.engine.transaction import Claim
from worker.model.log_context import told_id, told_name
from worker.model.outcome import Attempt, Dead, Done, Rejected, Release, Retry
from worker.model.registry import REGISTRY

SLOW_MS = 1000.0
"""A try that took as long as this has its line whatever is sampled."""


class Journal:
    """Writes the lines. Make one when logs are configured: its logger is bound once, not once a line.

    Args:
        names: the jobs that are known here; another name may be anything, and is not written down.
        success_sample: the part of the jobs whose line is written when they are done in the usual way, from 0 to 1.
            All other lines always are.
    """

    def __init__(self, names: Container[str] = REGISTRY, success_sample: float = 1.0) -> None:
        self._log = structlog.get_logger("worker.job").bind()
        self._names = names
        self._success_sample = success_sample

    def attempt(self, claim: Claim, attempt: Attempt, *, wait_ms: float, run_ms: float) -> None:
        """Say what one try of a job came to."""
        sampled = self._success_sample < 1 and _usual(claim, attempt, run_ms)
        if sampled and not in_sample(claim.job_id, self._success_sample):
            return
        line: dict[str, Any] = {
            "job_id": told_id(claim.job_id),
            "job": told_name(claim.job, self._names),
            "try": claim.tries,
            "wait_ms": round(wait_ms, 1),
            "run_ms": round(run_ms, 1),
        }
        if claim.redelivered:
            line["redelivered"] = True
        if claim.traced is not None:
            line["trace_id"] = claim.traced[0]
            line["span_id"] = claim.traced[1]
        match attempt:
            case Done():
                part = {"sampled": self._success_sample} if sampled else {}
                self._log.info("job_done", **line, outcome="done", **part)
            case Rejected(code, detail):
                self._log.info("job_rejected", **line, outcome="rejected", code=code, detail=detail)
            case Dead(code, detail, causes):
                error = {"error": causes} if causes else {}
                self._log.error("job_dead", **line, outcome="dead", code=code, detail=detail, **error)
            case Retry(code, detail, causes):
                error = {"error": causes} if causes else {}
                self._log.warning("job_retried", **line, outcome="retry", code=code, detail=detail, **error)
            case Release(detail):
                self._log.warning("job_released", **line, outcome="release", detail=detail)


def _usual(claim: Claim, attempt: Attempt, run_ms: float) -> bool:
    """Whether a job was done at its first try, in a short time."""
    return isinstance(attempt, Done) and claim.tries == 1 and not claim.redelivered and run_ms < SLOW_MS


def in_sample(job_id: str, part: float) -> bool:
    """Whether a job is one of a part of all jobs. Its id alone decides, so every process says the same of it.

    >>> in_sample("import-7", 1), in_sample("import-7", 0)
    (True, False)
    >>> sum(in_sample(f"import-{number}", 0.01) for number in range(100_000))
    1003
    """
    return zlib.crc32(job_id.encode()) < part * 2**32


def loggable(job_id: bytes) -> str | None:
    """The id as logs may hold it: None when it is no job id, for then it may be anything.

    >>> loggable(b"import-7@user:42"), loggable(b"ada@example.com, hunter2"), loggable(b"\\xff")
    ('import-7@user:42', None, None)
    """
    return told_id(job_id.decode("ascii", "replace"))
