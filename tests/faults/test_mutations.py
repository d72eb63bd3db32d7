"""The suite can fail: without one of the worker's safeguards, the invariant that it protects breaks."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults import queue_state
from tests.faults.cluster import LEASE_SECONDS, Cluster
from tests.faults.final_checks import judge_history
from tests.faults.nemeses import NEMESES
from tests.faults.nemeses.jobs import redeliver_job
from tests.faults.nemesis import RunOptions, run_nemesis
from tests.faults.processes import MAX_TASKS, SABOTAGED
from tests.faults.sabotage import LEAKING
from tests.faults.scenario import Scenario

pytestmark = pytest.mark.asyncio(loop_scope="session")

SINGLY, BATCHES = 1, 20
FORMS = pytest.mark.parametrize("batch", [SINGLY, BATCHES], ids=["singly", "batches"])
AT_ONCE = 4
"""Jobs of one type enqueued at once: with batches they share a transaction."""


@asynccontextmanager
async def open_scenario(cluster: Cluster, seed: int, mutation: str | None, batch: int) -> AsyncIterator[Scenario]:
    """One worker with a mutation."""
    scenario = Scenario(cluster, seed, settings={"WORKER_BATCH_SIZE": str(batch)}, workers=1, mutation=mutation)
    await scenario.open()
    try:
        yield scenario
    finally:
        await scenario.close()
        cluster.workers.kill_all()


@FORMS
async def test_an_effect_happens_twice_without_the_ledger(cluster: Cluster, seed: int, batch: int) -> None:
    async with open_scenario(cluster, seed, "ledger", batch) as scenario:
        jobs = await scenario.client.enqueue([scenario.load.create_post() for _ in range(AT_ONCE)])
        await scenario.replies(jobs)

        for job in jobs:
            await redeliver_job(scenario, job)
        await scenario.wait_left_queue([job.job_id.encode() for job in jobs])

        verdict = await judge_history(scenario)
        for job in jobs:
            assert f"2 effects, must be 0: {job.job_id}" in verdict.violations["I2"], str(verdict)


@FORMS
@pytest.mark.parametrize("mutation", ["token", None])
async def test_a_frozen_worker_leaves_an_orphan_in_the_queue_without_the_tokens(
    cluster: Cluster, seed: int, mutation: str | None, batch: int
) -> None:
    async with open_scenario(cluster, seed, mutation, batch) as scenario:
        workers, users = cluster.workers, scenario.load.users[:AT_ONCE]
        async with scenario.hold_rows(blocked=False):
            jobs = await scenario.client.enqueue([scenario.load.update_user(user_id) for user_id in users])
            await scenario.wait_blocked()
            workers.freeze(0)
        scenario.start_worker(1)
        await scenario.replies(jobs)
        assert await workers.stop(1) == 0

        # It resumes in order to stop: a running worker would claim the orphan.
        workers.processes[0].send_signal(signal.SIGTERM)
        workers.resume(0)
        assert await workers.wait_exit(0)

        orphans = await queue_state.find_orphans(cluster.redis)
        # At least one of the jobs that were running.
        found = [job for job in jobs if f"in the queue without a payload: {job.job_id}" in orphans]
        assert bool(found) == (mutation is not None), orphans


@FORMS
async def test_two_jobs_of_a_key_are_open_at_once_without_the_order(cluster: Cluster, seed: int, batch: int) -> None:
    async with open_scenario(cluster, seed, "order", batch) as scenario:
        user_id = scenario.load.users[0]
        jobs = await scenario.client.enqueue([scenario.load.update_user(user_id) for _ in range(50)])
        await scenario.replies(jobs)

        verdict = await judge_history(scenario)
        assert verdict.violations["I5"], str(verdict)


@FORMS
@pytest.mark.parametrize("mutation", ["renewal", None])
async def test_a_long_job_starts_again_while_it_runs_without_the_renewal(
    cluster: Cluster, seed: int, mutation: str | None, batch: int
) -> None:
    async with open_scenario(cluster, seed, mutation, batch) as scenario:
        users = scenario.load.users[:AT_ONCE]
        async with scenario.hold_rows(blocked=False):
            jobs = await scenario.client.enqueue([scenario.load.update_user(user_id) for user_id in users])
            # A batch writes the ledger last, where an attempt is noticed: the third attempt is the first to be noticed.
            leases = 1.5 if batch == SINGLY else 2.25
            await scenario.pause(leases * LEASE_SECONDS, (leases + 0.1) * LEASE_SECONDS)
        await scenario.replies(jobs)

        verdict = await judge_history(scenario, fault_free=True)
        assert bool(verdict.violations["I5"]) == (mutation is not None), str(verdict)


async def test_a_failed_run_shows_its_history_and_how_to_repeat_it(cluster: Cluster, seed: int) -> None:
    run = await run_nemesis(cluster, NEMESES["redelivery"], RunOptions(seed, mutation="ledger"))

    text = str(run)
    doubled = run.verdict.violations["I2"][0]
    assert re.match(r"([2-9]|\d\d+) effects", doubled)
    job_id = doubled.split()[-1]
    assert f"repeat it: python -m tests.faults --only redelivery --seed {seed} --batch 1 --without ledger" in text
    # When it was enqueued, the observed outcome, and the outcome in the ledger.
    (line,) = [line for line in text.splitlines() if line.lstrip().startswith("#") and f" {job_id} " in line]
    for event in ("invoked", "ok", "observed", "delivered again"):
        assert event in line
    assert f"I2: {run.verdict.counts['I2']}" in text


async def test_leaked_tasks_and_connections_are_reported(cluster: Cluster, seed: int) -> None:
    async with open_scenario(cluster, seed, None, SINGLY) as scenario:
        workers = cluster.workers
        assert await workers.find_faults() == []
        workers.kill(0)
        workers.start(0, {LEAKING: "1"}, command=SABOTAGED)
        await workers.wait_ready()
        await scenario.replies(await scenario.client.enqueue([scenario.load.create_post() for _ in range(100)]))

        (found,) = await workers.find_faults(seconds=0.5)

        tasks, connections = (int(number) for number in re.findall(r"(\d+) (?:tasks|connections)", found))
        assert tasks > MAX_TASKS
        assert connections == 2


async def test_a_crashed_worker_is_reported_after_its_replacement(cluster: Cluster, seed: int) -> None:
    async with open_scenario(cluster, seed, None, SINGLY) as scenario:
        workers = cluster.workers
        os.kill(workers.pid(0), signal.SIGKILL)
        assert await workers.wait_exit(0)
        await scenario.restore_workers()

        (found,) = await workers.find_faults()

        assert found.startswith("worker 0 ended with -9")
