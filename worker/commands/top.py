"""`worker top`: the queue live on a terminal, or as one JSON object per snapshot."""

import asyncio
import time
from contextlib import nullcontext, suppress
from typing import Annotated, Any

import typer
from rich.live import Live

from worker.commands.common import AsJson, Servers, console, for_people, print_json, settings_from, with_servers
from worker.commands.status import status_json
from worker.commands.top_view import JobTypes, view
from worker.queue.counters import Counters
from worker.views.throughput import Snapshot, SnapshotPoller


def top(
    every: Annotated[float, typer.Option(min=0.2, max=60, metavar="SECONDS", help="Time between snapshots.")] = 1.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Exit after this many snapshots; by default run until Ctrl-C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the queue live: throughput, waiting times, jobs by state, and what each worker runs.

    In a pipe: one JSON object per snapshot. A snapshot costs about ten Redis commands, however long the queue is.
    """
    settings = settings_from()
    people = for_people(as_json=as_json)

    async def watch(servers: Servers) -> None:
        poller = SnapshotPoller(servers.redis, servers.engine, settings.queue)
        screen = Live(console=console(), screen=True, auto_refresh=False) if people else None
        with screen or nullcontext():
            left = count
            while left is None or left > 0:
                started = time.monotonic()
                snapshot = await poller.poll()
                if screen is None:
                    print_json(_as_json(snapshot, settings.queue))
                else:
                    screen.update(view(snapshot, settings.queue, poller.history, job_types(snapshot)), refresh=True)
                left = None if left is None else left - 1
                await asyncio.sleep(max(0.0, started + every - time.monotonic()) if left != 0 else 0)

    with suppress(KeyboardInterrupt):
        with_servers(settings, watch)


def job_types(snapshot: Snapshot) -> JobTypes:
    """For each job type: jobs that ended and that were retried per second, and how long they waited and ran."""
    now, before = snapshot.counters, snapshot.previous
    if now is None or before is None:
        return {}
    seconds = max(snapshot.seconds, 0.001)
    return {
        job: {
            "ended_per_second": max(0.0, (_ended(now, job) - _ended(before, job)) / seconds),
            "retried_per_second": max(0.0, (_retried(now, job) - _retried(before, job)) / seconds),
            "wait_p50_seconds": now.wait[job].since(before.wait[job]).quantile(0.5) if job in before.wait else None,
            "run_p95_seconds": now.run[job].since(before.run[job]).quantile(0.95) if job in before.run else None,
        }
        for job in sorted(now.run)
    }


def _ended(counters: Counters, wanted: str) -> int:
    return sum(count for (job, _, _), count in counters.ended.items() if job == wanted)


def _retried(counters: Counters, wanted: str) -> int:
    return sum(count for (job, ended, _), count in counters.attempts.items() if (job, ended) == (wanted, "retry"))


def _as_json(snapshot: Snapshot, queue: str) -> dict[str, Any]:
    sample = snapshot.sample
    return status_json(snapshot.status, queue) | {
        "jobs_per_second": _rounded(sample.rates, 2),
        "wait_seconds": _rounded(sample.waits, 4),
        "job_types": {job: _rounded(values, 4) for job, values in job_types(snapshot).items()},
    }


def _rounded(values: Any, digits: int) -> dict[str, float | None] | None:
    if values is None:
        return None
    return {name: None if value is None else round(value, digits) for name, value in values.items()}
