"""What the programs of all systems share: their command line, their counters, and how the idle latency is taken.

    python -m benchmarks.peers.NAME worker                  runs the worker until SIGTERM
    python -m benchmarks.peers.NAME enqueue SCENARIO N      enqueues in bulk; prints {"jobs": …, "seconds": …}
    python -m benchmarks.peers.NAME single N                awaits N enqueues one after the other; prints the same
    python -m benchmarks.peers.NAME latency N               enqueues to an idle worker; prints {"ms": […]}
    python -m benchmarks.peers.NAME prepare                 makes what the system needs in a fresh database

Settings come from the environment: DATABASE_URL, REDIS_URL, CONCURRENCY, HANDLERS, COUNTERS, and LEASE_SECONDS for the
measurements in which workers are killed.
"""

import asyncio
import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import uvloop

from benchmarks.peers.plan import Job, create_user, jobs

KINDS = ("create_user", "update_user", "delete_user", "create_post", "update_post", "delete_post")
CHANNEL = "benchmark_created"
"""Where a trigger, the same for all systems, tells the name of each user once it is committed."""

_A_CALL = 10_000
_WARM_UP = 20
_PAUSE_SECONDS = 0.01
_PATIENCE_SECONDS = 20


class System:
    """A queue's client and worker. The programs fill in these methods, and `main` does the rest."""

    def worker(self) -> None:
        """Run the worker, in the way that its makers recommend, until SIGTERM."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Make what the system needs in a fresh database."""

    async def open(self) -> None:
        """Connect the client."""

    async def close(self) -> None:
        """Disconnect the client."""

    async def enqueue(self, job: Job) -> None:
        """Put one job into the queue; returns when it is accepted."""
        raise NotImplementedError

    async def enqueue_many(self, many: list[Job]) -> None:
        """Put many jobs into the queue, in the quickest way that there is."""
        raise NotImplementedError


def main(system: System) -> None:
    """Do what the command line says."""
    command, *rest = sys.argv[1:]
    match command, rest:
        case "worker", []:
            system.worker()
        case "prepare", []:
            uvloop.run(system.prepare())
        case "enqueue", [scenario, count]:
            _print(_taken(int(count), uvloop.run(_bulk(system, scenario, int(count)))))
        case "single", [count]:
            _print(_taken(int(count), uvloop.run(_single(system, int(count)))))
        case "latency", [count]:
            _print({"ms": uvloop.run(_latency(system, int(count)))})
        case _:
            raise SystemExit(__doc__)


def concurrency() -> int:
    """How many jobs a worker may run at once."""
    return int(os.environ.get("CONCURRENCY", "16"))


def lease_seconds() -> int | None:
    """After how long a dead worker's jobs shall run again, as far as the system can be told so.

    None where no worker is killed: then a system may be as quick as it can, and lose what a dead worker held.
    """
    given = os.environ.get("LEASE_SECONDS")
    return int(given) if given else None


@cache
def counter() -> Callable[[], None]:
    """What counts one job. Each process has a file of its own, mapped into memory: no system call a job."""
    path = Path(os.environ["COUNTERS"], str(os.getpid()))
    path.write_bytes(bytes(8))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 8)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        struct.pack_into("=Q", memory, 0, done)

    return count


def counted(folder: Path) -> list[int]:
    """How many jobs each of the processes has counted so far."""
    files = [path.read_bytes() for path in folder.iterdir()]
    return [struct.unpack("=Q", content)[0] for content in files if content]


async def _bulk(system: System, scenario: str, count: int) -> float:
    await system.open()
    seconds = 0.0
    source = jobs(scenario, count)
    # In pieces, so that making the jobs is not timed, and a million need not be held at once.
    while piece := list(islice(source, _A_CALL)):
        started = time.perf_counter()
        await system.enqueue_many(piece)
        seconds += time.perf_counter() - started
    await system.close()
    return seconds


async def _single(system: System, count: int) -> float:
    await system.open()
    many = list(jobs("create_user", count))
    started = time.perf_counter()
    for job in many:
        await system.enqueue(job)
    seconds = time.perf_counter() - started
    await system.close()
    return seconds


async def _latency(system: System, count: int) -> list[float]:
    """From just before the enqueue until this process hears that the row is committed, in milliseconds."""
    await system.open()
    heard: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.add_listener(CHANNEL, lambda *told: heard.put_nowait(told[-1]))
    taken = []
    for number in range(_WARM_UP + count):
        await asyncio.sleep(_PAUSE_SECONDS)  # the worker has become idle again
        name = f"job{number}"
        started = time.perf_counter()
        await system.enqueue(create_user(name))
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await heard.get() != name:
                pass
        taken.append((time.perf_counter() - started) * 1000)
    await connection.close()
    await system.close()
    return taken[_WARM_UP:]


def _taken(count: int, seconds: float) -> dict[str, float]:
    return {"jobs": count, "seconds": seconds}


def _print(result: object) -> None:
    print(json.dumps(result))  # noqa: T201  # the program's output
