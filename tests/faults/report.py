"""What a campaign showed, as a page in Markdown, and as the table in the README."""

import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.faults.ending import LONGEST_BACKOFF_SECONDS, SETTLE_SECONDS
from tests.faults.fuzzing import Fuzzed
from tests.faults.house import LEASE_SECONDS
from tests.faults.nemesis import Run

BEGIN, END = "<!-- faults: written by `make faults` -->\n", "<!-- /faults -->"

_HEAD = "| nemesis | runs | jobs | faults | lost | doubled | reordered | other | longest recovery, s |"
_LINE = "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
_NAMED = {"I1": "lost", "I2": "doubled", "I4": "reordered"}


@dataclass(frozen=True)
class Campaign:
    """Many runs.

    Attributes:
        runs: all of them.
        fuzzed: what fuzzing came to, if there was any.
        missing: the nemeses that had no turn.
        command: what was called.
        versions: of the servers.
        minutes: how long it took.
    """

    runs: Sequence[Run]
    fuzzed: Fuzzed | None
    missing: Sequence[str]
    command: str
    versions: str
    minutes: float

    @property
    def wrong(self) -> list[str]:
        """What failed: the command that repeats it, and the invariants that were broken."""
        failed = [f"`{run.command}`: {', '.join(sorted(run.verdict.wrong))}" for run in self.runs if run.verdict.wrong]
        if self.fuzzed is not None and self.fuzzed.wrong:
            failed.append(f"`{self.fuzzed.command}`: fuzzing")
        return failed


def page(campaign: Campaign) -> str:
    """The page."""
    wrong = campaign.wrong
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return "\n".join(
        [
            "# What the worker survived",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, `{campaign.command}`, {campaign.minutes:.0f} minutes. {machine}, "
            f"{campaign.versions}.",
            "",
            "A row is a kind of fault; a run has a mixed load of all six jobs and ends with a check of all invariants.",
            "Jobs are those that were accepted, or may have been; lost, doubled, reordered are jobs. Recovery is",
            f"from the end of the faults until all is settled. The promise is {SETTLE_SECONDS:g} s: a lease "
            f"({LEASE_SECONDS:g} s), the longest back-off",
            f"({LONGEST_BACKOFF_SECONDS:g} s) and 5 s; a run that takes longer has broken I7. Of the hot key's jobs",
            "those count that were done while the run lasted; the rest is looked at, and taken out.",
            "",
            *table(campaign),
            "",
            "Runs that broke an invariant: none." if not wrong else "What broke an invariant:",
            *(f"- {each}" for each in wrong),
            *([f"Had no turn: {', '.join(campaign.missing)}."] if campaign.missing else []),
            "",
            *_fuzzed(campaign.fuzzed),
        ]
    )


def into(readme: str, campaign: Campaign) -> str:
    """The README with the table in its place, and how it came about.

    Raises:
        ValueError: when it has no place for it.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the README has no place for what the fault suite showed")
    made = f"By `{campaign.command}` on {datetime.now(UTC):%Y-%m-%d}; recovery is promised within {SETTLE_SECONDS:g} s."
    return before + begin + "\n".join([*table(campaign), "", made, ""]) + end + after


def table(campaign: Campaign) -> list[str]:
    """The table: a row a nemesis, in each of its forms, and one for all."""
    rows: dict[str, list[Run]] = defaultdict(list)
    for run in campaign.runs:
        rows[run.nemesis if run.how.batch == 1 else f"{run.nemesis}, batches"].append(run)
    return [_HEAD, _LINE, *(_row(name, some) for name, some in rows.items()), _row("**all**", campaign.runs)]


def _fuzzed(fuzzed: Fuzzed | None) -> list[str]:
    if fuzzed is None:
        return []
    counts = [f"| {kind} | {count:,} |" for kind, count in fuzzed.counts.items()]
    came_to = "Something broke: see above." if fuzzed.wrong else "None ended a process or held up a good job."
    return [
        "Hostile input, made up from a seed:",
        "",
        "| what | how many |",
        "| --- | ---: |",
        *counts,
        "",
        came_to,
        "",
    ]


def _row(name: str, runs: Sequence[Run]) -> str:
    broken = {invariant: sum(run.verdict.counts[invariant] for run in runs) for invariant in _NAMED}
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
