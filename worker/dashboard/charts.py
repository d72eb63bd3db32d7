"""Charts as SVG paths. Only geometry: the templates draw them, and the style sheet colours them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600.0, 160.0
Value = tuple[float, float | None]
"""Seconds before now, and the value then; None: unknown."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line and the area below it, as `d` attributes of paths."""

    name: str
    label: str
    now: str
    path: str
    area: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines in a box of `WIDTH` by `HEIGHT`, with the labels of the axis and the values as text."""

    lines: list[Line]
    ticks: list[str]
    """From the upper bound down to 0."""
    rows: list[tuple[str, list[str]]]
    """The values as text: the time, and the value of each line."""


def chart(
    series: Mapping[str, tuple[str, Sequence[Value]]],
    format_value: Callable[[float | None], str],
    *,
    seconds: float,
    min_top: float,
    row_seconds: float = 10.0,
) -> Chart:
    """Draw time series.

    Args:
        series: name -> label and values, oldest first; all at the same times.
        format_value: formats a value.
        seconds: the width; the right end is now.
        min_top: the minimum upper bound of the axis.
        row_seconds: the time between two rows of text.
    """
    values_shown = (value for _, values in series.values() for _, value in values if value is not None)
    top = round_up(max([min_top, *values_shown]))
    lines = []
    for name, (label, values) in series.items():
        runs = _runs(values, seconds, top)
        now = format_value(values[-1][1] if values else None)
        lines.append(Line(name, label, now, " ".join(map(_path, runs)), " ".join(map(_area, runs))))
    ticks = [format_value(value) for value in (top, top / 2, 0.0)]
    return Chart(lines, ticks, _rows(series, format_value, row_seconds))


def round_up(value: float) -> float:
    """The smallest round number that is not less, give or take a thousandth.

    >>> round_up(0.7), round_up(3), round_up(12), round_up(2600)
    (0.8, 3.0, 12.0, 3000.0)
    """
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if step * size >= value * 0.999)


def _runs(values: Sequence[Value], seconds: float, top: float) -> list[list[tuple[float, float]]]:
    """The points in the box, in pieces that end where a value is unknown."""
    runs: list[list[tuple[float, float]]] = [[]]
    for ago, value in values:
        if value is None:
            runs.append([])
        elif ago <= seconds:
            runs[-1].append((WIDTH * (1 - ago / seconds), HEIGHT * (1 - min(value / top, 1))))
    return [run for run in runs if run]


def _path(run: Sequence[tuple[float, float]]) -> str:
    # A single point becomes a dash of one unit.
    points = run if len(run) > 1 else [run[0], (run[0][0] - 1, run[0][1])]
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _area(run: Sequence[tuple[float, float]]) -> str:
    return f"{_path(run)}L{run[-1][0]:.1f},{HEIGHT:.0f}L{run[0][0]:.1f},{HEIGHT:.0f}Z"


def _rows(
    series: Mapping[str, tuple[str, Sequence[Value]]], format_value: Callable[[float | None], str], row_seconds: float
) -> list[tuple[str, list[str]]]:
    columns = [list(reversed(values)) for _, values in series.values()]
    rows: list[tuple[str, list[str]]] = []
    shown_until = -row_seconds
    for at in zip(*columns, strict=True):
        ago = at[0][0]
        if ago - shown_until >= row_seconds * 0.95:
            shown_until = ago
            rows.append((f"{ago:.0f} s ago" if ago >= 1 else "now", [format_value(value) for _, value in at]))
    return rows
