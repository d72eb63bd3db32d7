"""The suite can fail: what protects the worker is taken away, one at a time, and the invariant for it goes red."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults import queue_state
from tests.faults.ending import judged
from tests.faults.house import LEASE_SECONDS, House
from tests.faults.nemeses.jobs import deliver_again
from tests.faults.stage import Stage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


@asynccontextmanager
async def stage_of(house: House, seed: int, mutation: str | None) -> AsyncIterator[Stage]:
    """One worker without what the mutation takes away."""
    stage = Stage(house, seed, workers=1, mutation=mutation)
    await stage.begin()
    try:
        yield stage
    finally:
        await stage.end()
        house.workers.end_all()


async def test_without_the_ledger_an_effect_is_there_twice(the_house: House, seed: int) -> None:
    async with stage_of(the_house, seed, "ledger") as stage:
        (asked,) = await stage.client.enqueue([stage.load.new_post()])
        await stage.replies([asked])

        await deliver_again(stage, asked)
        await stage.gone([asked.job_id.encode()])

        verdict = await judged(stage)
        assert f"2 effects, must be 0: {asked.job_id}" in verdict.wrong["I2"], str(verdict)


@pytest.mark.parametrize("mutation", ["token", None])
async def test_without_the_tokens_a_frozen_worker_puts_an_orphan_into_the_queue(
    the_house: House, seed: int, mutation: str | None
) -> None:
    async with stage_of(the_house, seed, mutation) as stage:
        workers = the_house.workers
        async with stage.rows_held(blocked=False):
            (asked,) = await stage.client.enqueue([stage.load.rename(stage.load.users[0])])
            await stage.until_blocked()
            workers.freeze(0)
        stage.start(1)
        await stage.replies([asked])
        assert await workers.stop(1) == 0

        # It wakes up to be stopped, so that nobody is left who could take the orphan for a job.
        workers.processes[0].send_signal(signal.SIGTERM)
        workers.thaw(0)
        assert await workers.ended(0, seconds=20)

        orphans = await queue_state.orphans(the_house.redis)
        assert (f"in the queue without a payload: {asked.job_id}" in orphans) == (mutation is not None), orphans


async def test_without_the_order_two_jobs_of_one_key_are_open_at_once(the_house: House, seed: int) -> None:
    async with stage_of(the_house, seed, "order") as stage:
        user_id = stage.load.users[0]
        asked = await stage.client.enqueue([stage.load.rename(user_id) for _ in range(50)])
        await stage.replies(asked)

        verdict = await judged(stage)
        assert verdict.wrong["I5"], str(verdict)


@pytest.mark.parametrize("mutation", ["renewal", None])
async def test_without_the_renewal_a_long_job_is_begun_while_it_runs(
    the_house: House, seed: int, mutation: str | None
) -> None:
    async with stage_of(the_house, seed, mutation) as stage:
        async with stage.rows_held(blocked=False):
            (asked,) = await stage.client.enqueue([stage.load.rename(stage.load.users[0])])
            await stage.pause(1.5 * LEASE_SECONDS, 1.6 * LEASE_SECONDS)
        await stage.replies([asked])

        verdict = await judged(stage, fault_free=True)
        assert bool(verdict.wrong["I5"]) == (mutation is not None), str(verdict)
