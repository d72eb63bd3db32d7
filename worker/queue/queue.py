"""The queue in Redis, typed: claim, renew, settle. The head of each script explains why it is safe to repeat."""

import secrets
import time
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from redis.asyncio import Redis

from producers import keys
from producers._script import Script
from worker.model import settlement
from worker.model.job import ClaimedJob, Lease, PayloadState, read_job
from worker.queue.scripts import BURY, CLAIM, COMPLETE, RELEASE, RENEW, RETRY, SWEEP

Arguments = list[str | bytes | int]

_PAYLOAD_STATES = tuple(PayloadState)


class Claims(NamedTuple):
    """The answer to a claim."""

    jobs: list[ClaimedJob]
    next_due_ms: int | None
    """Milliseconds until something in the queue is due, the end of a lease included; None: nothing will be."""


class Renewal(IntEnum):
    """The answer to the renewal of a lease."""

    LOST = 0
    RENEWED = 1
    CANCEL = 2
    """Renewed, and a cancellation of the job is requested."""


class Queue:
    """One queue. Every method is one round trip, and raises what `Script` raises.

    Args:
        redis: the client.
        name: the queue's name.
        lease_ms: how long a claim lasts unless renewed.
        result_ms: how long results are kept: WORKER_RESULT_TTL_SECONDS. complete.lua and bury.lua store them with this
            expiry. Each heartbeat publishes it under `keys.config`, where cancel.lua reads it.
        max_payload_bytes: larger payloads are not fetched.
    """

    def __init__(self, redis: Redis, name: str, *, lease_ms: int, result_ms: int, max_payload_bytes: int) -> None:
        self._redis = redis
        self._keys = [name]
        self._wake = keys.wake(name)
        self._lease_ms = lease_ms
        self._result_ms = result_ms
        self._max_payload_bytes = max_payload_bytes
        self._claimer = secrets.token_hex(8)
        self._unanswered: deque[str] = deque(maxlen=1000)
        """Tokens of the claims since the last one that was answered; the answers of some of them were lost."""

    async def claim(self, count: int) -> Claims:
        """Claim at most `count` due jobs, one call at a time. The next call releases what a lost answer had claimed."""
        token = secrets.token_hex(8)
        unanswered = " ".join(self._unanswered)
        self._unanswered.append(token)
        answer = await self._run(
            CLAIM, [count, self._lease_ms, token, self._max_payload_bytes, self._claimer, unanswered]
        )
        self._unanswered.clear()
        remembered_since_ms = time.time() * 1000 - self._result_ms
        token_bytes = token.encode()
        jobs = [
            read_job(
                Lease(job_id, token_bytes, score),
                payload,
                _PAYLOAD_STATES[state],
                attempt,
                remembered_since_ms=remembered_since_ms,
            )
            for job_id, payload, attempt, score, state in zip(*(answer[first::5] for first in range(1, 6)), strict=True)
        ]
        return Claims(jobs, None if answer[0] < 0 else answer[0])

    async def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """Renew leases."""
        arguments: Arguments = [self._lease_ms]
        for lease in leases:
            arguments += lease.job_id, lease.token
        return [Renewal(answer) for answer in await self._run(RENEW, arguments)]

    async def complete(self, items: Sequence[settlement.Complete]) -> list[bool]:
        """Settle jobs that are done or rejected. False where the lease was lost and nothing changed."""
        arguments: Arguments = [self._result_ms]
        for item in items:
            arguments += item.lease.job_id, item.lease.token, item.result, item.channel, item.counts
        return _held(await self._run(COMPLETE, arguments))

    async def retry(self, items: Sequence[settlement.Retry]) -> list[bool]:
        """Settle claims whose attempt failed. False where the lease was lost and nothing changed."""
        arguments: Arguments = []
        for item in items:
            arguments += item.lease.job_id, item.lease.token, item.delay_ms, item.counts
        return _held(await self._run(RETRY, arguments))

    async def release(self, items: Sequence[settlement.Release], *, wake: bool = True) -> list[bool]:
        """Settle claims without counting an attempt. False where the lease was lost and nothing changed."""
        arguments: Arguments = [self._wake if wake else ""]
        for item in items:
            arguments += item.lease.job_id, item.lease.token, item.lease.score, item.counts
        return _held(await self._run(RELEASE, arguments))

    async def bury(self, items: Sequence[settlement.Bury]) -> list[bool]:
        """Settle jobs that are dead. False where the lease was lost and nothing changed."""
        arguments: Arguments = [self._result_ms]
        for item in items:
            arguments += item.lease.job_id, item.lease.token, item.result, item.channel, item.record, item.counts
        return _held(await self._run(BURY, arguments))

    async def sweep(self) -> int:
        """Free ordering keys whose holders were removed from the queue by hand. Returns how many were freed."""
        cursor = b"0"
        freed = 0
        while True:
            cursor, found = await self._run(SWEEP, [cursor])
            freed += int(found)
            if cursor == b"0":
                return freed

    async def _run(self, script: Script, arguments: Arguments) -> Any:
        return await script(self._redis, self._keys, arguments)


def _held(answers: list[int]) -> list[bool]:
    return [answer == 1 for answer in answers]
