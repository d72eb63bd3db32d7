"""Celery on Redis, prefork: its own command; handlers with a Session and psycopg, since it has no asyncio.

No heartbeat, gossip or mingle, no results, and messages ahead for each process. As many processes as the others have
jobs at once: on two cores that was quicker than 2, 4 or 8.
"""

import os

from celery import Celery  # type: ignore[import-not-found]  # in the environment of its own

from benchmarks.peers.blocking import tasks
from benchmarks.peers.common import System, concurrency, main
from benchmarks.peers.plan import Job

APP = Celery("benchmarks", broker=os.environ["REDIS_URL"])
APP.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=16,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
_TASKS = {name: APP.task(task, name=name) for name, task in tasks().items()}


class CeleryPrefork(System):
    """Celery 5."""

    def worker(self) -> None:
        options = ["--pool", "prefork", "--concurrency", str(concurrency()), "--loglevel", "WARNING"]
        APP.worker_main(["worker", *options, "--without-heartbeat", "--without-gossip", "--without-mingle"])

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        _TASKS[name].apply_async(kwargs=fields)

    async def enqueue_many(self, many: list[Job]) -> None:
        # There is no bulk call; one producer for all spares the look for a free one.
        with APP.producer_or_acquire() as producer:
            for name, fields in many:
                _TASKS[name].apply_async(kwargs=fields, producer=producer)


if __name__ == "__main__":
    main(CeleryPrefork())
