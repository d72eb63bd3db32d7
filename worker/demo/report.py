"""The results of the demo, as a table, a summary and JSON."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table


@dataclass
class JobCounts:
    """The jobs of one type that were sent, and their outcomes."""

    sent: int = 0
    done: int = 0
    rejected: int = 0
    dead: int = 0
    unexpected: int = 0
    """Jobs with another outcome than the plan expects."""


@dataclass(frozen=True)
class RowCount:
    """A number of rows in the database, expected and found."""

    name: str
    expected: int
    found: int


@dataclass
class Report:
    """The results of one run."""

    jobs: dict[str, JobCounts] = field(default_factory=dict)
    rows: list[RowCount] = field(default_factory=list)
    wait_ms: list[int] = field(default_factory=list)
    run_ms: list[int] = field(default_factory=list)
    first_done_seconds: float = 0.0
    busy_seconds: float = 0.0
    """From the first job sent to the last outcome received."""
    error: str = ""
    """Why the run was not finished, or empty."""

    @property
    def accounted(self) -> bool:
        """Whether every job has its expected outcome, and the database its expected rows."""
        return (
            bool(self.rows)
            and all(row.expected == row.found for row in self.rows)
            and not any(counts.unexpected for counts in self.jobs.values())
        )


def percentile(values: list[int], percent: float) -> int:
    """The smallest value that at least this percentage of the values do not exceed, or 0 if there are no values.

    >>> percentile([5, 1, 3], 50), percentile([5, 1, 3], 99), percentile([], 50)
    (3, 5, 0)
    """
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else 0


def table(report: Report) -> Table:
    """The jobs by type and outcome, and the rows in the database."""
    table = Table(title="Jobs and their outcomes", title_justify="left")
    table.add_column("job")
    for name in ("sent", "done", "rejected", "dead", "unexpected"):
        table.add_column(name, justify="right")
    for job, counts in report.jobs.items():
        unexpected = f"[red]{counts.unexpected}[/]" if counts.unexpected else "0"
        table.add_row(job, str(counts.sent), str(counts.done), str(counts.rejected), str(counts.dead), unexpected)
    table.add_section()
    for row in report.rows:
        colour = "green" if row.expected == row.found else "red"
        table.add_row(f"in the database: {row.name}", str(row.expected), f"[{colour}]{row.found}[/]")
    return table


def summary(report: Report) -> str:
    """The verdict, the throughput and the latencies, in three lines."""
    figures = as_json(report)
    wait, run = figures["wait_ms"], figures["run_ms"]
    verdict = "[green]Every job is accounted for.[/]" if report.accounted else "[red]Jobs are unaccounted for.[/]"
    return (
        f"{verdict} {figures['jobs']} jobs in {figures['seconds']} s ({figures['jobs_per_second']} jobs/s), "
        f"the first one done after {figures['first_done_seconds']} s.\n"
        f"Waiting time (ms): p50 {wait['p50']}, p95 {wait['p95']}, p99 {wait['p99']}.\n"
        f"Run time (ms): p50 {run['p50']}, p95 {run['p95']}, p99 {run['p99']}."
    )


def as_json(report: Report) -> dict[str, Any]:
    """The figures for programs."""
    jobs = sum(counts.sent for counts in report.jobs.values())
    percents = (50, 95, 99)
    return {
        "accounted": report.accounted,
        "jobs": jobs,
        "seconds": round(report.busy_seconds, 2),
        "jobs_per_second": round(jobs / report.busy_seconds) if report.busy_seconds else 0,
        "first_done_seconds": round(report.first_done_seconds, 2),
        "wait_ms": {f"p{percent}": percentile(report.wait_ms, percent) for percent in percents},
        "run_ms": {f"p{percent}": percentile(report.run_ms, percent) for percent in percents},
        "by_job": {job: asdict(counts) for job, counts in report.jobs.items()},
        "database": {row.name: {"expected": row.expected, "found": row.found} for row in report.rows},
    }
