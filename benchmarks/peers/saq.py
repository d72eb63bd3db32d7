"""SAQ on Redis: its own command, on uvloop and with hiredis.

Where workers are killed, a job may be tried as often as ours (by default once: what a dead worker held is then given
up), and a job over its time is looked for as often as that may happen (by default once a minute).
"""

import asyncio
import os
from typing import Any

import uvloop
from saq import Queue  # type: ignore[import-not-found]  # in the environment of its own
from saq.worker import start  # type: ignore[import-not-found]

from benchmarks.peers.common import System, concurrency, lease_seconds, main
from benchmarks.peers.handlers import Task, tasks
from benchmarks.peers.plan import Job

_AT_ONCE = 500


class Saq(System):
    """SAQ 0.26."""

    def worker(self) -> None:
        uvloop.install()
        start("benchmarks.peers.saq.SETTINGS")

    async def open(self) -> None:
        await QUEUE.connect()

    async def close(self) -> None:
        await QUEUE.disconnect()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await QUEUE.enqueue(name, **_RETRIES, **fields)

    async def enqueue_many(self, many: list[Job]) -> None:
        # There is no bulk call.
        for begin in range(0, len(many), _AT_ONCE):
            await asyncio.gather(*(self.enqueue(job) for job in many[begin : begin + _AT_ONCE]))


def _with_context(name: str, task: Task) -> tuple[str, Any]:
    async def run(_context: dict[str, Any], **fields: Any) -> None:
        await task(**fields)

    return name, run


_LEASE = lease_seconds()
_RETRIES = {"retries": 5, "timeout": _LEASE} if _LEASE else {}
QUEUE = Queue.from_url(os.environ["REDIS_URL"], max_concurrent_ops=64)
SETTINGS = {
    "queue": QUEUE,
    "functions": [_with_context(name, task) for name, task in tasks().items()],
    "concurrency": concurrency(),
    "timers": {"sweep": _LEASE} if _LEASE else None,
}


if __name__ == "__main__":
    main(Saq())
