"""A job that failed waits longer and longer, up to a bound, and at random."""

import random
import statistics

import pytest

from worker.model.backoff import BASE_SECONDS, CAP_SECONDS, backoff_seconds


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (5000, 60), (10**9, 60)]
)
def test_the_longest_wait_doubles_up_to_the_cap(monkeypatch: pytest.MonkeyPatch, failures: int, longest: float) -> None:
    def highest(low: float, high: float) -> float:
        assert low == 0
        return high

    monkeypatch.setattr(random, "uniform", highest)
    assert backoff_seconds(failures) == longest


def test_waits_are_spread_over_the_whole_range() -> None:
    waits = [backoff_seconds(4) for _ in range(4000)]
    assert min(waits) >= 0
    assert max(waits) <= 8
    assert statistics.fmean(waits) == pytest.approx(4, abs=0.4)
    assert sum(wait < 1 for wait in waits) == pytest.approx(500, abs=150)


def test_base_and_cap_can_be_chosen() -> None:
    assert (BASE_SECONDS, CAP_SECONDS) == (1, 60)
    assert all(backoff_seconds(1, base=0.01) <= 0.01 for _ in range(100))
    assert all(backoff_seconds(50, base=10, cap=0.5) <= 0.5 for _ in range(100))
