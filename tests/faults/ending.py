"""The end of a run: all is settled in time, nothing is left over, and the verdict."""

import asyncio
import time

from tests.faults import queue_state, seen
from tests.faults.house import LEASE_SECONDS
from tests.faults.stage import Stage
from tests.faults.verdict import Verdict, judge
from tests.faults.waiting import until
from tests.waiting import slowdown

LONGEST_BACKOFF_SECONDS = 8.0
"""Of a job with five tries: the wait before the last."""
SETTLE_SECONDS = LEASE_SECONDS + LONGEST_BACKOFF_SECONDS + 5
"""The promise: the jobs that are left in the queue when the fault is over, a few hundred, are settled in this time."""


async def settle(stage: Stage) -> Verdict:
    """Wait until all is quiet; what there is against I7 and I8 after that."""
    redis = stage.house.redis
    verdict = Verdict()
    longest = SETTLE_SECONDS * await asyncio.to_thread(slowdown)
    began = time.monotonic()

    async def quiet() -> bool:
        return not await queue_state.waiting(redis)

    async def tidy() -> bool:
        return not await queue_state.orphans(redis)

    try:
        await until(quiet, seconds=longest, what="all is settled")
        stage.recovery_seconds = time.monotonic() - began
        await until(tidy, seconds=longest - stage.recovery_seconds, what="nothing is left over")
    except TimeoutError as error:
        stage.recovery_seconds = time.monotonic() - began
        left = await queue_state.waiting(redis)
        verdict.add("I7", f"{error}: {left} jobs in the queue", *await queue_state.orphans(redis))
    verdict.add("I8", *await stage.house.workers.wrong(), *await _connections(stage))
    return verdict


async def judged(stage: Stage, *, fault_free: bool = False) -> Verdict:
    """The verdict on all that was enqueued."""
    await stage.client.look()
    history = stage.client.history
    final: list[str | None] = []
    for start in range(0, len(history), 500):
        final += await stage.client.results(history[start : start + 500])
    looked = await stage.house.observe(seen.look)
    # Beside the loop: the workers' ways to their servers lead through this process.
    return await asyncio.to_thread(judge, history, final, looked, fault_free=fault_free)


async def ends_well(stage: Stage) -> None:
    """All invariants hold at the end of a test that needs no more than that."""
    verdicts = [await settle(stage), await judged(stage)]
    await stage.end()
    for verdict in verdicts:
        assert not verdict.wrong, str(verdict)


async def _connections(stage: Stage) -> list[str]:
    """Connections that are too many, or that hold a transaction open with nothing to do."""
    deadline = time.monotonic() + LEASE_SECONDS * await asyncio.to_thread(slowdown)
    while True:
        count, idle = await stage.house.observe(seen.connections)
        alive = sum(stage.house.workers.alive(number) for number in stage.house.workers.processes)
        if count <= stage.concurrency * alive and not idle:
            return []
        if time.monotonic() > deadline:
            return [f"{alive} workers have {count} connections, {idle} of them idle in a transaction"]
        await asyncio.sleep(0.1)
