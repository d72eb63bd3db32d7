"""One ordering key with very many jobs: other jobs keep their speed, no job is lost, and the order holds."""

import time

import pytest

from tests.faults.client import JobRecord
from tests.faults.cluster import Cluster
from tests.faults.final_checks import judge_history
from tests.faults.nemeses.jobs import remove_the_rest
from tests.faults.scenario import Scenario

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOT_JOBS = 100_000
OTHER_JOBS = 400
ROUNDS = 3
MIN_SHARE = 0.7


async def jobs_per_second(scenario: Scenario) -> float:
    """The speed of jobs without a key and of other keys."""
    load = scenario.load
    jobs = [
        load.update_user(load.users[1 + number % 15]) if number % 4 == 0 else load.create_user()
        for number in range(OTHER_JOBS)
    ]
    began = time.perf_counter()
    others = await scenario.client.enqueue(jobs)
    await scenario.wait_left_queue([job.job_id.encode() for job in others])
    return OTHER_JOBS / (time.perf_counter() - began)


async def test_other_jobs_keep_their_speed_beside_a_hot_key(cluster: Cluster, seed: int) -> None:
    scenario = Scenario(cluster, seed)
    await scenario.open()
    await jobs_per_second(scenario)  # warms the workers up
    before = [await jobs_per_second(scenario) for _ in range(ROUNDS)]
    user_id = scenario.load.users[0]
    hot: list[JobRecord] = []
    for _ in range(HOT_JOBS // 500):
        hot += await scenario.client.enqueue([scenario.load.update_user(user_id) for _ in range(500)])

    meanwhile = [await jobs_per_second(scenario) for _ in range(ROUNDS)]

    left = await remove_the_rest(scenario, hot)
    assert left > HOT_JOBS // 2, "the hot key's jobs ended too soon to compete with the others"
    assert scenario.violations == []
    verdict = await judge_history(scenario)
    assert not verdict.violations, str(verdict)
    after = [await jobs_per_second(scenario) for _ in range(ROUNDS)]
    await scenario.close()
    # The best rounds count: other load can only slow a round down. Other load may also start or stop between rounds.
    expected = min(max(before), max(after))
    assert max(meanwhile) >= MIN_SHARE * expected, f"{before} before, {meanwhile} meanwhile, {after} after"
