"""The client: the jobs it enqueued, whether they were accepted, and the outcomes it observed."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from redis.exceptions import RedisError

from producers import CreateUser, EnqueueError, EnqueueUnconfirmed, Message, PartialEnqueueError, Producer, Request

State = Literal["invoked", "ok", "failed", "unknown"]

JOBS_PER_CALL = 500
"""The producer sends this many to Redis at once: all jobs of a call are accepted, or none."""
JOBS_PER_READ = 500
JOBS_PER_POLL = 2000


@dataclass(slots=True, eq=False)
class JobRecord:
    """One enqueued job. Its number is its place in the order of invocation."""

    number: int
    base: str
    message: Message[Any]
    mark: str
    """The text in the rows that the job writes; empty if it deletes."""
    first_call: int
    """The call that first sent the job; this one or a later one accepted it."""
    accepted_by: float = math.inf
    """The call after which the job is known to be accepted; infinite until then."""
    state: State = "invoked"
    observed: str | None = None
    """The first observed outcome, as JSON."""
    events: list[tuple[float, str]] = field(default_factory=list)
    key: str | None = field(init=False)
    job_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.message.ordering_key
        self.job_id = self.base if self.key is None else f"{self.base}@{self.key}"

    def log(self, event: str) -> None:
        self.events.append((time.time(), event))

    def __str__(self) -> str:
        events = "; ".join(f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f} {event}" for at, event in self.events)
        return f"#{self.number} {self.job_id} {self.message.job} {self.mark} {self.state}: {events}"


class Client:
    """Enqueues through the proxy and keeps the history.

    Args:
        url: Redis behind the proxy.
        redis: Redis itself, to read outcomes; it fails at once while Redis is down.
        prefix: the first part of all ids.
    """

    def __init__(self, url: str, redis: Any, prefix: str, *, timeout_seconds: float = 1.5) -> None:
        self.producer = Producer(url, timeout_seconds=timeout_seconds)
        self.history: list[JobRecord] = []
        self.redis = redis
        self.created_users: list[int] = []
        """Ids of created users, the newest last."""
        self._prefix = prefix
        self._one_call = asyncio.Lock()
        self._numbers, self._calls = itertools.count(1), itertools.count(1)
        self._unobserved: dict[str, JobRecord] = {}

    async def close(self) -> None:
        await self.producer.close()

    async def enqueue(self, messages: Sequence[tuple[Message[Any], str]]) -> list[JobRecord]:
        """Enqueue messages, each with the mark of its rows, and record the answers."""
        jobs = []
        for start in range(0, len(messages), JOBS_PER_CALL):
            # One call at a time, or the order of acceptance is unknown.
            async with self._one_call:
                call = next(self._calls)
                batch = []
                for message, mark in messages[start : start + JOBS_PER_CALL]:
                    number = next(self._numbers)
                    batch.append(JobRecord(number, f"{self._prefix}-{number}", message, mark, call))
                self.history += batch
                jobs += batch
                await self._send(batch, call)
        return jobs

    async def repeat(self, jobs: Iterable[JobRecord]) -> None:
        """Enqueue again, under the same ids, the jobs that may not have been accepted."""
        unknown = [job for job in jobs if job.state == "unknown"]
        # The jobs of one call stay together: whichever call is accepted, it accepts all of them.
        for _, batch in itertools.groupby(unknown, key=lambda job: job.first_call):
            async with self._one_call:
                await self._send(list(batch), next(self._calls))

    def forget(self, jobs: Collection[JobRecord]) -> None:
        """Drop jobs that were removed from the queue by hand."""
        self.history = [job for job in self.history if job not in jobs]
        for job in jobs:
            self._unobserved.pop(job.job_id, None)

    async def watch_outcomes(self) -> None:
        while True:
            # In slices, so that a large backlog does not starve the watcher.
            jobs = list(itertools.islice(self._unobserved.values(), JOBS_PER_POLL))
            with suppress(RedisError, OSError):
                await self.poll(jobs)
            for job in jobs:
                if self._unobserved.pop(job.job_id, None) is not None:
                    self._unobserved[job.job_id] = job
            await asyncio.sleep(0.2)

    async def poll(self, jobs: Sequence[JobRecord] | None = None) -> None:
        """Record the first outcome of these jobs, or of all jobs without one."""
        waiting = [job for job in (self._unobserved.values() if jobs is None else jobs) if job.observed is None]
        for job, outcome in zip(waiting, await self.outcomes(waiting), strict=True):
            # Another task may have polled in the meantime.
            if outcome is not None and self._unobserved.pop(job.job_id, None) is not None:
                job.observed = outcome
                job.log(f"observed {outcome[:80]}")
                if isinstance(job.message, CreateUser) and outcome.startswith("[true"):
                    self.created_users.append(json.loads(outcome)[1]["id"])

    async def outcomes(self, jobs: Sequence[JobRecord]) -> list[str | None]:
        """The current outcomes of these jobs in one form: done and the reply, or the error."""
        results = await self._results(jobs)
        return [
            None if result is None else json.dumps([result["s"], result["r"]], sort_keys=True) for result in results
        ]

    async def attempts(self) -> set[int]:
        """The numbers of attempts that the jobs of the history took, by their results."""
        return {result["t"] for result in await self._results(self.history) if result is not None}

    async def _results(self, jobs: Sequence[JobRecord]) -> list[Any]:
        results: list[Any] = []
        for start in range(0, len(jobs), JOBS_PER_READ):
            keys = [f"arq:result:{job.job_id}" for job in jobs[start : start + JOBS_PER_READ]]
            results += [None if data is None else json.loads(data) for data in await self.redis.mget(keys)]
        return results

    async def _send(self, jobs: list[JobRecord], call: int) -> None:
        for job in jobs:
            job.log("invoked")
            # Watch for an outcome even if the enqueue fails: the job may have been accepted anyway.
            if job.observed is None:
                self._unobserved.setdefault(job.job_id, job)
        requests = [Request(job.message, idempotency_key=job.base) for job in jobs]
        try:
            outcomes: Sequence[object] = await self.producer.enqueue_many(requests)
        except PartialEnqueueError as error:
            outcomes = error.outcomes
        for job, outcome in zip(jobs, outcomes, strict=True):
            match outcome:
                case EnqueueUnconfirmed():
                    job.state = "unknown"
                case EnqueueError():
                    # An earlier call without an answer may have accepted it.
                    job.state = "unknown" if job.state == "unknown" else "failed"
                case _:
                    job.state, job.accepted_by = "ok", call
            job.log(job.state)
