"""One ordering key with very many jobs: it costs the others little, loses nothing, and keeps its order."""

import time

import pytest

from tests.faults import queue_state
from tests.faults.client import Asked
from tests.faults.ending import judged
from tests.faults.house import House
from tests.faults.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOT_JOBS = 100_000
OTHER_JOBS = 400
ROUNDS = 3
LEAST_SHARE = 0.7


async def others_a_second(stage: Stage) -> float:
    """How many jobs without a key, and of other keys, the workers do in a second."""
    jobs = [
        stage.load.rename(stage.load.users[1 + number % 15]) if number % 4 == 0 else stage.load.new_user()
        for number in range(OTHER_JOBS)
    ]
    began = time.perf_counter()
    asked = await stage.client.enqueue(jobs)
    await stage.gone([one.job_id.encode() for one in asked])
    return OTHER_JOBS / (time.perf_counter() - began)


async def test_a_hot_key_leaves_the_others_their_speed(the_house: House, seed: int) -> None:
    stage = Stage(the_house, seed)
    await stage.begin()
    await others_a_second(stage)  # warms the workers up
    without = [await others_a_second(stage) for _ in range(ROUNDS)]
    hot: list[Asked] = []
    for _ in range(HOT_JOBS // 500):
        hot += await stage.client.enqueue([stage.load.rename(stage.load.users[0]) for _ in range(500)])

    beside = [await others_a_second(stage) for _ in range(ROUNDS)]

    # To do the rest would take many minutes: what is left must be whole, and what was done in order.
    for number in (0, 1):
        assert await the_house.workers.stop(number) == 0
    left = await stage.still_queued(hot)
    assert len(left) > HOT_JOBS // 2, "the hot key's jobs ended too soon to be beside the others"
    assert await queue_state.orphans(the_house.redis) == []
    stage.client.forget(left)
    verdict = await judged(stage)
    assert not verdict.wrong, str(verdict)
    await queue_state.take_out(the_house.redis, str(hot[0].key), [one.job_id for one in left])
    await stage.whole()
    after = [await others_a_second(stage) for _ in range(ROUNDS)]
    await stage.end()
    # The best of each: whatever else the machine does can only slow a round down. It may also begin or end meanwhile.
    fair = min(max(without), max(after))
    assert max(beside) >= LEAST_SHARE * fair, f"{without} before, {beside} beside, {after} after"
