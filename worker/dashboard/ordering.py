"""Who holds an ordering key, and who waits behind it, in order."""

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
    """Of the page that was asked for: ids, and the places in the queue that they had, which are times in ms."""
    foreign: bool
    """Whether the list is a key of another type, which somebody else has put there."""


async def read(redis: Redis, queue: str, key: bytes, offset: int, count: int) -> Line:
    """Ask Redis for a page of the line."""
    parked = keys.parked(queue, "").encode() + key
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hget(keys.holders(queue), cast("str", key))
        pipeline.zcard(parked)
        pipeline.zrange(parked, offset, offset + count - 1, withscores=True)
        holder, waiting, jobs = await pipeline.execute(raise_on_error=False)
    if isinstance(waiting, ResponseError):
        return Line(key, None, 0, [], foreign=True)
    return Line(key, None if isinstance(holder, ResponseError) else holder, waiting, jobs, foreign=False)
