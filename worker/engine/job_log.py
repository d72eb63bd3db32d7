"""The log line of each attempt that is settled."""

import zlib
from collections.abc import Callable, Container
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog

from worker.model.job import Attempt
from worker.model.log_context import safe_job_id, safe_job_name
from worker.model.outcome import Dead, Done, Rejected, Release, Retry, label

SLOW_MS = 1000.0
"""An attempt that takes this long is logged whatever is sampled."""


class JobLog:
    """Writes the lines. Make it when logs are configured: its logger is bound once, not for each line.

    Args:
        known_names: the job types that are known here; any other name may be anything, and is not written.
        success_sample: the share of jobs, from 0 to 1, whose line is written when the first attempt is done quickly.
            Every other line is always written.
        buffer: opens a block whose lines are written at once, at its end.
    """

    def __init__(
        self,
        known_names: Container[str],
        success_sample: float = 1.0,
        buffer: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._log = structlog.get_logger("worker.job").bind()
        self.known_names = known_names
        self._success_sample = success_sample
        self.buffer = buffer

    def write(self, attempt: Attempt, *, wait_ms: float, run_ms: float) -> None:
        """Write the line of one attempt."""
        sampled = self._success_sample < 1 and _is_usual(attempt, run_ms)
        if not sampled or in_sample(attempt.job.job_id, self._success_sample):
            self._write(attempt, wait_ms, run_ms, sampled=sampled)

    def _write(self, attempt: Attempt, wait_ms: float, run_ms: float, *, sampled: bool) -> None:
        job = attempt.job
        line: dict[str, Any] = {
            "job_id": safe_job_id(job.job_id),
            "job": safe_job_name(job.name, self.known_names),
            "attempt": job.attempt,
            "wait_ms": round(wait_ms, 1),
            "run_ms": round(run_ms, 1),
            "outcome": label(attempt.result),
        }
        if attempt.redelivered:
            line["redelivered"] = True
        if attempt.trace is not None:
            line["trace_id"] = attempt.trace[0]
            line["span_id"] = attempt.trace[1]
        match attempt.result:
            case Done():
                sample = {"sampled": self._success_sample} if sampled else {}
                self._log.info("job_done", **line, **sample)
            case Rejected(code, detail):
                self._log.info("job_rejected", **line, code=code, detail=detail)
            case Dead(code, detail, causes):
                error = {"error": causes} if causes else {}
                self._log.error("job_dead", **line, code=code, detail=detail, **error)
            case Retry(code, detail, causes):
                error = {"error": causes} if causes else {}
                self._log.warning("job_retried", **line, code=code, detail=detail, **error)
            case Release(detail):
                self._log.warning("job_released", **line, detail=detail)


def _is_usual(attempt: Attempt, run_ms: float) -> bool:
    """Whether a job was done at its first attempt, quickly."""
    first = attempt.job.attempt == 1 and not attempt.redelivered
    return first and isinstance(attempt.result, Done) and run_ms < SLOW_MS


def in_sample(job_id: str, share: float) -> bool:
    """Whether a job belongs to a share of all jobs. Its id alone decides, so every process decides the same.

    >>> in_sample("import-7", 1), in_sample("import-7", 0)
    (True, False)
    >>> sum(in_sample(f"import-{number}", 0.01) for number in range(100_000))
    1003
    """
    return zlib.crc32(job_id.encode()) < share * 2**32
