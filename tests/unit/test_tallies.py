"""Do the counts that settlements make and those that are read agree, whatever else is written there?"""

import pytest
from worker.queue.counters import Counters, Histogram, parse

from worker.engine.transaction import Claim
from worker.model.outcome import Attempt, Dead, Done, Rejected, Release, Retry
from worker.queue.counters import BOUNDS_JOBS, BOUNDS_SECONDS, tally

NAMES = {"create_user"}


def written(*tallies: str) -> dict[bytes, bytes]:
    """What the scripts make of tallies; tests/faults/test_queue_model.py tries them themselves."""
    fields: dict[str, int] = {}
    for counted in tallies:
        label, wait, run, wait_us, run_us, *more = counted.split(" ")
        amounts = [(f"{label} {wait} {run}", 1), (f"{label} wait_us", int(wait_us)), (f"{label} run_us", int(run_us))]
        amounts += [(name, int(amount)) for name, amount in zip(more[::2], more[1::2], strict=True)]
        for name, amount in amounts:
            fields[name] = fields.get(name, 0) + amount
    return {name.encode(): str(amount).encode() for name, amount in fields.items()}


def claim(job: str = "create_user", **changes: object) -> Claim:
    made = Claim("job-1", job, {}, 1)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("attempt", "key"),
    [
        (Done("null"), ("create_user", "done", "")),
        (Rejected("conflict", "taken"), ("create_user", "rejected", "conflict")),
        (Dead("failed", "broken"), ("create_user", "dead", "failed")),
        (Retry("timeout", "slow"), ("create_user", "retry", "timeout")),
        (Release("away"), ("create_user", "release", "")),
    ],
)
def test_a_try_is_read_as_it_was_counted(attempt: Attempt, key: tuple[str, str, str]) -> None:
    found = parse(written(tally(claim(), attempt, NAMES, wait_ms=3.0, run_ms=1500.0)))

    assert found.tries == {key: 1}
    assert found.ended == ({key: 1} if key[1] in ("done", "rejected", "dead") else {})
    assert found.wait["create_user"].counts[BOUNDS_SECONDS.index(0.005)] == 1
    assert found.run["create_user"].counts[BOUNDS_SECONDS.index(2.5)] == 1
    assert (found.wait["create_user"].total, found.run["create_user"].total) == (0.003, 1.5)


def test_names_that_nobody_knows_are_counted_together() -> None:
    """They may be anything, and any number."""
    counted = tally(claim("ada@example.com"), Rejected("cancelled", ""), NAMES, wait_ms=0, run_ms=0)

    assert "ada" not in counted
    assert parse(written(counted)).ended == {("unknown", "rejected", "cancelled"): 1}


def test_redeliveries_are_outcomes_too() -> None:
    counted = [tally(claim(redelivered=again), Done(""), NAMES, wait_ms=0, run_ms=0) for again in (False, True, True)]

    found = parse(written(*counted))

    assert found.ended == {("create_user", "done", ""): 3}
    assert found.redelivered == {"create_user": 2}


def test_batches_and_splits() -> None:
    counted = [
        tally(claim(splits=3 * (n == 0)), Done(""), NAMES, wait_ms=0, run_ms=0, together=5, heads=n == 0)
        for n in range(5)
    ]

    found = parse(written(*counted))

    assert (found.batches.count, found.batches.total, found.splits) == (1, 5, 3)
    assert found.batches.counts[BOUNDS_JOBS.index(8)] == 1


@pytest.mark.parametrize("bound", range(len(BOUNDS_SECONDS)))
def test_a_time_lies_under_its_bound(bound: int) -> None:
    """As Prometheus has it: a value equal to a bound is under it."""
    at = BOUNDS_SECONDS[bound] * 1000
    for wait_ms, expected in ((at, bound), (at * 1.001, bound + 1)):
        found = parse(written(tally(claim(), Done(""), NAMES, wait_ms=wait_ms, run_ms=0)))
        assert found.wait["create_user"].counts[expected] == 1


def test_what_is_no_count_is_passed_over() -> None:
    hostile = {
        b"": b"1", b"x" * 100_000: b"1", b"\xff\x00": b"7", b"a/b 1 2": b"1", b"a/b/c/d/e 1 2": b"1",
        b"batch:-1": b"1", b"batch:99999": b"1", b"batch:many": b"1", b"splits": b"-4", b"leases_lost": b"many",
        b"create_user/done/ 1 2": b"", b"create_user/done/ wait_us": b"nan", b"create_user/done/ 1 2 3": b"4",
    }  # fmt: skip

    found = parse(hostile)

    assert (found.tries, found.batches, found.splits, found.leases_lost) == ({}, Counters().batches, 0, 0)


def test_what_came_since() -> None:
    before = Histogram((1.0, 2.0), [1, 0, 0], 0.5)
    now = Histogram((1.0, 2.0), [1, 4, 0], 6.5)

    assert now.since(before) == Histogram((1.0, 2.0), [0, 4, 0], 6.0)
    assert before.since(now).count == 0  # somebody has deleted the counts
