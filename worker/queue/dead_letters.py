"""The dead letters of a queue: looking at them, replaying them, deleting them.

There may be any number of them, of any size, under ids that are no text: everything here goes page by page, and ids are
bytes. How a letter is kept is told in `worker/queue/scripts/bury.lua`.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids, keys
from worker.database import ledger
from worker.queue.scripts import PURGE, REPLAY

PAGE = 200
"""How many letters one call of a script takes, and one look reads."""


class Said(BaseModel):
    """What the worker wrote down about a death; None where it did not, or where somebody else wrote."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    job: str | None = None
    code: str | None = None
    detail: str | None = None
    tries: int | None = None
    enqueued_ms: int | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without its payload. `died_ms` is of Redis's clock."""

    job_id: bytes
    died_ms: float
    said: Said


@dataclass(frozen=True, slots=True)
class Payload:
    """The payload of a dead letter: the type of its key, its size in bytes if it is a string, and its bytes if they
    were not too many."""

    kind: str
    size_bytes: int | None
    data: bytes | None


class Replayed(Enum):
    """What became of replaying a dead letter."""

    REPLAYED = 1
    NOT_THERE = 0
    """There is no such letter (any more)."""
    NO_PAYLOAD = -1
    """The payload was gone when the job died: there is nothing to replay."""
    QUEUED = -2
    """A job of this id is in the queue: it was accepted anew."""


class DeadLetters:
    """The dead letters of one queue.

    Args:
        redis: the client.
        queue: the queue's name.
    """

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._queue = queue

    async def count(self, older_than: timedelta = timedelta(0)) -> int:
        """How many jobs died at least so long ago."""
        return int(await self._redis.zcount(keys.dead(self._queue), "-inf", await self._ago_ms(older_than)))

    async def pages(
        self, older_than: timedelta = timedelta(0), *, newest_first: bool = False
    ) -> AsyncIterator[list[Letter]]:
        """The letters of jobs that died at least so long ago, some hundreds at a time.

        What dies, is replayed or is deleted meanwhile makes it pass over none of the others.
        """
        dead = keys.dead(self._queue)
        until_ms = await self._ago_ms(older_than)
        at: float = until_ms if newest_first else float("-inf")
        seen: set[bytes] = set()  # of those that died at that time: many may have, in one moment
        while True:
            start, end = cast("tuple[Any, Any]", (at, float("-inf") if newest_first else until_ms))
            found: list[tuple[bytes, float]] = await self._redis.zrange(
                dead, start, end, desc=newest_first, byscore=True, offset=0, num=PAGE + len(seen), withscores=True
            )
            fresh = [(job_id, died_ms) for job_id, died_ms in found if job_id not in seen]
            if not fresh:
                return
            at = fresh[-1][1]
            seen = {job_id for job_id, died_ms in found if died_ms == at}
            yield await self._read(fresh)

    async def newest(self, offset: int, count: int) -> list[Letter]:
        """At most so many letters from a place on, the newest first: what somebody looks at."""
        dead = keys.dead(self._queue)
        found = await self._redis.zrange(dead, offset, offset + count - 1, desc=True, withscores=True)
        return await self._read(found) if found else []

    async def find(self, job_id: bytes) -> Letter | None:
        """The letter of a job, if it is dead."""
        died_ms = await self._redis.zscore(keys.dead(self._queue), job_id)
        return None if died_ms is None else (await self._read([(job_id, died_ms)]))[0]

    async def payload(self, job_id: bytes, max_bytes: int) -> Payload | None:
        """What is kept of a dead job, or None when its payload was gone before it died."""
        key = keys.dead_payload("").encode() + job_id
        kind = (await self._redis.type(key)).decode()
        if kind == "none":
            return None
        if kind != "string":
            return Payload(kind, None, None)
        size_bytes = int(await self._redis.strlen(key))
        data = await self._redis.get(key) if size_bytes <= max_bytes else None
        return Payload(kind, size_bytes, data)

    async def replay(self, sessions: async_sessionmaker[AsyncSession], job_ids: Sequence[bytes]) -> list[Replayed]:
        """Put jobs back into the queue under their own ids, with all tries before them; what became of each.

        No effect comes twice of it: only the row of a death leaves the ledger, and in one transaction with what is done
        here, so that a worker that claims the job meanwhile waits for it. When this raises it may be that the jobs were
        put back and will be found dead at once, as before: replay them again.
        """
        texts = (job_id.decode("ascii", "replace") for job_id in job_ids)
        async with sessions() as session:
            forgotten = await ledger.forget_dead(session, [text for text in texts if ids.is_job_id(text)])
            answers = await REPLAY(self._redis, [self._queue], [keys.wake(self._queue), *job_ids])
            replayed = [Replayed(answer) for answer in answers]
            gone = {job_id for job_id, answer in zip(job_ids, replayed, strict=True) if answer is Replayed.REPLAYED}
            for entry in forgotten:
                if entry.job_id.encode() not in gone:
                    await ledger.record(session, entry)
            await session.commit()
        return replayed

    async def purge(self, job_ids: Sequence[bytes], *, until_ms: float | None = None) -> list[bool]:
        """Delete letters and their payloads for good; whether each was there.

        Args:
            job_ids: which.
            until_ms: not those of jobs that died later than this time of Redis's clock.
        """
        answers = await PURGE(self._redis, [self._queue], ["" if until_ms is None else repr(until_ms), *job_ids])
        return [answer == 1 for answer in answers]

    async def purge_older(self, than: timedelta) -> int:
        """Delete the letters of jobs that died at least so long ago; how many there were."""
        deleted = 0
        async for letters in self.pages(than):
            deleted += sum(await self.purge([letter.job_id for letter in letters], until_ms=letters[-1].died_ms))
        return deleted

    async def _read(self, dead: Sequence[tuple[bytes, float]]) -> list[Letter]:
        fields = cast("Any", [job_id for job_id, _ in dead])
        letters = await cast("Awaitable[list[Any]]", self._redis.hmget(keys.dead_letters(self._queue), fields))
        return [Letter(*entry, _said(letter)) for entry, letter in zip(dead, letters, strict=True)]

    async def _ago_ms(self, age: timedelta) -> float:
        seconds, microseconds = await self._redis.time()
        return float(seconds * 1000 + microseconds / 1000 - age.total_seconds() * 1000)


def _said(letter: bytes | None) -> Said:
    try:
        return Said.model_validate_json(letter or b"{}")
    except ValidationError:
        return Said()
