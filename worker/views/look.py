"""One look at all that changes from second to second: how the queue stands, and what has been counted."""

from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.queue.counters import Counters, read_counters
from worker.queue.status import Status, status


async def look(redis: Redis, queue: str, engine: AsyncEngine) -> tuple[Status, Counters | None]:
    """Ask both servers: some ten commands, whatever the queue holds. The counts are None while Redis cannot be asked.

    Takes a few seconds at the most, and raises nothing for a server that is away.
    """
    found = await status(redis, queue, engine)
    if found.jobs is not None:
        with suppress(RedisError, OSError):  # gone between two questions: the next look says why
            return found, await read_counters(redis, queue)
    return found, None
