"""What the last two minutes were like: throughput and waiting times from counts that only ever grow."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

KEEP_SECONDS = 120.0
WINDOW_SECONDS = 10.0
"""Waiting times are those of the jobs that began within so long."""
GAP_SECONDS = 5.0
"""Nobody watched for longer than this: nothing is said of what was between."""
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the queue's beginning.

    Attributes:
        ended: outcome -> how many jobs came to it.
        waited: how many jobs waited for up to each of the bounds; one more at the end: for longer.
        bounds: those bounds, in seconds.
    """

    ended: dict[str, int]
    waited: Sequence[int]
    bounds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Point:
    """One look. None: nothing can be said."""

    at_seconds: float
    rates: dict[str, float] | None
    """Outcome -> jobs a second since the look before."""
    waits: dict[str, float] | None
    """`p50`, `p95`, `p99` -> seconds, of the jobs that began within the window."""


@dataclass(slots=True)
class History:
    """The looks of the last two minutes."""

    points: deque[Point] = field(default_factory=deque)
    _totals: deque[tuple[float, Totals]] = field(default_factory=deque)

    def add(self, at_seconds: float, totals: Totals | None) -> Point:
        """Take a look's totals in; None when there were none to be had."""
        if totals is None:
            self._totals.clear()
            point = Point(at_seconds, None, None)
        else:
            if self._totals and not _follows(self._totals[-1], (at_seconds, totals)):
                self._totals.clear()
            before = self._totals[-1] if self._totals else None
            self._totals.append((at_seconds, totals))
            while len(self._totals) > 2 and at_seconds - self._totals[1][0] >= WINDOW_SECONDS:  # noqa: PLR2004
                self._totals.popleft()
            rates = None if before is None else _rates(before, (at_seconds, totals))
            point = Point(at_seconds, rates, _waits(self._totals[0][1], totals))
        self.points.append(point)
        while at_seconds - self.points[0].at_seconds > KEEP_SECONDS:
            self.points.popleft()
        return point


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """What this share of them is below, evenly spread within their bucket; the last bound when it is beyond that.

    >>> quantile([10, 10, 0], [1.0, 2.0], 0.5), quantile([0, 0, 3], [1.0, 2.0], 0.5), quantile([0, 0, 0], [1.0, 2.0], 1)
    (1.0, 2.0, None)
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for number, (amount, bound) in enumerate(zip(counts, bounds, strict=False)):
        if amount and below + amount >= wanted:
            low = bounds[number - 1] if number else 0.0
            return low + (bound - low) * (wanted - below) / amount
        below += amount
    return bounds[-1]


def _follows(before: tuple[float, Totals], now: tuple[float, Totals]) -> bool:
    """Whether one look can be compared with the next: it is not long ago, and nobody has emptied Redis."""
    (then, had), (at, has) = before, now
    grown = all(has.ended.get(outcome, 0) >= amount for outcome, amount in had.ended.items())
    same = list(had.bounds) == list(has.bounds) and len(had.waited) == len(has.waited)
    return grown and same and at - then <= GAP_SECONDS


def _rates(before: tuple[float, Totals], now: tuple[float, Totals]) -> dict[str, float]:
    (then, had), (at, has) = before, now
    seconds = max(at - then, 0.001)
    return {outcome: (amount - had.ended.get(outcome, 0)) / seconds for outcome, amount in has.ended.items()}


def _waits(had: Totals, has: Totals) -> dict[str, float] | None:
    counts = [max(0, now - then) for now, then in zip(has.waited, had.waited, strict=True)]
    found = {name: quantile(counts, has.bounds, share) for name, share in SHARES.items()}
    return {name: value for name, value in found.items() if value is not None} or None
