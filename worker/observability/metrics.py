"""The metrics of `/metrics`, defined in one table that docs/operations.md repeats.

Counters and the state of the queue come from Redis and are the same at every worker of a queue: aggregate them with
`max by (…)`, never with a sum. Metrics of one worker have its name as a label and are as old as its last heartbeat.
"""

import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from worker.queue.counters import Counters, Histogram
from worker.queue.status import JobCounts, WorkerStatus

T = TypeVar("T")
Values = Iterable[tuple[tuple[str, ...], T]]
"""Label values, without that of `queue`, and the value they have."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: its type, help text, and labels besides `queue`."""

    kind: Literal["counter", "gauge", "histogram"]
    help_text: str
    labels: tuple[str, ...] = ()


TABLE: dict[str, Series] = {
    "worker_jobs_total": Series("counter", "finished jobs", ("kind", "outcome", "code")),
    "worker_attempts_total": Series(
        "counter", "attempts by result: an outcome, `retry` or `release`", ("kind", "outcome")
    ),
    "worker_redeliveries_total": Series(
        "counter", "deliveries of jobs whose outcome was in the ledger already; the handler did not run", ("kind",)
    ),
    "worker_job_wait_seconds": Series(
        "histogram", "time from when a job was due to the start of an attempt", ("kind",)
    ),
    "worker_job_run_seconds": Series("histogram", "duration of an attempt", ("kind",)),
    "worker_batch_jobs": Series("histogram", "jobs that shared a transaction (`WORKER_BATCH_SIZE` above 1)"),
    "worker_batch_splits_total": Series("counter", "shared transactions that were rolled back and split"),
    "worker_leases_lost_total": Series("counter", "leases that had expired when they were due for renewal"),
    "worker_queue_jobs": Series("gauge", "jobs by state: due, deferred, claimed, parked, dead", ("state",)),
    "worker_queue_oldest_due_seconds": Series("gauge", "how long the oldest due job has been due; 0 without due jobs"),
    "worker_workers": Series(
        "gauge", "workers of the queue: alive, or missing (their heartbeat is overdue)", ("state",)
    ),
    "worker_running_jobs": Series("gauge", "jobs that the worker is running", ("worker",)),
    "worker_pool_connections": Series("gauge", "connections to PostgreSQL: in_use or idle", ("worker", "state")),
    "worker_loop_lag_seconds": Series("gauge", "largest recent delay of the event loop", ("worker",)),
    "worker_server_up": Series("gauge", "1 if the worker can use the server: redis or database", ("worker", "server")),
    "worker_build_info": Series(
        "gauge", "versions in the process that answers; always 1", ("version", "python", "arq", "sqlalchemy")
    ),
}


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """One observation of a queue. `jobs` and `counters` are None while Redis is unreachable."""

    queue: str
    jobs: JobCounts | None
    counters: Counters | None
    workers: Sequence[WorkerStatus]


class MetricFamilies:
    """The metrics of one snapshot, as prometheus-client collects them."""

    def __init__(self, snapshot: MetricsSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All metrics. Unknown ones are left out instead of set to 0."""
        if (counters := self._snapshot.counters) is not None:
            yield from self._job_metrics(counters)
        if (jobs := self._snapshot.jobs) is not None:
            states = ("due", "deferred", "claimed", "parked", "dead")
            yield self._gauge("worker_queue_jobs", (((state,), getattr(jobs, state)) for state in states))
            yield self._gauge("worker_queue_oldest_due_seconds", [((), jobs.oldest_due_seconds or 0.0)])
            missing = sum(worker.missing for worker in self._snapshot.workers)
            alive = len(self._snapshot.workers) - missing
            yield self._gauge("worker_workers", [(("alive",), alive), (("missing",), missing)])
        yield from self._worker_metrics()
        versions = (version("userpost-worker"), platform.python_version(), version("arq"), version("sqlalchemy"))
        yield self._gauge("worker_build_info", [(versions, 1)])

    def _job_metrics(self, counters: Counters) -> Iterator[Metric]:
        yield self._counter("worker_jobs_total", counters.ended.items())
        attempts: dict[tuple[str, ...], int] = {}
        for (job, outcome, _), count in counters.attempts.items():
            attempts[job, outcome] = attempts.get((job, outcome), 0) + count
        yield self._counter("worker_attempts_total", attempts.items())
        yield self._counter(
            "worker_redeliveries_total", (((job,), count) for job, count in counters.redelivered.items())
        )
        yield self._histogram("worker_job_wait_seconds", (((job,), times) for job, times in counters.wait.items()))
        yield self._histogram("worker_job_run_seconds", (((job,), times) for job, times in counters.run.items()))
        yield self._histogram("worker_batch_jobs", [((), counters.batches)])
        yield self._counter("worker_batch_splits_total", [((), counters.splits)])
        yield self._counter("worker_leases_lost_total", [((), counters.leases_lost)])

    def _worker_metrics(self) -> Iterator[Metric]:
        beats = [(_name(worker), worker.state) for worker in self._snapshot.workers if not worker.missing]
        yield self._gauge("worker_running_jobs", (((name,), beat.running) for name, beat in beats))
        pools = [((name, "in_use"), beat.pool_in_use) for name, beat in beats]
        pools += [((name, "idle"), beat.pool_idle) for name, beat in beats]
        yield self._gauge("worker_pool_connections", pools)
        yield self._gauge("worker_loop_lag_seconds", (((name,), beat.loop_lag_seconds) for name, beat in beats))
        servers = [((name, "redis"), beat.redis_up) for name, beat in beats]
        servers += [((name, "database"), beat.database_up) for name, beat in beats]
        yield self._gauge("worker_server_up", servers)

    def _gauge(self, name: str, values: Values[float | None]) -> Metric:
        family = GaugeMetricFamily(name, TABLE[name].help_text, labels=("queue", *TABLE[name].labels))
        for labels, value in values:
            if value is not None:
                family.add_metric((self._snapshot.queue, *labels), float(value))
        return family

    def _counter(self, name: str, values: Values[int]) -> Metric:
        family = CounterMetricFamily(name, TABLE[name].help_text, labels=("queue", *TABLE[name].labels))
        for labels, value in values:
            family.add_metric((self._snapshot.queue, *labels), value)
        return family

    def _histogram(self, name: str, values: Values[Histogram]) -> Metric:
        family = HistogramMetricFamily(name, TABLE[name].help_text, labels=("queue", *TABLE[name].labels))
        for labels, histogram in values:
            cumulative = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
                cumulative += count
                buckets.append((floatToGoString(bound), cumulative))  # type: ignore[no-untyped-call]
            family.add_metric((self._snapshot.queue, *labels), buckets, histogram.total)
        return family


def _name(worker: WorkerStatus) -> str:
    return worker.name.decode("utf-8", "backslashreplace")[:200]
