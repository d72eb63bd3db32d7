"""docs/benchmarks.md: everything that was measured, whoever is ahead."""

from collections.abc import Mapping, Sequence

from benchmarks import kills
from benchmarks.claims import Verdict
from benchmarks.results import FIGURES, Results, Spread

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
all) that the row is committed. The others have their best handlers unless it says usual, and no ledger.""",
    "latency_p99": "",
    "bulk_enqueue": "By the system's own bulk call, or else 500 calls at once. Ours validates every message.",
    "single_enqueue": "",
    "backlog": "20,000 jobs of ours are timed with so many behind them.",
    "processes": "Ours, on one machine: more processes than cores gain nothing, and must lose nothing.",
    "memory": "The genuine `worker run`.",
    "idle_cpu": "The genuine `worker run`, with nothing to do.",
    "observed": """\
Ours. A line for each job and a `/metrics` that is asked for every second, beside the same worker that counts nothing,
logs no job and answers nobody.""",
    "transaction": "`python -m benchmarks.transaction`: ours beside the usual handler, without any queue.",
}


_KILLS = """\
One round of 3,000 create_user (`--quick`: 800) from a full queue, in one worker process, 16 at once. It is killed with
SIGKILL five times in the middle of the load, at the same shares of it for all, and started again at once. After the
last kill 100 s are given. *Lost or late* is what is not done by then, *done twice* what has had its effect twice, and
*recovery* the time from the last kill until the last job was done, the rest of the load and the worker's start
included. `users` has no unique columns here, for any system, so that a second effect shows. The handlers are the best
ones.

Where a system can be told after how long a dead worker's jobs shall run again, it was told 10 s, as long as our lease:

- stock arq: its defaults, where a dead worker's jobs stay locked for 310 s. They are not lost for good, and what is
  done twice comes after that. Its lock follows the longest time that a job may take: in the second row, with a
  `job_timeout` of 10 s, it is 20 s.
- SAQ: `retries=5` and `timeout=10` for each job, and a sweep every 10 s. (By default a job is tried once, and what a
  dead worker held is given up.) Its sweep takes about 5 s for each job, one after the other.
- taskiq: the stream broker, which acknowledges what is done, with an `idle_timeout` and an
  `unacknowledged_lock_timeout` of 10 s. It reads 100 jobs at a time, and looks for what
  a dead worker had read only after it has received new jobs: what is left at the end of a load waits for the next one.
- streaq: an `idle_timeout` of 10 s (by default 60 s).
- ours: its defaults, which have a lease of 10 s."""


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
        table(["", "measured with"], [[name, value] for name, value in machine.items()]),
        "## What is promised",
        table(["promise", "found", ""], [[v.claim.text, v.found, v.word] for v in verdicts]),
        *(part for figure in results.figures if figure not in kills.FIGURES for part in _section(results, figure)),
        *_kills(results),
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
    return [f"## {figure.title[0].upper()}{figure.title[1:]}", _NOTES[key], table(header, rows, numbers=range(1, 5))]


def _kills(results: Results) -> list[str]:
    """One table for the three figures of the kills; nothing when they were not measured."""
    systems = dict.fromkeys(system for figure in kills.FIGURES for system in results.systems(figure))
    if not systems:
        return []
    rows = []
    for system in systems:
        cells = [_span(figure, results.spread(figure, system)) for figure in kills.FIGURES]
        rows.append([system, *cells, results.remarks.get(kills.LOST, {}).get(system, "")])
    header = ["", "lost or late", "done twice", "recovery", "remarks"]
    return ["## What a kill costs", _KILLS, table(header, rows, numbers=range(1, 4))]


def _span(key: str, spread: Spread | None) -> str:
    """A median, and between what the rounds were when they differ."""
    if spread is None:
        return "–"
    low, median, high = (_cost(key, value) for value in (spread.low, spread.median, spread.high))
    return median if low == high else f"{median} ({low} to {high})"


def _cost(key: str, value: float) -> str:
    figure = FIGURES[key]
    if key != kills.RECOVERY:
        return figure.show(value)
    limit = kills.PATIENCE_SECONDS
    return f"not within {limit:g} s" if value >= limit else f"{figure.show(value)} {figure.unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: range = range(0)) -> str:
    """A table in Markdown; the columns of these numbers are aligned to the right."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    rule = ["---:" if place in numbers else "---" for place in range(len(header))]
    return "\n".join([line(header), line(rule), *map(line, rows)])
