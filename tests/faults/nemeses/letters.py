"""Dead letters, replayed by two at once."""

import asyncio
import os
import sys

from tests.faults.nemesis import Nemesis
from tests.faults.stage import Stage

REPLAY = ("-m", "worker", "dead", "replay", "--all", "--json")


async def replay_twice(stage: Stage) -> None:
    """Jobs that die because their rows are held, and two people who replay all of them at the same moment."""
    for _ in range(stage.scale):
        async with stage.rows_held():
            async with asyncio.timeout(20):
                while await stage.house.redis.zcard("arq:queue:dead") < 2:
                    await stage.pause(0.05, 0.1)
        for code in await asyncio.gather(_replay(stage), _replay(stage)):
            stage.faults += 1
            if code != 0:
                stage.complaints.append(("P1", f"`worker dead replay --all` ended with {code}"))


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
    )
]
