"""From a claimed job to its settlement: try, tell the log, write the result."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol, assert_never

from producers import ids, keys, wire
from worker.engine.classify import classify, describe
from worker.engine.job import Job
from worker.engine.journal import Journal
from worker.engine.outcome import Attempt, Dead, Done, Outcome, Rejected, Release, Retry
from worker.engine.queue import Burial, Completion
from worker.engine.retry import backoff_seconds
from worker.engine.settler import GiveBack, RetryLater, Settlement
from worker.engine.transaction import Claim

_CANCELLED = Rejected("cancelled", "the job was cancelled")


class Effects(Protocol):
    """What gives claims their effects: `Transaction`, or a stand-in that has none."""

    async def run(self, claim: Claim) -> Attempt:
        """Try a job once; raises only when it is cancelled."""

    async def settle(self, claim: Claim, outcome: Rejected | Dead) -> Outcome | Release:
        """Write down the outcome of a job that is not to be tried, unless it has one already."""


Tick = Callable[[str], Awaitable[None]]
"""Runs a scheduled job for the tick of this id."""


class Execution:
    """Tries jobs and says how each is to be settled.

    Args:
        effects: gives jobs their effects.
        ticks: runs scheduled jobs, by the names that they have in the queue.
        queue: the queue's name.
        worker: this worker's name, for dead letters.
        max_tries: after how many tries a job is dead that meets a fault of the engine's own.
        database_lost: told why, whenever a job could not be tried.
    """

    def __init__(
        self,
        effects: Effects,
        ticks: Mapping[str, Tick],
        *,
        queue: str,
        worker: str,
        max_tries: int,
        database_lost: Callable[[str], None],
    ) -> None:
        self._effects = effects
        self._ticks = ticks
        self._queue = queue
        self._worker = worker
        self._max_tries = max_tries
        self._database_lost = database_lost
        self._journal = Journal()

    async def run(self, job: Job) -> Settlement | None:
        """Try a job to its settlement; None when there is nothing to settle, for it is another worker's."""
        job.started_ms = time.time() * 1000
        try:
            attempt = await self._attempt(job)
        except asyncio.CancelledError:
            if job.lost:
                return None
            attempt = await self._cancelled(job) if job.cancelled else Release("the worker stops", outage=False)
        except Exception as error:  # noqa: BLE001  # a fault of the engine's own must not keep the job for ever
            failed = Retry if job.claim.tries < self._max_tries else Dead
            attempt = failed("failed", describe(error))
        ended_ms = time.time() * 1000
        wait_ms = max(0.0, job.started_ms - float(job.claimed.lease.score))
        self._journal.attempt(job.claim, attempt, wait_ms=wait_ms, run_ms=ended_ms - job.started_ms)
        return self._settlement(job, attempt, round(ended_ms))

    async def _attempt(self, job: Job) -> Attempt:
        claim = job.claim
        if job.unreadable is not None:
            return await self._end(claim, job.unreadable)
        if job.cancelled:
            return await self._end(claim, _CANCELLED)
        if (tick := self._ticks.get(claim.job)) is not None:
            return await _run_tick(tick, claim.job_id)
        return await self._effects.run(claim)

    async def _cancelled(self, job: Job) -> Attempt:
        # By way of the ledger: an earlier delivery may have committed, or may be about to.
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        return await self._end(job.claim, _CANCELLED)

    async def _end(self, claim: Claim, outcome: Rejected | Dead) -> Attempt:
        # What is no job id may be anything at all, so it is not written down.
        return await self._effects.settle(claim, outcome) if ids.is_job_id(claim.job_id) else outcome

    def _settlement(self, job: Job, attempt: Attempt, ended_ms: int) -> Settlement:
        lease = job.claimed.lease
        match attempt:
            case Done(reply):
                return Completion(
                    lease, self._result(job, reply.encode(), done=True, ended_ms=ended_ms), self._channel(job)
                )
            case Rejected(code, detail):
                result = self._result(job, _failure(code, detail), done=False, ended_ms=ended_ms)
                return Completion(lease, result, self._channel(job))
            case Dead(code, detail):
                result = self._result(job, _failure(code, detail), done=False, ended_ms=ended_ms)
                return Burial(lease, result, self._channel(job), self._letter(job, attempt))
            case Retry():
                return RetryLater(lease, round(backoff_seconds(job.claim.tries) * 1000))
            case Release(detail, outage):
                if outage:
                    self._database_lost(detail)
                return GiveBack(lease)
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


async def _run_tick(tick: Tick, tick_id: str) -> Attempt:
    try:
        await tick(tick_id)
    except Exception as error:  # noqa: BLE001  # told apart by the table; the tick itself has logged it
        attempt = classify(error)
        return attempt if isinstance(attempt, Release) else Dead("failed", describe(error))
    return Done("null")


def _failure(code: str, detail: str) -> bytes:
    return json.dumps({"code": code, "detail": detail}).encode()
