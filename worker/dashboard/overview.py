"""What the overview shows, one look at a time: asked for once, filled in once, for all who watch."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.dashboard.charts import Chart, Value, chart
from worker.dashboard.context import Backend
from worker.dashboard.events import Parts
from worker.dashboard.templating import Pages
from worker.queue.counters import OUTCOMES
from worker.queue.status import Status
from worker.views.formatting import rate, span
from worker.views.look import look
from worker.views.throughput import KEEP_SECONDS, History, Point

PARTS = ("notice", "servers", "figures", "states", "throughput", "throughput_rows", "waits", "waits_rows", "workers")
"""The parts of the page that are kept up to date; each has a template of its name."""
WAITS = {"p50": "half of them, up to", "p95": "19 in 20, up to", "p99": "99 in 100, up to"}
MOST_WORKERS = 100


@dataclass(frozen=True, slots=True)
class State:
    """A part of the queue: how many jobs, and how much of all in the queue, in percent."""

    name: str
    jobs: int
    percent: float
    start: float
    """Where its piece of the bar begins, in percent."""


class Overview:
    """Asks, remembers the last two minutes, and fills in the parts.

    Args:
        backend: what is asked.
        pages: fills in.
    """

    def __init__(self, backend: Backend, pages: Pages) -> None:
        self._backend = backend
        self._pages = pages
        self._history = History()

    async def look(self) -> Parts:
        """Ask both servers: some ten commands, whatever the queue holds. Takes a few seconds at the most."""
        found, counted = await look(self._backend.redis, self._backend.queue, self._backend.engine)
        point = self._history.add(time.monotonic(), counted)
        return self._fill(found, point)

    def _fill(self, found: Status, point: Point) -> Parts:
        throughput, waits = self._charts()
        values = {
            "found": found,
            "jobs": found.jobs,
            "point": point,
            "states": states(found),
            "throughput": throughput,
            "waits": waits,
            "workers": found.workers[:MOST_WORKERS],
            "more_workers": max(0, len(found.workers) - MOST_WORKERS),
        }
        return {name: self._pages.part(f"parts/{name}.html", **values) for name in PARTS}

    def _charts(self) -> tuple[Chart, Chart]:
        points = list(self._history.points)
        now = points[-1].at_seconds
        throughput = {
            outcome: (outcome, [_value(now, point, point.rates, outcome) for point in points]) for outcome in OUTCOMES
        }
        waits = {
            share: (label, [_value(now, point, point.waits, share) for point in points])
            for share, label in WAITS.items()
        }
        return (
            chart(throughput, rate, seconds=KEEP_SECONDS, least=1.0),
            chart(waits, span, seconds=KEEP_SECONDS, least=0.01),
        )


def states(found: Status) -> Sequence[State]:
    """How the jobs of the queue are spread over its states."""
    jobs = found.jobs
    if jobs is None:
        return []
    counts = {"due": jobs.due, "in flight": jobs.in_flight, "deferred": jobs.deferred, "parked": jobs.parked}
    total, start, spread = sum(counts.values()), 0.0, []
    for name, count in counts.items():
        percent = 100 * count / total if total else 0.0
        spread.append(State(name, count, percent, start))
        start += percent
    return spread


def _value(now: float, point: Point, values: Mapping[str, float] | None, name: str) -> Value:
    return (now - point.at_seconds, None if values is None else values.get(name))
