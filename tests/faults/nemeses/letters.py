"""Dead letters, replayed by two at once."""

import asyncio
import os
import sys
from collections.abc import Sequence

from tests.faults.nemesis import Nemesis
from tests.faults.queue_state import QUEUE
from tests.faults.stage import Stage

LETTERS_MADE = 20
REPLAY = ("-m", "worker", "dead", "replay", "--all", "--json")


async def replay_twice(stage: Stage) -> None:
    """Jobs that die because their rows are held, and two people who replay all of them at the same moment."""
    if "WORKER_MAX_TRIES" in stage.settings:
        async with stage.rows_held():
            await _dead(stage, 2)
    else:
        # Where jobs have more tries than there is time for: letters that die, and die again when they are replayed.
        await bury(stage, [f"unreadable-{number}" for number in range(LETTERS_MADE)])
    for code in await asyncio.gather(_replay(stage), _replay(stage)):
        stage.faults += 1
        if code != 0:
            stage.complaints.append(("P1", f"`worker dead replay --all` ended with {code}"))


async def bury(stage: Stage, job_ids: Sequence[str]) -> None:
    """Put unreadable jobs into the queue, and wait until they are dead letters."""
    redis = stage.house.redis
    for job_id in job_ids:
        await redis.set(f"arq:job:{job_id}", b"\x80garbage")
        await redis.execute_command("ZADD", QUEUE, "1", job_id)
    await _dead(stage, len(job_ids))


async def _dead(stage: Stage, count: int) -> None:
    async with asyncio.timeout(20):
        while await stage.house.redis.zcard(f"{QUEUE}:dead") < count:
            await stage.pause(0.05, 0.1)


async def _replay(stage: Stage) -> int:
    environment = {**os.environ, **stage.house.workers.environment}
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(sys.executable, *REPLAY, env=environment, stdout=quiet, stderr=quiet)
    return await process.wait()


# One try, and locks that are waited for a second: what is held for longer dies.
LETTERS = [
    Nemesis(
        16,
        "replayed-twice",
        replay_twice,
        "jobs",
        settings={"WORKER_MAX_TRIES": "1", "WORKER_JOB_TIMEOUT_SECONDS": "4"},
        kills=True,
        batches=False,
    )
]
