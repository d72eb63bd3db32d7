"""An attempt leaves one line with its result, and nothing that could hold a value."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.jobs import HASH, claimed_job
from tests.unit.written import Written, lines
from worker.engine.job_log import SLOW_MS, JobLog, in_sample
from worker.model.failures import causes
from worker.model.job import Attempt
from worker.model.outcome import AttemptResult, Dead, Done, Rejected, Release, Retry

EMAIL = "ada@example.com"
KNOWN = {"create_user"}
SAMPLE = 0.25
IN_SAMPLE = next(f"job-{number}" for number in range(100) if in_sample(f"job-{number}", SAMPLE))
NOT_IN_SAMPLE = next(f"job-{number}" for number in range(100) if not in_sample(f"job-{number}", SAMPLE))

RESULTS: list[AttemptResult] = [
    Done(f'{{"email":"{EMAIL}"}}'), Rejected("conflict", "email is already taken"), Dead("failed", "LookupError"),
    Dead("unknown_job", "unknown"), Retry("timeout", "TimeoutError"), Release("the database is down"),
]  # fmt: skip
EVENTS: list[dict[str, str]] = [
    {"event": "job_done", "level": "info", "outcome": "done"},
    {"event": "job_rejected", "level": "info", "code": "conflict", "detail": "email is already taken"},
    {"event": "job_dead", "level": "error", "code": "failed"},
    {"event": "job_dead", "level": "error", "code": "unknown_job"},
    {"event": "job_retried", "level": "warning", "code": "timeout"},
    {"event": "job_released", "level": "warning", "outcome": "release", "detail": "the database is down"},
]


@pytest.fixture
def write(written: Callable[..., Written]) -> Callable[..., dict[str, Any] | None]:
    """Writes an attempt. Returns its line, or None when there is none."""
    read = written()

    def write_one(
        attempt: Attempt, *, sample: float = 1.0, wait_ms: float = 0.0, run_ms: float = 0.0
    ) -> dict[str, Any] | None:
        before = len(lines(read))
        JobLog(KNOWN, sample).write(attempt, wait_ms=wait_ms, run_ms=run_ms)
        new: list[dict[str, Any]] = lines(read)[before:]
        assert len(new) <= 1
        assert not any(secret in read() for secret in (EMAIL, HASH, "lovelace"))
        return new[0] if new else None

    return write_one


@pytest.mark.parametrize(("result", "expected"), list(zip(RESULTS, EVENTS, strict=True)), ids=repr)
def test_an_attempt_leaves_one_line_without_its_fields(
    write: Callable[..., Any], result: AttemptResult, expected: dict[str, str]
) -> None:
    line = write(Attempt(claimed_job(job_id="import-7@user:42", attempt=2), result), wait_ms=1.26, run_ms=2.0)

    assert line | expected == line
    assert (line["job_id"], line["job"], line["attempt"]) == ("import-7@user:42", "create_user", 2)
    assert (line["wait_ms"], line["run_ms"]) == (1.3, 2.0)
    assert "redelivered" not in line


def test_a_redelivery_is_marked_and_an_invalid_id_is_left_out(write: Callable[..., Any]) -> None:
    job = claimed_job(job_id=f"not an id: {EMAIL}")
    line = write(Attempt(job, Dead("undecodable", "a job id must match"), redelivered=True))
    assert line["redelivered"] is True
    assert line["job_id"] is None


@pytest.mark.parametrize("result", RESULTS, ids=repr)
def test_an_unknown_name_is_left_out_whatever_the_result(write: Callable[..., Any], result: AttemptResult) -> None:
    assert write(Attempt(claimed_job("ada.lovelace"), result))["job"] == "unknown"


@pytest.mark.parametrize("failure", [Retry, Dead])
def test_a_failure_is_logged_with_its_chain(write: Callable[..., Any], failure: type[Retry | Dead]) -> None:
    line = write(Attempt(claimed_job(), failure("failed", "LookupError", causes(LookupError(EMAIL)))))
    assert (line["detail"], line["error"]) == ("LookupError", [{"type": "LookupError"}])


# Sampling


def test_a_usual_success_is_logged_when_it_is_in_the_sample(write: Callable[..., Any]) -> None:
    def sampled(job_id: str, sample: float) -> object:
        attempt = Attempt(claimed_job(job_id=job_id), Done("{}"))
        line = write(attempt, sample=sample, wait_ms=5000, run_ms=SLOW_MS - 1)
        return line and line.get("sampled", "not sampled")

    assert (sampled(IN_SAMPLE, SAMPLE), sampled(NOT_IN_SAMPLE, SAMPLE)) == (SAMPLE, None)
    assert (sampled(IN_SAMPLE, 1), sampled(NOT_IN_SAMPLE, 1)) == ("not sampled", "not sampled")


@pytest.mark.parametrize(
    ("attempt", "run_ms"),
    [
        *((Attempt(claimed_job(), result), 0.0) for result in RESULTS[1:]),
        (Attempt(claimed_job(attempt=2), Done("{}")), 1.0),
        (Attempt(claimed_job(), Done("{}"), redelivered=True), 1.0),
        (Attempt(claimed_job(), Done("{}")), SLOW_MS),
    ],
)
def test_everything_but_a_usual_success_is_always_logged(
    write: Callable[..., Any], attempt: Attempt, run_ms: float
) -> None:
    assert "sampled" not in write(attempt, sample=0, run_ms=run_ms)
