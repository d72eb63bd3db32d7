"""Jobs that are delivered again and again, and one ordering key with very many."""

import json

from tests.faults.client import Asked
from tests.faults.nemesis import Nemesis
from tests.faults.queue_state import QUEUE
from tests.faults.stage import Stage

HOT_JOBS = 300
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
    for _ in range(10 * stage.scale):
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
    user_id = stage.load.users[0]
    for _ in range(stage.scale):
        for _ in range(HOT_JOBS // 50):
            await stage.client.enqueue([stage.load.rename(user_id) for _ in range(50)])
        stage.faults += 1
        await stage.pause(0.5, 1)


JOBS = [
    Nemesis(14, "redelivery", redelivered, "jobs", kills=True),
    Nemesis(15, "hot-key", hot_key, "jobs", counts_no_try=True),
]
