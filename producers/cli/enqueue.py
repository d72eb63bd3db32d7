"""Enqueue one job, optionally wait for its outcome, and print the result."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from producers._encoding import Request
from producers.cli.options import failure
from producers.cli.output import Exit, Failure, print_error, print_job
from producers.errors import JobError, JobNotFound, ProducerError, RedisUnavailable, ResultTimeout
from producers.handle import JobHandle
from producers.job_status import JobStatus, status_of_error
from producers.producer import Producer


@dataclass(frozen=True, slots=True)
class Target:
    """Where jobs are sent."""

    redis_url: str
    queue: str
    timeout_seconds: float


def enqueue(request: Request[Any], target: Target, wait_seconds: float | None) -> Exit:
    """Enqueue a job and print at least its id. Returns the exit code.

    Raises:
        Failure: there is only an error to print.
    """
    known: dict[str, Any] = {}
    try:
        return asyncio.run(_enqueue(request, target, wait_seconds, known))
    except KeyboardInterrupt:
        if not known:
            raise Failure("interrupted: the job may or may not have been accepted", Exit.INTERRUPTED) from None
        print_job(known)
        raise Failure("interrupted while waiting: the job continues", Exit.INTERRUPTED) from None


async def _enqueue(request: Request[Any], target: Target, wait_seconds: float | None, known: dict[str, Any]) -> Exit:
    try:
        producer = Producer(target.redis_url, queue=target.queue, timeout_seconds=target.timeout_seconds)
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from None
    async with producer:
        try:
            job = await producer.enqueue(
                request.message,
                idempotency_key=request.idempotency_key,
                ordering_key=request.ordering_key,
                defer_by=request.defer_by,
            )
        except ProducerError as error:
            raise failure(error) from None
        known.update(job_id=job.job_id, accepted=job.accepted)
        code = Exit.OK if wait_seconds is None else await _wait(job, wait_seconds, known)
    print_job(known)
    return code


async def _wait(job: JobHandle[Any], wait_seconds: float, known: dict[str, Any]) -> Exit:
    try:
        reply = await job.result(wait_seconds)
    except JobError as error:
        known.update(status=status_of_error(error).value, code=error.code, detail=error.detail)
        return Exit.REFUSED
    except (ResultTimeout, JobNotFound) as error:
        with suppress(RedisUnavailable):
            known["status"] = (await job.status()).value
        print_error(str(failure(error)))
        return Exit.UNKNOWN
    known.update(status=JobStatus.DONE.value, reply=reply.model_dump(mode="json"))
    return Exit.OK
