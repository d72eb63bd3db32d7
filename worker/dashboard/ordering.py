"""The job that holds an ordering key, and those parked behind it, in order."""

from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from producers import keys


@dataclass(frozen=True, slots=True)
class Line:
    """The jobs of one ordering key."""

    key: bytes
    holder: bytes | None
    parked: int
    jobs: list[tuple[bytes, float]]
    """One page: ids, and their scores in the queue, which are times in ms."""
    foreign: bool
    """Whether the key of the list has another type, so another program wrote it."""


async def read(redis: Redis, queue: str, key: bytes, offset: int, count: int) -> Line:
    """Read one page of the parked jobs."""
    parked = keys.parked(queue, "").encode() + key
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hget(keys.holders(queue), cast("str", key))
        pipeline.zcard(parked)
        pipeline.zrange(parked, offset, offset + count - 1, withscores=True)
        holder, waiting, jobs = await pipeline.execute(raise_on_error=False)
    if isinstance(waiting, ResponseError):
        return Line(key, None, 0, [], foreign=True)
    return Line(key, None if isinstance(holder, ResponseError) else holder, waiting, jobs, foreign=False)
