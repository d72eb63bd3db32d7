"""`worker status`: jobs by state, workers and servers, for people and for programs."""

from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from worker.commands.common import (
    AsJson,
    Servers,
    console,
    database_outage,
    errors,
    for_people,
    print_json,
    redis_outage,
    settings_from,
    table,
    with_servers,
)
from worker.queue.status import JobCounts, ServerStatus, WorkerStatus
from worker.views.formatting import escape, format_count, format_duration, format_text
from worker.views.status import Status, read_status

MAX_RUNNING_SHOWN = 3


def status(as_json: AsJson = False) -> None:
    """Show how many jobs are due, deferred, claimed, parked and dead, the workers, and both servers.

    Exits with 1 when a server cannot be used, otherwise with 0, however long the queue is.
    """
    settings = settings_from()

    async def read(servers: Servers) -> Status:
        return await read_status(servers.redis, settings.queue, servers.engine)

    found = with_servers(settings, read)
    if for_people(as_json=as_json):
        _show(found, settings.queue)
    else:
        print_json(status_json(found, settings.queue))
    for server, line in ((found.redis, redis_outage), (found.database, database_outage)):
        if server.error is not None:
            errors.print(line(server.error), style="red", soft_wrap=True, markup=False)
    raise typer.Exit(0 if found.reachable else 1)


def status_json(found: Status, queue: str) -> dict[str, Any]:
    """The status for programs."""
    jobs = found.jobs
    names = ("due", "deferred", "claimed", "parked", "dead")
    return {
        "queue": queue,
        "redis": _server_json(found.redis),
        "database": _server_json(found.database),
        "jobs": None if jobs is None else {name: getattr(jobs, name) for name in names},
        "oldest_due_seconds": None if jobs is None else _rounded(jobs.oldest_due_seconds, 3),
        "workers": [_worker_json(worker) for worker in found.workers],
    }


def _server_json(server: ServerStatus) -> dict[str, Any]:
    return {"reachable": server.error is None, "version": server.version, "error": server.error}


def _worker_json(worker: WorkerStatus) -> dict[str, Any]:
    state = worker.state
    return {
        "name": escape(worker.name),
        "missing": worker.missing,
        "heartbeat_age_seconds": _rounded(worker.age_seconds, 1),
        "running": state.running,
        "leases": state.held,
        "concurrency": state.concurrency,
        "jobs": [{"id": run.id, "job": run.job, "attempt": run.attempt, "seconds": run.seconds} for run in state.jobs],
    }


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)


def _show(found: Status, queue: str) -> None:
    output = console()
    for name, server in (("redis", found.redis), ("database", found.database)):
        version = Text(server.version or "", "green") if server.error is None else Text("unreachable", "bold red")
        output.print(Text.assemble((f"{name:<10}", "dim"), version))
    output.print(Text.assemble((f"{'queue':<10}", "dim"), queue))
    if found.jobs is not None:
        output.print("", jobs_view(found.jobs), "", workers_view(found.workers), sep="\n")


def jobs_view(jobs: JobCounts) -> RenderableType:
    """How many jobs are in each state."""
    states = [
        ("due", jobs.due, "yellow"),
        ("claimed", jobs.claimed, "green"),
        ("deferred", jobs.deferred, ""),
        ("parked", jobs.parked, ""),
        ("dead", jobs.dead, "bold red"),
    ]
    counts = table()
    for name, count, style in states:
        counts.add_column(name, justify="right", style=style if count else "dim")
    counts.add_row(*(format_count(count) for _, count, _ in states))
    if jobs.oldest_due_seconds is None:
        return counts
    return Group(counts, f"the oldest has been due for {format_duration(jobs.oldest_due_seconds)}")


def workers_view(workers: Sequence[WorkerStatus], limit: int = 100) -> RenderableType:
    """One row per worker: its last heartbeat, what it runs, and how loaded it is."""
    if not workers:
        return Text("no workers", style="bold red")
    rows = table("worker")
    for name in ("heartbeat", "running", "leases", "loop lag", "connections"):
        rows.add_column(name, justify="right")
    rows.add_column("longest running")
    for worker in workers[:limit]:
        _add_worker(rows, worker)
    if len(workers) > limit:
        rows.add_row(f"and {len(workers) - limit:,} more")
    return rows


def _add_worker(rows: Table, worker: WorkerStatus) -> None:
    state = worker.state
    age = "never" if worker.age_seconds is None else f"{format_duration(worker.age_seconds)} ago"
    longest = (f"{format_text(run.job)} {format_duration(run.seconds)}" for run in state.jobs[:MAX_RUNNING_SHOWN])
    rows.add_row(
        Text(escape(worker.name), style="bold red" if worker.missing else "green"),
        f"missing, {age}" if worker.missing else age,
        f"{format_count(state.running)} of {format_count(state.concurrency)}",
        format_count(state.held),
        format_duration(state.loop_lag_seconds),
        "–" if state.pool_in_use is None else f"{state.pool_in_use} used, {format_count(state.pool_idle)} idle",
        Text(", ".join(longest)),
    )
