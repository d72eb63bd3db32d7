"""docs/benchmarks.svg: bars of jobs per second, readable on light and on dark backgrounds."""

from html import escape

from benchmarks.catalog import CREATE_USER, MIXED, NOOP, Scenario
from benchmarks.results import Results, Summary
from benchmarks.systems import OWN_LABELS

_WIDTH, _LABELS_WIDTH, _VALUES_WIDTH = 760, 220, 80
_BAR, _ROW, _TITLE, _GAP = 14, 20, 30, 18
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 14px; }
.own { fill: #0969da; } .other { fill: #8c959f; } .range { stroke: #1f2328; stroke-opacity: .6; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .own { fill: #4493f8; } .other { fill: #6e7681; } .range { stroke: #e6edf3; }
}
"""


def render(results: Results) -> str:
    """The chart. A thin line connects the lowest and the highest round."""
    body: list[str] = []
    y = 0
    for scenario in (CREATE_USER, MIXED, NOOP):
        found = {
            system: results.summary(scenario.metrics[0], system) for system in results.systems(scenario.metrics[0])
        }
        if summaries := {system: summary for system, summary in found.items() if summary}:
            body += _group(scenario, summaries, y)
            y += _TITLE + _ROW * len(summaries) + _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" aria-label="Jobs per second">'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", *body, "</svg>", ""])


def _group(scenario: Scenario, summaries: dict[str, Summary], top: int) -> list[str]:
    metric = scenario.metrics[0]
    scale = (_WIDTH - _LABELS_WIDTH - _VALUES_WIDTH) / max(summary.high for summary in summaries.values())
    lines = [f'<text class="title" x="0" y="{top + 18}">{escape(scenario.title)} ({metric.unit})</text>']
    for place, (system, summary) in enumerate(summaries.items()):
        y = top + _TITLE + place * _ROW
        color = "own" if system in OWN_LABELS else "other"
        length, middle = summary.median * scale, y + _BAR / 2
        low, high = (_LABELS_WIDTH + value * scale for value in (summary.low, summary.high))
        lines += [
            f'<text x="{_LABELS_WIDTH - 8}" y="{y + 11}" text-anchor="end">{escape(system)}</text>',
            f'<rect class="{color}" x="{_LABELS_WIDTH}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"/>',
            f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
            f'<text x="{high + 6:.1f}" y="{y + 11}">{metric.format(summary.median)}</text>',
        ]
    return lines
