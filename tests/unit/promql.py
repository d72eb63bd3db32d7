"""What a PromQL expression selects, and how it is joined: for the tests of what is under deploy/."""

from collections.abc import Mapping
from dataclasses import dataclass

import promql_parser

from worker.observability.metrics import TABLE

HISTOGRAM_ENDS = ("_bucket", "_count", "_sum")


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its kind, and its labels."""

    kind: str
    labels: frozenset[str]


WORKER = {name: Metric(series.kind, frozenset({"queue", *series.labels})) for name, series in TABLE.items()}


@dataclass(frozen=True, slots=True)
class Selected:
    """Series that an expression asks for by name.

    `matched` has the labels that are matched with a value, `fixed` those of them that are matched with one only;
    `function` the function around the selector; `join` the innermost aggregation around it and `by` its labels.
    """

    name: str
    matched: frozenset[str]
    fixed: frozenset[str]
    function: str | None
    join: str | None
    by: frozenset[str]


def selected(expression: str) -> list[Selected]:
    """All that the expression selects.

    Raises:
        ValueError: it is no PromQL.
    """
    found: list[Selected] = []
    joins: list[promql_parser.AggregateExpr] = []
    calls: list[promql_parser.Call] = []

    def enter(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            joins.append(node)
        elif isinstance(node, promql_parser.Call):
            calls.append(node)
        elif isinstance(node, promql_parser.VectorSelector):
            found.append(_selected(node, joins[-1] if joins else None, calls[-1].func.name if calls else None))

    def leave(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            joins.pop()
        elif isinstance(node, promql_parser.Call):
            calls.pop()

    promql_parser.walk(promql_parser.parse(expression), enter, leave)
    return found


def mistakes(expression: str, metrics: Mapping[str, Metric] = WORKER) -> list[str]:
    """One line for each thing in the expression that the worker's metrics do not bear.

    All workers of a queue tell the same figures. So each metric must be joined by max (or min), over a rate or a gauge
    as it was read, and keep apart what its labels keep apart.

    >>> table = {"jobs_total": Metric("counter", frozenset({"queue", "job"}))}
    >>> mistakes("sum by (queue) (max by (queue, job) (rate(jobs_total[5m])))", table)
    []
    >>> mistakes("sum by (queue) (rate(jobs_total[5m]))", table)
    ['jobs_total is joined by sum', 'jobs_total is joined without job']
    >>> mistakes('max(jobs_total{queue="q", user="7"})', table)
    ['jobs_total has no user', 'jobs_total is joined without job', 'jobs_total is a counter, and not seen by its rate']
    >>> mistakes("max(jobs)", table)
    ['there is no jobs']
    >>> mistakes("absent(jobs_total) or group by (queue) (jobs_total)", table)
    []
    """
    lines: list[str] = []
    for each in selected(expression):
        metric = of(each.name, metrics)
        if metric is None:
            lines.append(f"there is no {each.name}")
            continue
        lines += [f"{each.name} has no {label}" for label in sorted((each.matched | each.by) - metric.labels - AROUND)]
        if each.join == "group" or (each.function == "absent" and each.join is None):
            continue  # whether there are any
        if each.join not in {"max", "min"}:
            lines.append(f"{each.name} is joined by {each.join}")
        lines += [f"{each.name} is joined without {label}" for label in sorted(metric.labels - each.by - each.fixed)]
        if metric.kind == "counter" and each.function not in {"rate", "increase"}:
            lines.append(f"{each.name} is a counter, and not seen by its rate")
    return lines


AROUND = frozenset({"instance"})
"""Labels that Prometheus adds."""


def of(name: str, metrics: Mapping[str, Metric] = WORKER) -> Metric | None:
    """The metric that series of this name belong to, with the labels of these series."""
    if name in metrics:
        return None if metrics[name].kind == "histogram" else metrics[name]
    for end in HISTOGRAM_ENDS:
        metric = metrics.get(name.removesuffix(end))
        if name.endswith(end) and metric is not None and metric.kind == "histogram":
            return Metric("counter", metric.labels | ({"le"} if end == "_bucket" else set()))
    return None


def _selected(
    node: promql_parser.VectorSelector, join: promql_parser.AggregateExpr | None, function: str | None
) -> Selected:
    matchers = node.matchers.matchers
    by = join.modifier if join is not None else None
    if by is not None and by.type != promql_parser.AggModifierType.By:
        raise ValueError(f"`without` is not read here: {join}")
    return Selected(
        name=node.name or "",
        matched=frozenset(matcher.name for matcher in matchers),
        fixed=frozenset(matcher.name for matcher in matchers if matcher.op == promql_parser.MatchOp.Equal),
        function=function,
        join=None if join is None else str(join.op),
        by=frozenset(by.labels if by is not None else ()),
    )
