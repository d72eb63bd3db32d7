"""Does a try leave the line that it should, and no other: with what it came to, and nothing that may be anything?"""

from collections.abc import Callable

import pytest

from tests.unit.written import Written, lines
from worker.engine.job_log import SLOW_MS, Journal, in_sample
from worker.engine.transaction import Claim
from worker.model.failures import causes
from worker.model.outcome import Attempt, Dead, Done, Rejected, Release, Retry

HASH = "$2b$12$abcdefghijklmnopqrstuuKbQ8Y7rP5Zc0mD3vXw9sT1nL6eH2jGa"
EMAIL = "ada@example.com"
SECRETS = (HASH, EMAIL)
SAMPLE = 0.25
IN_SAMPLE = next(f"job-{number}" for number in range(100) if in_sample(f"job-{number}", SAMPLE))
NOT_IN_SAMPLE = next(f"job-{number}" for number in range(100) if not in_sample(f"job-{number}", SAMPLE))


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (Done(f'{{"email":"{EMAIL}"}}'), {"event": "job_done", "level": "info", "outcome": "done"}),
        (
            Rejected("conflict", "email is already taken"),
            {"event": "job_rejected", "level": "info", "code": "conflict", "detail": "email is already taken"},
        ),
        (Dead("failed", "LookupError"), {"event": "job_dead", "level": "error", "code": "failed"}),
        (Retry("timeout", "TimeoutError"), {"event": "job_retried", "level": "warning", "code": "timeout"}),
        (Release("away"), {"event": "job_released", "level": "warning", "outcome": "release", "detail": "away"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_try_leaves_one_line_without_its_fields(
    written: Callable[..., Written], attempt: Attempt, expected: dict[str, str]
) -> None:
    read = written()
    claim = Claim("import-7@user:42", "create_user", {"email": EMAIL, "hashed_password": HASH}, 2)

    Journal().attempt(claim, attempt, wait_ms=1.26, run_ms=2.0)

    (line,) = lines(read)
    assert line | expected == line
    assert (line["job_id"], line["job"], line["try"]) == ("import-7@user:42", "create_user", 2)
    assert (line["wait_ms"], line["run_ms"]) == (1.3, 2.0)
    assert "redelivered" not in line
    assert not any(secret in read() for secret in SECRETS)


def test_a_redelivery_says_so_and_what_is_no_id_is_not_told(written: Callable[..., Written]) -> None:
    read = written()
    claim = Claim(f"not an id: {EMAIL}", "create_user", {}, 1, redelivered=True)
    Journal().attempt(claim, Dead("undecodable", "a job id must match"), wait_ms=0, run_ms=0)
    (line,) = lines(read)
    assert line["redelivered"] is True
    assert line["job_id"] is None
    assert EMAIL not in read()


ATTEMPTS: list[Attempt] = [
    Done("{}"), Rejected("cancelled", "cancelled"), Dead("crashed", "it crashed"), Dead("unknown_job", "unknown"),
    Retry("failed", "it failed"), Release("away"),
]  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=repr)
def test_a_name_that_nobody_here_knows_is_not_told_whatever_becomes_of_the_job(
    written: Callable[..., Written], attempt: Attempt
) -> None:
    read = written()
    journal = Journal({"create_user"})
    journal.attempt(Claim("job-1", "ada.lovelace", {}, 1), attempt, wait_ms=0, run_ms=0)
    journal.attempt(Claim("job-2", "create_user", {}, 1), attempt, wait_ms=0, run_ms=0)
    assert [line["job"] for line in lines(read)] == ["unknown", "create_user"]
    assert "lovelace" not in read()


def test_what_a_job_failed_of_is_told_as_a_chain(written: Callable[..., Written]) -> None:
    read = written()
    told = causes(LookupError(EMAIL))
    for attempt in (Retry("failed", "LookupError", told), Dead("failed", "LookupError", told)):
        Journal().attempt(Claim("job-1", "create_user", {}, 1), attempt, wait_ms=0, run_ms=0)
    assert [(line["detail"], line["error"]) for line in lines(read)] == [("LookupError", [{"type": "LookupError"}])] * 2


# Sampling


def test_of_usual_successes_those_in_the_sample_are_told_and_say_so(written: Callable[..., Written]) -> None:
    read = written()
    for journal in (Journal(success_sample=SAMPLE), Journal()):
        for job_id in (IN_SAMPLE, NOT_IN_SAMPLE):
            journal.attempt(Claim(job_id, "create_user", {}, 1), Done("{}"), wait_ms=5000, run_ms=SLOW_MS - 1)
    assert [(line["job_id"], line.get("sampled")) for line in lines(read)] == [
        (IN_SAMPLE, SAMPLE), (IN_SAMPLE, None), (NOT_IN_SAMPLE, None),
    ]  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS[1:], ids=repr)
def test_all_but_successes_are_always_told(written: Callable[..., Written], attempt: Attempt) -> None:
    read = written()
    Journal(success_sample=0).attempt(Claim("job-1", "create_user", {}, 1), attempt, wait_ms=0, run_ms=0)
    (line,) = lines(read)
    assert "sampled" not in line


@pytest.mark.parametrize(
    ("claim", "run_ms"),
    [
        (Claim("job-1", "create_user", {}, 2), 1.0),
        (Claim("job-1", "create_user", {}, 1, redelivered=True), 1.0),
        (Claim("job-1", "create_user", {}, 1), SLOW_MS),
    ],
    ids=["at a later try", "redelivered", "slow"],
)
def test_so_are_successes_that_are_not_the_usual_ones(
    written: Callable[..., Written], claim: Claim, run_ms: float
) -> None:
    read = written()
    Journal(success_sample=0).attempt(claim, Done("{}"), wait_ms=0, run_ms=run_ms)
    (line,) = lines(read)
    assert (line["event"], "sampled" in line) == ("job_done", False)
