"""The dead letters of a queue: written with a record of the death, read, and purged.

There may be any number of them, of any size, under ids that are not text. So everything here is paged, and ids are
bytes. bury.lua stores a letter: it renames the payload to `keys.dead_payload`, adds the id to the sorted set
`keys.dead` by the time of death, and the record, as JSON, to the hash `keys.dead_letters`. purge.lua deletes it, and
`worker.engine.replay` puts it back into the queue.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from redis.asyncio import Redis

from producers import keys
from worker.model.job import ClaimedJob
from worker.model.outcome import Dead
from worker.queue.scripts import PURGE

PAGE_SIZE = 200
"""How many letters one call of a script takes, and one read fetches."""


class DeathRecord(BaseModel):
    """What the worker recorded of a death. A field is None where it is missing, or another client wrote the record.

    A new field goes here and into `of`. To show it, add it to commands/dead_format.py and to
    dashboard/templates/job.html.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    job: str | None = None
    code: str | None = None
    detail: str | None = None
    attempts: int | None = None
    enqueued_ms: int | None = None
    died_at: str | None = None
    worker: str | None = None

    @classmethod
    def of(cls, job: ClaimedJob, dead: Dead, worker: str) -> Self:
        """The record of a job that dies now."""
        return cls(
            job=job.name,
            code=dead.code,
            detail=dead.detail,
            attempts=job.attempt,
            enqueued_ms=job.enqueued_ms,
            died_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            worker=worker,
        )

    @classmethod
    def read(cls, data: bytes | None) -> Self:
        """The record in these bytes; an empty one when they are not a record."""
        try:
            return cls.model_validate_json(data or b"{}")
        except ValidationError:
            return cls()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter without its payload. `died_ms` is Redis's clock."""

    job_id: bytes
    died_ms: float
    record: DeathRecord


@dataclass(frozen=True, slots=True)
class Payload:
    """A stored payload: the type of its key, its size if it is a string, its bytes if they are not too many."""

    kind: str
    size_bytes: int | None
    data: bytes | None


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
        """How many jobs died at least this long ago."""
        return int(await self._redis.zcount(keys.dead(self._queue), "-inf", await self._ago_ms(older_than)))

    async def pages(
        self, older_than: timedelta = timedelta(0), *, newest_first: bool = False
    ) -> AsyncIterator[list[DeadLetter]]:
        """The letters of jobs that died at least this long ago, page by page.

        Letters that are added, replayed or purged meanwhile never make it skip another one.
        """
        dead = keys.dead(self._queue)
        until_ms = await self._ago_ms(older_than)
        at: float = until_ms if newest_first else float("-inf")
        seen: set[bytes] = set()  # of those that died at `at`: many jobs may have died in one moment
        while True:
            start, end = cast("tuple[Any, Any]", (at, float("-inf") if newest_first else until_ms))
            found: list[tuple[bytes, float]] = await self._redis.zrange(
                dead, start, end, desc=newest_first, byscore=True, offset=0, num=PAGE_SIZE + len(seen), withscores=True
            )
            fresh = [(job_id, died_ms) for job_id, died_ms in found if job_id not in seen]
            if not fresh:
                return
            at = fresh[-1][1]
            seen = {job_id for job_id, died_ms in found if died_ms == at}
            yield await self._read(fresh)

    async def newest(self, offset: int, count: int) -> list[DeadLetter]:
        """At most `count` letters from an offset on, newest first."""
        dead = keys.dead(self._queue)
        found = await self._redis.zrange(dead, offset, offset + count - 1, desc=True, withscores=True)
        return await self._read(found) if found else []

    async def find(self, job_id: bytes) -> DeadLetter | None:
        """The letter of a job, if it is dead."""
        died_ms = await self._redis.zscore(keys.dead(self._queue), job_id)
        return None if died_ms is None else (await self._read([(job_id, died_ms)]))[0]

    async def payload(self, job_id: bytes, max_bytes: int) -> Payload | None:
        """The payload of a dead letter; None when it was gone before the job died."""
        key = keys.dead_payload("").encode() + job_id
        return (await read_payloads(self._redis, [key], max_bytes))[0]

    async def purge(self, job_ids: Sequence[bytes], *, until_ms: float | None = None) -> list[bool]:
        """Delete letters and their payloads for good. False where there was none.

        Args:
            job_ids: which.
            until_ms: spare jobs that died later than this time of Redis's clock.
        """
        answers = await PURGE(self._redis, [self._queue], ["" if until_ms is None else repr(until_ms), *job_ids])
        return [answer == 1 for answer in answers]

    async def purge_older(self, than: timedelta) -> int:
        """Delete the letters of jobs that died at least this long ago. Returns how many there were."""
        deleted = 0
        async for letters in self.pages(than):
            deleted += sum(await self.purge([letter.job_id for letter in letters], until_ms=letters[-1].died_ms))
        return deleted

    async def _read(self, dead: Sequence[tuple[bytes, float]]) -> list[DeadLetter]:
        fields = cast("Any", [job_id for job_id, _ in dead])
        records = await cast("Awaitable[list[Any]]", self._redis.hmget(keys.dead_letters(self._queue), fields))
        return [
            DeadLetter(job_id, died_ms, DeathRecord.read(data))
            for (job_id, died_ms), data in zip(dead, records, strict=True)
        ]

    async def _ago_ms(self, age: timedelta) -> float:
        seconds, microseconds = await self._redis.time()
        return float(seconds * 1000 + microseconds / 1000 - age.total_seconds() * 1000)


async def read_payloads(redis: Redis, payload_keys: Sequence[bytes], max_bytes: int) -> list[Payload | None]:
    """What these keys hold, in one round trip. None where there is nothing; no data where there is too much."""
    async with redis.pipeline(transaction=False) as pipeline:
        for key in payload_keys:
            pipeline.type(key)
            pipeline.strlen(key)
            pipeline.getrange(key, 0, max_bytes - 1)
        answers = await pipeline.execute(raise_on_error=False)
    triples = zip(answers[::3], answers[1::3], answers[2::3], strict=True)
    return [payload_of(kind, size, data, max_bytes) for kind, size, data in triples]


def payload_of(kind: bytes, size: object, data: object, max_bytes: int) -> Payload | None:
    """A payload from the answers to TYPE, STRLEN and GETRANGE. A key of another type answers with errors."""
    if kind == b"none":
        return None
    if not isinstance(size, int):
        return Payload(kind.decode("ascii", "replace"), None, None)
    return Payload("string", size, data if size <= max_bytes and isinstance(data, bytes) else None)
