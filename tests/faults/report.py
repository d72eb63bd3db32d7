"""The results of a campaign as a page in Markdown."""

import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.faults.cluster import LEASE_SECONDS
from tests.faults.final_checks import LONGEST_BACKOFF_SECONDS, SETTLE_SECONDS
from tests.faults.fuzz_run import FuzzResult
from tests.faults.nemesis import RunResult

_HEAD = "| nemesis | runs | jobs | faults | lost | doubled | reordered | other | longest recovery, s |"
_LINE = "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
_COLUMNS = {"I1": "lost", "I2": "doubled", "I4": "reordered"}


@dataclass(frozen=True)
class Campaign:
    """Many runs.

    Attributes:
        runs: all of them.
        fuzzed: the result of fuzzing, if there was any.
        missing: the nemeses that did not run.
        command: the command line.
        versions: those of the servers.
        minutes: its duration.
    """

    runs: Sequence[RunResult]
    fuzzed: FuzzResult | None
    missing: Sequence[str]
    command: str
    versions: str
    minutes: float

    @property
    def failures(self) -> list[str]:
        """Failed runs: the command that repeats each, and the invariants it broke."""
        failed = [
            f"`{run.command}`: {', '.join(sorted(run.verdict.violations))}"
            for run in self.runs
            if run.verdict.violations
        ]
        if self.fuzzed is not None and self.fuzzed.failures:
            failed.append(f"`{self.fuzzed.command}`: fuzzing")
        return failed


def render_page(campaign: Campaign) -> str:
    failures = campaign.failures
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return "\n".join(
        [
            "# What the worker survived",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, `{campaign.command}`, {campaign.minutes:.0f} minutes. {machine}, "
            f"{campaign.versions}.",
            "",
            "A row is a kind of fault. A run has a mixed load of all six job types and ends with a check of all",
            "invariants. Lost, doubled and reordered count jobs that were accepted or may have been. Recovery is",
            "the time from the end of the faults until every job is settled. On a machine that is otherwise idle,",
            f"the promise is {SETTLE_SECONDS:g} s: a lease ({LEASE_SECONDS:g} s), the longest backoff",
            f"({LONGEST_BACKOFF_SECONDS:g} s) and 5 s. A run that takes longer breaks I7. Of the hot key's jobs, those",
            "done during the run count; the rest is checked and removed.",
            "",
            *_table(campaign),
            "",
            "No run broke an invariant." if not failures else "Runs that broke an invariant:",
            *(f"- {each}" for each in failures),
            *([f"Did not run: {', '.join(campaign.missing)}."] if campaign.missing else []),
            "",
            *_fuzzed(campaign.fuzzed),
        ]
    )


def _table(campaign: Campaign) -> list[str]:
    """The table: one row for each nemesis in each of its forms, and one for all."""
    rows: dict[str, list[RunResult]] = defaultdict(list)
    for run in campaign.runs:
        rows[run.nemesis if run.options.batch == 1 else f"{run.nemesis}, batches"].append(run)
    return [_HEAD, _LINE, *(_row(name, runs) for name, runs in rows.items()), _row("**all**", campaign.runs)]


def _fuzzed(fuzzed: FuzzResult | None) -> list[str]:
    if fuzzed is None:
        return []
    counts = [f"| {kind} | {count:,} |" for kind, count in fuzzed.counts.items()]
    result = "It broke an invariant: see above." if fuzzed.failures else "None ended a process or delayed a good job."
    return ["Hostile input, generated from a seed:", "", "| kind | count |", "| --- | ---: |", *counts, "", result, ""]


def _row(name: str, runs: Sequence[RunResult]) -> str:
    broken = {invariant: sum(run.verdict.counts[invariant] for run in runs) for invariant in _COLUMNS}
    other = sum(run.verdict.counts.total() for run in runs) - sum(broken.values())
    cells = [
        name,
        len(runs),
        f"{sum(run.jobs for run in runs):,}",
        f"{sum(run.faults for run in runs):,}",
        *broken.values(),
        other,
        f"{max((run.recovery_seconds for run in runs), default=0):.1f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"
