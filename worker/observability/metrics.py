"""What `/metrics` tells Prometheus, and in which words: one table, which docs/operations.md repeats.

Counts and the state of the queue are the same at every worker of a queue, for they are kept in Redis: take one of them
(`max by (…)`), never their sum. What is of one worker has its name as a label; it is as old as its last sign of life.
"""

import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from worker.queue.status import Jobs, WorkerSeen
from worker.queue.tallies import Histogram, Tallies

T = TypeVar("T")
Values = Iterable[tuple[tuple[str, ...], T]]
"""By the labels besides `queue`."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: its kind, what it says, and its labels besides `queue`."""

    kind: Literal["counter", "gauge", "histogram"]
    says: str
    labels: tuple[str, ...] = ()


TABLE: dict[str, Series] = {
    "worker_jobs_total": Series("counter", "jobs that ended", ("kind", "outcome", "code")),
    "worker_tries_total": Series(
        "counter", "tries by what they came to: an outcome, `retry` or `release`", ("kind", "outcome")
    ),
    "worker_redeliveries_total": Series(
        "counter", "deliveries that found the outcome in the ledger, and ran nothing", ("kind",)
    ),
    "worker_job_wait_seconds": Series("histogram", "how long jobs had been due when a try began", ("kind",)),
    "worker_job_run_seconds": Series("histogram", "how long tries took", ("kind",)),
    "worker_batch_jobs": Series("histogram", "how many jobs shared a transaction, with `WORKER_BATCH_SIZE` over 1"),
    "worker_batch_splits_total": Series("counter", "how often a shared transaction was rolled back and split"),
    "worker_leases_lost_total": Series("counter", "leases that had ended when they were to be renewed"),
    "worker_queue_jobs": Series("gauge", "jobs by where they are: due, deferred, in_flight, parked, dead", ("state",)),
    "worker_queue_oldest_due_seconds": Series(
        "gauge", "for how long the oldest due job has been due; 0 when none is due"
    ),
    "worker_workers": Series(
        "gauge", "workers of the queue: alive, or missing since their last sign of life", ("state",)
    ),
    "worker_running_jobs": Series("gauge", "jobs that a worker runs", ("worker",)),
    "worker_pool_connections": Series("gauge", "connections to PostgreSQL: in_use or idle", ("worker", "state")),
    "worker_loop_lag_seconds": Series(
        "gauge", "how late the event loop was, at the worst of the last seconds", ("worker",)
    ),
    "worker_server_up": Series(
        "gauge", "1 when the worker can use the server: redis or database", ("worker", "server")
    ),
    "worker_build_info": Series(
        "gauge", "always 1; what answers is made of this", ("version", "python", "arq", "sqlalchemy")
    ),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the metrics are made of. `jobs` and `tallies` are None while Redis cannot be asked."""

    queue: str
    jobs: Jobs | None
    tallies: Tallies | None
    workers: Sequence[WorkerSeen]


class Families:
    """The metrics of one look, as prometheus-client collects them."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        """All of them. Those that are not known now are left out, not nought."""
        if (tallies := self._seen.tallies) is not None:
            yield from self._of_jobs(tallies)
        if (jobs := self._seen.jobs) is not None:
            states = ("due", "deferred", "in_flight", "parked", "dead")
            yield self._gauge("worker_queue_jobs", (((state,), getattr(jobs, state)) for state in states))
            yield self._gauge("worker_queue_oldest_due_seconds", [((), jobs.oldest_due_seconds or 0.0)])
            missing = sum(worker.missing for worker in self._seen.workers)
            alive = len(self._seen.workers) - missing
            yield self._gauge("worker_workers", [(("alive",), alive), (("missing",), missing)])
        yield from self._of_workers()
        about = (version("userpost-worker"), platform.python_version(), version("arq"), version("sqlalchemy"))
        yield self._gauge("worker_build_info", [(about, 1)])

    def _of_jobs(self, tallies: Tallies) -> Iterator[Metric]:
        yield self._counter("worker_jobs_total", tallies.ended.items())
        tries: dict[tuple[str, ...], int] = {}
        for (job, outcome, _), count in tallies.tries.items():
            tries[job, outcome] = tries.get((job, outcome), 0) + count
        yield self._counter("worker_tries_total", tries.items())
        yield self._counter(
            "worker_redeliveries_total", (((job,), count) for job, count in tallies.redelivered.items())
        )
        yield self._histogram("worker_job_wait_seconds", (((job,), times) for job, times in tallies.wait.items()))
        yield self._histogram("worker_job_run_seconds", (((job,), times) for job, times in tallies.run.items()))
        yield self._histogram("worker_batch_jobs", [((), tallies.batches)])
        yield self._counter("worker_batch_splits_total", [((), tallies.splits)])
        yield self._counter("worker_leases_lost_total", [((), tallies.leases_lost)])

    def _of_workers(self) -> Iterator[Metric]:
        beats = [(_name(worker), worker.beat) for worker in self._seen.workers if not worker.missing]
        yield self._gauge("worker_running_jobs", (((name,), beat.running) for name, beat in beats))
        pools = [((name, "in_use"), beat.pool_in_use) for name, beat in beats]
        pools += [((name, "idle"), beat.pool_idle) for name, beat in beats]
        yield self._gauge("worker_pool_connections", pools)
        yield self._gauge("worker_loop_lag_seconds", (((name,), beat.loop_lag_seconds) for name, beat in beats))
        servers = [((name, "redis"), beat.redis_up) for name, beat in beats]
        servers += [((name, "database"), beat.database_up) for name, beat in beats]
        yield self._gauge("worker_server_up", servers)

    def _gauge(self, name: str, values: Values[float | None]) -> Metric:
        family = GaugeMetricFamily(name, TABLE[name].says, labels=("queue", *TABLE[name].labels))
        for labels, value in values:
            if value is not None:
                family.add_metric((self._seen.queue, *labels), float(value))
        return family

    def _counter(self, name: str, values: Values[int]) -> Metric:
        family = CounterMetricFamily(name, TABLE[name].says, labels=("queue", *TABLE[name].labels))
        for labels, value in values:
            family.add_metric((self._seen.queue, *labels), value)
        return family

    def _histogram(self, name: str, values: Values[Histogram]) -> Metric:
        family = HistogramMetricFamily(name, TABLE[name].says, labels=("queue", *TABLE[name].labels))
        for labels, histogram in values:
            passed = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
                passed += count
                buckets.append((floatToGoString(bound), passed))  # type: ignore[no-untyped-call]
            family.add_metric((self._seen.queue, *labels), buckets, histogram.total)
        return family


def _name(worker: WorkerSeen) -> str:
    return worker.name.decode("utf-8", "backslashreplace")[:200]
