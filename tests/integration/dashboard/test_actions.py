"""Replaying and purging dead letters from the dashboard: the confirmation, the effect, the result and the log."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from producers import JobStatus, Producer, keys
from tests.integration.dashboard.staging import Page, opened
from tests.integration.running import BREAK, MEND, burst, run_all, settings_of, user
from worker.dashboard.security import Access
from worker.settings import Settings

QUEUE = "arq:queue"


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return settings_of(redis_url, database_url, max_tries=1)


@pytest.fixture
async def page(settings: Settings, logging_kept: None) -> AsyncIterator[Page]:
    async with opened(settings, Access(allow_actions=True)) as page:
        yield page


async def test_selected_letters_are_replayed_and_run(page: Page, settings: Settings, sql: Any, logged: Any) -> None:
    async with Producer(settings.redis_url.get_secret_value()) as producer:
        jobs = [await producer.enqueue(user(name)) for name in ("ada", "bob", "cy")]
        await run_all(sql, BREAK)
        await burst(settings)
        await sql(MEND)
        selected = [job.job_id for job in jobs[:2]]

        confirmation = await page.post("/dead/confirm", action="replay", id=selected)
        with logged() as lines:
            answer = await page.post("/dead/act", action="replay", id=[*selected, "unknown"])
            logged_lines = [line for line in lines() if line["event"].startswith("dashboard_")]
        await burst(settings)

        assert "Replay 2 dead letters?" in confirmation.text
        assert all(job_id in confirmation.text for job_id in selected)
        assert "Replayed 2 of 3" in answer.text
        assert "no such dead letter" in answer.text
        assert [await job.status() for job in jobs] == [JobStatus.DONE, JobStatus.DONE, JobStatus.DEAD]
        assert [{**line, "timestamp": ""} for line in logged_lines] == [
            {"event": "dashboard_replayed", "job_ids": selected, "jobs": 2, "requested": 3, "remote": "127.0.0.1",
             "level": "info", "timestamp": ""}
        ]  # fmt: skip


async def test_a_replayed_job_whose_effect_is_committed_does_not_run_again(
    page: Page, settings: Settings, sql: Any
) -> None:
    async with Producer(settings.redis_url.get_secret_value()) as producer:
        job = await producer.enqueue(user("ada"))
        payload = await page.redis.get(keys.job(job.job_id))
        await burst(settings)
        await page.redis.zadd(keys.dead(QUEUE), {job.job_id: 1.0})
        await page.redis.set(keys.dead_payload(job.job_id), payload)

        await page.post("/dead/act", action="replay", id=job.job_id)
        await burst(settings)

        assert await job.status() is JobStatus.DONE
        assert await sql("SELECT count(*) FROM users") == 1


async def test_only_selected_letters_are_purged(page: Page, logged: Any) -> None:
    hostile = b"ada@example.com, hunter2\xff"
    for job_id in (b"a", hostile, b"kept"):
        await page.redis.zadd(keys.dead(QUEUE), {job_id: 1.0})
        await page.redis.set(keys.dead_payload("").encode() + job_id, b"x")
    selected = ["a", "ada@example.com,\\x20hunter2\\xff"]

    confirmation = await page.post("/dead/confirm", action="purge", id=selected)
    with logged() as lines:
        answer = await page.post("/dead/act", action="purge", id=selected)
        logged_lines = [line for line in lines() if line["event"] == "dashboard_purged"]

    assert "This cannot be undone." in confirmation.text
    assert await page.redis.zrange(keys.dead(QUEUE), 0, -1) == [b"kept"]
    assert [key async for key in page.redis.scan_iter("arq:dead:*")] == [b"arq:dead:kept"]
    assert "Purged 2 of 2" in answer.text
    assert [(line["job_ids"], line["jobs"]) for line in logged_lines] == [(["a"], 2)]
    assert "hunter2" not in str(logged_lines)


async def test_the_confirmation_changes_nothing(page: Page) -> None:
    await page.redis.zadd(keys.dead(QUEUE), {"a": 1.0})

    await page.post("/dead/confirm", action="purge", id="a")

    assert await page.redis.zcard(keys.dead(QUEUE)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "purge"},
        {"action": "drop", "id": "a"},
        {"id": "a"},
        {"action": "purge", "id": [str(n) for n in range(51)]},
    ],
)
async def test_an_incomplete_or_too_large_request_is_refused(page: Page, fields: dict[str, Any]) -> None:
    await page.redis.zadd(keys.dead(QUEUE), {"a": 1.0})

    for path in ("/dead/confirm", "/dead/act"):
        assert (await page.post(path, **fields)).status_code == 400

    assert await page.redis.zcard(keys.dead(QUEUE)) == 1
