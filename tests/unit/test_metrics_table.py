"""Metrics: the exposed families match the table, and docs/operations.md repeats the table.

`python tests/unit/test_metrics_table.py` prints the table for that page.
"""

import re
import sys
from pathlib import Path

from prometheus_client.core import Metric

from worker.observability.metrics import TABLE, MetricFamilies, MetricsSnapshot
from worker.queue.counters import Counters, Histogram
from worker.queue.status import JobCounts, WorkerState, WorkerStatus

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
BEAT = WorkerState(
    at=1.0, running=2, held=3, concurrency=16, redis_up=True, database_up=False,
    loop_lag_seconds=0.002, pool_in_use=2, pool_idle=1,
)  # fmt: skip


def table() -> str:
    """The table of metrics in Markdown."""
    lines = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for name, series in TABLE.items():
        labels = ", ".join(f"`{label}`" for label in series.labels)
        lines.append(f"| `{name}` | {series.kind} | {labels} | {series.help_text} |")
    return "\n".join(lines) + "\n"


def exposed(*, redis_up: bool = True) -> dict[str, Metric]:
    counters = Counters(
        attempts={("create_user", "done", ""): 2, ("create_user", "retry", "failed"): 1},
        redelivered={"create_user": 1},
        wait={"create_user": Histogram((0.5,), [2, 1], 2.0)},
        run={"create_user": Histogram((0.5,), [3, 0], 0.3)},
    )
    workers = [WorkerStatus(b"host:1", BEAT, 1.0), WorkerStatus(b"host:2", BEAT, 100.0)]
    snapshot = MetricsSnapshot("q", JobCounts(1, 2, 3, 4, 5, 6.5), counters, workers)
    if not redis_up:
        snapshot = MetricsSnapshot("q", None, None, workers[:1])
    return {family.name: family for family in MetricFamilies(snapshot).collect()}


def test_exposed_metrics_match_the_table() -> None:
    found = {
        (f"{name}_total" if family.type == "counter" else name): (family.type, family.documentation)
        for name, family in exposed().items()
    }

    assert found == {name: (series.kind, series.help_text) for name, series in TABLE.items()}


def test_every_sample_has_the_labels_of_the_table() -> None:
    for name, family in exposed().items():
        series = TABLE.get(name) or TABLE[f"{name}_total"]
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == {"queue", *series.labels}
            assert sample.labels["queue"] == "q"
        assert family.samples


def test_histogram_buckets_are_cumulative() -> None:
    waits = {(s.name, s.labels.get("le")): s.value for s in exposed()["worker_job_wait_seconds"].samples}

    assert waits == {
        ("worker_job_wait_seconds_bucket", "0.5"): 2,
        ("worker_job_wait_seconds_bucket", "+Inf"): 3,
        ("worker_job_wait_seconds_count", None): 3,
        ("worker_job_wait_seconds_sum", None): 2.0,
    }


def test_finished_jobs_and_attempts_are_counted_separately() -> None:
    found = exposed()

    assert [(s.labels["outcome"], s.value) for s in found["worker_jobs"].samples] == [("done", 2)]
    assert [(s.labels["outcome"], s.value) for s in found["worker_attempts"].samples] == [("done", 2), ("retry", 1)]


def test_a_missing_worker_is_counted_but_has_no_metrics_of_its_own() -> None:
    found = exposed()

    assert {s.labels["state"]: s.value for s in found["worker_workers"].samples} == {"alive": 1, "missing": 1}
    assert {s.labels["worker"] for s in found["worker_running_jobs"].samples} == {"host:1"}
    assert {s.labels["server"]: s.value for s in found["worker_server_up"].samples} == {"redis": 1, "database": 0}


def test_unknown_metrics_are_left_out() -> None:
    found = exposed(redis_up=False)

    assert "worker_jobs" not in found
    assert "worker_queue_jobs" not in found
    assert found["worker_server_up"].samples


def test_the_operations_page_repeats_the_table() -> None:
    found = re.search(r"<!-- metrics: .* -->\n(.*)<!-- /metrics -->", OPERATIONS.read_text(), re.DOTALL)

    assert found is not None
    assert found[1] == table(), "paste what `python tests/unit/test_metrics_table.py` prints"


if __name__ == "__main__":
    sys.stdout.write(table())
