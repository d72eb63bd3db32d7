"""procrastinate, whose queue is in PostgreSQL: its own worker on uvloop, woken by LISTEN; Redis is not used."""

import os
from itertools import groupby

import uvloop
from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]  # in the environment of its own

from benchmarks.peers.common import System, concurrency, main
from benchmarks.peers.handlers import tasks
from benchmarks.peers.plan import Job

_A_CALL = 1000

APP = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], max_size=concurrency()))
_TASKS = {name: APP.task(task, name=name) for name, task in tasks().items()}


class Procrastinate(System):
    """procrastinate 3."""

    def worker(self) -> None:
        uvloop.run(self._work())

    async def _work(self) -> None:
        async with APP.open_async():
            await APP.run_worker_async(concurrency=concurrency())

    async def prepare(self) -> None:
        async with APP.open_async():
            await APP.schema_manager.apply_schema_async()

    async def open(self) -> None:
        await APP.open_async()

    async def close(self) -> None:
        await APP.close_async()

    async def enqueue(self, job: Job) -> None:
        name, fields = job
        await _TASKS[name].defer_async(**fields)

    async def enqueue_many(self, many: list[Job]) -> None:
        # One call is for jobs of one task: neighbours of one name go together, so that the order stays.
        for name, group in groupby(many, key=lambda job: job[0]):
            fields = [fields for _, fields in group]
            for start in range(0, len(fields), _A_CALL):
                await _TASKS[name].batch_defer_async(*fields[start : start + _A_CALL])


if __name__ == "__main__":
    main(Procrastinate())
