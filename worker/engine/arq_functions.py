"""Job types as functions of the stock arq worker (`arq worker.app.WorkerSettings`).

arq claims, counts and answers in its own way. The transaction underneath is this project's, so effects still happen
exactly once. Order per key, whole dead letters and leases are not available, because arq has none of them.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from arq.typing import WorkerCoroutine
from arq.worker import Function, func
from arq.worker import Retry as ArqRetry
from pydantic_core import from_json

from producers import keys
from producers.errors import JobDead, JobRejected
from worker.engine.context import Runtime, runtime_of
from worker.model.backoff import backoff_seconds
from worker.model.job import Attempt, ClaimedJob, Lease
from worker.model.log_context import set_current_job
from worker.model.outcome import Dead, Done, Rejected, Release, Retry
from worker.model.registry import AnyJobType
from worker.queue.availability import REDIS_ERRORS

RELEASE_SECONDS = 1.0

# arq ends a job that overruns without another attempt. Our limit comes first, and counts the attempt.
ARQ_EXTRA_SECONDS = 15.0
# arq's clock for a job starts before ours; on a busy machine by more than a moment.
CLOCK_SLACK_SECONDS = 1.0

# arq's own limit only knows "failed"; ours comes first, and records why.
ARQ_MAX_TRIES = 1_000_000


def functions(registry: Iterable[AnyJobType], timeout_seconds: float) -> list[Function]:
    """One arq function for each job type."""
    limit_seconds = timeout_seconds + ARQ_EXTRA_SECONDS
    return [
        func(
            _function(job_type.name, limit_seconds), name=job_type.name, timeout=limit_seconds, max_tries=ARQ_MAX_TRIES
        )
        for job_type in registry
    ]


def _function(name: str, limit_seconds: float) -> WorkerCoroutine:
    async def run(ctx: dict[Any, Any], /, *_: Any, **fields: Any) -> Any:
        runtime = runtime_of(ctx)
        # arq keeps the lease itself.
        job = ClaimedJob(
            ctx["job_id"], name, fields, ctx["job_try"], Lease(b"", b"", b""), due_ms=max(0.0, ctx["score"])
        )
        attempt, stopped = await _attempt(runtime, job, limit_seconds)
        try:
            return await _answer(ctx, attempt)
        except ArqRetry:
            if stopped:
                # arq looks at nothing else once it has cancelled a job, and runs it again.
                raise asyncio.CancelledError from None
            raise

    return cast("WorkerCoroutine", run)  # its first argument has no name, so that no field can clash with it


async def _attempt(runtime: Runtime, job: ClaimedJob, limit_seconds: float) -> tuple[Attempt, bool]:
    """Run one attempt and log it. Also returns whether arq stopped it before its time was over."""
    set_current_job(job.job_id, job.name, job.attempt)
    started = time.monotonic()
    wait_ms = max(0.0, time.time() * 1000 - job.due_ms)
    stopped = False
    try:
        attempt = await runtime.runner.run(job)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None:
            # Handled here: what is awaited from here on must not be cancelled by it.
            task.uncancel()
        # arq stops, or its limit has passed, which it would take for the job's end: but a COMMIT may be under way, and
        # the ledger decides. Only a job that ignores its own time limit has used up an attempt.
        overran = time.monotonic() - started >= limit_seconds - CLOCK_SLACK_SECONDS
        stopped = not overran
        counted = overran and not job.progress.committing
        attempt = Attempt(
            job, Retry("timeout", "it did not end in time") if counted else Release("the worker ended it")
        )
    runtime.job_log.write(attempt, wait_ms=wait_ms, run_ms=(time.monotonic() - started) * 1000)
    return attempt, stopped


async def _answer(ctx: dict[Any, Any], attempt: Attempt) -> Any:
    """Report what the job came to in arq's way: a value, an exception, or its `Retry`."""
    match attempt.result:
        case Done(reply):
            return from_json(reply)
        case Rejected(code, detail):
            raise JobRejected(code, detail)
        case Dead(code, detail):
            raise JobDead(code, detail)
        case Retry():
            raise ArqRetry(defer=backoff_seconds(attempt.job.attempt))
        case Release():
            # arq counted this attempt when it began. If Redis is down as well, it stays counted.
            with suppress(*REDIS_ERRORS):
                await ctx["redis"].decr(keys.retry(attempt.job.job_id))
            raise ArqRetry(defer=RELEASE_SECONDS)
