"""From a claimed job to its settlement: try, tell the log, write the result."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Protocol, assert_never

import structlog

from producers import ids, keys, wire
from worker.engine.job import Job
from worker.engine.job_log import Journal
from worker.engine.transaction import Claim
from worker.model.backoff import backoff_seconds
from worker.model.causes import causes
from worker.model.failures import classify, describe
from worker.model.log_context import told_name, trying
from worker.model.outcome import Attempt, Dead, Done, Outcome, Rejected, Release, Retry
from worker.model.registry import REGISTRY
from worker.queue.counters import tally
from worker.queue.queue import Burial, Completion, GiveBack, RetryLater, Settlement

log = structlog.get_logger("worker")

_CANCELLED = Rejected("cancelled", "the job was cancelled")


class Effects(Protocol):
    """What gives claims their effects: `Transaction`, or a stand-in that has none."""

    async def run(self, claim: Claim) -> Attempt:
        """Try a job once; raises only when it is cancelled."""

    async def settle(self, claim: Claim, outcome: Rejected | Dead) -> Outcome | Release:
        """Write down the outcome of a job that is not to be tried, unless it has one already."""


class Batched(Protocol):
    """What gives many claims of one kind their effects together: `Batches`, or a stand-in."""

    def takes(self, claim: Claim) -> bool:
        """Whether a claim may share a session with others of its kind."""

    async def run(self, claims: Sequence[Claim], tell: Callable[[Sequence[tuple[Claim, Attempt]]], None]) -> None:
        """Try claims once; tell what they came to, as soon as it is known; raises only when it is cancelled."""


Tick = Callable[[str], Awaitable[None]]
"""Runs a scheduled job for the tick of this id."""


class Execution:
    """Tries jobs and says how each is to be settled.

    Args:
        effects: gives jobs their effects.
        batched: gives jobs of one kind theirs together; None: each has a session of its own.
        ticks: runs scheduled jobs, by the names that they have in the queue.
        names: the jobs that are known here, those of the clock not among them.
        queue: the queue's name.
        worker: this worker's name, for dead letters.
        max_tries: after how many tries a job is dead that meets a fault of the engine's own.
        database_lost: told why, whenever a job could not be tried.
        gathered: what is logged within it may be written at once.
        success_sample: the part of the jobs done whose line is logged.
    """

    def __init__(
        self,
        effects: Effects,
        batched: Batched | None,
        ticks: Mapping[str, Tick],
        *,
        names: Iterable[str] = REGISTRY,
        queue: str,
        worker: str,
        max_tries: int,
        database_lost: Callable[[str], None],
        gathered: Callable[[], AbstractContextManager[None]] = nullcontext,
        success_sample: float = 1.0,
    ) -> None:
        self._effects = effects
        self._batched = batched
        self._ticks = ticks
        self._names = frozenset([*names, *ticks])
        self._queue = queue
        self._worker = worker
        self._max_tries = max_tries
        self._database_lost = database_lost
        self._gathered = gathered
        self._journal = Journal(self._names, success_sample)

    def sharing(self, job: Job) -> str | None:
        """The name of what can share a session with this job; None when it needs one of its own."""
        if self._batched is None or job.unreadable is not None or job.cancelled:
            return None
        return job.claim.job if self._batched.takes(job.claim) else None

    async def run_batch(self, jobs: Sequence[Job], settle: Callable[[Job, Settlement | None], None]) -> None:
        """Try jobs that share a session, and settle each as soon as it is known what it came to."""
        started_ms = time.time() * 1000
        left = {id(job.claim): job for job in jobs}
        stops = False
        for job in jobs:
            job.started_ms = started_ms

        def tell(attempts: Sequence[tuple[Claim, Attempt]]) -> None:
            together, heads = len(attempts), True
            with self._gathered():
                for claim, attempt in attempts:
                    job = left.pop(id(claim))
                    settle(job, self._conclude(job, attempt, together=together, heads=heads))
                    heads = False

        try:
            if self._batched is not None:
                await self._batched.run([job.claim for job in jobs], tell)
        except asyncio.CancelledError:
            _uncancel()
            # Either one of them is not wanted here any more, or none is.
            stops = not any(job.lost or job.cancelled for job in left.values())
        except Exception as error:  # noqa: BLE001  # a fault of the engine's own: the single form is the truth
            log.error("batch_fault", error=causes(error))  # noqa: TRY400  # its text may hold values
        for job in left.values():
            job.started_ms = 0.0  # it has to begin again
        for job in list(left.values()):
            settlement = GiveBack(job.claimed.lease) if stops else None if job.lost else await self.run(job)
            job.started_ms = job.started_ms or started_ms
            job.claim.committing = False  # it has been; the next one is not yet
            settle(job, settlement)
            stops = stops or isinstance(settlement, GiveBack)

    async def run(self, job: Job) -> Settlement | None:
        """Try a job to its settlement; None when there is nothing to settle, for it is another worker's."""
        trying(job.claim.job_id, told_name(job.claim.job, self._names), job.claim.tries)
        job.started_ms = time.time() * 1000
        try:
            attempt = await self._attempt(job)
        except asyncio.CancelledError:
            if job.lost:
                return None
            attempt = await self._cancelled(job) if job.cancelled else Release("the worker stops", outage=False)
        except Exception as error:  # noqa: BLE001  # a fault of the engine's own must not keep the job for ever
            failed = Retry if job.claim.tries < self._max_tries else Dead
            attempt = failed("failed", describe(error), causes(error))
        alone = self._batched is not None  # a batch of one, where there are batches
        return self._conclude(job, attempt, together=int(alone), heads=alone)

    def _conclude(self, job: Job, attempt: Attempt, *, together: int, heads: bool) -> Settlement:
        ended_ms = time.time() * 1000
        wait_ms = max(0.0, job.started_ms - job.claim.due_ms)
        run_ms = max(0.0, ended_ms - job.started_ms)
        self._journal.attempt(job.claim, attempt, wait_ms=wait_ms, run_ms=run_ms)
        counted = tally(job.claim, attempt, self._names, wait_ms=wait_ms, run_ms=run_ms, together=together, heads=heads)
        return self._settlement(job, attempt, round(ended_ms), counted)

    async def _attempt(self, job: Job) -> Attempt:
        claim = job.claim
        if job.unreadable is not None:
            return await self._end(claim, job.unreadable)
        if job.cancelled:
            return await self._end(claim, _CANCELLED)
        if (tick := self._ticks.get(claim.job)) is not None and ids.is_job_id(claim.job_id):
            return await _run_tick(tick, claim.job_id)
        return await self._effects.run(claim)

    async def _cancelled(self, job: Job) -> Attempt:
        # By way of the ledger: an earlier delivery may have committed, or may be about to.
        _uncancel()
        return await self._end(job.claim, _CANCELLED)

    async def _end(self, claim: Claim, outcome: Rejected | Dead) -> Attempt:
        # What is no job id may be anything at all, so it is not written down.
        return await self._effects.settle(claim, outcome) if ids.is_job_id(claim.job_id) else outcome

    def _settlement(self, job: Job, attempt: Attempt, ended_ms: int, counted: str) -> Settlement:
        lease = job.claimed.lease
        match attempt:
            case Done(reply):
                result = self._result(job, reply.encode(), done=True, ended_ms=ended_ms)
                return Completion(lease, result, self._channel(job), counted)
            case Rejected(code, detail):
                result = self._result(job, _failure(code, detail), done=False, ended_ms=ended_ms)
                return Completion(lease, result, self._channel(job), counted)
            case Dead(code, detail):
                result = self._result(job, _failure(code, detail), done=False, ended_ms=ended_ms)
                return Burial(lease, result, self._channel(job), self._letter(job, attempt), counted)
            case Retry():
                return RetryLater(lease, round(backoff_seconds(job.claim.tries) * 1000), counted)
            case Release(detail, outage):
                if outage:
                    self._database_lost(detail)
                return GiveBack(lease, counted)
            case _:
                assert_never(attempt)

    def _result(self, job: Job, reply: bytes, *, done: bool, ended_ms: int) -> bytes:
        return wire.encode_result(
            job_id=job.claim.job_id, job=job.claim.job, tries=job.claim.tries, queue=self._queue, done=done,
            reply=reply, enqueued_ms=job.enqueued_ms, started_ms=round(job.started_ms), ended_ms=ended_ms,
        )  # fmt: skip

    def _channel(self, job: Job) -> str:
        return keys.results(self._queue, job.producer) if job.producer else ""

    def _letter(self, job: Job, dead: Dead) -> bytes:
        return json.dumps(
            {
                "job": job.claim.job,
                "code": dead.code,
                "detail": dead.detail,
                "tries": job.claim.tries,
                "enqueued_ms": job.enqueued_ms,
                "died_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "worker": self._worker,
            }
        ).encode()


def _uncancel() -> None:
    """Take back cancellations that were heeded: what is awaited from here on must not take them for its own."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def _run_tick(tick: Tick, tick_id: str) -> Attempt:
    try:
        await tick(tick_id)
    except Exception as error:  # noqa: BLE001  # told apart by the table; the tick itself has logged it
        attempt = classify(error)
        return attempt if isinstance(attempt, Release) else Dead("failed", describe(error), causes(error))
    return Done("null")


def _failure(code: str, detail: str) -> bytes:
    return json.dumps({"code": code, "detail": detail}).encode()
