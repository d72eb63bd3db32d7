"""This project's client and worker, behind the same command line as the other systems' programs.

`worker` is the genuine `worker run`. `python -m benchmarks.ours noop` is the same engine with a stand-in for the
database: jobs are claimed, decoded, counted, answered and settled, each logged with a line, and nothing else is left
out.
"""

import asyncio
import os
import sys
from typing import Any
from unittest import mock

import uvloop

from benchmarks.peers.common import System, concurrency, counter, main
from benchmarks.peers.plan import Job
from producers import CreatePost, CreateUser, DeletePost, DeleteUser, Message, Producer, UpdatePost, UpdateUser
from producers._redis import connect
from producers.keys import DEFAULT_QUEUE
from worker import app
from worker.database.session import create_engine, create_sessions
from worker.engine import executor as execution
from worker.engine.arq_functions import functions
from worker.engine.batch import Batches
from worker.engine.context import Runtime, put_runtime
from worker.engine.job_log import JobLog
from worker.engine.pipeline import Options
from worker.engine.worker import EngineWorker
from worker.jobs import REGISTRY
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import Dead, Done, Rejected
from worker.observability import logs
from worker.settings import Settings

_MESSAGES = {
    message.job: message for message in (CreateUser, UpdateUser, DeleteUser, CreatePost, UpdatePost, DeletePost)
}


class Ours(System):
    """The producer, and `worker run`."""

    _producer: Producer

    def worker(self) -> None:
        os.execv(sys.executable, [sys.executable, "-m", "worker", "run"])  # noqa: S606  # no shell on purpose

    async def open(self) -> None:
        self._producer = await Producer().__aenter__()

    async def close(self) -> None:
        await self._producer.close()

    async def enqueue(self, job: Job) -> None:
        await self._producer.enqueue(_message(job))

    async def enqueue_many(self, many: list[Job]) -> None:
        await self._producer.enqueue_many(map(_message, many))


def _message(job: Job) -> Message[Any]:
    name, fields = job
    return _MESSAGES[name].model_validate(fields)


class Counting:
    """A stand-in for the transaction: every job is done as soon as it is counted."""

    def __init__(self) -> None:
        self._count = counter()

    async def run(self, job: ClaimedJob) -> Attempt:
        self._count()
        return Attempt(job, Done("null"))

    async def record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        return Attempt(job, outcome)


def noop() -> None:
    """The engine without a database, until SIGTERM."""
    logs.configure("json", "info")
    asyncio.set_event_loop(uvloop.new_event_loop())
    worker = EngineWorker(
        options=Options(
            concurrency=concurrency(),
            lease_seconds=10,
            max_tries=5,
            grace_seconds=25,
            result_ttl_seconds=3600,
            max_payload_bytes=1024 * 1024,
        ),
        functions=functions(REGISTRY.values(), 30),
        redis_pool=connect(os.environ["REDIS_URL"], queue=DEFAULT_QUEUE),
        queue_name=DEFAULT_QUEUE,
        on_startup=_start_without_database,
    )
    app.tune_gc()
    worker.run()


def quiet() -> None:
    """`worker run`, which counts nothing and logs no job: what the observing of it is measured against."""

    def nothing(*_: object, **__: object) -> str:
        return ""

    with mock.patch.object(execution, "format_counts", nothing):
        app.run(Settings.load(log_level="error"))


async def _start_without_database(ctx: dict[Any, Any]) -> None:
    engine = create_engine("postgresql://localhost/none", pool_size=1)  # opens nothing
    runner, sessions = Counting(), create_sessions(engine)
    batches = Batches(runner, sessions, REGISTRY, timeout_seconds=30)
    put_runtime(ctx, Runtime(engine, sessions, runner, batches, {}, JobLog(REGISTRY)))


if __name__ == "__main__":
    if sys.argv[1:] == ["noop"]:
        noop()
    elif sys.argv[1:] == ["quiet"]:
        quiet()
    else:
        main(Ours())
