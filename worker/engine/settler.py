"""Settle claims: everything that ended since the last call goes out with the next, until Redis has it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

import structlog

from producers import keys, wire
from worker.engine.signals import Signals
from worker.model import settlement
from worker.model.backoff import backoff_seconds
from worker.model.job import Attempt, ClaimedJob
from worker.model.log_context import safe_job_id
from worker.model.outcome import Dead, Done, Rejected, Release, Retry
from worker.model.settlement import Settlement
from worker.queue.availability import REDIS_ERRORS, describe_error
from worker.queue.dead_letters import DeathRecord
from worker.queue.leases import Leases
from worker.queue.queue import Queue

log = structlog.get_logger("worker.settle")

MAX_SETTLEMENTS = 200
"""At once; those of one kind are one round trip."""

S = TypeVar("S", bound=Settlement)


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who settles: its name is in dead letters, the queue's name in results."""

    worker: str
    queue: str


class Settler:
    """Keeps settlements until Redis has answered them. Repeating one is safe: its token is gone.

    Args:
        queue: where they are sent.
        leases: dropped when their settlement was answered.
        signals: the state of Redis, and the event that wakes the claimer.
        identity: of this worker.
    """

    def __init__(self, queue: Queue, leases: Leases, signals: Signals, identity: WorkerIdentity) -> None:
        self._queue = queue
        self._leases = leases
        self._signals = signals
        self._identity = identity
        self._pending: list[Settlement] = []
        self._has_pending = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def settle(self, attempt: Attempt, counts: str, ended_ms: int) -> None:
        """Settle a claim by what its attempt came to, with the next round trip."""
        self._add(self._settlement(attempt, counts, ended_ms))

    def release(self, job: ClaimedJob) -> None:
        """Settle a claim without an attempt. A lost lease is only dropped."""
        if job.progress.lease_lost:
            self.abandon(job)
        else:
            self._add(settlement.Release(job.lease))

    def abandon(self, job: ClaimedJob) -> None:
        """Settle nothing: another worker has the job, or its lease is to end by itself."""
        self._leases.drop(job.lease)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._has_pending.wait()
            batch = self._pending[:MAX_SETTLEMENTS]
            repeated = False
            while not await self._send(batch, repeated=repeated):
                repeated = True
                await asyncio.sleep(self._signals.redis.wait_seconds())
            del self._pending[: len(batch)]
            if not self._pending:
                self._has_pending.clear()
                self._idle.set()

    async def flush(self, timeout_seconds: float) -> int:
        """Wait until everything is settled. Returns how many settlements are left when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        return len(self._pending)

    def _add(self, item: Settlement) -> None:
        self._pending.append(item)
        self._has_pending.set()
        self._idle.clear()

    async def _send(self, batch: Sequence[Settlement], *, repeated: bool) -> bool:
        """Send settlements. False when Redis did not answer all of them."""
        try:
            await self._send_kind(settlement.Complete, batch, self._queue.complete, repeated=repeated)
            await self._send_kind(settlement.Bury, batch, self._queue.bury, repeated=repeated)
            await self._send_kind(settlement.Retry, batch, self._queue.retry, repeated=repeated)
            await self._send_kind(settlement.Release, batch, self._queue.release, repeated=repeated)
        except REDIS_ERRORS as error:
            self._signals.redis.failed(describe_error(error))
            return False
        self._signals.redis.recovered()
        for item in batch:
            self._answered(item)
        return True

    async def _send_kind(
        self,
        kind: type[S],
        batch: Sequence[Settlement],
        call: Callable[[Sequence[S]], Awaitable[list[bool]]],
        *,
        repeated: bool,
    ) -> None:
        items = [item for item in batch if isinstance(item, kind)]
        if not items:
            return
        for item, held in zip(items, await call(items), strict=True):
            if not held and not repeated:
                # Another worker has claimed the job meanwhile, and will find its outcome in the ledger.
                log.warning("settled_too_late", job_id=safe_job_id(item.lease.job_id))

    def _answered(self, item: Settlement) -> None:
        self._leases.drop(item.lease)
        if isinstance(item, settlement.Retry):
            asyncio.get_running_loop().call_later(item.delay_ms / 1000, self._signals.wake.set)
        elif b"@" in item.lease.job_id:
            self._signals.wake.set()  # the next job of its ordering key is due

    def _settlement(self, attempt: Attempt, counts: str, ended_ms: int) -> Settlement:
        job = attempt.job
        match attempt.result:
            case Done(reply):
                result = self._result(job, reply.encode(), done=True, ended_ms=ended_ms)
                return settlement.Complete(job.lease, result, self._channel(job), counts)
            case Rejected(code, detail):
                result = self._result(job, _failure(code, detail), done=False, ended_ms=ended_ms)
                return settlement.Complete(job.lease, result, self._channel(job), counts)
            case Dead(code, detail) as dead:
                result = self._result(job, _failure(code, detail), done=False, ended_ms=ended_ms)
                record = DeathRecord.of(job, dead, self._identity.worker).model_dump_json().encode()
                return settlement.Bury(job.lease, result, self._channel(job), record, counts)
            case Retry():
                return settlement.Retry(job.lease, round(backoff_seconds(job.attempt) * 1000), counts)
            case Release():
                return settlement.Release(job.lease, counts)
            case _:
                assert_never(attempt.result)

    def _result(self, job: ClaimedJob, reply: bytes, *, done: bool, ended_ms: int) -> bytes:
        return wire.encode_result(
            job_id=job.job_id, job=job.name, attempt=job.attempt, queue=self._identity.queue, done=done, reply=reply,
            enqueued_ms=job.enqueued_ms, started_ms=round(job.progress.started_ms), ended_ms=ended_ms,
        )  # fmt: skip

    def _channel(self, job: ClaimedJob) -> str:
        producer = job.headers.get("producer")
        return keys.results(self._identity.queue, producer) if producer else ""


def _failure(code: str, detail: str) -> bytes:
    return json.dumps({"code": code, "detail": detail}).encode()
