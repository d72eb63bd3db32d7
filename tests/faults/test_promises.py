"""What no nemesis measures: when the jobs of a killed worker run, and starting and stopping without servers."""

import asyncio

import pytest

from tests.faults.cluster import LEASE_SECONDS, Cluster
from tests.faults.final_checks import assert_ends_well
from tests.faults.scenario import Scenario
from tests.waiting import Stopwatch

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_jobs_of_a_killed_worker_run_within_the_lease_and_two_seconds(cluster: Cluster, seed: int) -> None:
    scenario = Scenario(cluster, seed)
    await scenario.open()
    # The other worker is frozen until it has jobs to take over.
    cluster.workers.freeze(1)
    try:
        async with scenario.hold_rows(blocked=False):
            users = scenario.load.users[:4]
            await scenario.client.enqueue([scenario.load.update_user(user_id) for user_id in users])
            await scenario.wait_blocked()
            leased = await scenario.leased_jobs()
            cluster.workers.kill(0)
            since_kill = Stopwatch()
    finally:
        cluster.workers.resume(1)
    jobs = [job for job in scenario.client.history if job.job_id in leased]

    await scenario.replies(jobs)

    assert jobs
    assert since_kill.seconds() < LEASE_SECONDS + 2
    await assert_ends_well(scenario)


async def test_workers_wait_for_servers_that_start_later(cluster: Cluster, seed: int) -> None:
    scenario = Scenario(cluster, seed)
    await scenario.open()
    for number in (0, 1):
        assert await cluster.workers.stop(number) == 0
    await scenario.client.enqueue(scenario.load.draw(50))
    await asyncio.to_thread(cluster.valkey.stop)
    await asyncio.to_thread(cluster.postgres.stop)
    for number in (0, 1):
        cluster.workers.start(number)
    await cluster.workers.wait_for_log('"server_lost"')
    await asyncio.to_thread(cluster.valkey.start)
    await cluster.workers.wait_for_log('"database_awaited"')
    await asyncio.to_thread(cluster.postgres.start)

    await assert_ends_well(scenario)


async def test_workers_stop_while_the_servers_are_down(cluster: Cluster, seed: int) -> None:
    scenario = Scenario(cluster, seed)
    await scenario.open()
    await scenario.client.enqueue(scenario.load.draw(200))
    await asyncio.to_thread(cluster.valkey.kill)
    await asyncio.to_thread(cluster.postgres.kill)

    codes = await asyncio.gather(*(cluster.workers.stop(number) for number in (0, 1)))

    assert codes == [0, 0]
    await cluster.heal()
    await scenario.restore_workers()
    await assert_ends_well(scenario)
