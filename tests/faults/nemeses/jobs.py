"""Jobs that are delivered again and again, and one ordering key with very many jobs."""

import asyncio
import json
from collections.abc import Sequence

from tests.faults import queue_state
from tests.faults.client import JobRecord
from tests.faults.nemesis import Nemesis
from tests.faults.queue_state import QUEUE
from tests.faults.scenario import Scenario

HOT_JOBS = 300
HOT_CALLS, JOBS_PER_CALL = 200, 500
"""Of the long form."""
# A job that waits in the queue is left alone: a new score would move it.
_REDELIVER = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
local time = redis.call('TIME')
redis.call('SET', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[1], time[1] * 1000 + time[2] / 1000, ARGV[1])
return 1
"""


async def redeliver(scenario: Scenario) -> None:
    """Put jobs into the queue again, while they run and long after they ended."""
    for _ in range(10):
        await scenario.pause(0.05, 0.2)
        history = scenario.client.history
        for job in [*scenario.random.sample(history, 5), *history[-10:]]:
            if job.state == "ok":
                scenario.faults += await redeliver_job(scenario, job)


async def redeliver_job(scenario: Scenario, job: JobRecord) -> bool:
    """Enqueue a job as a raw client, unless it waits in the queue; whether that was done."""
    fields = json.loads(job.message.model_dump_json(exclude_none=True))
    payload = {"f": job.message.job, "k": fields, "a": [], "t": None, "et": 1_700_000_000_000}
    names = [QUEUE, *(f"arq:{kind}:{job.job_id}" for kind in ("job", "in-progress"))]
    delivered: int = await scenario.cluster.redis.eval(_REDELIVER, len(names), *names, job.job_id, json.dumps(payload))
    if delivered:
        job.log("delivered again")
    return bool(delivered)


async def hot_key(scenario: Scenario) -> None:
    """Very many jobs for one user, among the others."""
    # The long form takes a user out of the load: other jobs of that user would still be parked at the removal.
    user_id = scenario.load.users.pop(0) if scenario.is_long else scenario.load.users[0]
    hot: list[JobRecord] = []
    for _ in range(HOT_CALLS if scenario.is_long else 1):
        size = JOBS_PER_CALL if scenario.is_long else HOT_JOBS
        scenario.crowded_key = f"user:{user_id}"
        hot += await scenario.client.enqueue([scenario.load.update_user(user_id) for _ in range(size)])
    scenario.faults += 1
    await scenario.pause(0.5, 1)
    if scenario.is_long:
        await asyncio.sleep(scenario.seconds)
        await remove_the_rest(scenario, hot)
    scenario.crowded_key = None


async def remove_the_rest(scenario: Scenario, hot: Sequence[JobRecord]) -> int:
    """Check the remaining jobs of the key, remove them and return their number: to run all of them takes too long.

    They must be complete, and the last ones in the order of acceptance.
    """
    workers = scenario.cluster.workers
    for number in range(scenario.workers):
        if (code := await workers.stop(number)) != 0:
            scenario.violations.append(("I8", f"a stopped worker exited with {code}"))
    left = await scenario.still_queued(hot)
    scenario.violations += [("I7", orphan) for orphan in (await queue_state.find_orphans(scenario.cluster.redis))[:3]]
    if [job for job in hot if job in left] != hot[len(hot) - len(left) :]:
        scenario.violations.append(("I4", f"{hot[0].key}: the remaining jobs are not the last accepted ones"))
    scenario.notes.append(f"of {len(hot):,} jobs of one key {len(hot) - len(left):,} were done, among others")
    await queue_state.remove_jobs(scenario.cluster.redis, str(hot[0].key), [job.job_id for job in left])
    scenario.client.forget(left)
    await scenario.restore_workers()
    return len(left)


JOBS = [
    Nemesis(14, "redelivery", redeliver, "jobs", kills_jobs=True),
    Nemesis(15, "hot-key", hot_key, "jobs", costs_no_attempt=True, once=True),
]
