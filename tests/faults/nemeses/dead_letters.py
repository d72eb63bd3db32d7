"""Dead letters, replayed by two operators at once."""

import asyncio
import os
import sys

from tests.faults.nemesis import Nemesis
from tests.faults.queue_state import QUEUE
from tests.faults.scenario import Scenario

UNREADABLE_JOBS = 20
REPLAY = ("-m", "worker", "dead", "replay", "--all", "--json")


async def replay_twice(scenario: Scenario) -> None:
    """Jobs die while their rows are locked; two commands replay all of them at the same moment."""
    if "WORKER_MAX_TRIES" in scenario.settings:
        async with scenario.hold_rows():
            await _wait_for_dead(scenario, 2)
    else:
        # Jobs with more attempts do not die in time. Unreadable jobs die at once, and again after each replay.
        redis = scenario.cluster.redis
        for job_id in (f"unreadable-{number}" for number in range(UNREADABLE_JOBS)):
            await redis.set(f"arq:job:{job_id}", b"\x80garbage")
            await redis.execute_command("ZADD", QUEUE, "1", job_id)
        await _wait_for_dead(scenario, UNREADABLE_JOBS)
    for code in await asyncio.gather(_replay(scenario), _replay(scenario)):
        scenario.faults += 1
        if code != 0:
            scenario.violations.append(("P1", f"`worker dead replay --all` exited with {code}"))


async def _wait_for_dead(scenario: Scenario, count: int) -> None:
    async with asyncio.timeout(20):
        while await scenario.cluster.redis.zcard(f"{QUEUE}:dead") < count:
            await scenario.pause(0.05, 0.1)


async def _replay(scenario: Scenario) -> int:
    environment = {**os.environ, **scenario.cluster.workers.environment}
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(sys.executable, *REPLAY, env=environment, stdout=null, stderr=null)
    return await process.wait()


# One attempt and a short timeout: a job that waits longer for a lock dies.
SETTINGS = {"WORKER_MAX_TRIES": "1", "WORKER_JOB_TIMEOUT_SECONDS": "4"}
DEAD_LETTERS = [
    Nemesis(16, "replayed-twice", replay_twice, "jobs", settings=SETTINGS, kills_jobs=True, batches=False),
]
