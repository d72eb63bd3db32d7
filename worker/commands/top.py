"""`worker top`: how the queue stands, live on a terminal, a look a second."""

import asyncio
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from worker.commands.common import AsJson, Servers, for_people, print_json, settings_from, with_servers
from worker.commands.status import as_json_of
from worker.commands.top_view import view
from worker.queue.counters import Counters
from worker.queue.status import Status
from worker.views.look import look
from worker.views.throughput import History, Point


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found; `before` are the counts of the look before, as far as they can be compared."""

    found: Status
    point: Point
    counted: Counters | None
    before: Counters | None
    seconds: float
    """Since the look before."""


class Watch:
    """Looks again and again, and remembers the last two minutes."""

    def __init__(self, servers: Servers, queue: str) -> None:
        self._servers = servers
        self._queue = queue
        self._counted: Counters | None = None
        self._at_seconds = 0.0
        self.history = History()

    async def look(self) -> Look:
        """Ask both servers. Takes a few seconds at the most, and raises nothing for one that is away."""
        found, counted = await look(self._servers.redis, self._queue, self._servers.engine)
        now = time.monotonic()
        seconds, self._at_seconds = now - self._at_seconds, now
        before, self._counted = self._counted, counted
        return Look(found, self.history.add(now, counted), counted, before, seconds)


def top(
    every: Annotated[float, typer.Option(min=0.2, max=60, metavar="SECONDS", help="From one look to the next.")] = 1.0,
    looks: Annotated[int | None, typer.Option(min=1, help="End after so many; default: at Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the queue live: throughput, waiting times, what is where, and what each worker runs.

    In a pipe: one JSON object a look. It asks Redis some ten commands a look, however long the queue is.
    """
    settings = settings_from()
    people = for_people(as_json=as_json)

    async def watch(servers: Servers) -> None:
        watching = Watch(servers, settings.queue)
        screen = Live(console=Console(highlight=False), screen=True, auto_refresh=False) if people else None
        with screen or nullcontext():
            left = looks
            while left is None or left > 0:
                begun = time.monotonic()
                seen = await watching.look()
                if screen is None:
                    print_json(_as_json(seen, settings.queue))
                else:
                    screen.update(view(seen.found, settings.queue, watching.history, rates(seen)), refresh=True)
                left = None if left is None else left - 1
                await asyncio.sleep(max(0.0, begun + every - time.monotonic()) if left != 0 else 0)

    with suppress(KeyboardInterrupt):
        with_servers(settings, watch)


def rates(seen: Look) -> dict[str, dict[str, float | None]]:
    """Of each kind of job: how many ended and were retried a second, and how long they waited and ran, in seconds."""
    if seen.counted is None or seen.before is None:
        return {}
    now, before = seen.counted, seen.before
    return {
        kind: {
            "ended": _a_second(_of(now.ended, kind) - _of(before.ended, kind), seen.seconds),
            "retried": _a_second(_retried(now, kind) - _retried(before, kind), seen.seconds),
            "wait_p50": now.wait[kind].since(before.wait[kind]).quantile(0.5) if kind in before.wait else None,
            "run_p95": now.run[kind].since(before.run[kind]).quantile(0.95) if kind in before.run else None,
        }
        for kind in sorted(now.run)
    }


def _of(counts: dict[tuple[str, str, str], int], kind: str) -> int:
    return sum(count for (job, _, _), count in counts.items() if job == kind)


def _retried(counted: Counters, kind: str) -> int:
    return sum(count for (job, ended, _), count in counted.attempts.items() if (job, ended) == (kind, "retry"))


def _a_second(count: int, seconds: float) -> float:
    return max(0.0, count / max(seconds, 0.001))


def _as_json(seen: Look, queue: str) -> dict[str, Any]:
    point = seen.point
    return as_json_of(seen.found, queue) | {
        "jobs_a_second": None if point.rates is None else {name: round(rate, 2) for name, rate in point.rates.items()},
        "wait_seconds": None if point.waits is None else {name: round(wait, 4) for name, wait in point.waits.items()},
        "kinds": {
            kind: {name: None if value is None else round(value, 4) for name, value in values.items()}
            for kind, values in rates(seen).items()
        },
    }
