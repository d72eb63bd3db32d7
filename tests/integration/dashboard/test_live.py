"""The live figures: what they cost Redis, that they are right, and what happens when a server or a viewer goes away."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from types import MappingProxyType
from typing import Any

import pytest
from worker.queue.counters import Counters, parse

from producers import Producer, keys
from tests.integration.conftest import Eventually
from tests.integration.dashboard.staging import Page, opened, watching
from tests.integration.running import burst, settings_of, user
from tests.waiting import PATIENCE_SECONDS
from worker.dashboard.poller import MOST_VIEWERS, Poller
from worker.embedded import ValkeyServer
from worker.settings import Settings
from worker.views.throughput import History

QUEUE = "arq:queue"
COMMANDS_A_LOOK = 12
"""TIME, then MULTI, INFO, three ZCOUNT, ZCARD, ZRANGE, HGETALL, EXEC; then HGETALL of the counts. One is spare."""


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return settings_of(redis_url, database_url)


@pytest.fixture
async def page(settings: Settings, logging_kept: None) -> AsyncIterator[Page]:
    async with opened(settings, every_seconds=0.05) as page:
        yield page


class Counter:
    """How many commands Redis has run, but for the counting itself."""

    def __init__(self, page: Page) -> None:
        self._redis = page.redis
        self._asked = 0

    async def commands(self) -> int:
        found = await self._redis.info("stats")
        self._asked += 1
        return int(found["total_commands_processed"]) - self._asked + 1


async def looks(page: Page, eventually: Eventually, more: int) -> int:
    """Wait for so many more looks."""
    wanted = page.dashboard.poller.looks + more

    async def there() -> bool:
        return page.dashboard.poller.looks >= wanted

    await eventually(there)
    return page.dashboard.poller.looks


async def test_nobody_watches_and_redis_is_asked_nothing(page: Page, eventually: Eventually) -> None:
    async with watching(page.dashboard) as viewer:
        await viewer.until("event: figures")
    await page.get("/jobs")
    await page.dashboard.poller.ended()
    counter = Counter(page)
    before, looked = await counter.commands(), page.dashboard.poller.looks

    await asyncio.sleep(0.5)  # ten looks, if somebody watched: nothing is to be waited for

    assert page.dashboard.poller.viewers == 0
    assert page.dashboard.poller.looks == looked
    assert await counter.commands() - before == 0


@pytest.mark.parametrize("viewers", [1, 40])
async def test_a_look_costs_the_same_however_many_watch(page: Page, eventually: Eventually, viewers: int) -> None:
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(page.dashboard)) for _ in range(viewers)]
        for watcher in watchers:
            await watcher.until("event: workers")
        counter = Counter(page)
        started, first = await counter.commands(), page.dashboard.poller.looks
        last = await looks(page, eventually, 10)
        sent = await counter.commands() - started

    # One look may have been half-way at each end.
    assert sent <= COMMANDS_A_LOOK * (last - first + 1), f"{sent} commands in {last - first} looks"
    assert sent >= last - first


async def test_whoever_comes_and_goes_makes_it_look_no_more_often(settings: Settings, logging_kept: None) -> None:
    async with opened(settings, every_seconds=30) as page:
        for _ in range(20):
            assert "Throughput" in await page.get("/")
            async with watching(page.dashboard) as viewer:
                await viewer.until("event: figures")
        await page.dashboard.poller.ended()

        assert page.dashboard.poller.looks == 1


async def test_numbers_change_as_jobs_end(page: Page, settings: Settings) -> None:
    async with watching(page.dashboard) as viewer, Producer(settings.redis_url.get_secret_value()) as producer:
        await viewer.until(r"event: figures\n.*<dt>due</dt><dd>0</dd>")
        for name in ("ada", "bob", "bob"):
            await producer.enqueue(user(name))
        await viewer.until(r"<dt>due</dt><dd>3</dd>")
        await burst(settings)
        for changed in ("</span>done <b>[1-9]", "</span>rejected <b>[1-9]", r"99 in 100, up to <b>\d+ ms</b>"):
            await viewer.until(changed)


async def test_only_what_has_changed_is_sent(page: Page, eventually: Eventually) -> None:
    async with watching(page.dashboard) as viewer:
        await viewer.until("event: workers")
        await looks(page, eventually, 5)

    assert viewer.text.count("event: servers\n") == 1
    assert viewer.text.count("event: notice\n") == 1


async def test_workers_and_what_they_run_are_shown(page: Page) -> None:
    def beat(ago: float) -> str:
        jobs = [{"id": "a@user:1", "job": "update_user", "try": 2, "seconds": 1.5}]
        return json.dumps({"at": time.time() - ago, "running": 1, "held": 3, "concurrency": 16, "jobs": jobs})

    await page.redis.hset(keys.workers(QUEUE), mapping={"here": beat(0), "lost": beat(60)})  # type: ignore[misc]

    text = await page.get("/")

    here, _, lost = text.partition(">here<")[2].partition(">lost<")
    assert ("alive" in here, "1 of 16" in here, "try 2, 1.5 s" in here) == (True, True, True)
    assert ("missing" in lost.partition("</li>")[0], "a@user:1" in lost) == (True, False)
    assert "No worker is there" not in text
    await page.redis.hdel(keys.workers(QUEUE), "here")  # type: ignore[misc]
    async with watching(page.dashboard) as viewer:
        await viewer.until("No worker is there")


async def test_a_redis_that_went_away_is_told_and_its_return_too(
    server_folder: Any, database_url: str, logging_kept: None
) -> None:
    server = ValkeyServer(server_folder / "away")
    with server:
        url = server.url
        settings = settings_of(url, database_url)
        async with opened(settings, every_seconds=0.05) as page, watching(page.dashboard) as viewer:
            await viewer.until("<dt>due</dt><dd>0</dd>")
            server.stop()
            await viewer.until(r"event: notice\ndata: <p class=\"notice bad\"><b>Redis cannot be used:</b>")
            await viewer.until("<dt>due</dt><dd>–</dd>")
            server.start()
            await viewer.until(r"Redis cannot be used.*<dt>due</dt><dd>0</dd>")


async def test_too_many_viewers_are_sent_away(page: Page) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_VIEWERS):
            stack.enter_context(page.dashboard.poller.watching())
        async with watching(page.dashboard) as viewer:
            await viewer.until("too many")
        await page.get("/", status=503)

    assert viewer.status == 503
    assert page.dashboard.poller.viewers == 0


async def test_streams_end_with_the_page(page: Page) -> None:
    async with watching(page.dashboard) as viewer:
        await viewer.until("event: workers")
        page.dashboard.poller.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await viewer.ended.wait()


async def test_a_look_that_fails_is_told_and_does_not_end_the_others(logged: Any) -> None:
    troubles = iter([ValueError("hunter2")])

    async def look() -> str:
        for trouble in troubles:
            raise trouble
        return "seen"

    poller = Poller(look, 0.01)
    with logged() as lines:
        assert await poller.first(5) == "seen"
        told = lines()

    assert [line["event"] for line in told] == ["dashboard_poll_failed"]
    assert "hunter2" not in str(told)


def tallies(done: int, waited: Mapping[int, int] = MappingProxyType({})) -> Counters:
    """Counts as Redis has them: how many jobs are done, and by number of bound how long they waited."""
    fields = {f"create_user/done/ {bound} 3".encode(): str(count).encode() for bound, count in waited.items()}
    return parse(fields or {b"create_user/done/ 0 3": str(done).encode()})


def test_rates_and_waits_are_differences() -> None:
    history = History()
    points = [history.add(at, tallies(done)) for at, done in ((0.0, 100), (1.0, 150), (3.0, 150), (4.0, 10), (5.0, 30))]

    rates = [None if point.rates is None else point.rates["done"] for point in points]
    assert rates == [None, 50.0, 0.0, None, 20.0], "the fourth is less than the third: Redis was emptied"


def test_nothing_is_said_of_a_time_when_nobody_watched() -> None:
    history = History()
    assert [history.add(at, tallies(int(at))).rates is None for at in (0.0, 1.0, 60.0, 61.0)] == [
        True,
        False,
        True,
        False,
    ]
    history.add(62.0, None)
    assert history.add(63.0, tallies(63)).rates is None
    history.add(190.0, tallies(190))
    assert [point.at_seconds for point in history.points] == [190.0]


def test_waits_are_those_of_the_last_seconds() -> None:
    history = History()
    slow = [history.add(float(at), tallies(0, {9: 100 * at})) for at in range(1, 5)]
    quick = [history.add(float(at), tallies(0, {9: 400, 0: 100 * at})) for at in range(5, 30)]

    assert slow[-1].waits is not None
    assert 0.5 < slow[-1].waits["p50"] <= 1.0
    assert quick[-1].waits is not None
    assert quick[-1].waits["p99"] <= 0.001
