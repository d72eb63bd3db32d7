"""What a campaign showed, as a page in Markdown."""

import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.faults.nemesis import Run

_HEAD = "| nemesis | runs | jobs | faults | lost | doubled | reordered | other | longest recovery, s |"
_LINE = "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
_NAMED = {"I1": "lost", "I2": "doubled", "I4": "reordered"}


def page(runs: Sequence[Run], *, command: str, versions: str, minutes: float) -> str:
    """The page.

    Args:
        runs: all of them.
        command: what was called.
        versions: of the servers.
        minutes: how long it took.
    """
    by_nemesis: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_nemesis[run.nemesis if run.how.batch == 1 else f"{run.nemesis}, batches"].append(run)
    rows = [_row(name, some) for name, some in by_nemesis.items()]
    failed = [f"- `{run.command}`: {', '.join(sorted(run.verdict.wrong))}" for run in runs if run.verdict.wrong]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return "\n".join(
        [
            "# What the worker survived",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, `{command}`, {minutes:.0f} minutes. {machine}, {versions}.",
            "",
            "A row is a kind of fault. A run has a mixed load of all six jobs and ends with a check of all invariants.",
            "Lost, doubled and reordered are jobs; recovery is from the end of the faults until all is settled.",
            "",
            _HEAD,
            _LINE,
            *rows,
            _row("**all**", runs),
            "",
            "Runs that broke an invariant: none." if not failed else "Runs that broke an invariant:",
            *failed,
            "",
        ]
    )


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
