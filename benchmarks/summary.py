"""The table in the README: the figures that people ask for first."""

from collections.abc import Mapping, Sequence

from benchmarks import kills
from benchmarks.claims import PGBENCH
from benchmarks.report import table
from benchmarks.results import FIGURES, Results
from benchmarks.systems import NAMES, OURS, OURS_BATCH, OURS_SESSION

BEGIN, END = "<!-- benchmarks: written by `make bench` -->\n", "<!-- /benchmarks -->"

_HEADER = (
    "", "create_user, usual handler", "at its best", "no database", "idle latency", "lost or late, done twice",
)  # fmt: skip


def into(readme: str, results: Results, facts: Mapping[str, str]) -> str:
    """The README with the table in its place, and how it came about.

    Raises:
        ValueError: when it has no place for it.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the README has no place for the benchmarks")
    made = f"\nBy `{facts['command']}` on {facts['date']}, rounds: {facts['rounds']}.\n"
    return before + begin + rendered(results) + made + end + after


def rendered(results: Results) -> str:
    """The table: one row a system."""
    rows = [_row(results, name, f"{name}, usual", f"{name}, best", name) for name in NAMES.values()]
    rows.append(_row(results, OURS_SESSION.label, OURS_SESSION.label, "", OURS.label))
    rows.append(_row(results, OURS_BATCH.label, "", OURS_BATCH.label, ""))
    rows.append(_row(results, PGBENCH, "", PGBENCH, ""))
    return table(_HEADER, rows, numbers=range(1, len(_HEADER))) + "\n"


def _row(results: Results, name: str, usual: str, best: str, plain: str) -> Sequence[str]:
    rate = [_median(results, "create_user", usual), _median(results, "create_user", best)]
    kill = [_median(results, key, name, plain) for key in (kills.LOST, kills.DOUBLED)]
    latency = _median(results, "latency_p50", plain)
    return [
        name, *rate, _median(results, "noop", plain), f"{latency} ms" if latency else "", ", ".join(filter(None, kill)),
    ]  # fmt: skip


def _median(results: Results, key: str, *labels: str) -> str:
    """The median of the first of these that was measured; empty when none was."""
    spreads = (results.spread(key, label) for label in labels if label)
    return next((FIGURES[key].show(spread.median) for spread in spreads if spread is not None), "")
