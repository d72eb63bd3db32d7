"""The tables of docs/benchmarks.md and of the terminal."""

from collections.abc import Mapping, Sequence

from benchmarks.catalog import SCENARIOS, Scenario
from benchmarks.results import Metric, Results, Summary


def update_page(page: str, results: Results, facts: Mapping[str, str]) -> str:
    """The page with new tables. Each lies between `<!-- NAME -->` and `<!-- end -->`; the text around them stays.

    Raises:
        ValueError: when the page has no place for a table.
    """
    tables = {"machine": _table(["", "measured with"], list(facts.items()))}
    tables |= {name: _scenario_table(SCENARIOS[name], results) for name in SCENARIOS}
    for name, table in tables.items():
        before, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"the page has no place for a table: it needs <!-- {name} --> and <!-- end -->")
        page = f"{before}{begin}{table}\n{end}{after}"
    return page


def terminal(results: Results) -> str:
    """The tables of the measured scenarios."""
    measured = [scenario for scenario in SCENARIOS.values() if any(map(results.systems, scenario.metrics))]
    return "\n\n".join(f"{scenario.title}\n\n{_scenario_table(scenario, results)}" for scenario in measured)


def _scenario_table(scenario: Scenario, results: Results) -> str:
    """One row per system: for each metric its value and, where metrics are compared, its ratio to the fastest."""
    header = [""]
    columns: list[tuple[Metric, str | None]] = []
    for metric in scenario.metrics:
        best = results.best(metric) if metric.compared else None
        columns.append((metric, best))
        header += [metric.heading, "× fastest"] if best else [metric.heading]
    rows = []
    for system in dict.fromkeys(system for metric in scenario.metrics for system in results.systems(metric)):
        row = [system]
        for metric, best in columns:
            row.append(_format_summary(metric, results.summary(metric, system)))
            if best:
                ratio = results.ratio(metric, system, best)
                row.append("" if ratio is None else f"{ratio:.2f}")
        notes = dict.fromkeys(results.note(metric, system) for metric in scenario.metrics)
        rows.append([*row, "; ".join(filter(None, notes))])
    return _table([*header, "notes"], rows)


def _format_summary(metric: Metric, summary: Summary | None) -> str:
    if summary is None:
        return "–"
    low, median, high = (metric.format(value) for value in (summary.low, summary.median, summary.high))
    return median if low == high else f"{median} ({low} to {high})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is readable as text. A last column without any content is left out."""
    lines = [list(map(_escape, line)) for line in (header, *rows)]
    if not any(line[-1] for line in lines[1:]):
        lines = [line[:-1] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def _escape(cell: str) -> str:
    return cell.replace("|", "/")
