"""The live parts of the overview, rendered once per snapshot for all viewers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.dashboard.charts import Chart, Value, chart
from worker.dashboard.context import Backend, Parts
from worker.dashboard.templating import Templates
from worker.queue.counters import OUTCOMES
from worker.views.formatting import format_duration, format_rate
from worker.views.status import Status
from worker.views.throughput import KEEP_SECONDS, PERCENTILES, Sample, Snapshot, SnapshotPoller

PARTS = ("notice", "servers", "figures", "states", "throughput", "throughput_rows", "waits", "waits_rows", "workers")
"""The parts that are kept up to date; each has a template of its name."""
MAX_WORKERS = 100


@dataclass(frozen=True, slots=True)
class StateShare:
    """The jobs of the queue in one state, and their share of the bar in percent."""

    name: str
    jobs: int
    percent: float
    start: float
    """Where the share starts, in percent."""


class Overview:
    """Takes snapshots and renders the parts.

    Args:
        backend: the servers and the queue.
        templates: render the parts.
    """

    def __init__(self, backend: Backend, templates: Templates) -> None:
        self._poller = SnapshotPoller(backend.redis, backend.engine, backend.queue)
        self._templates = templates

    async def render(self) -> Parts:
        """Take a snapshot and render it. Takes a few seconds at most."""
        return self._render(await self._poller.poll())

    def _render(self, snapshot: Snapshot) -> Parts:
        throughput, waits = self._charts()
        found = snapshot.status
        values = {
            "found": found,
            "jobs": found.jobs,
            "sample": snapshot.sample,
            "states": state_shares(found),
            "throughput": throughput,
            "waits": waits,
            "workers": found.workers[:MAX_WORKERS],
            "more_workers": max(0, len(found.workers) - MAX_WORKERS),
        }
        return {name: self._templates.part(f"parts/{name}.html", **values) for name in PARTS}

    def _charts(self) -> tuple[Chart, Chart]:
        samples = list(self._poller.history.samples)
        now = samples[-1].at_seconds
        throughput = {
            outcome: (outcome, [_value(now, sample, sample.rates, outcome) for sample in samples])
            for outcome in OUTCOMES
        }
        waits = {name: (name, [_value(now, sample, sample.waits, name) for sample in samples]) for name in PERCENTILES}
        return (
            chart(throughput, format_rate, seconds=KEEP_SECONDS, min_top=1.0),
            chart(waits, format_duration, seconds=KEEP_SECONDS, min_top=0.01),
        )


def state_shares(found: Status) -> Sequence[StateShare]:
    """How the jobs of the queue are distributed over its states."""
    jobs = found.jobs
    if jobs is None:
        return []
    counts = {"due": jobs.due, "claimed": jobs.claimed, "deferred": jobs.deferred, "parked": jobs.parked}
    total, start, shares = sum(counts.values()), 0.0, []
    for name, count in counts.items():
        percent = 100 * count / total if total else 0.0
        shares.append(StateShare(name, count, percent, start))
        start += percent
    return shares


def _value(now: float, sample: Sample, values: Mapping[str, float] | None, name: str) -> Value:
    return (now - sample.at_seconds, None if values is None else values.get(name))
