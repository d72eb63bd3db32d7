"""The live figures: their cost to Redis, their values, servers that fail and viewers that leave."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from types import MappingProxyType
from typing import Any

import pytest

from producers import Producer, keys
from tests.integration.conftest import Eventually
from tests.integration.dashboard.staging import Page, opened, watching
from tests.integration.running import burst, settings_of, user
from tests.waiting import PATIENCE_SECONDS
from worker.dashboard.poller import MAX_VIEWERS, SharedPoller
from worker.dashboard.views import overview
from worker.embedded import ValkeyServer
from worker.queue.counters import Counters, parse_counters
from worker.settings import Settings
from worker.views.throughput import History

QUEUE = "arq:queue"
MAX_COMMANDS = 12
"""Per poll: TIME; MULTI, INFO, three ZCOUNT, ZCARD, ZRANGE, HGETALL, EXEC; HGETALL of the counters; one to spare."""


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return settings_of(redis_url, database_url)


@pytest.fixture
async def page(settings: Settings, logging_kept: None) -> AsyncIterator[Page]:
    async with opened(settings, interval_seconds=0.05) as page:
        yield page


class CommandCounter:
    """Counts the commands that Redis has run, without its own."""

    def __init__(self, page: Page) -> None:
        self._redis = page.redis
        self._own = 0

    async def commands(self) -> int:
        found = await self._redis.info("stats")
        self._own += 1
        return int(found["total_commands_processed"]) - self._own + 1


async def wait_for_polls(page: Page, eventually: Eventually, more: int) -> int:
    """Wait for this many more polls; their total."""
    wanted = page.dashboard.poller.polls + more

    async def have_run() -> bool:
        return page.dashboard.poller.polls >= wanted

    await eventually(have_run)
    return page.dashboard.poller.polls


async def test_the_poller_sends_nothing_to_redis_without_viewers(page: Page, eventually: Eventually) -> None:
    async with watching(page.dashboard) as viewer:
        await viewer.until("event: figures")
    await page.get("/jobs")
    await page.dashboard.poller.wait_closed()
    counter = CommandCounter(page)
    before, polls = await counter.commands(), page.dashboard.poller.polls

    await asyncio.sleep(0.5)  # time for ten polls; there is no event to wait for

    assert page.dashboard.poller.viewers == 0
    assert page.dashboard.poller.polls == polls
    assert await counter.commands() - before == 0


@pytest.mark.parametrize("viewers", [1, 40])
async def test_polls_cost_the_same_however_many_viewers_there_are(
    page: Page, eventually: Eventually, viewers: int
) -> None:
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(watching(page.dashboard)) for _ in range(viewers)]
        for watcher in watchers:
            await watcher.until("event: workers")
        counter = CommandCounter(page)
        started, first = await counter.commands(), page.dashboard.poller.polls
        last = await wait_for_polls(page, eventually, 10)
        sent = await counter.commands() - started

    # One poll may have been under way at each end.
    assert sent <= MAX_COMMANDS * (last - first + 1), f"{sent} commands in {last - first} polls"
    assert sent >= last - first


async def test_viewers_that_come_and_go_do_not_make_it_poll_more_often(settings: Settings, logging_kept: None) -> None:
    async with opened(settings, interval_seconds=30) as page:
        for _ in range(20):
            assert "Throughput" in await page.get("/")
            async with watching(page.dashboard) as viewer:
                await viewer.until("event: figures")
        await page.dashboard.poller.wait_closed()

        assert page.dashboard.poller.polls == 1


async def test_figures_change_when_jobs_end(page: Page, settings: Settings) -> None:
    async with watching(page.dashboard) as viewer, Producer(settings.redis_url.get_secret_value()) as producer:
        await viewer.until(r"event: figures\n.*<dt>due</dt><dd>0</dd>")
        for name in ("ada", "bob", "bob"):
            await producer.enqueue(user(name))
        await viewer.until(r"<dt>due</dt><dd>3</dd>")
        await burst(settings)
        for changed in ("</span>done <b>[1-9]", "</span>rejected <b>[1-9]", r"</span>p99 <b>\d+ ms</b>"):
            await viewer.until(changed)


async def test_the_stream_sends_only_changed_parts(page: Page, eventually: Eventually) -> None:
    async with watching(page.dashboard) as viewer:
        await viewer.until("event: workers")
        await wait_for_polls(page, eventually, 5)

    assert viewer.text.count("event: servers\n") == 1
    assert viewer.text.count("event: notice\n") == 1


async def test_the_overview_shows_workers_and_their_running_jobs(page: Page) -> None:
    def beat(ago: float) -> str:
        jobs = [{"id": "a@user:1", "job": "update_user", "attempt": 2, "seconds": 1.5}]
        return json.dumps({"at": time.time() - ago, "running": 1, "held": 3, "concurrency": 16, "jobs": jobs})

    await page.redis.hset(keys.workers(QUEUE), mapping={"here": beat(0), "lost": beat(60)})  # type: ignore[misc]

    text = await page.get("/")

    here, _, lost = text.partition(">here<")[2].partition(">lost<")
    assert ("alive" in here, "1 of 16" in here, "attempt 2, 1.5 s" in here) == (True, True, True)
    assert ("missing" in lost.partition("</li>")[0], "a@user:1" in lost) == (True, False)
    assert "No worker is running" not in text
    await page.redis.hdel(keys.workers(QUEUE), "here")  # type: ignore[misc]
    async with watching(page.dashboard) as viewer:
        await viewer.until("No worker is running")


async def test_the_stream_shows_that_redis_is_down_and_back(
    server_folder: Any, database_url: str, logging_kept: None
) -> None:
    server = ValkeyServer(server_folder / "down")
    with server:
        url = server.url
        settings = settings_of(url, database_url)
        async with opened(settings, interval_seconds=0.05) as page, watching(page.dashboard) as viewer:
            await viewer.until("<dt>due</dt><dd>0</dd>")
            server.stop()
            await viewer.until(r"event: notice\ndata: <p class=\"notice bad\"><b>Redis cannot be used:</b>")
            await viewer.until("<dt>due</dt><dd>–</dd>")
            server.start()
            await viewer.until(r"Redis cannot be used.*<dt>due</dt><dd>0</dd>")


async def test_a_viewer_beyond_the_limit_is_refused(page: Page) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_VIEWERS):
            stack.enter_context(page.dashboard.poller.subscribe())
        async with watching(page.dashboard) as viewer:
            await viewer.until("too many")
        await page.get("/", status=503)

    assert viewer.status == 503
    assert page.dashboard.poller.viewers == 0


async def test_streams_are_completed_when_the_poller_closes(page: Page) -> None:
    async with watching(page.dashboard) as viewer:
        await viewer.until("event: workers")
        page.dashboard.poller.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await viewer.ended.wait()


async def test_a_viewer_that_reads_nothing_is_dropped(
    page: Page, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_dropped() -> bool:
        return page.dashboard.poller.viewers == 0

    monkeypatch.setattr(overview, "SEND_SECONDS", 0.1)
    async with watching(page.dashboard) as viewer:
        await viewer.until("event: workers")
        viewer.stuck = True
        await page.redis.zadd(QUEUE, {"a": 1.0})
        await eventually(is_dropped)


async def test_a_failed_poll_is_logged_without_its_text_and_repeated(logged: Any) -> None:
    errors = iter([ValueError("hunter2")])

    async def poll() -> str:
        for error in errors:
            raise error
        return "value"

    poller = SharedPoller(poll, 0.01)
    with logged() as lines:
        assert await poller.first(5) == "value"
        logged_lines = lines()

    assert [line["event"] for line in logged_lines] == ["dashboard_poll_failed"]
    assert "hunter2" not in str(logged_lines)


def counters(done: int, waited: Mapping[int, int] = MappingProxyType({})) -> Counters:
    """Counters as Redis has them: how many jobs are done, and how many waited up to each bound."""
    fields = {f"create_user/done/ {bound} 3".encode(): str(count).encode() for bound, count in waited.items()}
    return parse_counters(fields or {b"create_user/done/ 0 3": str(done).encode()})


def test_rates_are_differences_and_unknown_after_a_reset() -> None:
    history = History()
    samples = [
        history.add(at, counters(done)) for at, done in ((0.0, 100), (1.0, 150), (3.0, 150), (4.0, 10), (5.0, 30))
    ]

    rates = [None if sample.rates is None else sample.rates["done"] for sample in samples]
    assert rates == [None, 50.0, 0.0, None, 20.0], "the fourth is less than the third: Redis lost its data"


def test_rates_are_unknown_across_a_gap() -> None:
    history = History()
    assert [history.add(at, counters(int(at))).rates is None for at in (0.0, 1.0, 60.0, 61.0)] == [
        True,
        False,
        True,
        False,
    ]
    history.add(62.0, None)
    assert history.add(63.0, counters(63)).rates is None
    history.add(190.0, counters(190))
    assert [sample.at_seconds for sample in history.samples] == [190.0]


def test_waits_cover_only_the_last_seconds() -> None:
    history = History()
    slow = [history.add(float(at), counters(0, {9: 100 * at})) for at in range(1, 5)]
    quick = [history.add(float(at), counters(0, {9: 400, 0: 100 * at})) for at in range(5, 30)]

    assert slow[-1].waits is not None
    assert 0.5 < slow[-1].waits["p50"] <= 1.0
    assert quick[-1].waits is not None
    assert quick[-1].waits["p99"] <= 0.001
