"""The results on a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.claims import Verdict
from benchmarks.results import FIGURES, Results

_COLOURS = {True: "green", False: "red", None: "yellow"}


def tables(results: Results, verdicts: Sequence[Verdict]) -> Iterator[RenderableType]:
    """One for each figure, and one of the promises."""
    for key in results.figures:
        yield _figure(results, key)
    promises = Table(title="What is promised", title_justify="left")
    for column in ("promise", "found", ""):
        promises.add_column(column)
    for verdict in verdicts:
        promises.add_row(verdict.claim.text, verdict.found, Text(verdict.word, style=_COLOURS[verdict.kept]))
    if verdicts:
        yield promises


def _figure(results: Results, key: str) -> Table:
    figure = FIGURES[key]
    systems = results.systems(key)
    first = results.best(key, systems)
    table = Table(title=f"{figure.title} ({figure.unit})", title_justify="left")
    table.add_column("")
    for column in ("median", "from", "to", f"× {first}"):
        table.add_column(column, justify="right")
    table.add_column("remarks")
    for system in systems:
        spread, ratio = results.spread(key, system), first and results.ratio(key, system, first)
        values = [figure.show(value) for value in (spread.median, spread.low, spread.high)] if spread else ["–", "", ""]
        remark = results.remarks.get(key, {}).get(system, "")
        table.add_row(system, *values, f"{ratio.median:.2f}" if ratio else "", remark)
    return table
