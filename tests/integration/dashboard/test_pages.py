"""The pages of jobs, dead letters and the schedule, and hostile content on them."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from producers import Producer, UpdateUser, UserChanges, arq_wire, ids, keys
from producers.keys import PARKED_MS
from tests.integration.dashboard.staging import Page, opened
from tests.integration.running import BREAK, MEND, burst, run_all, settings_of, user
from tests.jobs import HASH
from worker.dashboard.security import Access
from worker.dashboard.views.schedule import next_run_ms
from worker.database import ledger
from worker.jobs import SCHEDULE
from worker.settings import Settings

QUEUE = "arq:queue"
HOSTILE = [
    b"<script>alert(1)</script>",
    b'"><img src=x onerror=alert(1)>',
    b"' autofocus onfocus='alert(1)",
    b"{{ 7*191 }}{% raw %}",
    b"\xff\xfe\x00\x1b[31m",
    "\u202eevil\u2066".encode(),
    b"a&id=b#c?d=e%00",
    b"--all",
    b"x" * 5000,
]
EVIL = "<script>alert(1)</script>\u202e<img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def values(self, tag: str, attribute: str) -> list[str]:
        return [
            attributes[attribute] or "" for name, attributes in self.elements if name == tag and attribute in attributes
        ]


def harmless(html: str) -> Reader:
    """Parse a page and check that it contains no script, image or handler but those of the templates."""
    page = Reader(html)
    assert set(page.values("script", "src")) == {
        "/static/vendor/htmx.min.js", "/static/vendor/htmx-ext-sse.min.js", "/static/dashboard.js"
    }  # fmt: skip
    assert len([tag for tag, _ in page.elements if tag == "script"]) == 3
    assert set(page.values("img", "src")) == {"/static/icon.svg"}
    assert not [
        name for _, attributes in page.elements for name in attributes if name.startswith("on") or name == "autofocus"
    ]
    assert not [html[max(0, at - 200) : at] for at, letter in enumerate(html) if letter in "\u202e\u2066\x00\x1b"]
    assert str(7 * 191) not in html
    return page


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return settings_of(redis_url, database_url, max_tries=1, max_payload_bytes=4096, timezone="Europe/Paris")


@pytest.fixture
async def page(settings: Settings, logging_kept: None) -> AsyncIterator[Page]:
    async with opened(settings, Access(allow_actions=True)) as page:
        yield page


@pytest.fixture
async def producer(redis_url: str) -> AsyncIterator[Producer]:
    async with Producer(redis_url) as producer:
        yield producer


async def bury(page: Page, letters: dict[bytes, float], death: Mapping[str, Any], payload: bytes = b"{}") -> None:
    """Write letters directly, with these times of death."""
    for job_id, died_ms in letters.items():
        await page.redis.zadd(keys.dead(QUEUE), {job_id: died_ms})
        await page.redis.hset(keys.dead_letters(QUEUE), job_id, json.dumps({**death}))  # type: ignore[misc, arg-type]
        await page.redis.set(keys.dead_payload("").encode() + job_id, payload)


async def test_hostile_content_is_harmless_on_every_page(page: Page) -> None:
    death = {"job": EVIL, "code": EVIL, "detail": EVIL, "attempts": 3, "worker": EVIL, "enqueued_ms": 10**17}
    payload = json.dumps({"f": "create_user", "k": {EVIL: EVIL, "email": EVIL}, "a": [], "t": None, "et": 5}).encode()
    await bury(page, dict.fromkeys(HOSTILE, 5.0), death, payload)
    await page.redis.hset(
        keys.workers(QUEUE), EVIL, json.dumps({"at": time.time(), "jobs": [{"id": EVIL, "job": EVIL}]})
    )  # type: ignore[misc]
    await page.redis.hset(keys.holders(QUEUE), EVIL, EVIL)  # type: ignore[misc]
    await page.redis.zadd(keys.parked(QUEUE, EVIL), {**dict.fromkeys(HOSTILE, 5.0), b"b": float("inf")})
    result = {"r": {"code": EVIL, "detail": EVIL}, "s": False, "f": EVIL, "t": 1, "et": 1, "st": 1, "ft": 1}
    await page.redis.set(keys.result("result"), arq_wire.dumps(result))

    letters = harmless(await page.get("/dead"))
    selected = [each["value"] for tag, each in letters.elements if tag == "input" and each.get("name") == "id"]
    links = [link for link in letters.values("a", "href") if link.startswith("/job?")]
    assert len(links) == len(HOSTILE) - 1
    for link in links:
        harmless(await page.get(link))
    harmless((await page.post("/dead/confirm", action="purge", id=selected)).text)
    harmless(await page.get("/"))
    harmless(await page.get("/key", key=EVIL))
    harmless(await page.get("/job", id="result"))
    harmless(await page.get("/job", id=EVIL, status=404))
    harmless(await page.get("/job", id="\\", status=400))
    assert "1 on this page has an id too long to show" in await page.get("/dead")


async def test_keys_of_other_types_are_reported(page: Page) -> None:
    job_keys = keys.job("a@k"), keys.result("a@k"), keys.retry("a@k"), keys.dead_payload("b")
    for key in (*job_keys, keys.parked(QUEUE, "k"), keys.holders(QUEUE)):
        await page.redis.rpush(key, "x")  # type: ignore[misc]
    await page.redis.zadd(QUEUE, {"a@k": 1.0})
    await page.redis.zadd(keys.dead(QUEUE), {"b": 1.0})

    assert "the key has the type list, not string" in await page.get("/job", id="a@k")
    assert "another program overwrote their Redis key with another type" in await page.get("/key", key="k")
    assert "a key of type list" in await page.get("/dead")


async def test_dead_letters_are_listed_in_pages_newest_first(page: Page) -> None:
    await bury(page, {f"letter-{number:03}".encode(): 1000.0 + number for number in range(120)}, {"code": "failed"})

    pages = [Reader(await page.get("/dead", page=number)).values("input", "value") for number in (1, 2, 3, 4)]
    shown = [[value for value in values if value.startswith("letter-")] for values in pages]

    assert [len(ids) for ids in shown] == [50, 50, 20, 0]
    assert [job_id for ids in shown for job_id in ids] == [f"letter-{number:03}" for number in reversed(range(120))]
    assert "page 2 of 3" in await page.get("/dead", page=2)
    for wrong in ("0", "-1", "x", "1e3", "9999999", "²"):
        await page.get("/dead", page=wrong, status=400)


async def test_a_dead_letter_shows_its_error_and_no_values(
    page: Page, producer: Producer, settings: Settings, sql: Any
) -> None:
    job = await producer.enqueue(user("ada"))
    await run_all(sql, BREAK)
    await burst(settings)
    await sql(MEND)

    for text in (await page.get("/dead"), await page.get("/job", id=job.job_id)):
        assert "create_user" in text
        assert "failed" in text
        assert "RaiseError" in text
        assert "hashed_password" in text
        assert "text, 15 characters" in text
        assert not any(value in text for value in ("ada@example.com", HASH, "argon2", "broken"))


async def test_an_ordering_key_shows_its_holder_and_parked_jobs_in_order(
    page: Page, producer: Producer, settings: Settings
) -> None:
    jobs = [await producer.enqueue(UpdateUser(user_id=42, changes=UserChanges(is_active=True))) for _ in range(60)]
    holder, *parked = [job.job_id for job in jobs]
    scores = dict(await page.redis.zrange(QUEUE, 0, -1, withscores=True))
    await page.redis.hset(keys.holders(QUEUE), "user:42", holder)  # type: ignore[misc]
    await page.redis.zadd(keys.parked(QUEUE, "user:42"), {job_id: scores[job_id.encode()] for job_id in parked})
    await page.redis.zadd(QUEUE, dict.fromkeys(parked, PARKED_MS))

    text = await page.get("/key", key="user:42")
    links = [link for link in Reader(text).values("a", "href") if link.startswith("/job?")]
    assert [link.removeprefix("/job?id=").replace("%40", "@").replace("%3A", ":") for link in links] == [
        holder,
        *parked[:50],
    ]
    assert "59, in the order they will run" in text
    second = await page.get("/key", key="user:42", page=2)
    assert ">51<" in second
    assert parked[50] in second
    report = await page.get("/job", id=parked[2])
    assert f"Parked behind {holder}, with 2 more ahead of it" in report
    assert 'id="state">parked<' in report
    await burst(settings)
    assert "No job: the next one" in await page.get("/key", key="user:42")


async def test_a_job_page_follows_the_job_through_all_its_states(
    page: Page, producer: Producer, settings: Settings, sql: Any
) -> None:
    async def state(job_id: str, status: int = 200) -> str:
        text = await page.get("/job", id=job_id, status=status)
        waits = 'hx-trigger="every 2s"' in text
        found = text.partition('id="state">')[2].partition("<")[0]
        assert waits == (found not in {"done", "rejected", "cancelled", "unknown"})
        return found

    done, twin = await producer.enqueue(user("ada")), await producer.enqueue(user("ada"))
    later = await producer.enqueue(user("bob"), defer_by=60)
    assert await state(done.job_id) == "due"
    assert await state(later.job_id) == "deferred"
    await page.redis.set(keys.in_progress(done.job_id), "token", px=5000)
    runs = {"at": time.time(), "jobs": [{"id": done.job_id, "job": "create_user", "attempt": 1, "seconds": 2.5}]}
    await page.redis.hset(keys.workers(QUEUE), "here", json.dumps(runs))  # type: ignore[misc]
    claimed = await page.get("/job", id=done.job_id)
    assert "Claimed by a worker. The lease expires in" in claimed
    assert ">here</span>" in claimed
    assert "for 2.5 s, as of its last heartbeat" in claimed
    await page.redis.delete(keys.in_progress(done.job_id))
    await page.redis.set(keys.retry(later.job_id), "1")
    assert await state(later.job_id) == "deferred"
    assert "The last attempt failed. The next one is due in" in await page.get("/job", id=later.job_id)
    await page.redis.delete(keys.retry(later.job_id))
    await later.cancel()
    await burst(settings)

    assert await state(later.job_id) == "cancelled"
    assert await state(done.job_id) == "done"
    text = await page.get("/job", id=done.job_id)
    events = ("Enqueued", "Last attempt started", "Recorded in the ledger", "outcome: done", "Reply")
    assert [word for word in events if word not in text] == []
    assert "ada@" not in text
    assert await state(twin.job_id) == "rejected"
    assert "conflict" in await page.get("/job", id=twin.job_id)
    await page.redis.delete(keys.result(done.job_id))
    assert await state(done.job_id) == "done", "the ledger remembers it"
    await sql("DELETE FROM job_ledger")
    assert await state(done.job_id, 404) == "unknown"


async def test_large_payloads_and_results_are_not_read(page: Page, settings: Settings) -> None:
    await page.redis.set(keys.job("big"), b"x" * (settings.max_payload_bytes + 1))
    await page.redis.zadd(QUEUE, {"big": 1.0})
    await page.redis.set(keys.result("big"), b'"' + b"x" * 10**6)

    text = await page.get("/job", id="big")

    assert "larger than WORKER_MAX_PAYLOAD_BYTES" in text
    assert "Unreadable result" in text
    assert len(text) < 10_000
    await page.get("/job", id="x" * 5000, status=400)


async def test_the_schedule_shows_last_and_next_runs_in_its_time_zone(page: Page, sql: Any) -> None:
    await sql(
        "INSERT INTO job_ledger (job_id, job, outcome, recorded_at) "
        "SELECT 'cron:purge_ledger:' || ms, 'purge_ledger', 'done', to_timestamp(ms / 1000.0) "
        "FROM unnest(ARRAY[1700000000000, 1700001200000, 1699999999999]) AS ms"
    )
    await sql("INSERT INTO job_ledger (job_id, job, outcome) VALUES ('cron:purge_ledger:9x', 'a', 'done')")

    text = await page.get("/schedule")

    assert "2023-11-14 23:33:20" in text, "in Paris"
    assert "cron%3Apurge_ledger%3A1700001200000" in text
    assert "no run recorded" in text
    assert {"purge_ledger", "delete_inactive_users", "purge_dead_letters"} <= set(text.replace("<", ">").split(">"))


async def test_the_last_run_is_found_by_an_index(page: Page, sql: Any, statements: list[str], sessions: Any) -> None:
    await sql(
        "INSERT INTO job_ledger (job_id, job, outcome) "
        "SELECT md5(i::text), 'a', 'done' FROM generate_series(1, 20000) i"
    )
    await sql("ANALYZE job_ledger")
    async with sessions() as session:
        await ledger.last_ticks(session, ["purge_ledger"])
    plan = await sql(f"EXPLAIN (FORMAT JSON) {statements[-1]}", ["purge_ledger"])

    assert "pk_job_ledger" in plan
    assert "Seq Scan" not in plan


def test_the_next_run_is_the_one_arq_computes() -> None:
    now = datetime(2026, 3, 1, 10, 30, tzinfo=ZoneInfo("Europe/Paris"))

    # arq starts jobs a few microseconds after the full second.
    found_ms = next_run_ms(SCHEDULE["purge_ledger"], now)
    assert found_ms is not None
    assert found_ms // 1000 == datetime(2026, 3, 1, 9, 47, tzinfo=UTC).timestamp()


async def test_pages_that_need_the_database_report_that_it_is_down(redis_url: str, logging_kept: None) -> None:
    async with opened(settings_of(redis_url, "postgresql://none@127.0.0.1:1/none")) as page:
        await page.redis.zadd(QUEUE, {"a": 1.0})

        report, schedule = await page.get("/job", id="a"), await page.get("/schedule", status=503)

    assert 'id="state">due<' in report
    assert "PostgreSQL cannot be used," in report
    assert "PostgreSQL cannot be used" in schedule
    assert '<meta http-equiv="refresh" content="3">' in schedule


async def test_every_page_reports_that_redis_is_down(database_url: str, logging_kept: None) -> None:
    async with opened(settings_of("redis://127.0.0.1:1/0", database_url)) as page:
        for path in ("/dead", "/job?id=a", "/key?key=a"):
            text = (await page.client.get(path)).text
            assert "Redis cannot be used" in text
            assert '<meta http-equiv="refresh" content="3">' in text
        assert "<b>Redis cannot be used:</b>" in await page.get("/")


def test_the_hostile_ids_are_not_valid_ids() -> None:
    assert not any(ids.is_job_id(job_id.decode("ascii", "replace")) for job_id in HOSTILE[:8])
