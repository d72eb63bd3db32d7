"""What Redis holds when all is quiet: nothing that belongs to no job."""

from collections.abc import Sequence
from typing import Any

QUEUE = "arq:queue"


async def waiting(redis: Any, queue: str = QUEUE) -> int:
    """How many jobs are in the queue, in whatever state."""
    return int(await redis.zcard(queue))


async def waiting_beside(redis: Any, ordering_key: str, queue: str = QUEUE) -> int:
    """How many of them are not parked behind another of this key."""
    return int(await redis.zcard(queue)) - int(await redis.zcard(f"{queue}:parked:{ordering_key}"))


async def orphans(redis: Any, queue: str = QUEUE) -> list[str]:
    """All that is there without what it belongs to."""
    members = [text(member) for member in await redis.zrange(queue, 0, -1)]
    found: list[str] = []
    async with redis.pipeline(transaction=False) as pipeline:
        for member in members:
            pipeline.exists(f"arq:job:{member}")
        there = await pipeline.execute() if members else []
    found += [
        f"in the queue without a payload: {one}" for one, is_there in zip(members, there, strict=True) if not is_there
    ]
    known = set(members)
    async for key in redis.scan_iter(count=1000):
        name = text(key)
        for prefix, what in _OF_JOBS.items():
            if name.startswith(prefix) and name.removeprefix(prefix) not in known:
                found.append(f"{what} of a job that is not in the queue: {name}")
        if name.startswith(f"{queue}:parked:") and not members:
            found.append(f"parked behind no job: {name}")
    holders = await redis.hgetall(f"{queue}:holders")
    found += [
        f"a key held by no job: {text(key)} by {text(holder)}"
        for key, holder in holders.items()
        if text(holder) not in known
    ]
    found += [f"to be cancelled and not there: {text(one)}" for one in await redis.zrange("arq:abort", 0, -1)]
    return found


async def take_out(redis: Any, key: str, job_ids: Sequence[str], queue: str = QUEUE) -> None:
    """Take jobs of one ordering key out of the queue by hand, while no worker is there.

    Should one of them hold the key, it is left to the workers to find that out: others may wait behind it.
    """
    for start in range(0, len(job_ids), 1000):
        some = job_ids[start : start + 1000]
        await redis.zrem(queue, *some)
        await redis.zrem(f"{queue}:parked:{key}", *some)
        await redis.delete(*(f"{prefix}{job_id}" for prefix in _OF_JOBS for job_id in some))


def text(data: bytes) -> str:
    """Bytes of any kind, as text that can be printed."""
    return data.decode("utf-8", "backslashreplace")


_OF_JOBS = {"arq:job:": "the payload", "arq:in-progress:": "the lease", "arq:retry:": "the tries"}
