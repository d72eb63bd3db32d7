"""Workers that are killed, frozen and rolled: nothing is lost, doubled or put out of order."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults import oracle
from tests.faults.harness import LEASE_SECONDS, Stage

pytestmark = pytest.mark.timeout(900)


async def test_kill_minus_nine(folder: Path, seed: int, scale: int) -> None:
    async with Stage(folder, seed) as stage:
        stage.workers.start(1)
        users, posts = await stage.seeded()
        load = asyncio.create_task(stage.load(1000 * scale, users, posts))
        for _ in range(3 * scale):
            await asyncio.sleep(stage.random.uniform(0.3, 1.5))
            number = stage.random.choice((0, 1))
            stage.workers.kill(number)
            stage.workers.start(number)
        await load

        verdict = await stage.verdict()

        assert not verdict.wrong, str(verdict)


async def test_a_killed_workers_jobs_run_within_the_lease_and_two_seconds(folder: Path, seed: int) -> None:
    async with Stage(folder, seed) as stage:
        users, posts = await stage.seeded()
        await stage.load(300, users, posts)
        await asyncio.sleep(0.2)
        stage.workers.kill(0)
        killed = time.monotonic()
        held = await stage.producer._redis.keys("arq:in-progress:*")
        stage.workers.start(1)
        waiting = [handle for handle in stage.handles if f"arq:in-progress:{handle.job_id}".encode() in held]
        assert waiting

        await asyncio.gather(*(handle.outcome(LEASE_SECONDS + 2) for handle in waiting))

        assert time.monotonic() - killed < LEASE_SECONDS + 2
        verdict = await stage.verdict()
        assert not verdict.wrong, str(verdict)


async def test_a_frozen_worker_that_wakes_up_changes_nothing(folder: Path, seed: int, scale: int) -> None:
    async with Stage(folder, seed) as stage:
        stage.workers.start(1)
        users, posts = await stage.seeded()
        load = asyncio.create_task(stage.load(600 * scale, users, posts))
        for _ in range(scale):
            frozen = stage.workers.processes[0].pid
            await asyncio.sleep(stage.random.uniform(0.2, 0.8))
            os.kill(frozen, signal.SIGSTOP)
            await asyncio.sleep(LEASE_SECONDS + 1)
            os.kill(frozen, signal.SIGCONT)
        await load

        verdict = await stage.verdict()

        assert not verdict.wrong, str(verdict)
        assert stage.workers.processes[0].poll() is None


async def test_rolling_counts_no_try_and_leaves_no_gap(folder: Path, seed: int, scale: int) -> None:
    async with Stage(folder, seed) as stage:
        stage.workers.start(1)
        users, posts = await stage.seeded()
        await stage.workers.started(0)
        await stage.workers.started(1)
        rolled = asyncio.Event()
        load = asyncio.create_task(stage.steady_load(users, posts, rolled))
        for number in [0, 1] * (2 * scale):
            await asyncio.sleep(stage.random.uniform(0, 0.5))
            assert await asyncio.to_thread(stage.workers.stop, number) == 0
            stage.workers.start(number)
            await stage.workers.started(number)
        rolled.set()
        await load

        verdict = await stage.verdict()

        assert not verdict.wrong, str(verdict)
        assert {(await handle.outcome(1)).t for handle in stage.handles} == {1}
        # One is always up: the jobs never wait for longer than a worker takes to start.
        gap_seconds = await stage.observe(oracle.longest_gap_seconds)
        assert gap_seconds <= stage.workers.longest_start_seconds + 0.5
        print(f"longest gap {gap_seconds:.2f} s, longest start {stage.workers.longest_start_seconds:.2f} s")
