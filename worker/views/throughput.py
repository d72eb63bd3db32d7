"""What the last two minutes were like: throughput and waiting times from counts that only ever grow."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.queue.counters import BOUNDS_SECONDS, OUTCOMES, Counters, Histogram

KEEP_SECONDS = 120.0
WINDOW_SECONDS = 10.0
"""Waiting times are those of the tries that began within so long."""
GAP_SECONDS = 5.0
"""Nobody watched for longer than this: nothing is said of what was between."""
SHARES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Point:
    """One look. None: nothing can be said."""

    at_seconds: float
    rates: Mapping[str, float] | None
    """Outcome -> jobs a second since the look before."""
    waits: Mapping[str, float] | None
    """`p50`, `p95`, `p99` -> seconds."""


@dataclass(frozen=True, slots=True)
class _Counts:
    at_seconds: float
    ended: Mapping[str, int]
    wait: Histogram


@dataclass(slots=True)
class History:
    """The looks of the last two minutes."""

    points: deque[Point] = field(default_factory=deque)
    _window: deque[_Counts] = field(default_factory=deque)

    def add(self, at_seconds: float, tallies: Counters | None) -> Point:
        """Take in what a look has found; None when it found nothing."""
        point = Point(at_seconds, None, None) if tallies is None else self._compare(_counts(at_seconds, tallies))
        if tallies is None:
            self._window.clear()
        self.points.append(point)
        while at_seconds - self.points[0].at_seconds > KEEP_SECONDS:
            self.points.popleft()
        return point

    def _compare(self, now: _Counts) -> Point:
        if self._window and not _follows(self._window[-1], now):
            self._window.clear()
        before = self._window[-1] if self._window else None
        self._window.append(now)
        while now.at_seconds - self._window[1 % len(self._window)].at_seconds >= WINDOW_SECONDS:
            self._window.popleft()
        if before is None:
            return Point(now.at_seconds, None, None)
        seconds = max(now.at_seconds - before.at_seconds, 0.001)
        rates = {outcome: (amount - before.ended[outcome]) / seconds for outcome, amount in now.ended.items()}
        recent = now.wait.since(self._window[0].wait)
        waits = {name: value for name, share in SHARES.items() if (value := recent.quantile(share)) is not None}
        return Point(now.at_seconds, rates, waits or None)


def _counts(at_seconds: float, tallies: Counters) -> _Counts:
    ended = dict.fromkeys(OUTCOMES, 0)
    for (_, outcome, _), amount in tallies.ended.items():
        ended[outcome] += amount
    wait = Histogram(BOUNDS_SECONDS)
    for histogram in tallies.wait.values():
        for number, amount in enumerate(histogram.counts):
            wait.add(number, amount)
    return _Counts(at_seconds, ended, wait)


def _follows(before: _Counts, now: _Counts) -> bool:
    """Whether one look can be compared with the next: it is not long ago, and nobody has emptied Redis."""
    grown = all(now.ended[outcome] >= amount for outcome, amount in before.ended.items())
    return grown and now.at_seconds - before.at_seconds <= GAP_SECONDS
