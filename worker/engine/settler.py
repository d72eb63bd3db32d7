"""Settling what is finished: all that ended since the last round trip goes out with the next, until Redis has it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from redis.exceptions import RedisError

from worker.engine.job_log import loggable
from worker.queue.availability import Outage, reason
from worker.queue.queue import Burial, Completion, GiveBack, Queue, RetryLater, Settlement

log = structlog.get_logger("worker.settle")

JOBS_A_CALL = 200

S = TypeVar("S", bound=Settlement)


class Settler:
    """Keeps settlements until Redis has answered them. Repeating one is safe: its token is gone.

    Args:
        queue: where they go.
        redis: told of failures and answers.
        settled: called with each settlement that Redis has answered.
    """

    def __init__(self, queue: Queue, redis: Outage, settled: Callable[[Settlement], None]) -> None:
        self._queue = queue
        self._redis = redis
        self._settled = settled
        self._pending: list[Settlement] = []
        self._something = asyncio.Event()
        self._nothing = asyncio.Event()
        self._nothing.set()

    def add(self, settlement: Settlement) -> None:
        """Settle a claim with the next round trip."""
        self._pending.append(settlement)
        self._something.set()
        self._nothing.clear()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._something.wait()
            batch = self._pending[:JOBS_A_CALL]
            repeated = False
            while not await self._sent(batch, repeated=repeated):
                repeated = True
                await asyncio.sleep(self._redis.wait_seconds())
            del self._pending[: len(batch)]
            if not self._pending:
                self._something.clear()
                self._nothing.set()

    async def flushed(self, timeout_seconds: float) -> int:
        """Wait until all is settled; how many settlements are left when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._nothing.wait()
        except TimeoutError:
            pass
        return len(self._pending)

    async def _sent(self, batch: Sequence[Settlement], *, repeated: bool) -> bool:
        try:
            await self._send(_of(Completion, batch), self._queue.complete, repeated=repeated)
            await self._send(_of(Burial, batch), self._queue.bury, repeated=repeated)
            await self._send(_of(RetryLater, batch), self._queue.retry, repeated=repeated)
            await self._send(_of(GiveBack, batch), self._queue.release, repeated=repeated)
        except (RedisError, OSError) as error:
            self._redis.met(reason(error))
            return False
        self._redis.over()
        for item in batch:
            self._settled(item)
        return True

    async def _send(
        self, items: Sequence[S], call: Callable[[Sequence[S]], Awaitable[list[bool]]], *, repeated: bool
    ) -> None:
        if not items:
            return
        for item, held in zip(items, await call(items), strict=True):
            if not held and not repeated:
                # Another worker has claimed it meanwhile, and finds the outcome in the ledger.
                log.warning("settled_too_late", job_id=loggable(item.lease.job_id))


def _of(kind: type[S], batch: Sequence[Settlement]) -> list[S]:
    return [item for item in batch if isinstance(item, kind)]
