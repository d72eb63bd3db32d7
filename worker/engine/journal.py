"""The one line that a job leaves in the log each time it was tried."""

from typing import Any

import structlog

from producers import ids
from worker.engine.outcome import Attempt, Dead, Done, Rejected, Release, Retry
from worker.engine.transaction import Claim


class Journal:
    """Writes the lines. Make one when logs are configured: its logger is bound once, not once a line."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("worker.job").bind()

    def attempt(self, claim: Claim, attempt: Attempt, *, wait_ms: float, run_ms: float) -> None:
        """Say what one try of a job came to."""
        line: dict[str, Any] = {
            # What is read from Redis may be anything, and so may a name that nobody here knows.
            "job_id": claim.job_id if ids.is_job_id(claim.job_id) else None,
            "job": None if isinstance(attempt, Dead) and attempt.code == "unknown_job" else claim.job,
            "try": claim.tries,
            "wait_ms": round(wait_ms, 1),
            "run_ms": round(run_ms, 1),
        }
        if claim.redelivered:
            line["redelivered"] = True
        match attempt:
            case Done():
                self._log.info("job_done", outcome="done", **line)
            case Rejected(code, detail):
                self._log.info("job_rejected", outcome="rejected", code=code, detail=detail, **line)
            case Dead(code, detail):
                self._log.error("job_dead", outcome="dead", code=code, detail=detail, **line)
            case Retry(code, detail):
                self._log.warning("job_retried", outcome="retry", code=code, detail=detail, **line)
            case Release(detail):
                self._log.warning("job_released", outcome="release", detail=detail, **line)


def loggable(job_id: bytes) -> str | None:
    """The id as logs may hold it: None when it is no job id, for then it may be anything.

    >>> loggable(b"import-7@user:42"), loggable(b"ada@example.com, hunter2"), loggable(b"\\xff")
    ('import-7@user:42', None, None)
    """
    text = job_id.decode("ascii", "replace")
    return text if ids.is_job_id(text) else None
