"""What `worker top` draws: figures, two lines of the last minute, kinds of jobs, and workers."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.commands.status import longest_running
from worker.queue.status import Status, WorkerSeen
from worker.views.escaped import escape
from worker.views.formatting import count, rate, shown, span
from worker.views.throughput import History

_BARS = " ▁▂▃▄▅▆▇█"
SHOWN_POINTS = 60
MOST_WORKERS = 12


def view(
    found: Status, queue: str, history: History, kinds: Mapping[str, Mapping[str, float | None]]
) -> RenderableType:
    """One screen."""
    point = history.points[-1]
    head = Text.assemble((f"{queue}  ", "bold"), *_servers(found), ("   Ctrl-C ends", "dim"))
    parts: list[RenderableType] = [head, Text()]
    if (jobs := found.jobs) is not None:
        figures = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
        columns = [
            ("due", count(jobs.due), "yellow" if jobs.due else "dim"),
            ("oldest", span(jobs.oldest_due_seconds), "yellow" if jobs.due else "dim"),
            ("in flight", count(jobs.in_flight), "green" if jobs.in_flight else "dim"),
            ("deferred", count(jobs.deferred), "" if jobs.deferred else "dim"),
            ("parked", count(jobs.parked), "" if jobs.parked else "dim"),
            ("dead", count(jobs.dead), "bold red" if jobs.dead else "dim"),
        ]
        for title, _, style in columns:
            figures.add_column(title, justify="right", style=style)
        figures.add_row(*(value for _, value, _ in columns))
        parts += [figures, Text()]
    waits = point.waits or {}
    done = None if point.rates is None else sum(point.rates.values())
    points = list(history.points)[-SHOWN_POINTS:]
    parts += [
        _line("jobs/s", [None if p.rates is None else sum(p.rates.values()) for p in points], rate(done), "green"),
        _line("wait", [(p.waits or {}).get("p95") for p in points], _waits(waits), "cyan"),
        Text(),
    ]
    if kinds:
        parts += [_kinds(kinds), Text()]
    parts.append(_workers(found.workers) if found.workers else Text("no workers", style="bold red"))
    return Padding(Group(*parts), (1, 2))


def _servers(found: Status) -> list[tuple[str, str]]:
    return [
        (f"{server.version}  ", "green") if server.trouble is None else (f"{name} away: {server.trouble}  ", "bold red")
        for name, server in (("Redis", found.redis), ("database", found.database))
    ]


def _waits(waits: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {span(value)}" for name, value in waits.items()) or "–"


def _line(title: str, values: Sequence[float | None], now: str, style: str) -> Text:
    bars = sparkline(values).rjust(SHOWN_POINTS)
    return Text.assemble((f"{title:<8}", "dim"), (bars, style), f"  {now}")


def sparkline(values: Sequence[float | None]) -> str:
    """Values as bars, the largest of them the highest; nothing where there is no value.

    >>> sparkline([0, 1, 2, 4, None, 8])
    ' ▁▂▄ █'
    """
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(_BARS[0 if value is None else round(value / top * (len(_BARS) - 1))] for value in values)


def _kinds(kinds: Mapping[str, Mapping[str, float | None]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("kind")
    for title in ("jobs/s", "retries/s", "wait, half below", "run, 19 in 20 below"):
        table.add_column(title, justify="right")
    for kind, values in kinds.items():
        table.add_row(
            shown(kind),
            rate(values["ended"]),
            rate(values["retried"]),
            span(values["wait_p50"]),
            span(values["run_p95"]),
        )
    return table


def _workers(workers: Sequence[WorkerSeen]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("worker")
    for title in ("seen", "running", "loop late by", "connections"):
        table.add_column(title, justify="right")
    table.add_column("longest running")
    for worker in workers[:MOST_WORKERS]:
        beat = worker.beat
        table.add_row(
            Text(escape(worker.name), style="bold red" if worker.missing else "green"),
            "never" if worker.seen_seconds is None else f"{span(worker.seen_seconds)} ago",
            f"{count(beat.running)} of {count(beat.concurrency)}",
            span(beat.loop_lag_seconds),
            "–" if beat.pool_in_use is None else f"{beat.pool_in_use} used, {count(beat.pool_idle)} idle",
            longest_running(worker),
        )
    if len(workers) > MOST_WORKERS:
        table.add_row(f"and {len(workers) - MOST_WORKERS:,} more")
    return table
