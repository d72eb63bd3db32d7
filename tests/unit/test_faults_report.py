"""The page of the fault suite shows the results of its runs."""

from collections import Counter

from tests.faults.fuzz_run import FuzzResult
from tests.faults.nemesis import RunOptions, RunResult
from tests.faults.report import Campaign, render_page
from tests.faults.verdict import Verdict


def campaign(*runs: RunResult, fuzzed: FuzzResult | None = None) -> Campaign:
    return Campaign(runs, fuzzed, [], "python -m tests.faults --minutes 20", "PostgreSQL 18", 20.0)


def broken() -> Verdict:
    verdict = Verdict()
    verdict.add("I1", "no outcome: a", "no outcome: b")
    verdict.add("I2", "2 effects, must be 1: c")
    verdict.add("I4", "user:1: outcome of e before d")
    verdict.add("I7", "not within 15 s")
    return verdict


GOOD = RunResult("kill", RunOptions(1), 1000, 12, 3.21, Verdict())
BATCHES = RunResult("kill", RunOptions(2, batch=20), 9000, 30, 1.5, Verdict())
BAD = RunResult("reset", RunOptions(7, seconds=8), 10, 1, 15.0, broken())


def test_a_row_is_a_nemesis_in_one_of_its_forms_and_the_last_is_all() -> None:
    rows = render_page(campaign(GOOD, BATCHES, BAD)).splitlines()

    assert "| kill | 1 | 1,000 | 12 | 0 | 0 | 0 | 0 | 3.2 |" in rows
    assert "| kill, batches | 1 | 9,000 | 30 | 0 | 0 | 0 | 0 | 1.5 |" in rows
    assert "| reset | 1 | 10 | 1 | 2 | 1 | 1 | 1 | 15.0 |" in rows
    assert "| **all** | 3 | 10,010 | 43 | 2 | 1 | 1 | 1 | 15.0 |" in rows
    assert "the promise is 15 s" in render_page(campaign(GOOD))


def test_a_failure_is_named_with_the_command_that_repeats_it() -> None:
    fuzzed = FuzzResult(9, Counter(payloads=50_400), "FAILED test_no_payload")

    text = render_page(campaign(BAD, fuzzed=fuzzed))

    assert "- `python -m tests.faults --only reset --seed 7 --batch 1 --seconds 8`: I1, I2, I4, I7" in text
    assert f"- `{fuzzed.command}`: fuzzing" in text
    assert "FAULTS_SEED=9 " in fuzzed.command
    assert "| payloads | 50,400 |" in text
    assert "No run broke" not in text
