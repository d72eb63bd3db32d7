"""The counts that settlements add and those that are read agree, whatever else is written there."""

from typing import Any

import pytest

from tests.jobs import claimed_job
from worker.model.job import Attempt
from worker.model.outcome import AttemptResult, Dead, Done, Rejected, Release, Retry
from worker.queue.counters import (
    BOUNDS_JOBS,
    BOUNDS_SECONDS,
    OUTCOMES,
    Counters,
    Histogram,
    format_counts,
    parse_counters,
)  # fmt: skip


def counters_of(*attempts: Attempt, **facts: Any) -> Counters:
    """The counters after these attempts, added up as the scripts do it (see tests/faults/test_queue_model.py)."""
    fields: dict[str, int] = {}
    for number, attempt in enumerate(attempts):
        batch = {"counts_batch": number == 0} if "batch_size" in facts else {}
        formatted = format_counts(attempt, {"create_user"}, **{"wait_ms": 0.0, "run_ms": 0.0, **facts, **batch})
        label, wait, run, wait_us, run_us, *more = formatted.split(" ")
        amounts = [(f"{label} {wait} {run}", 1), (f"{label} wait_us", int(wait_us)), (f"{label} run_us", int(run_us))]
        amounts += [(name, int(amount)) for name, amount in zip(more[::2], more[1::2], strict=True)]
        for name, amount in amounts:
            fields[name] = fields.get(name, 0) + amount
    assert "ada" not in "".join(fields)
    return parse_counters({name.encode(): str(amount).encode() for name, amount in fields.items()})


@pytest.mark.parametrize(
    ("result", "key"),
    [
        (Done("null"), ("create_user", "done", "")),
        (Rejected("conflict", "taken"), ("create_user", "rejected", "conflict")),
        (Dead("failed", "broken"), ("create_user", "dead", "failed")),
        (Retry("timeout", "slow"), ("create_user", "retry", "timeout")),
        (Release("down"), ("create_user", "release", "")),
    ],
)
def test_an_attempt_is_read_as_it_was_counted(result: AttemptResult, key: tuple[str, str, str]) -> None:
    found = counters_of(Attempt(claimed_job(), result), wait_ms=3.0, run_ms=1500.0)

    assert found.attempts == {key: 1}
    assert found.ended == ({key: 1} if key[1] in OUTCOMES else {})
    assert found.wait["create_user"].counts[BOUNDS_SECONDS.index(0.005)] == 1
    assert found.run["create_user"].counts[BOUNDS_SECONDS.index(2.5)] == 1
    assert (found.wait["create_user"].total, found.run["create_user"].total) == (0.003, 1.5)


def test_unknown_names_are_counted_together() -> None:
    found = counters_of(*(Attempt(claimed_job(name), Rejected("cancelled", "")) for name in ("ada@example.com", "ada")))
    assert found.ended == {("unknown", "rejected", "cancelled"): 2}


def test_redeliveries_count_as_outcomes_too() -> None:
    found = counters_of(*(Attempt(claimed_job(), Done(""), redelivered=again) for again in (False, True, True)))
    assert found.ended == {("create_user", "done", ""): 3}
    assert found.redelivered == {"create_user": 2}


def test_a_batch_is_counted_once_with_its_jobs_and_splits() -> None:
    found = counters_of(*(Attempt(claimed_job(), Done(""), splits=splits) for splits in (3, 0, 0, 0, 0)), batch_size=5)
    assert (found.batches.count, found.batches.total, found.splits) == (1, 5, 3)
    assert found.batches.counts[BOUNDS_JOBS.index(8)] == 1


@pytest.mark.parametrize("bound", range(len(BOUNDS_SECONDS)))
def test_a_duration_equal_to_a_bound_is_under_it_as_in_prometheus(bound: int) -> None:
    at = BOUNDS_SECONDS[bound] * 1000
    for wait_ms, expected in ((at, bound), (at * 1.001, bound + 1)):
        found = counters_of(Attempt(claimed_job(), Done("")), wait_ms=wait_ms)
        assert found.wait["create_user"].counts[expected] == 1


def test_fields_that_are_no_counters_are_ignored() -> None:
    hostile = {
        b"": b"1", b"x" * 100_000: b"1", b"\xff\x00": b"7", b"a/b 1 2": b"1", b"a/b/c/d/e 1 2": b"1",
        b"batch:-1": b"1", b"batch:99999": b"1", b"batch:many": b"1", b"splits": b"-4", b"leases_lost": b"many",
        b"create_user/done/ 1 2": b"", b"create_user/done/ wait_us": b"nan", b"create_user/done/ 1 2 3": b"4",
    }  # fmt: skip

    found = parse_counters(hostile)

    assert (found.attempts, found.batches, found.splits, found.leases_lost) == ({}, Counters().batches, 0, 0)


def test_a_histogram_since_an_earlier_one_has_the_values_added() -> None:
    before, now = Histogram((1.0, 2.0), [1, 0, 0], 0.5), Histogram((1.0, 2.0), [1, 4, 0], 6.5)

    assert now.since(before) == Histogram((1.0, 2.0), [0, 4, 0], 6.0)
    assert before.since(now).count == 0  # the counters were deleted meanwhile
