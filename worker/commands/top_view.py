"""The screen of `worker top`: counts, throughput and waiting times of the last minute, job types and workers."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from worker.commands.common import table
from worker.commands.status import jobs_view, workers_view
from worker.views.formatting import format_duration, format_rate, format_text
from worker.views.status import Status
from worker.views.throughput import History, Snapshot

JobTypes = Mapping[str, Mapping[str, float | None]]

_BARS = " ▁▂▃▄▅▆▇█"
SHOWN_SAMPLES = 60
MAX_WORKERS = 12


def view(snapshot: Snapshot, queue: str, history: History, job_types: JobTypes) -> RenderableType:
    """One screen."""
    found, sample = snapshot.status, snapshot.sample
    head = Text.assemble((f"{queue}  ", "bold"), *_servers(found), ("   Ctrl-C exits", "dim"))
    parts: list[RenderableType] = [head, ""]
    if found.jobs is not None:
        parts += [jobs_view(found.jobs), ""]
    waits = "  ".join(f"{name} {format_duration(value)}" for name, value in (sample.waits or {}).items())
    samples = list(history.samples)[-SHOWN_SAMPLES:]
    totals = [None if each.rates is None else sum(each.rates.values()) for each in samples]
    parts += [
        _chart("jobs/s", totals, format_rate(totals[-1]), "green"),
        _chart("wait", [(each.waits or {}).get("p95") for each in samples], waits or "–", "cyan"),
        "",
    ]
    if job_types:
        parts += [_job_types(job_types), ""]
    parts.append(workers_view(found.workers, MAX_WORKERS))
    return Padding(Group(*parts), (1, 2))


def _servers(found: Status) -> list[tuple[str, str]]:
    return [
        (f"{server.version}  ", "green")
        if server.error is None
        else (f"{name} unreachable: {server.error}  ", "bold red")
        for name, server in (("Redis", found.redis), ("PostgreSQL", found.database))
    ]


def _chart(title: str, values: Sequence[float | None], now: str, style: str) -> Text:
    bars = sparkline(values).rjust(SHOWN_SAMPLES)
    return Text.assemble((f"{title:<8}", "dim"), (bars, style), f"  {now}")


def sparkline(values: Sequence[float | None]) -> str:
    """Values as bars scaled to the largest; a blank where there is no value.

    >>> sparkline([0, 1, 2, 4, None, 8])
    ' ▁▂▄ █'
    """
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(_BARS[0 if value is None else round(value / top * (len(_BARS) - 1))] for value in values)


def _job_types(job_types: JobTypes) -> RenderableType:
    rows = table("job type")
    for title in ("jobs/s", "retries/s", "wait p50", "run p95"):
        rows.add_column(title, justify="right")
    for job, values in job_types.items():
        rows.add_row(
            Text(format_text(job)),
            format_rate(values["ended_per_second"]),
            format_rate(values["retried_per_second"]),
            format_duration(values["wait_p50_seconds"]),
            format_duration(values["run_p95_seconds"]),
        )
    return rows
