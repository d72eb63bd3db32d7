"""Does `worker top` show what happens, on a terminal and in a pipe, and a server that is away?"""

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

# What a terminal is told besides characters.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return settings_of(redis_url, database_url)


async def test_a_pipe_gets_a_line_of_json_a_look(settings: Settings) -> None:
    async with working(settings), Producer(settings.redis_url.get_secret_value()) as producer:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "top", "--every", "0.5", "--looks", "5"),
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
    looks: list[dict[str, Any]] = [json.loads(line) for line in printed.splitlines()]
    assert len(looks) == 5
    assert looks[0]["jobs_a_second"] is None, "nothing to compare the first look with"
    assert looks[-1]["jobs_a_second"]["done"] > 0
    assert looks[-1]["kinds"]["create_user"]["ended"] > 0
    assert looks[-1]["wait_seconds"]["p50"] > 0
    assert looks[-1]["workers"][0]["concurrency"] == 4


async def test_a_terminal_gets_a_screen(settings: Settings) -> None:
    async with Producer(settings.redis_url.get_secret_value()) as producer:
        await producer.enqueue_many([user(f"user{number}") for number in range(20)])
    await burst(settings)

    code, printed = await on_a_terminal(settings, "top", "--every", "0.2", "--looks", "3")

    screen = CONTROL.sub("", printed)
    assert code == 0
    for shown in ("arq:queue", "Valkey", "PostgreSQL", "in flight", "dead", "jobs/s", "create_user", "no workers"):
        assert shown in screen


async def test_a_redis_that_is_away_is_said_and_ends_nothing(database_url: str) -> None:
    settings = settings_of("redis://:hush@127.0.0.1:1/0", database_url)

    code, printed = await on_a_terminal(settings, "top", "--every", "0.2", "--looks", "2")

    screen = CONTROL.sub("", printed)
    assert code == 0
    assert "Redis away" in screen
    assert "hush" not in screen
