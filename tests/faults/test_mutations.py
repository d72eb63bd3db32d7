"""The suite can fail: what protects the worker is taken away, one at a time, and the invariant for it goes red."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults import queue_state
from tests.faults.ending import judged
from tests.faults.house import LEASE_SECONDS, House
from tests.faults.nemeses import NEMESES
from tests.faults.nemeses.jobs import deliver_again
from tests.faults.nemesis import How, run
from tests.faults.processes import MOST_TASKS, SABOTAGED
from tests.faults.sabotage import HOARDING
from tests.faults.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


SINGLY, BATCHES = 1, 20
FORMS = pytest.mark.parametrize("batch", [SINGLY, BATCHES], ids=["singly", "batches"])
TOGETHER = 4
"""So many jobs of one kind are enqueued at once: with batches they share a transaction."""


@asynccontextmanager
async def stage_of(house: House, seed: int, mutation: str | None, batch: int) -> AsyncIterator[Stage]:
    """One worker without what the mutation takes away."""
    stage = Stage(house, seed, settings={"WORKER_BATCH_SIZE": str(batch)}, workers=1, mutation=mutation)
    await stage.begin()
    try:
        yield stage
    finally:
        await stage.end()
        house.workers.end_all()


@FORMS
async def test_without_the_ledger_an_effect_is_there_twice(the_house: House, seed: int, batch: int) -> None:
    async with stage_of(the_house, seed, "ledger", batch) as stage:
        jobs = await stage.client.enqueue([stage.load.new_post() for _ in range(TOGETHER)])
        await stage.replies(jobs)

        for asked in jobs:
            await deliver_again(stage, asked)
        await stage.gone([asked.job_id.encode() for asked in jobs])

        verdict = await judged(stage)
        for asked in jobs:
            assert f"2 effects, must be 0: {asked.job_id}" in verdict.wrong["I2"], str(verdict)


@FORMS
@pytest.mark.parametrize("mutation", ["token", None])
async def test_without_the_tokens_a_frozen_worker_puts_an_orphan_into_the_queue(
    the_house: House, seed: int, mutation: str | None, batch: int
) -> None:
    async with stage_of(the_house, seed, mutation, batch) as stage:
        workers = the_house.workers
        async with stage.rows_held(blocked=False):
            jobs = await stage.client.enqueue([stage.load.rename(user_id) for user_id in stage.load.users[:TOGETHER]])
            await stage.until_blocked()
            workers.freeze(0)
        stage.start(1)
        await stage.replies(jobs)
        assert await workers.stop(1) == 0

        # It wakes up to be stopped, so that no worker is left that could take the orphan for a job.
        workers.processes[0].send_signal(signal.SIGTERM)
        workers.thaw(0)
        assert await workers.ended(0)

        orphans = await queue_state.orphans(the_house.redis)
        # Of those that it had begun: one at the least.
        found = [asked for asked in jobs if f"in the queue without a payload: {asked.job_id}" in orphans]
        assert bool(found) == (mutation is not None), orphans


@FORMS
async def test_without_the_order_two_jobs_of_one_key_are_open_at_once(the_house: House, seed: int, batch: int) -> None:
    async with stage_of(the_house, seed, "order", batch) as stage:
        user_id = stage.load.users[0]
        asked = await stage.client.enqueue([stage.load.rename(user_id) for _ in range(50)])
        await stage.replies(asked)

        verdict = await judged(stage)
        assert verdict.wrong["I5"], str(verdict)


@FORMS
@pytest.mark.parametrize("mutation", ["renewal", None])
async def test_without_the_renewal_a_long_job_is_begun_while_it_runs(
    the_house: House, seed: int, mutation: str | None, batch: int
) -> None:
    async with stage_of(the_house, seed, mutation, batch) as stage:
        async with stage.rows_held(blocked=False):
            asked = await stage.client.enqueue([stage.load.rename(user_id) for user_id in stage.load.users[:TOGETHER]])
            # What shares a session comes to the ledger last, where it is seen: the first who is seen is the third.
            leases = 1.5 if batch == SINGLY else 2.25
            await stage.pause(leases * LEASE_SECONDS, (leases + 0.1) * LEASE_SECONDS)
        await stage.replies(asked)

        verdict = await judged(stage, fault_free=True)
        assert bool(verdict.wrong["I5"]) == (mutation is not None), str(verdict)


async def test_a_failed_run_shows_its_history_and_how_to_repeat_it(the_house: House, seed: int) -> None:
    done = await run(the_house, NEMESES["redelivery"], How(seed, mutation="ledger"))

    text = str(done)
    (doubled, *_) = [found for found in done.verdict.wrong["I2"] if found.startswith("2 effects")]
    job_id = doubled.split()[-1]
    assert f"repeat it: python -m tests.faults --only redelivery --seed {seed} --batch 1 --without ledger" in text
    # What was enqueued and when, the observed outcome, and the ledger's.
    (line,) = [line for line in text.splitlines() if line.lstrip().startswith("#") and f" {job_id} " in line]
    for event in ("invoked", "ok", "observed", "delivered again"):
        assert event in line
    assert f"I2: {done.verdict.counts['I2']}" in text


async def test_what_a_worker_holds_on_to_is_seen(the_house: House, seed: int) -> None:
    async with stage_of(the_house, seed, None, SINGLY) as stage:
        workers = the_house.workers
        assert await workers.wrong() == []
        workers.kill(0)
        workers.start(0, {HOARDING: "1"}, command=SABOTAGED)
        await workers.started()
        await stage.replies(await stage.client.enqueue([stage.load.new_post() for _ in range(100)]))

        (found,) = await workers.wrong(seconds=0.5)

        tasks, connections = (int(number) for number in re.findall(r"(\d+) (?:tasks|connections)", found))
        assert tasks > MOST_TASKS
        assert connections == 2


async def test_a_worker_that_ended_by_itself_is_seen_though_another_came_in_its_place(
    the_house: House, seed: int
) -> None:
    async with stage_of(the_house, seed, None, SINGLY) as stage:
        workers = the_house.workers
        os.kill(workers.pid(0), signal.SIGKILL)
        assert await workers.ended(0)
        await stage.whole()

        (found,) = await workers.wrong()

        assert found.startswith("worker 0 ended with -9")
