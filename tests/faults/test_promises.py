"""What no nemesis measures: how soon a killed worker's jobs run, and beginning and ending without servers."""

import asyncio

import pytest

from tests.faults.ending import ends_well
from tests.faults.house import LEASE_SECONDS, House
from tests.faults.stage import Stage
from tests.waiting import Stopwatch

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_killed_workers_jobs_run_within_the_lease_and_two_seconds(the_house: House, seed: int) -> None:
    stage = Stage(the_house, seed)
    await stage.begin()
    # The other one takes part only when it has something to take over.
    the_house.workers.freeze(1)
    try:
        async with stage.rows_held(blocked=False):
            await stage.client.enqueue([stage.load.rename(user_id) for user_id in stage.load.users[:4]])
            await stage.until_blocked()
            held = await stage.held_jobs()
            the_house.workers.kill(0)
            killed = Stopwatch()
    finally:
        the_house.workers.thaw(1)
    waiting = [asked for asked in stage.client.history if asked.job_id in held]

    await stage.replies(waiting)

    assert waiting
    assert killed.seconds() < LEASE_SECONDS + 2
    await ends_well(stage)


async def test_workers_wait_for_servers_that_are_not_there_yet(the_house: House, seed: int) -> None:
    stage = Stage(the_house, seed)
    await stage.begin()
    for number in (0, 1):
        assert await the_house.workers.stop(number) == 0
    await stage.client.enqueue(stage.load.draw(50))
    await asyncio.to_thread(the_house.valkey.stop)
    await asyncio.to_thread(the_house.postgres.stop)
    for number in (0, 1):
        the_house.workers.start(number)
    await the_house.workers.logged('"server_lost"')
    await asyncio.to_thread(the_house.valkey.start)
    await the_house.workers.logged('"database_awaited"')
    await asyncio.to_thread(the_house.postgres.start)

    await ends_well(stage)


async def test_stopping_does_not_wait_for_servers_that_are_away(the_house: House, seed: int) -> None:
    stage = Stage(the_house, seed)
    await stage.begin()
    await stage.client.enqueue(stage.load.draw(200))
    await asyncio.to_thread(the_house.valkey.kill)
    await asyncio.to_thread(the_house.postgres.kill)

    codes = await asyncio.gather(*(the_house.workers.stop(number) for number in (0, 1)))

    assert codes == [0, 0]
    await the_house.heal()
    await stage.whole()
    await ends_well(stage)
