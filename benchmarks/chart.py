"""docs/benchmarks.svg: bars of jobs a second, readable on light and on dark."""

from collections.abc import Iterator
from html import escape

from benchmarks.results import FIGURES, Results

_SHOWN = ("create_user", "mixed", "noop")
_WIDTH, _LABELS, _NUMBERS = 760, 220, 80
_BAR, _STEP, _HEAD, _GAP = 14, 20, 30, 18
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; font-size: 14px; }
.ours { fill: #0969da; } .other { fill: #8c959f; } .range { stroke: #1f2328; stroke-opacity: .6; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .ours { fill: #4493f8; } .other { fill: #6e7681; } .range { stroke: #e6edf3; }
}
"""


def render(results: Results) -> str:
    """The whole picture; a thin line shows from the lowest to the highest round."""
    body: list[str] = []
    y = 0
    for key in _SHOWN:
        if systems := [system for system in results.systems(key) if results.spread(key, system)]:
            body += _group(results, key, systems, y)
            y += _HEAD + _STEP * len(systems) + _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" aria-label="Jobs a second">'
    return "\n".join([head, f"<style>{_STYLE}</style>", *body, "</svg>", ""])


def _group(results: Results, key: str, systems: list[str], top: int) -> Iterator[str]:
    spreads = {system: spread for system in systems if (spread := results.spread(key, system))}
    scale = (_WIDTH - _LABELS - _NUMBERS) / max(spread.high for spread in spreads.values())
    figure = FIGURES[key]
    yield f'<text class="head" x="0" y="{top + 18}">{escape(figure.title)} ({figure.unit})</text>'
    for place, (system, spread) in enumerate(spreads.items()):
        y = top + _HEAD + place * _STEP
        middle = y + _BAR / 2
        kind = "ours" if system.startswith("ours") else "other"
        yield f'<text x="{_LABELS - 8}" y="{y + 11}" text-anchor="end">{escape(system)}</text>'
        yield f'<rect class="{kind}" x="{_LABELS}" y="{y}" width="{spread.median * scale:.1f}" height="{_BAR}" rx="2"/>'
        low, high = _LABELS + spread.low * scale, _LABELS + spread.high * scale
        yield f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
        yield f'<text x="{high + 6:.1f}" y="{y + 11}">{figure.show(spread.median)}</text>'
