"""Redis and PostgreSQL that go away under load: the worker stays, nothing is lost, doubled, or counted as a try."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.harness import Stage

pytestmark = pytest.mark.timeout(900)


async def _tries(stage: Stage) -> set[int]:
    return {(await handle.outcome(1)).t for handle in stage.handles}


async def test_redis_killed_and_restarted(folder: Path, seed: int, scale: int) -> None:
    async with Stage(folder, seed) as stage:
        users, posts = await stage.seeded()
        load = asyncio.create_task(stage.load(1000 * scale, users, posts))
        for _ in range(2 * scale):
            await asyncio.sleep(stage.random.uniform(0.3, 1.0))
            await asyncio.to_thread(stage.valkey.kill)
            await asyncio.sleep(stage.random.uniform(0, 0.5))
            await asyncio.to_thread(stage.valkey.start)
        await load

        verdict = await stage.verdict()

        assert not verdict.wrong, str(verdict)
        assert stage.workers.processes[0].poll() is None


async def test_postgres_stopped_at_once_and_restarted(folder: Path, seed: int, scale: int) -> None:
    async with Stage(folder, seed) as stage:
        users, posts = await stage.seeded()
        load = asyncio.create_task(stage.load(1000 * scale, users, posts))
        for _ in range(2 * scale):
            await asyncio.sleep(stage.random.uniform(0.3, 1.0))
            await asyncio.to_thread(stage.postgres.stop, "immediate")
            await asyncio.sleep(stage.random.uniform(0, 0.5))
            await asyncio.to_thread(stage.postgres.start)
        await load

        verdict = await stage.verdict()

        assert not verdict.wrong, str(verdict)
        assert stage.workers.processes[0].poll() is None
        assert await _tries(stage) == {1}


async def test_back_ends_terminated_in_a_loop(folder: Path, seed: int, scale: int) -> None:
    async with Stage(folder, seed) as stage:
        users, posts = await stage.seeded()
        load = asyncio.create_task(stage.load(600 * scale, users, posts))
        for _ in range(10 * scale):
            await asyncio.sleep(stage.random.uniform(0.05, 0.2))
            await stage.observe(
                lambda database: database.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'worker'"
                )
            )
        await load

        verdict = await stage.verdict()

        assert not verdict.wrong, str(verdict)
        assert await _tries(stage) == {1}


async def test_both_away_at_the_start(folder: Path, seed: int) -> None:
    async with Stage(folder, seed) as stage:
        assert await asyncio.to_thread(stage.workers.stop, 0) == 0
        users, posts = [1], [1]
        await stage.load(50, users, posts)
        await asyncio.to_thread(stage.valkey.stop)
        await asyncio.to_thread(stage.postgres.stop)
        stage.workers.start(0)
        await asyncio.sleep(1)
        await asyncio.to_thread(stage.valkey.start)
        await asyncio.sleep(1)
        await asyncio.to_thread(stage.postgres.start)

        verdict = await stage.verdict()

        assert not verdict.wrong, str(verdict)


async def test_stopping_does_not_wait_for_servers_that_are_away(folder: Path, seed: int) -> None:
    async with Stage(folder, seed) as stage:
        users, posts = await stage.seeded()
        await stage.load(500, users, posts)
        await asyncio.to_thread(stage.valkey.kill)
        await asyncio.to_thread(stage.postgres.kill)

        assert await asyncio.to_thread(stage.workers.stop, 0, seconds=25) == 0

        await asyncio.to_thread(stage.valkey.start)
        await asyncio.to_thread(stage.postgres.start)
        stage.workers.start(1)
        verdict = await stage.verdict()
        assert not verdict.wrong, str(verdict)
