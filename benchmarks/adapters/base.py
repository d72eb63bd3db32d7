"""The interface of all systems, and the command line that the benchmarks drive it with.

    python -m benchmarks.adapters.NAME worker                       runs the worker until SIGTERM
    python -m benchmarks.adapters.NAME noop-worker                  the same, for jobs without an effect
    python -m benchmarks.adapters.NAME enqueue WORKLOAD N           enqueues in bulk; prints {"seconds": …}
    python -m benchmarks.adapters.NAME enqueue-single WORKLOAD N    the same, one job after another
    python -m benchmarks.adapters.NAME latency N                    enqueues to an idle worker; prints {"ms": […]}

Settings come from the environment: DATABASE_URL, REDIS_URL, CONCURRENCY, COUNTERS and LEASE_SECONDS.
"""

import asyncio
import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import uvloop

from benchmarks.adapters.workload import Job, create_user, jobs

USER_CREATED_CHANNEL = "benchmark_user_created"
"""A trigger notifies this channel of each committed user. It is the same for all systems."""

CONCURRENCY = int(os.environ.get("CONCURRENCY", "16"))
"""How many jobs a worker runs at once."""
LEASE_SECONDS = int(os.environ.get("LEASE_SECONDS", "0"))
"""How soon a dead worker's jobs run again, where a system has such a setting.

0 where no worker is killed: the system then uses its fastest setup.
"""
_CHUNK_JOBS = 10_000
_CONCURRENT_CALLS = 500
_WARM_UP_JOBS = 20
_PAUSE_SECONDS = 0.01
_LATENCY_TIMEOUT_SECONDS = 20


class Adapter:
    """The client and the worker of one system."""

    def worker(self) -> None:
        """Run the worker until SIGTERM, as the system's documentation recommends."""
        raise NotImplementedError

    def noop_worker(self) -> None:
        """Run a worker for jobs without an effect, until SIGTERM."""
        self.worker()

    async def open(self) -> None:
        """Connect the client."""

    async def close(self) -> None:
        """Disconnect the client."""

    async def enqueue(self, job: Job) -> None:
        """Enqueue one job; return when it is accepted."""
        raise NotImplementedError

    async def enqueue_many(self, batch: Sequence[Job]) -> None:
        """Enqueue many jobs by the system's bulk call or, without one, by concurrent calls."""
        for start in range(0, len(batch), _CONCURRENT_CALLS):
            await asyncio.gather(*(self.enqueue(job) for job in batch[start : start + _CONCURRENT_CALLS]))


def main(adapter: Adapter) -> None:
    """Run the command that the command line names."""
    match sys.argv[1:]:
        case ["worker"]:
            adapter.worker()
        case ["noop-worker"]:
            adapter.noop_worker()
        case ["enqueue" | "enqueue-single" as command, workload, count]:
            seconds = uvloop.run(_enqueue(adapter, workload, int(count), single=command == "enqueue-single"))
            print(json.dumps({"seconds": seconds}))  # noqa: T201  # the program's output
        case ["latency", count]:
            print(json.dumps({"ms": uvloop.run(_measure_latency(adapter, int(count)))}))  # noqa: T201
        case _:
            raise SystemExit(__doc__)


@cache
def job_counter() -> Callable[[], None]:
    """The function that counts one job. Each process counts in a memory-mapped file: no system call per job."""
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


def read_counters(folder: Path) -> list[int]:
    """How many jobs each process has counted."""
    files = [path.read_bytes() for path in folder.iterdir()]
    return [struct.unpack("=Q", content)[0] for content in files if content]


async def _enqueue(adapter: Adapter, workload: str, count: int, *, single: bool) -> float:
    """Seconds spent in the client. Making the jobs is not timed."""
    await adapter.open()
    seconds = 0.0
    source = jobs(workload, count)
    while chunk := list(islice(source, _CHUNK_JOBS)):
        started = time.perf_counter()
        if single:
            for job in chunk:
                await adapter.enqueue(job)
        else:
            await adapter.enqueue_many(chunk)
        seconds += time.perf_counter() - started
    await adapter.close()
    return seconds


async def _measure_latency(adapter: Adapter, count: int) -> list[float]:
    """Milliseconds from just before an enqueue until this process is notified of the committed row."""
    await adapter.open()
    committed: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.add_listener(USER_CREATED_CHANNEL, lambda *event: committed.put_nowait(event[-1]))
    latencies = []
    for number in range(_WARM_UP_JOBS + count):
        await asyncio.sleep(_PAUSE_SECONDS)  # lets the worker become idle again
        name = f"job{number}"
        started = time.perf_counter()
        await adapter.enqueue(create_user(name))
        async with asyncio.timeout(_LATENCY_TIMEOUT_SECONDS):
            while await committed.get() != name:
                pass
        latencies.append((time.perf_counter() - started) * 1000)
    await connection.close()
    await adapter.close()
    return latencies[_WARM_UP_JOBS:]
