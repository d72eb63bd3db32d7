"""userpost-worker: the producer, and `worker run` with its defaults.

The contract has no job without an effect. For `noop`, the jobs are create_user and the worker's transaction is replaced
by a count: jobs are claimed, decoded, answered, settled and logged as usual.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from benchmarks.adapters.base import Adapter, job_counter, main
from benchmarks.adapters.workload import Job, create_user
from producers import CreatePost, CreateUser, DeletePost, DeleteUser, Message, Producer, UpdatePost, UpdateUser
from worker.__main__ import main as worker_main
from worker.engine.transaction import Transaction
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import Done

_MESSAGES = {
    message.job: message for message in (CreateUser, UpdateUser, DeleteUser, CreatePost, UpdatePost, DeletePost)
}


class Userpost(Adapter):
    """This project."""

    _producer: Producer

    def worker(self) -> None:
        os.execv(sys.executable, [sys.executable, "-m", "worker", "run"])  # noqa: S606  # no shell on purpose

    def noop_worker(self) -> None:
        count = job_counter()

        async def count_and_succeed(_transaction: Transaction, job: ClaimedJob) -> Attempt:
            count()
            return Attempt(job, Done("null"))

        sys.argv = ["worker", "run"]
        with patch.object(Transaction, "run", count_and_succeed):
            worker_main()

    async def open(self) -> None:
        self._producer = await Producer().__aenter__()

    async def close(self) -> None:
        await self._producer.close()

    async def enqueue(self, job: Job) -> None:
        await self._producer.enqueue(_message(job))

    async def enqueue_many(self, batch: Sequence[Job]) -> None:
        await self._producer.enqueue_many(map(_message, batch))


def _message(job: Job) -> Message[Any]:
    name, fields = job if job[0] != "noop" else create_user(f"job{job[1]['number']}")
    return _MESSAGES[name].model_validate(fields)


if __name__ == "__main__":
    main(Userpost())
