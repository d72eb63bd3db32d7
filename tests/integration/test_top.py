"""`worker top` on a terminal, in a pipe, and while a server is down."""

import asyncio
import json
import os
import re
import sys
from typing import Any

import pytest

from producers import Producer
from tests.integration.running import burst, environment, on_a_terminal, settings_of, user, working
from tests.waiting import PATIENCE_SECONDS
from worker.settings import Settings

# Control sequences of a terminal.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return settings_of(redis_url, database_url)


async def test_a_pipe_gets_one_json_object_per_snapshot(settings: Settings) -> None:
    async with working(settings), Producer(settings.redis_url.get_secret_value()) as producer:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "top", "--every", "0.5", "--count", "5"),
            env=os.environ | environment(settings),
            stdout=asyncio.subprocess.PIPE,
        )
        watching = asyncio.create_task(process.communicate())
        number = 0
        while not watching.done():
            number += 1
            await (await producer.enqueue(user(f"user{number}"))).result(timeout=PATIENCE_SECONDS)
        printed, _ = await watching

    assert process.returncode == 0
    snapshots: list[dict[str, Any]] = [json.loads(line) for line in printed.splitlines()]
    assert len(snapshots) == 5
    assert snapshots[0]["jobs_per_second"] is None, "the first snapshot has nothing to compare with"
    assert snapshots[-1]["jobs_per_second"]["done"] > 0
    assert snapshots[-1]["job_types"]["create_user"]["ended_per_second"] > 0
    assert snapshots[-1]["wait_seconds"]["p50"] > 0
    assert snapshots[-1]["workers"][0]["concurrency"] == 4


async def test_a_terminal_gets_a_screen(settings: Settings) -> None:
    async with Producer(settings.redis_url.get_secret_value()) as producer:
        await producer.enqueue_many([user(f"user{number}") for number in range(20)])
    await burst(settings)

    code, printed = await on_a_terminal(settings, "top", "--every", "0.2", "--count", "3")

    screen = CONTROL.sub("", printed)
    assert code == 0
    for shown in ("arq:queue", "Valkey", "PostgreSQL", "claimed", "dead", "jobs/s", "create_user", "no workers"):
        assert shown in screen


async def test_the_screen_is_refreshed_while_redis_is_down(database_url: str) -> None:
    settings = settings_of("redis://:hush@127.0.0.1:1/0", database_url)

    code, printed = await on_a_terminal(settings, "top", "--every", "0.2", "--count", "2")

    screen = CONTROL.sub("", printed)
    assert code == 0
    assert "Redis unreachable" in screen
    assert "hush" not in screen
