"""The series that a PromQL expression selects, checked against the worker's metrics."""

from dataclasses import dataclass

import promql_parser

from worker.observability.metrics import TABLE

HISTOGRAM_ENDS = ("_bucket", "_count", "_sum")
PROMETHEUS_LABELS = frozenset({"instance", "le"})


@dataclass(frozen=True, slots=True)
class Selected:
    """A selector of an expression.

    `matched` has the labels it compares, `fixed` those it compares with one value; `by` has the labels of the innermost
    aggregation around it, and `join` that aggregation's name.
    """

    name: str
    matched: frozenset[str]
    fixed: frozenset[str]
    join: str | None
    by: frozenset[str]


def selected(expression: str) -> list[Selected]:
    """All selectors of an expression.

    Raises:
        ValueError: it is not PromQL.
    """
    found: list[Selected] = []
    joins: list[promql_parser.AggregateExpr] = []

    def enter(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            joins.append(node)
        elif isinstance(node, promql_parser.VectorSelector):
            matchers = node.matchers.matchers
            join = joins[-1] if joins else None
            found.append(
                Selected(
                    name=node.name or "",
                    matched=frozenset(matcher.name for matcher in matchers),
                    fixed=frozenset(each.name for each in matchers if each.op == promql_parser.MatchOp.Equal),
                    join=None if join is None else str(join.op),
                    by=frozenset(join.modifier.labels if join is not None and join.modifier is not None else ()),
                )
            )

    def leave(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            joins.pop()

    promql_parser.walk(promql_parser.parse(expression), enter, leave)
    return found


def metric_of(series: str) -> str:
    """The metric that a series belongs to.

    >>> metric_of("worker_job_run_seconds_bucket"), metric_of("worker_jobs_total")
    ('worker_job_run_seconds', 'worker_jobs_total')
    """
    for end in HISTOGRAM_ENDS:
        if series.removesuffix(end) in TABLE:
            return series.removesuffix(end)
    return series


def mistakes(expression: str) -> list[str]:
    """One line for each unknown metric or label, and for each series that is added up over workers.

    All workers of a queue report the same figures: a sum counts each job once for every worker.

    >>> mistakes('sum by (queue) (max by (queue, kind) (rate(worker_jobs_total{kind="a"}[5m])))')
    []
    >>> mistakes('sum(worker_jobs_total{user="7"}) + max(jobs)')
    ['worker_jobs_total has no label user', 'worker_jobs_total is joined by sum', 'no metric is named jobs']
    """
    lines: list[str] = []
    for each in selected(expression):
        metric = TABLE.get(metric_of(each.name))
        if metric is None:
            lines.append(f"no metric is named {each.name}")
            continue
        unknown = (each.matched | each.by) - {"queue", *metric.labels} - PROMETHEUS_LABELS
        lines += [f"{each.name} has no label {label}" for label in sorted(unknown)]
        if each.join in {"sum", "avg", "count"}:
            lines.append(f"{each.name} is joined by {each.join}")
    return lines
