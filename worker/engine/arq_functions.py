"""The jobs as functions of the stock arq worker (`arq worker.app.WorkerSettings`).

arq claims, counts and answers in its own way; the transaction underneath is ours, so effects are there exactly once
all the same. What arq cannot do (order per key, dead letters kept whole, leases) it does not do here either.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from arq.cron import CronJob, cron
from arq.typing import WorkerCoroutine
from arq.worker import Function, func
from arq.worker import Retry as ArqRetry
from pydantic_core import from_json
from redis.exceptions import RedisError

from producers import keys
from producers.errors import JobDead, JobRejected
from worker.engine.executor import Effects
from worker.engine.job_log import Journal
from worker.engine.transaction import Claim
from worker.model.backoff import backoff_seconds
from worker.model.log_context import trying
from worker.model.outcome import Attempt, Dead, Done, Rejected, Release, Retry
from worker.model.registry import AnyJobType, ScheduledJob

RELEASE_SECONDS = 1.0

# arq ends a job that overruns without a second try. Ours ends it before, and counts it.
ARQ_EXTRA_SECONDS = 15.0

# arq's own limit only knows "failed"; ours tells what of, writes it down, and comes first.
ARQ_MAX_TRIES = 1_000_000


def functions(registry: Iterable[AnyJobType], timeout_seconds: float) -> list[Function]:
    """One arq function a kind of job; they find what gives effects in arq's context, as `transaction`."""
    limit_seconds = timeout_seconds + ARQ_EXTRA_SECONDS
    return [
        func(_function(job.name, limit_seconds), name=job.name, timeout=limit_seconds, max_tries=ARQ_MAX_TRIES)
        for job in registry
    ]


def cron_jobs(
    schedule: Iterable[ScheduledJob],
    run: Callable[[dict[Any, Any], ScheduledJob], Awaitable[None]],
    timeout_seconds: float,
) -> list[CronJob]:
    """One arq cron job for each scheduled job. arq gives every tick one id, so that one worker takes it."""
    jobs = []
    for job in schedule:

        async def tick(ctx: dict[Any, Any], job: ScheduledJob = job) -> None:
            await run(ctx, job)

        jobs.append(
            cron(
                tick,
                name=f"cron:{job.name}",
                minute=set(job.minutes),
                hour=set(job.hours) if job.hours else None,
                second=0,
                unique=True,
                timeout=timeout_seconds,
                max_tries=1,
            )
        )
    return jobs


def _function(name: str, limit_seconds: float) -> WorkerCoroutine:
    async def run(ctx: dict[Any, Any], /, *_: Any, **fields: Any) -> Any:
        transaction: Effects = ctx["transaction"]
        journal: Journal = ctx["journal"]
        claim = Claim(ctx["job_id"], name, fields, ctx["job_try"], due_ms=max(0.0, ctx["score"]))
        trying(claim.job_id, name, claim.tries)
        started = time.monotonic()
        wait_ms = max(0.0, time.time() * 1000 - claim.due_ms)
        stopped = False
        try:
            attempt = await transaction.run(claim)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                # Heard and heeded: what is awaited from here on must not take it for its own.
                task.uncancel()
            # arq stops, or has waited for long enough, which it would take for the job's end: but a COMMIT may be under
            # way, and the ledger knows. Only a job that does not heed its own time limit has used up a try.
            overran = time.monotonic() - started >= limit_seconds
            stopped = not overran
            counted = overran and not claim.committing
            attempt = Retry("timeout", "it did not end in time") if counted else Release("the worker ended it")
        journal.attempt(claim, attempt, wait_ms=wait_ms, run_ms=(time.monotonic() - started) * 1000)
        try:
            return await _answer(ctx, claim, attempt)
        except ArqRetry:
            if stopped:
                # arq looks at nothing else once it has cancelled a job, and runs it again.
                raise asyncio.CancelledError from None
            raise

    return cast("WorkerCoroutine", run)  # its first argument has no name, so that no field can clash with it


async def _answer(ctx: dict[str, Any], claim: Claim, attempt: Attempt) -> Any:
    """Tell arq what became of the job, in arq's words: a value, an exception, or its `Retry`."""
    match attempt:
        case Done(reply):
            return from_json(reply)
        case Rejected(code, detail):
            raise JobRejected(code, detail)
        case Dead(code, detail):
            raise JobDead(code, detail)
        case Retry():
            raise ArqRetry(defer=backoff_seconds(claim.tries))
        case Release():
            # arq counted this try when it began. Should Redis be away as well, it stays counted.
            with suppress(RedisError, OSError):
                await ctx["redis"].decr(keys.retry(claim.job_id))
            raise ArqRetry(defer=RELEASE_SECONDS)
