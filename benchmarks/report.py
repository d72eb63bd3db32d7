"""docs/benchmarks.md: everything that was measured, whoever is ahead."""

from collections.abc import Mapping, Sequence

from benchmarks.claims import Verdict
from benchmarks.results import FIGURES, Results

_NOTES: Mapping[str, str] = {
    "create_user": """\
A job makes a user: from a full queue, in one worker process with 16 jobs at once (Celery: 16 processes). *Usual*
handlers are written as the systems' users write them (pre-ping, flush, refresh, posts loaded with their user); *best*
ones are the quickest with a session a job that we know (one Core statement). The other systems do without a ledger: a
job that is delivered twice has its effect twice. Ours writes the ledger row and the reply in the same transaction.
The last row is PostgreSQL's own `pgbench` with the same statements, 32 clients on 2 threads: what the server
can do.""",
    "mixed": """\
All six jobs, shuffled: of ten, three users are created, two updated, one deleted; two posts are created, one updated,
one deleted. The tables are checked at the end.""",
    "refused": "Ours. One in twenty wants the e-mail address that the one before it has just got.",
    "noop": """\
What the queue itself costs: one worker process, 16 at once (Celery: 16 processes). Ours carries a whole create_user and
logs a line a job; the others carry one number and are quiet.""",
    "latency_p50": """\
One job at a time to an idle worker, with the system's own client, until the client hears (by a trigger, the same for
all) that the row is committed. The others have their best handlers, and no ledger.""",
    "latency_p99": "",
    "bulk_enqueue": "By the system's own bulk call, or else 500 calls at once. Ours validates every message.",
    "single_enqueue": "",
    "backlog": "20,000 jobs of ours are timed with so many behind them.",
    "processes": "Ours, on one machine: more processes than cores gain nothing, and must lose nothing.",
    "memory": "The genuine `worker run`.",
    "idle_cpu": "The genuine `worker run`, with nothing to do.",
    "transaction": "`python -m benchmarks.transaction`: ours beside the usual handler, without any queue.",
}


_HEAD = """\
Written by `make bench`, not by hand. Medians of the rounds, with the lowest and the highest of them. The systems take
turns, so that whatever else the machine does meets all; ratios are medians of the ratios within a round. How it is
measured, and why so, is in `benchmarks/measure.py`."""


def render(results: Results, verdicts: Sequence[Verdict], machine: Mapping[str, str]) -> str:
    """The whole document."""
    parts = [
        "# Benchmarks",
        _HEAD,
        "![Jobs a second](benchmarks.svg)",
        _table(["", "measured with"], [[name, value] for name, value in machine.items()]),
        "## What is promised",
        _table(["promise", "found", ""], [[v.claim.text, v.found, v.word] for v in verdicts]),
        *(part for figure in results.figures for part in _section(results, figure)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(results: Results, key: str) -> list[str]:
    figure = FIGURES[key]
    systems = results.systems(key)
    first = results.best(key, systems)
    # Beside the best: nothing is left out where another is ahead.
    header = ["", f"{figure.unit}, median", "from", "to", f"× {first}" if first else "", "remarks"]
    rows = []
    for system in systems:
        remark = results.remarks.get(key, {}).get(system, "")
        spread, ratio = results.spread(key, system), first and results.ratio(key, system, first)
        if spread is None:
            rows.append([system, "–", "", "", "", remark])
            continue
        values = [figure.show(value) for value in (spread.median, spread.low, spread.high)]
        rows.append([system, *values, f"{ratio.median:.2f}" if ratio else "", remark])
    return [f"## {figure.title[0].upper()}{figure.title[1:]}", _NOTES[key], _table(header, rows, numbers=range(1, 5))]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: range = range(0)) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    rule = ["---:" if place in numbers else "---" for place in range(len(header))]
    return "\n".join([line(header), line(rule), *map(line, rows)])
