"""Put dead letters back into the queue under their own ids.

A replay may change a job's outcome, so its ledger row goes with it, in one transaction that waits for Redis.
"""

from collections.abc import Sequence
from enum import Enum

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from producers import ids, keys
from worker.database import ledger
from worker.queue.scripts import REPLAY


class Replayed(Enum):
    """What became of replaying a dead letter."""

    REPLAYED = 1
    NOT_FOUND = 0
    """There is no such letter (any more)."""
    NO_PAYLOAD = -1
    """The payload was gone when the job died: there is nothing to replay."""
    ALREADY_QUEUED = -2
    """A job of this id is in the queue: it was accepted again."""


async def replay(
    redis: Redis, queue: str, sessions: async_sessionmaker[AsyncSession], job_ids: Sequence[bytes]
) -> list[Replayed]:
    """Put dead jobs back into the queue under their own ids, with all attempts before them.

    No effect happens twice: only the row of a death leaves the ledger, in one transaction with the queue's change, so
    that a worker that claims the job meanwhile waits for it. When this raises, jobs may have been put back that will be
    found dead at once, as before: replay them again.
    """
    texts = (job_id.decode("ascii", "replace") for job_id in job_ids)
    async with sessions() as session:
        forgotten = await ledger.forget_dead(session, [text for text in texts if ids.is_job_id(text)])
        answers = await REPLAY(redis, [queue], [keys.wake(queue), *job_ids])
        results = [Replayed(answer) for answer in answers]
        replayed = {job_id for job_id, result in zip(job_ids, results, strict=True) if result is Replayed.REPLAYED}
        for entry in forgotten:
            if entry.job_id.encode() not in replayed:
                await ledger.record(session, entry)
        await session.commit()
    return results
