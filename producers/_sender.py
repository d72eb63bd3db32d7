"""Sending encoded jobs to Redis: one script call for many, repeated until it is answered."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, BusyLoadingError, InvalidResponse, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from producers import keys
from producers._encoding import Encoded
from producers._script import ENQUEUE, NotSent
from producers.errors import (
    EnqueueError,
    EnqueueUnconfirmed,
    IdempotencyConflict,
    QueueFull,
    RedisRefused,
    RedisUnavailable,
)

JOBS_PER_CALL = 500
JOBS_BETWEEN_YIELDS = 20
BYTES_PER_CALL = 4 * 1024 * 1024
IDEMPOTENCY_MS = 24 * 60 * 60 * 1000

FIRST_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 1.0


class Sender:
    """Sends jobs to one queue. A job keeps its id when its call is repeated, so it is accepted once."""

    def __init__(self, redis: Redis, queue: str, *, max_queued: int, timeout_seconds: float) -> None:
        self._redis = redis
        self._queue = queue
        self._max_queued = max_queued
        self._timeout_seconds = timeout_seconds

    async def send(self, jobs: Sequence[Encoded]) -> list[bool | EnqueueError]:
        """For each job: True if it was accepted, False if it was known already, otherwise the error."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        delay_seconds = FIRST_DELAY_SECONDS
        maybe_accepted = False
        while True:
            answers = await self._call(jobs)
            if not isinstance(answers, _NoAnswer):
                if not maybe_accepted:
                    return answers
                return [_after_lost_answer(job, answer) for job, answer in zip(jobs, answers, strict=True)]
            maybe_accepted = maybe_accepted or answers.maybe_accepted
            if loop.time() + delay_seconds > deadline:
                return [answers.as_error(job, maybe_accepted=maybe_accepted) for job in jobs]
            await asyncio.sleep(delay_seconds * random.uniform(0.5, 1))  # noqa: S311  # jitter, not a secret
            delay_seconds = min(delay_seconds * 2, MAX_DELAY_SECONDS)

    async def send_all(self, jobs: Iterable[Encoded]) -> AsyncIterator[tuple[list[Encoded], list[bool | EnqueueError]]]:
        """Send many jobs in chunks, in their order; yields each chunk with the answers of `send`.

        While Redis works on one chunk, the next is taken from `jobs`, which encodes it. Never are two being sent at
        once. If `jobs` raises, the chunk being sent is completed first.
        """
        sending: asyncio.Task[tuple[list[Encoded], list[bool | EnqueueError]]] | None = None
        try:
            async for chunk in chunks(jobs):
                sent = None if sending is None else await sending
                sending = asyncio.create_task(self._sent(chunk))
                if sent is not None:
                    yield sent  # the caller reads it while Redis works on the next chunk
            if sending is not None:
                yield await sending
        except Exception:
            if sending is not None:
                await asyncio.wait({sending})
            raise
        finally:
            if sending is not None:
                sending.cancel()

    async def _sent(self, chunk: list[Encoded]) -> tuple[list[Encoded], list[bool | EnqueueError]]:
        return chunk, await self.send(chunk)

    async def _call(self, jobs: Sequence[Encoded]) -> "list[bool | EnqueueError] | _NoAnswer":
        try:
            answers = await ENQUEUE(self._redis, *self._arguments(jobs))
        except NotSent as error:
            if isinstance(error.__cause__, AuthenticationError):
                return [RedisRefused(f"Redis refused the connection: {error}") for _ in jobs]
            return _NoAnswer(error, maybe_accepted=False)
        except BusyLoadingError as error:
            return _NoAnswer(error, maybe_accepted=False)
        except (RedisConnectionError, RedisTimeoutError, InvalidResponse) as error:
            return _NoAnswer(error, maybe_accepted=True)
        except ResponseError as error:
            return [RedisRefused(f"Redis refused the write: {error}") for _ in jobs]
        return [self._outcome(job, answer) for job, answer in zip(jobs, answers, strict=True)]

    def _arguments(self, jobs: Sequence[Encoded]) -> tuple[list[str], list[str | bytes | int]]:
        arguments: list[str | bytes | int] = [keys.wake(self._queue), self._max_queued, IDEMPOTENCY_MS, len(jobs)]
        options: list[str | bytes | int] = []
        for number, job in enumerate(jobs, 1):
            arguments += job.job_id, job.payload
            if job.delay_ms or job.due_ms or job.digest:
                idempotency = keys.idempotency(job.idempotency_key) if job.digest and job.idempotency_key else ""
                options += number, job.delay_ms, job.due_ms, idempotency, job.digest
        return [self._queue, keys.clock(self._queue)], arguments + options

    def _outcome(self, job: Encoded, answer: int) -> bool | EnqueueError:
        match answer:
            case 1:
                return True
            case 0:
                return False
            case -1:
                return IdempotencyConflict(job.job_id)
            case -2:
                return QueueFull(job.job_id, self._max_queued)
            case _:
                raise AssertionError(f"enqueue.lua answered {answer}")


class _NoAnswer:
    """A call that Redis did not answer."""

    def __init__(self, error: RedisError, *, maybe_accepted: bool) -> None:
        self.error = error
        self.maybe_accepted = maybe_accepted

    def as_error(self, job: Encoded, *, maybe_accepted: bool) -> EnqueueError:
        if maybe_accepted:
            return EnqueueUnconfirmed(job.job_id, str(self.error))
        return RedisUnavailable(f"Redis cannot be reached, so nothing was accepted: {self.error}")


def _after_lost_answer(job: Encoded, answer: bool | EnqueueError) -> bool | EnqueueError:
    """What an answer means after an earlier one was lost."""
    match answer:
        case False if job.idempotency_key is None:
            return True  # the id is new with this call, so only this call can have enqueued it
        case RedisRefused():
            return EnqueueUnconfirmed(job.job_id, str(answer))
        case _:
            return answer


async def chunks(jobs: Iterable[Encoded]) -> AsyncIterator[list[Encoded]]:
    """Divide jobs into calls of limited number and size, so that no call blocks Redis for long.

    Taking a job encodes it, so the event loop gets a turn every few jobs: the call being sent makes progress.
    """
    chunk: list[Encoded] = []
    size = 0
    for job in jobs:
        if chunk and (len(chunk) == JOBS_PER_CALL or size + len(job.payload) > BYTES_PER_CALL):
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += len(job.payload)
        if len(chunk) % JOBS_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)
    if chunk:
        yield chunk
