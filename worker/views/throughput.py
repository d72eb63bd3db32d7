"""Throughput and waiting times of the last two minutes, from counters that only grow."""

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.queue.counters import BOUNDS_SECONDS, OUTCOMES, Counters, Histogram, read_counters
from worker.views.status import Status, read_status

KEEP_SECONDS = 120.0
WINDOW_SECONDS = 10.0
"""Waiting times are those of the attempts that started within this time."""
GAP_SECONDS = 5.0
"""Two samples further apart are not compared: nothing watched the queue in between."""
PERCENTILES: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Sample:
    """Throughput and waiting times at one moment; None where they are unknown."""

    at_seconds: float
    rates: Mapping[str, float] | None
    """Outcome -> jobs per second since the sample before."""
    waits: Mapping[str, float] | None
    """`p50`, `p95`, `p99` -> seconds."""


@dataclass(frozen=True, slots=True)
class _Totals:
    at_seconds: float
    ended: Mapping[str, int]
    wait: Histogram


@dataclass(slots=True)
class History:
    """The samples of the last two minutes."""

    samples: deque[Sample] = field(default_factory=deque)
    _window: deque[_Totals] = field(default_factory=deque)

    def add(self, at_seconds: float, counters: Counters | None) -> Sample:
        """Append the sample of this moment. The counters are None when Redis did not answer."""
        sample = Sample(at_seconds, None, None) if counters is None else self._compare(_totals(at_seconds, counters))
        if counters is None:
            self._window.clear()
        self.samples.append(sample)
        while at_seconds - self.samples[0].at_seconds > KEEP_SECONDS:
            self.samples.popleft()
        return sample

    def _compare(self, now: _Totals) -> Sample:
        if self._window and not _is_continued(self._window[-1], now):
            self._window.clear()
        before = self._window[-1] if self._window else None
        self._window.append(now)
        while now.at_seconds - self._window[1 % len(self._window)].at_seconds >= WINDOW_SECONDS:
            self._window.popleft()
        if before is None:
            return Sample(now.at_seconds, None, None)
        seconds = max(now.at_seconds - before.at_seconds, 0.001)
        rates = {outcome: (total - before.ended[outcome]) / seconds for outcome, total in now.ended.items()}
        recent = now.wait.since(self._window[0].wait)
        waits = {name: value for name, share in PERCENTILES.items() if (value := recent.quantile(share)) is not None}
        return Sample(now.at_seconds, rates, waits or None)


def _totals(at_seconds: float, counters: Counters) -> _Totals:
    ended = dict.fromkeys(OUTCOMES, 0)
    for (_, outcome, _), count in counters.ended.items():
        ended[outcome] += count
    wait = Histogram(BOUNDS_SECONDS)
    for histogram in counters.wait.values():
        for number, count in enumerate(histogram.counts):
            wait.add(number, count)
    return _Totals(at_seconds, ended, wait)


def _is_continued(before: _Totals, now: _Totals) -> bool:
    """Whether the totals are comparable: recent, and not reset by a Redis that lost its data."""
    has_grown = all(now.ended[outcome] >= count for outcome, count in before.ended.items())
    return has_grown and now.at_seconds - before.at_seconds <= GAP_SECONDS


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One observation of the queue."""

    status: Status
    sample: Sample
    counters: Counters | None
    """None while Redis does not answer."""
    previous: Counters | None
    """The counters of the snapshot before."""
    seconds: float
    """Since the snapshot before."""


class SnapshotPoller:
    """Takes snapshots of a queue and keeps the last two minutes.

    Args:
        redis, engine: the servers.
        queue: the queue's name.
    """

    def __init__(self, redis: Redis, engine: AsyncEngine, queue: str) -> None:
        self._redis = redis
        self._engine = engine
        self._queue = queue
        self._counters: Counters | None = None
        self._at_seconds = 0.0
        self.history = History()

    async def poll(self) -> Snapshot:
        """Take a snapshot: about ten Redis commands, whatever the queue holds.

        Takes a few seconds at most. A server that does not answer is part of the snapshot and raises nothing.
        """
        found = await read_status(self._redis, self._queue, self._engine)
        counters = None
        if found.jobs is not None:
            with suppress(RedisError, OSError):  # Redis failed meanwhile: the next snapshot has the reason
                counters = await read_counters(self._redis, self._queue)
        now = time.monotonic()
        seconds, self._at_seconds = now - self._at_seconds, now
        previous, self._counters = self._counters, counters
        return Snapshot(found, self.history.add(now, counters), counters, previous, seconds)
