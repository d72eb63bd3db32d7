"""SAQ on Redis: its own worker, on uvloop and with hiredis.

Where workers are killed, a job has 5 attempts, as in userpost-worker (default: 1, so a dead worker's jobs are given
up), and the sweep for overdue jobs runs once per lease (default: once a minute).
"""

import os

import uvloop
from saq import Queue  # type: ignore[import-not-found]  # installed in its own environment
from saq.worker import start  # type: ignore[import-not-found]

from benchmarks.adapters.base import CONCURRENCY, LEASE_SECONDS, Adapter, main
from benchmarks.adapters.handlers import tasks_with_context
from benchmarks.adapters.workload import Job


class Saq(Adapter):
    """SAQ 0.26. It has no bulk call."""

    def worker(self) -> None:
        uvloop.install()
        start("benchmarks.adapters.saq.SETTINGS")

    async def open(self) -> None:
        await QUEUE.connect()

    async def close(self) -> None:
        await QUEUE.disconnect()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await QUEUE.enqueue(name, **_RETRIES, **fields)


_RETRIES = {"retries": 5, "timeout": LEASE_SECONDS} if LEASE_SECONDS else {}
QUEUE = Queue.from_url(os.environ["REDIS_URL"], max_concurrent_ops=64)
SETTINGS = {
    "queue": QUEUE,
    "functions": list(tasks_with_context().items()),
    "concurrency": CONCURRENCY,
    "timers": {"sweep": LEASE_SECONDS} if LEASE_SECONDS else None,
}


if __name__ == "__main__":
    main(Saq())
