"""`worker status`: how the queue stands, for people and for programs."""

from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.commands.common import AsJson, Servers, errors, for_people, print_json, settings_from, with_servers
from worker.queue.status import Server, Status, WorkerSeen
from worker.queue.status import status as ask
from worker.views.escaped import escape
from worker.views.formatting import shown, span

MOST_JOBS = 3


def status(as_json: AsJson = False) -> None:
    """Show how many jobs are due, deferred, in flight, parked and dead, which workers are there, and both servers.

    Ends with 1 when a server cannot be used, however busy the queue is with 0.
    """
    settings = settings_from()

    async def look(servers: Servers) -> Status:
        return await ask(servers.redis, settings.queue, servers.engine)

    found = with_servers(settings, look)
    if for_people(as_json=as_json):
        _show(found, settings.queue)
    else:
        print_json(as_json_of(found, settings.queue))
    for name, server in (("Redis", found.redis), ("the database", found.database)):
        if server.trouble is not None:
            errors.print(f"{name} cannot be used: {server.trouble}", style="red", soft_wrap=True, markup=False)
    raise typer.Exit(0 if found.reachable else 1)


def as_json_of(found: Status, queue: str) -> dict[str, Any]:
    """How the queue stands, for programs."""
    jobs = found.jobs
    return {
        "queue": queue,
        "redis": _server(found.redis),
        "database": _server(found.database),
        "jobs": None
        if jobs is None
        else {
            "due": jobs.due,
            "deferred": jobs.deferred,
            "in_flight": jobs.in_flight,
            "parked": jobs.parked,
            "dead": jobs.dead,
        },
        "oldest_due_seconds": None
        if jobs is None or jobs.oldest_due_seconds is None
        else round(jobs.oldest_due_seconds, 3),
        "workers": [
            {
                "name": escape(worker.name),
                "missing": worker.missing,
                "seen_seconds": None if worker.seen_seconds is None else round(worker.seen_seconds, 1),
                "running": worker.beat.running,
                "held": worker.beat.held,
                "concurrency": worker.beat.concurrency,
                "jobs": [job.model_dump(by_alias=True) for job in worker.beat.jobs],
            }
            for worker in found.workers
        ],
    }


def _server(server: Server) -> dict[str, Any]:
    return {"reachable": server.trouble is None, "version": server.version, "trouble": server.trouble}


def _show(found: Status, queue: str) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    for name, server in (("redis", found.redis), ("database", found.database)):
        told = Text(server.version or "", style="green") if server.trouble is None else Text("away", style="bold red")
        console.print(Text.assemble((f"{name:<10}", "dim"), told))
    console.print(Text.assemble((f"{'queue':<10}", "dim"), queue))
    if (jobs := found.jobs) is None:
        return
    counts = Table(box=None, pad_edge=False, header_style="dim")
    for name, count, style in (
        ("due", jobs.due, "yellow"),
        ("deferred", jobs.deferred, ""),
        ("in flight", jobs.in_flight, "green"),
        ("parked", jobs.parked, ""),
        ("dead", jobs.dead, "bold red"),
    ):
        counts.add_column(name, justify="right", style=style if count else "dim")
    counts.add_row(*(f"{count:,}" for count in (jobs.due, jobs.deferred, jobs.in_flight, jobs.parked, jobs.dead)))
    console.print("", counts, sep="\n")
    if jobs.oldest_due_seconds is not None:
        console.print(f"the oldest has been due for {span(jobs.oldest_due_seconds)}")
    console.print("", _workers(found.workers) if found.workers else Text("no workers", style="bold red"), sep="\n")


def _workers(workers: list[WorkerSeen]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("worker")
    for name in ("seen", "running", "held", "at once"):
        table.add_column(name, justify="right")
    table.add_column("longest running")
    for worker in workers:
        seen = "never" if worker.seen_seconds is None else f"{span(worker.seen_seconds)} ago"
        beat = worker.beat
        table.add_row(
            Text(escape(worker.name), style="bold red" if worker.missing else "green"),
            f"missing, {seen}" if worker.missing else seen,
            *("?" if number is None else str(number) for number in (beat.running, beat.held, beat.concurrency)),
            longest_running(worker),
        )
    return table


def longest_running(worker: WorkerSeen) -> str:
    """What a worker has run for longest, as far as it has said so."""
    return ", ".join(f"{shown(job.job)} {span(job.seconds)}" for job in worker.beat.jobs[:MOST_JOBS])
