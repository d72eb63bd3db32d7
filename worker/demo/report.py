"""What came of the demo: tallies, truths of the database, and how they are shown."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table


@dataclass
class Tally:
    """What was asked of one kind of job, and what came back."""

    asked: int = 0
    done: int = 0
    rejected: int = 0
    dead: int = 0
    unexpected: int = 0
    """Jobs whose outcome is not the one that they must come to."""


@dataclass(frozen=True)
class Truth:
    """A count in the database, as it must be and as it is."""

    name: str
    expected: int
    found: int

    @property
    def holds(self) -> bool:
        return self.expected == self.found


@dataclass
class Report:
    """The whole run."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    wait_ms: list[int] = field(default_factory=list)
    run_ms: list[int] = field(default_factory=list)
    first_done_seconds: float = 0.0
    busy_seconds: float = 0.0
    """From the first job sent to the last outcome seen."""
    truths: list[Truth] = field(default_factory=list)
    trouble: str = ""
    """Why the run could not be ended; empty when it was."""

    @property
    def accounted(self) -> bool:
        """Whether every job came to the outcome that it must, and the database holds what it must."""
        return (
            bool(self.truths)
            and all(truth.holds for truth in self.truths)
            and not any(tally.unexpected for tally in self.tallies.values())
        )


def percentile(values: list[int], percent: float) -> int:
    """The smallest value that at least this many percent of the values do not exceed; 0 of none.

    >>> percentile([5, 1, 3], 50), percentile([5, 1, 3], 99), percentile([], 50)
    (3, 5, 0)
    """
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else 0


def table(report: Report) -> Table:
    table = Table(title="What was asked, and what came of it", title_justify="left")
    table.add_column("job")
    for name in ("asked", "done", "rejected", "dead", "unexpected"):
        table.add_column(name, justify="right")
    for job, tally in report.tallies.items():
        wrong = f"[red]{tally.unexpected}[/]" if tally.unexpected else "0"
        table.add_row(job, str(tally.asked), str(tally.done), str(tally.rejected), str(tally.dead), wrong)
    table.add_section()
    for truth in report.truths:
        colour = "green" if truth.holds else "red"
        table.add_row(f"in the database: {truth.name}", str(truth.expected), f"[{colour}]{truth.found}[/]")
    return table


def summary(report: Report) -> str:
    figures = as_json(report)
    wait, run_ = figures["wait_ms"], figures["run_ms"]
    verdict = "[green]All is accounted for.[/]" if report.accounted else "[red]Not all is accounted for.[/]"
    return (
        f"{verdict} {figures['jobs']} jobs in {figures['seconds']} s: {figures['jobs_per_second']} jobs/s; "
        f"the first was done after {figures['first_done_seconds']} s.\n"
        f"Waited (ms): p50 {wait['p50']}, p95 {wait['p95']}, p99 {wait['p99']}. "
        f"Ran (ms): p50 {run_['p50']}, p95 {run_['p95']}, p99 {run_['p99']}."
    )


def as_json(report: Report) -> dict[str, Any]:
    jobs = sum(tally.asked for tally in report.tallies.values())
    percents = (50, 95, 99)
    return {
        "accounted": report.accounted,
        "jobs": jobs,
        "seconds": round(report.busy_seconds, 2),
        "jobs_per_second": round(jobs / report.busy_seconds) if report.busy_seconds else 0,
        "first_done_seconds": round(report.first_done_seconds, 2),
        "wait_ms": {f"p{percent}": percentile(report.wait_ms, percent) for percent in percents},
        "run_ms": {f"p{percent}": percentile(report.run_ms, percent) for percent in percents},
        "by_job": {job: asdict(tally) for job, tally in report.tallies.items()},
        "database": {truth.name: {"expected": truth.expected, "found": truth.found} for truth in report.truths},
    }
