"""The page of the fault suite shows the results of its runs."""

from collections import Counter

from tests.faults.fuzzing import Fuzzed
from tests.faults.nemesis import How, Run
from tests.faults.report import Campaign, page
from tests.faults.verdict import Verdict


def campaign(*runs: Run, fuzzed: Fuzzed | None = None) -> Campaign:
    return Campaign(runs, fuzzed, [], "python -m tests.faults --minutes 20", "PostgreSQL 18", 20.0)


def broken() -> Verdict:
    verdict = Verdict()
    verdict.add("I1", "no outcome: a", "no outcome: b")
    verdict.add("I2", "2 effects, must be 1: c")
    verdict.add("I4", "user:1: outcome of e before d")
    verdict.add("I7", "not within 15 s")
    return verdict


GOOD = Run("kill", How(1), 1000, 12, 3.21, Verdict())
BATCHES = Run("kill", How(2, batch=20), 9000, 30, 1.5, Verdict())
BAD = Run("reset", How(7, seconds=8), 10, 1, 15.0, broken())


def test_a_row_is_a_nemesis_in_one_of_its_forms_and_the_last_is_all() -> None:
    rows = page(campaign(GOOD, BATCHES, BAD)).splitlines()

    assert "| kill | 1 | 1,000 | 12 | 0 | 0 | 0 | 0 | 3.2 |" in rows
    assert "| kill, batches | 1 | 9,000 | 30 | 0 | 0 | 0 | 0 | 1.5 |" in rows
    assert "| reset | 1 | 10 | 1 | 2 | 1 | 1 | 1 | 15.0 |" in rows
    assert "| **all** | 3 | 10,010 | 43 | 2 | 1 | 1 | 1 | 15.0 |" in rows
    assert "the promise is 15 s" in page(campaign(GOOD))


def test_a_failure_is_named_with_the_command_that_repeats_it() -> None:
    fuzzed = Fuzzed(9, Counter(payloads=50_400), "FAILED test_no_payload")

    text = page(campaign(BAD, fuzzed=fuzzed))

    assert "- `python -m tests.faults --only reset --seed 7 --batch 1 --seconds 8`: I1, I2, I4, I7" in text
    assert f"- `{fuzzed.command}`: fuzzing" in text
    assert "FAULTS_SEED=9 " in fuzzed.command
    assert "| payloads | 50,400 |" in text
    assert "No run broke" not in text
