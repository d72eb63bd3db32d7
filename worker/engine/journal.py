"""The one line that a job leaves in the log each time it was tried."""

from typing import Any

import structlog

from producers import ids
from worker.engine.outcome import Attempt, Dead, Done, Rejected, Release, Retry
from worker.engine.transaction import Claim

log = structlog.get_logger("worker.job")


def log_attempt(claim: Claim, attempt: Attempt, *, wait_ms: float, run_ms: float) -> None:
    """The one line that a job leaves in the log each time it was tried."""
    line: dict[str, Any] = {
        # What is no job id may hold anything.
        "job_id": claim.job_id if ids.is_job_id(claim.job_id) else None,
        "job": claim.job,
        "try": claim.tries,
        "wait_ms": round(wait_ms, 1),
        "run_ms": round(run_ms, 1),
    }
    if claim.redelivered:
        line["redelivered"] = True
    match attempt:
        case Done():
            log.info("job_done", outcome="done", **line)
        case Rejected(code, detail):
            log.info("job_rejected", outcome="rejected", code=code, detail=detail, **line)
        case Dead(code, detail):
            log.error("job_dead", outcome="dead", code=code, detail=detail, **line)
        case Retry(code, detail):
            log.warning("job_retried", outcome="retry", code=code, detail=detail, **line)
        case Release(detail):
            log.warning("job_released", outcome="release", detail=detail, **line)
