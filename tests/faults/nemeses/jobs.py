"""Jobs that are delivered again and again, and one ordering key with very many."""

import asyncio
import json
from collections.abc import Sequence

from tests.faults import queue_state
from tests.faults.client import Asked
from tests.faults.nemesis import Nemesis
from tests.faults.queue_state import QUEUE
from tests.faults.stage import Stage

HOT_JOBS = 300
MOST_HOT_JOBS = 100_000
CALL = 500
# One that waits has its place, which a client that gives it another one takes from it.
_AGAIN = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
local time = redis.call('TIME')
redis.call('SET', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[1], time[1] * 1000 + time[2] / 1000, ARGV[1])
return 1
"""


async def redelivered(stage: Stage) -> None:
    """Jobs put into the queue again, while they run and when they have long ended."""
    for _ in range(10):
        await stage.pause(0.05, 0.2)
        history = stage.client.history
        for asked in [*stage.chance.sample(history, 5), *history[-10:]]:
            if asked.state == "ok":
                stage.faults += await deliver_again(stage, asked)


async def deliver_again(stage: Stage, asked: Asked) -> bool:
    """Put a job into the queue as any client of the wire may, unless it waits there; whether that was done."""
    fields = json.loads(asked.message.model_dump_json(exclude_none=True))
    payload = {"f": asked.message.job, "k": fields, "a": [], "t": None, "et": 1_700_000_000_000}
    names = [QUEUE, *(f"arq:{what}:{asked.job_id}" for what in ("job", "in-progress"))]
    delivered: int = await stage.house.redis.eval(_AGAIN, len(names), *names, asked.job_id, json.dumps(payload))
    if delivered:
        asked.note("delivered again")
    return bool(delivered)


async def hot_key(stage: Stage) -> None:
    """Very many jobs for one user, beside the others."""
    # In the long form a key of its own: what the others have for it would still wait when these are taken out.
    user_id = stage.load.users.pop(0) if stage.long else stage.load.users[0]
    hot: list[Asked] = []
    for _ in range(MOST_HOT_JOBS // CALL if stage.long else 1):
        jobs = [stage.load.rename(user_id) for _ in range(CALL if stage.long else HOT_JOBS)]
        stage.crowded_by = f"user:{user_id}"
        hot += await stage.client.enqueue(jobs)
    stage.faults += 1
    # Some are done one by one, while the others have theirs as well.
    await stage.pause(0.5, 1)
    if stage.long:
        await asyncio.sleep(stage.seconds)
        await take_out_the_rest(stage, hot)
    stage.crowded_by = None


async def take_out_the_rest(stage: Stage, hot: Sequence[Asked]) -> None:
    """Look at what is left of very many jobs of a key, and take it away: to do all would take the rest of the day.

    They must be all that were not done, whole, and those that were accepted last.
    """
    workers = stage.house.workers
    for number in range(stage.workers):
        if (code := await workers.stop(number)) != 0:
            stage.complaints.append(("I8", f"a worker that was stopped ended with {code}"))
    left = await stage.still_queued(hot)
    stage.complaints += [("I7", orphan) for orphan in (await queue_state.orphans(stage.house.redis))[:3]]
    if [one for one in hot if one in left] != hot[len(hot) - len(left) :]:
        stage.complaints.append(("I4", f"{hot[0].key}: what is left are not those that were accepted last"))
    stage.notes.append(f"of {len(hot):,} jobs of one key {len(hot) - len(left):,} were done, beside the others")
    await queue_state.take_out(stage.house.redis, str(hot[0].key), [one.job_id for one in left])
    stage.client.forget(left)
    await stage.whole()


JOBS = [
    Nemesis(14, "redelivery", redelivered, "jobs", kills=True),
    Nemesis(15, "hot-key", hot_key, "jobs", counts_no_try=True, once=True),
]
