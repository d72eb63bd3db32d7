"""Run claimed jobs: each attempt is logged, counted and handed to the settler."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import structlog

from producers import ids
from producers.errors import CANCELLED, DETAILS
from worker.engine.context import Runtime, Tick
from worker.engine.settler import Settler
from worker.engine.signals import Signals
from worker.model.failures import causes, classify, describe
from worker.model.job import Attempt, ClaimedJob
from worker.model.log_context import safe_job_name, set_current_job
from worker.model.outcome import AttemptResult, Dead, Done, Rejected, Release, Retry
from worker.queue.counters import format_counts

log = structlog.get_logger("worker")

_CANCELLED = Rejected(CANCELLED, DETAILS[CANCELLED])
_STOPPING = Release("the worker stops", outage=False)


class Executor:
    """Runs jobs to their settlement. Shared by all the sessions of a worker.

    Args:
        runtime: what runs jobs, batches and ticks, and logs them.
        settler: the next stage.
        signals: where an outage of the database is reported.
        max_tries: a job whose attempt ends in a fault of the engine's own is dead after this many.
        batches: whether jobs may share a session.
    """

    def __init__(self, runtime: Runtime, settler: Settler, signals: Signals, *, max_tries: int, batches: bool) -> None:
        self._runtime = runtime
        self._settler = settler
        self._signals = signals
        self._max_tries = max_tries
        self._batches = runtime.batches if batches else None
        self._job_log = runtime.job_log

    def batch_key(self, job: ClaimedJob) -> str | None:
        """Jobs with the same key may share a session; None: the job needs a session of its own."""
        if self._batches is None or job.unreadable is not None or job.progress.cancel_requested:
            return None
        return job.name if self._batches.accepts(job) else None

    async def run(self, jobs: Sequence[ClaimedJob]) -> None:
        """Run jobs with the same batch key, and settle each as soon as its attempt has ended."""
        jobs = [job for job in jobs if not job.progress.lease_lost]
        try:
            if len(jobs) == 1:
                await self._run_alone(jobs[0])
            elif jobs:
                await self._run_batch(jobs)
        except Exception as error:  # noqa: BLE001  # a fault of our own: the leases end, and the jobs come back
            log.error("executor_fault", error=causes(error))  # noqa: TRY400  # its text may hold values
            for job in jobs:
                self._settler.abandon(job)

    def release(self, job: ClaimedJob) -> None:
        """Release a job that was not begun."""
        self._settler.release(job)

    async def _run_batch(self, jobs: Sequence[ClaimedJob]) -> None:
        assert self._batches is not None  # noqa: S101  # without batches no two jobs share a key
        started_ms = time.time() * 1000
        left = dict.fromkeys(jobs)
        stopping = False
        for job in jobs:
            job.progress.started_ms = started_ms
        try:
            async with aclosing(self._batches.run(jobs)) as ended:
                async for attempts in ended:
                    with self._job_log.buffer():
                        for index, attempt in enumerate(attempts):
                            del left[attempt.job]
                            self._conclude(attempt, batch_size=len(attempts), counts_batch=index == 0)
        except asyncio.CancelledError:
            _clear_cancellation()
            # Either one of the jobs was cancelled or lost its lease, or the worker stops.
            stopping = not any(job.progress.lease_lost or job.progress.cancel_requested for job in left)
        except Exception as error:  # noqa: BLE001  # a fault of our own: the single form is authoritative
            log.error("batch_fault", error=causes(error))  # noqa: TRY400  # its text may hold values
        await self._run_remaining(left, started_ms=started_ms, stopping=stopping)

    async def _run_remaining(self, jobs: dict[ClaimedJob, None], *, started_ms: float, stopping: bool) -> None:
        """Run the jobs of a batch that ended early one by one, until the worker stops or the database is down."""
        release = _STOPPING if stopping else None
        for job in jobs:
            job.progress.started_ms = 0.0  # it has to begin again
        for job in jobs:
            if release is None and not job.progress.lease_lost:
                result = await self._run_alone(job)
                release = result if isinstance(result, Release) else None
                continue
            job.progress.started_ms = started_ms
            if release is None or job.progress.lease_lost:
                self._settler.abandon(job)
            else:
                self._conclude(Attempt(job, release), batch_size=1, counts_batch=True)

    async def _run_alone(self, job: ClaimedJob) -> AttemptResult | None:
        """Run one job. Returns the attempt's result; None when another worker has the job."""
        set_current_job(job.job_id, safe_job_name(job.name, self._job_log.known_names), job.attempt)
        job.progress.started_ms = time.time() * 1000
        try:
            attempt = await self._attempt(job)
        except asyncio.CancelledError:
            if job.progress.lease_lost:
                self._settler.abandon(job)
                return None
            if job.progress.cancel_requested:
                # The ledger decides: an earlier delivery may have committed, or may be about to.
                _clear_cancellation()
                attempt = await self._record(job, _CANCELLED)
            else:
                attempt = Attempt(job, _STOPPING)
        except Exception as error:  # noqa: BLE001  # a fault of our own must not keep the job for ever
            failed = Retry if job.attempt < self._max_tries else Dead
            attempt = Attempt(job, failed("failed", describe(error), causes(error)))
        alone = self._batches is not None  # a batch of one, where there are batches
        self._conclude(attempt, batch_size=int(alone), counts_batch=alone)
        return attempt.result

    async def _attempt(self, job: ClaimedJob) -> Attempt:
        if job.unreadable is not None:
            return await self._record(job, job.unreadable)
        if job.progress.cancel_requested:
            return await self._record(job, _CANCELLED)
        if (tick := self._runtime.ticks.get(job.name)) is not None and ids.is_job_id(job.job_id):
            return Attempt(job, await _run_tick(tick, job.job_id))
        return await self._runtime.runner.run(job)

    async def _record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        # An invalid id may be any text, so the ledger does not hold it.
        return await self._runtime.runner.record(job, outcome) if ids.is_job_id(job.job_id) else Attempt(job, outcome)

    def _conclude(self, attempt: Attempt, *, batch_size: int, counts_batch: bool) -> None:
        """Log and count an attempt's result, and hand it to the settler."""
        ended_ms = time.time() * 1000
        job, result = attempt.job, attempt.result
        wait_ms = max(0.0, job.progress.started_ms - job.due_ms)
        run_ms = max(0.0, ended_ms - job.progress.started_ms)
        self._job_log.write(attempt, wait_ms=wait_ms, run_ms=run_ms)
        counts = format_counts(
            attempt,
            self._job_log.known_names,
            wait_ms=wait_ms,
            run_ms=run_ms,
            batch_size=batch_size,
            counts_batch=counts_batch,
        )
        if isinstance(result, Release) and result.outage and not self._signals.stop.is_set():
            self._signals.database.failed(result.detail)
        self._settler.settle(attempt, counts, round(ended_ms))


def _clear_cancellation() -> None:
    """Forget cancellations that were handled: what is awaited from here on must not be cancelled by them."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def _run_tick(tick: Tick, tick_id: str) -> AttemptResult:
    try:
        await tick(tick_id)
    except Exception as error:  # noqa: BLE001  # classified; the tick itself has logged it
        result = classify(error)
        return result if isinstance(result, Release) else Dead("failed", describe(error), causes(error))
    return Done("null")
