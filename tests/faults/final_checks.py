"""The end of a run: wait until all jobs are settled, check that nothing is left over, and judge the history."""

import asyncio
import time

from tests.faults import observations, queue_state
from tests.faults.cluster import LEASE_SECONDS
from tests.faults.scenario import Scenario, wait_until
from tests.faults.verdict import Verdict, judge
from tests.waiting import slowdown

LONGEST_BACKOFF_SECONDS = 8.0
"""The wait before the last of five attempts."""
SETTLE_SECONDS = LEASE_SECONDS + LONGEST_BACKOFF_SECONDS + 5
"""The promise: the few hundred jobs left in the queue after a fault are settled within this time."""


async def settle(scenario: Scenario) -> Verdict:
    """Wait until the queue is empty, then check I7 and I8."""
    redis = scenario.cluster.redis
    verdict = Verdict()
    longest = SETTLE_SECONDS * await asyncio.to_thread(slowdown)
    began = time.monotonic()

    async def is_empty() -> bool:
        return not await queue_state.count_jobs(redis)

    async def is_tidy() -> bool:
        return not await queue_state.find_orphans(redis)

    try:
        await wait_until(is_empty, seconds=longest, goal="all jobs are settled")
        scenario.recovery_seconds = time.monotonic() - began
        await wait_until(is_tidy, seconds=longest - scenario.recovery_seconds, goal="no key is left over")
    except TimeoutError as error:
        scenario.recovery_seconds = time.monotonic() - began
        left = await queue_state.count_jobs(redis)
        verdict.add("I7", f"{error}: {left} jobs in the queue", *await queue_state.find_orphans(redis))
    verdict.add("I8", *await scenario.cluster.workers.find_faults(), *await _find_extra_connections(scenario))
    return verdict


async def judge_history(scenario: Scenario, *, fault_free: bool = False) -> Verdict:
    """The verdict on all enqueued jobs."""
    await scenario.client.poll()
    history = scenario.client.history
    outcomes = await scenario.client.outcomes(history)
    observed = await scenario.cluster.query(observations.read)
    # In a thread: the proxies of the workers run in this event loop.
    return await asyncio.to_thread(judge, history, outcomes, observed, fault_free=fault_free)


async def assert_ends_well(scenario: Scenario) -> None:
    """Settle, judge and close; all invariants hold."""
    verdicts = [await settle(scenario), await judge_history(scenario)]
    await scenario.close()
    for verdict in verdicts:
        assert not verdict.violations, str(verdict)


async def _find_extra_connections(scenario: Scenario) -> list[str]:
    """Too many connections, or any that is idle in a transaction."""
    deadline = time.monotonic() + LEASE_SECONDS * await asyncio.to_thread(slowdown)
    workers = scenario.cluster.workers
    while True:
        count, idle = await scenario.cluster.query(observations.count_connections)
        alive = sum(workers.is_alive(number) for number in workers.processes)
        if count <= scenario.concurrency * alive and not idle:
            return []
        if time.monotonic() > deadline:
            return [f"{alive} workers have {count} connections, {idle} of them idle in a transaction"]
        await asyncio.sleep(0.1)
