"""Reads the queue in Redis: how many jobs it holds, and keys that belong to no job."""

from collections.abc import Sequence
from typing import Any

QUEUE = "arq:queue"
_KEYS_OF_JOBS = {"arq:job:": "payload", "arq:in-progress:": "lease", "arq:retry:": "attempts"}


async def count_jobs(redis: Any, *, except_parked: str | None = None) -> int:
    """The number of jobs in the queue in any state, without those parked for this ordering key."""
    parked = 0 if except_parked is None else int(await redis.zcard(f"{QUEUE}:parked:{except_parked}"))
    return int(await redis.zcard(QUEUE)) - parked


async def find_orphans(redis: Any) -> list[str]:
    """Queued jobs without a payload, and keys without the job that they belong to."""
    members = [text(member) for member in await redis.zrange(QUEUE, 0, -1)]
    async with redis.pipeline(transaction=False) as pipeline:
        for member in members:
            pipeline.exists(f"arq:job:{member}")
        has_payload = await pipeline.execute() if members else []
    found = [
        f"in the queue without a payload: {job_id}"
        for job_id, exists in zip(members, has_payload, strict=True)
        if not exists
    ]
    known = set(members)
    async for key in redis.scan_iter(count=1000):
        name = text(key)
        for prefix, kind in _KEYS_OF_JOBS.items():
            if name.startswith(prefix) and name.removeprefix(prefix) not in known:
                found.append(f"{kind} of a job that is not in the queue: {name}")
        if name.startswith(f"{QUEUE}:parked:") and not members:
            found.append(f"parked behind no job: {name}")
    holders = await redis.hgetall(f"{QUEUE}:holders")
    found += [
        f"ordering key {text(key)} is held by {text(holder)}, which is not in the queue"
        for key, holder in holders.items()
        if text(holder) not in known
    ]
    found += [f"cancel request without a job: {text(job_id)}" for job_id in await redis.zrange("arq:abort", 0, -1)]
    return found


async def remove_jobs(redis: Any, key: str, job_ids: Sequence[str]) -> None:
    """Remove jobs of one ordering key by hand, while no worker runs.

    If one of them holds the key, the workers have to notice: other jobs may be parked behind it.
    """
    for start in range(0, len(job_ids), 1000):
        some = job_ids[start : start + 1000]
        await redis.zrem(QUEUE, *some)
        await redis.zrem(f"{QUEUE}:parked:{key}", *some)
        await redis.delete(*(f"{prefix}{job_id}" for prefix in _KEYS_OF_JOBS for job_id in some))


def text(data: bytes) -> str:
    """Any bytes as printable text."""
    return data.decode("utf-8", "backslashreplace")
