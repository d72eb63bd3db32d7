"""Charts as paths of an SVG: geometry only, the templates draw them and the style sheet colours them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600.0, 160.0
Value = tuple[float, float | None]
"""How many seconds ago, and what was then; None: nothing can be said."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line and the area below it, as the `d` of a path."""

    name: str
    label: str
    now: str
    path: str
    area: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines in a box of `WIDTH` by `HEIGHT`, and what is written beside it."""

    lines: list[Line]
    ticks: list[str]
    """From the top to nought."""
    rows: list[tuple[str, list[str]]]
    """The same as text: when, and each line's value."""


def chart(
    series: Mapping[str, tuple[str, Sequence[Value]]],
    write: Callable[[float | None], str],
    *,
    seconds: float,
    least: float,
    row_seconds: float = 10.0,
) -> Chart:
    """Draw series.

    Args:
        series: name -> its label and its values, the oldest first; all of the same times.
        write: how a value is written.
        seconds: the width, which ends now.
        least: the height is never less than this.
        row_seconds: how far apart the rows of the text are.
    """
    top = nice(max([least, *(value for _, values in series.values() for _, value in values if value is not None)]))
    lines = []
    for name, (label, values) in series.items():
        runs = _runs(values, seconds, top)
        now = write(values[-1][1] if values else None)
        lines.append(Line(name, label, now, " ".join(map(_path, runs)), " ".join(map(_area, runs))))
    return Chart(lines, [write(top), write(top / 2), write(0.0)], _rows(series, write, row_seconds))


def nice(value: float) -> float:
    """The next round number.

    >>> nice(0.7), nice(3), nice(12), nice(2600)
    (0.8, 3.0, 12.0, 3000.0)
    """
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if step * size >= value * 0.999)


def _runs(values: Sequence[Value], seconds: float, top: float) -> list[list[tuple[float, float]]]:
    """The points on paper, in pieces: there is none where nothing can be said."""
    runs: list[list[tuple[float, float]]] = [[]]
    for ago, value in values:
        if value is None:
            runs.append([])
        elif ago <= seconds:
            runs[-1].append((WIDTH * (1 - ago / seconds), HEIGHT * (1 - min(value / top, 1))))
    return [run for run in runs if run]


def _path(run: Sequence[tuple[float, float]]) -> str:
    # A point by itself is a dash of a pixel.
    points = run if len(run) > 1 else [run[0], (run[0][0] - 1, run[0][1])]
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _area(run: Sequence[tuple[float, float]]) -> str:
    return f"{_path(run)}L{run[-1][0]:.1f},{HEIGHT:.0f}L{run[0][0]:.1f},{HEIGHT:.0f}Z"


def _rows(
    series: Mapping[str, tuple[str, Sequence[Value]]], write: Callable[[float | None], str], row_seconds: float
) -> list[tuple[str, list[str]]]:
    columns = [list(reversed(values)) for _, values in series.values()]
    rows: list[tuple[str, list[str]]] = []
    shown_until = -row_seconds
    for at in zip(*columns, strict=True):
        ago = at[0][0]
        if ago - shown_until >= row_seconds * 0.95:
            shown_until = ago
            rows.append((f"{ago:.0f} s ago" if ago >= 1 else "now", [write(value) for _, value in at]))
    return rows
