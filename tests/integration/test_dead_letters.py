"""Dead letters are kept whole, shown without their values, replayed without a second effect, and purged."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typer.testing import CliRunner

from producers import JobDead, JobHandle, JobStatus, Producer, Request, keys
from producers._redis import connect
from tests.integration.running import (
    BREAK,
    MEND,
    burst,
    environment,
    on_a_terminal,
    run_all,
    settings_of,
    user,
)
from tests.jobs import HASH
from tests.waiting import PATIENCE_SECONDS
from worker.app import engine_worker
from worker.cli import app
from worker.database import ledger
from worker.engine.replay import Replayed, replay
from worker.queue import dead_letters
from worker.queue.dead_letters import DeadLetter, DeadLetters
from worker.queue.scripts import REPLAY
from worker.settings import Settings
from worker.views.formatting import escape

QUEUE = keys.DEFAULT_QUEUE
SECRET = "hunter2@example.com"
ALWAYS = timedelta(0)

# Payloads and ids that any client can write to Redis.
POISON: dict[bytes, bytes] = {
    b"pickle": b"\x80\x04\x95\x10\x00\x00\x00" + SECRET.encode(),
    b"not-an-envelope": json.dumps({"email": SECRET}).encode(),
    b"unknown-job": json.dumps({"f": "nope", "k": {SECRET: SECRET}, "a": [], "t": None, "et": 5}).encode(),
    b"too-large": b"x" * 5000,
    b"\xff\xfe not text\n": b"{}",
    b"--all": b"",
    b"": b"\x00",
}


@dataclass
class Stage:
    """A producer, the dead letters, Redis, the database, and a worker's settings."""

    producer: Producer
    redis: Redis
    letters: DeadLetters
    sessions: async_sessionmaker[AsyncSession]
    settings: Settings
    sql: Any

    async def poison(self) -> None:
        """Let a worker bury every kind of poison."""
        for job_id, payload in POISON.items():
            await self.redis.set(b"arq:job:" + job_id, payload)
        await self.redis.rpush(keys.job("list"), "x", "y")  # type: ignore[misc]
        await self.redis.zadd(QUEUE, dict.fromkeys([*POISON, b"list", b"missing"], 1.0))
        await burst(self.settings)

    async def dead(self, *names: str) -> list[JobHandle[Any]]:
        """Jobs that died of a fault that is fixed now."""
        jobs = [await self.producer.enqueue(user(name)) for name in names]
        await run_all(self.sql, BREAK)
        await burst(self.settings)
        await self.sql(MEND)
        assert [await job.status() for job in jobs] == [JobStatus.DEAD] * len(jobs)
        return jobs

    async def replay(self, *job_ids: str | bytes) -> list[Replayed]:
        return await replay(self.redis, QUEUE, self.sessions, [_bytes(job_id) for job_id in job_ids])

    async def users(self) -> list[str]:
        found: list[str] = await self.sql("SELECT coalesce(array_agg(username::text ORDER BY id), '{}') FROM users")
        return found

    async def ledger(self) -> list[tuple[str, str]]:
        """The id and the outcome of every row."""
        found: list[tuple[str, str]] = await self.sql(
            "SELECT coalesce(array_agg((job_id::text, outcome::text) ORDER BY job_id), '{}') FROM job_ledger"
        )
        return found

    async def ids(self, older_than: timedelta = ALWAYS, *, newest_first: bool = False) -> list[bytes]:
        return [letter.job_id for letter in await self.all(older_than, newest_first=newest_first)]

    async def all(self, older_than: timedelta = ALWAYS, *, newest_first: bool = False) -> list[DeadLetter]:
        pages = self.letters.pages(older_than, newest_first=newest_first)
        return [letter async for page in pages for letter in page]

    async def bury_by_hand(self, deaths: dict[str, float]) -> None:
        """Write letters with payloads directly, with these ages in milliseconds."""
        seconds, microseconds = await self.redis.time()
        for job_id, age_ms in deaths.items():
            await self.redis.zadd(keys.dead(QUEUE), {job_id: seconds * 1000 + microseconds // 1000 - age_ms})
            await self.redis.hset(keys.dead_letters(QUEUE), job_id, '{"job":"create_user","code":"failed"}')  # type: ignore[misc]
            await self.redis.set(keys.dead_payload(job_id), "x")


@pytest.fixture
async def stage(
    redis_url: str, database_url: str, sessions: async_sessionmaker[AsyncSession], sql: Any, logging_kept: None
) -> AsyncIterator[Stage]:
    redis = connect(redis_url, queue=QUEUE)
    settings = settings_of(redis_url, database_url, max_tries=1, max_payload_bytes=4096)
    async with Producer(redis_url) as producer:
        yield Stage(producer, redis, DeadLetters(redis, QUEUE), sessions, settings, sql)
    await redis.aclose()
    await redis.connection_pool.disconnect()


@pytest.fixture
def command(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `worker dead …` as if in a pipe; returns its exit code, stdout and stderr."""
    for name, value in environment(stage.settings).items():
        monkeypatch.setenv(name, value)

    async def run(*words: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(CliRunner().invoke, app, ["dead", *words])
        return done.exit_code, done.stdout, done.stderr

    return run


def _bytes(job_id: str | bytes) -> bytes:
    return job_id.encode() if isinstance(job_id, str) else job_id


# List


async def test_poison_of_every_kind_is_listed(stage: Stage, command: Callable[..., Any]) -> None:
    await stage.poison()

    code, out, err = await command("list")

    letters = {letter["id"]: letter for letter in map(json.loads, out.splitlines())}
    assert (code, err) == (0, "")
    assert {escape(job_id) for job_id in (*POISON, b"list", b"missing")} == letters.keys()
    assert {job_id: letter["code"] for job_id, letter in letters.items()} == {
        "pickle": "undecodable",
        "not-an-envelope": "undecodable",
        "unknown-job": "unknown_job",
        "too-large": "too_large",
        r"\xff\xfe\x20not\x20text\x0a": "undecodable",
        r"\x2d-all": "undecodable",
        "": "undecodable",
        "list": "undecodable",
        "missing": "expired",
    }
    assert letters["unknown-job"]["job"] == "nope"
    assert {letter["attempts"] for letter in letters.values()} == {1}
    assert SECRET not in out


async def test_letters_are_listed_newest_first_and_filtered(stage: Stage, command: Callable[..., Any]) -> None:
    day_ms = 86_400_000
    await stage.bury_by_hand({"week": 7.5 * day_ms, "day": 1.5 * day_ms, "now": 0})
    await stage.redis.hset(keys.dead_letters(QUEUE), "day", '{"job":"delete_user","code":"crashed"}')  # type: ignore[misc]

    async def listed(*words: str) -> list[str]:
        code, out, _ = await command("list", *words)
        assert code == 0
        return [json.loads(line)["id"] for line in out.splitlines()]

    assert await listed() == ["now", "day", "week"]
    assert await listed("--limit", "2") == ["now", "day"]
    assert await listed("--older-than", "7d") == ["week"]
    assert await listed("--older-than", "36h", "--job", "delete_user") == ["day"]
    assert await listed("--code", "failed") == ["now", "week"]
    assert await listed("--code", "failed", "--job", "delete_user") == []


@pytest.mark.parametrize("newest_first", [True, False])
async def test_letters_of_one_moment_are_paged_without_loss(stage: Stage, newest_first: bool) -> None:
    moments = {f"{moment}-{number:03}": moment for moment in (1, 2, 3) for number in range(dead_letters.PAGE_SIZE + 50)}
    await stage.redis.zadd(keys.dead(QUEUE), moments)

    assert await stage.ids(newest_first=newest_first) == [
        job_id.encode() for job_id in sorted(moments, reverse=newest_first)
    ]


async def test_a_read_fetches_at_most_one_page_and_one_moment(stage: Stage) -> None:
    await stage.redis.zadd(keys.dead(QUEUE), {f"{number:05}": number for number in range(3 * dead_letters.PAGE_SIZE)})

    sizes = [len(page) async for page in stage.letters.pages()]

    assert sum(sizes) == 3 * dead_letters.PAGE_SIZE
    assert max(sizes) <= dead_letters.PAGE_SIZE + 1


async def test_letters_purged_while_paging_make_it_skip_no_other(stage: Stage) -> None:
    await stage.redis.zadd(
        keys.dead(QUEUE), {f"{number:05}": number // 300 for number in range(3 * dead_letters.PAGE_SIZE)}
    )
    seen: set[bytes] = set()

    async for page in stage.letters.pages():
        seen |= {letter.job_id for letter in page}
        await stage.letters.purge([letter.job_id for letter in page[::2]])
        await stage.redis.zadd(keys.dead(QUEUE), {f"late-{len(seen)}": 1e14})

    assert seen == {f"{number:05}".encode() for number in range(3 * dead_letters.PAGE_SIZE)}


async def test_a_letter_with_an_unreadable_record_is_listed_without_it(stage: Stage) -> None:
    await stage.bury_by_hand({"a": 0, "b": 0, "c": 0})
    await stage.redis.hset(keys.dead_letters(QUEUE), mapping={"a": b"\xff", "b": '{"tries":"seven"}'})  # type: ignore[misc]
    await stage.redis.hdel(keys.dead_letters(QUEUE), "c")  # type: ignore[misc]

    assert [letter.record.job for letter in await stage.all()] == [None, None, None]


# Show


async def test_a_payload_is_shown_without_its_values(stage: Stage, command: Callable[..., Any]) -> None:
    (job,) = await stage.dead("ada")

    code, out, _ = await command("show", job.job_id)

    shown = json.loads(out)
    assert code == 0
    assert (shown["job"], shown["code"], shown["attempts"]) == ("create_user", "failed", 1)
    assert shown["payload"]["fields"] == {
        "email": "text, 15 characters",
        "username": "text, 3 characters",
        "hashed_password": f"text, {len(HASH)} characters",
        "is_active": "true or false",
    }
    assert not any(value in out for value in ("ada@example.com", '"ada"', HASH))


async def test_every_payload_is_kept_whole_and_shown_only_on_request(stage: Stage, command: Callable[..., Any]) -> None:
    await stage.poison()

    for job_id, payload in POISON.items():
        assert await stage.redis.get(b"arq:dead:" + job_id) == payload
        code, masked, _ = await command("show", escape(job_id))
        assert code == 0
        assert SECRET not in masked
        code, out, _ = await command("show", escape(job_id), "--payload")
        summary = json.loads(out)["payload"]
        assert (code, summary["type"], summary["bytes"]) == (0, "string", len(payload))
        if job_id == b"too-large":
            assert "raw" not in summary
        else:
            assert summary["raw"].replace(" ", r"\x20") == escape(payload)
    assert json.loads((await command("show", "list"))[1])["payload"]["type"] == "list"
    assert json.loads((await command("show", "missing"))[1])["payload"] is None
    assert await stage.redis.lrange(keys.dead_payload("list"), 0, -1) == [b"x", b"y"]  # type: ignore[misc]


async def test_an_unknown_or_invalid_id_is_reported(command: Callable[..., Any]) -> None:
    assert await command("show", "nothing") == (
        1, "", "no dead letter has the id nothing: `worker dead list` shows the ids\n",
    )  # fmt: skip
    code, _, err = await command("show", r"a\b")
    assert code == 2
    assert "backslash" in err


# Replay


async def test_a_replayed_job_has_its_effect_once_under_its_own_id(stage: Stage, command: Callable[..., Any]) -> None:
    # Given a job that died, with its row in the ledger
    (job,) = await stage.dead("ada")
    assert await stage.ledger() == [(job.job_id, "dead")]

    # When it is replayed
    code, out, _ = await command("replay", job.job_id)

    # Then it is done, as if for the first time
    assert (code, json.loads(out)) == (
        0, {"replayed": 1, "not_found": 0, "no_payload": 0, "already_queued": 0, "skipped": {}},
    )  # fmt: skip
    assert await job.status() is JobStatus.DUE
    await burst(stage.settings)
    assert (await job.outcome(5)).t == 1
    assert (await job.result(5)).username == "ada"
    assert await stage.ledger() == [(job.job_id, "done")]
    assert await stage.users() == ["ada"]
    assert await stage.ids() == []
    assert not await stage.redis.exists(keys.dead_payload(job.job_id), keys.dead_letters(QUEUE))


async def test_concurrent_replays_replay_each_letter_once(stage: Stage) -> None:
    jobs = await stage.dead("ada", "bob", "cyd", "dan")
    ids = [job.job_id for job in jobs]

    answers = await asyncio.gather(stage.replay(*ids), stage.replay(*reversed(ids)), stage.replay(*ids))

    assert [answer for answer in sum(answers, []) if answer is Replayed.REPLAYED] == [Replayed.REPLAYED] * 4  # noqa: RUF017
    assert await stage.ledger() == []
    await burst(stage.settings)
    assert sorted(await stage.users()) == ["ada", "bob", "cyd", "dan"]
    assert [outcome for _, outcome in await stage.ledger()] == ["done"] * 4
    assert await stage.replay(*ids) == [Replayed.NOT_FOUND] * 4


async def test_a_replayed_job_whose_effect_is_committed_has_no_second_effect(stage: Stage) -> None:
    # Given a letter of a job whose effect is committed, by a worker that was frozen when the job was buried
    done = await stage.producer.enqueue(user("ada"))
    payload = await stage.redis.get(keys.job(done.job_id))
    await burst(stage.settings)
    await stage.bury_by_hand({done.job_id: 0})
    await stage.redis.set(keys.dead_payload(done.job_id), payload or b"")
    await stage.sql("DELETE FROM users")  # so that a second effect would not be refused

    # When it is replayed
    assert await stage.replay(done.job_id) == [Replayed.REPLAYED]
    await burst(stage.settings)

    # Then it is answered from the ledger
    assert (await done.result(5)).username == "ada"
    assert await stage.users() == []
    assert await stage.ledger() == [(done.job_id, "done")]


async def test_a_worker_that_claims_a_job_during_its_replay_waits_for_the_ledger(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    # Given a replay that has put the job back, and has not committed
    (job,) = await stage.dead("ada")
    put_back, go_on, script = asyncio.Event(), asyncio.Event(), REPLAY

    async def slow_replay(*arguments: Any) -> Any:
        answers = await script(*arguments)
        put_back.set()
        await go_on.wait()
        return answers

    monkeypatch.setattr("worker.engine.replay.REPLAY", slow_replay)
    replaying = asyncio.create_task(stage.replay(job.job_id))
    await put_back.wait()

    # When a worker claims it, then it waits and does not find the recorded death
    working = asyncio.create_task(burst(stage.settings))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    await eventually(lambda: stage.sql(waits))
    go_on.set()
    assert await replaying == [Replayed.REPLAYED]
    await working
    assert (await job.result(5)).username == "ada"


async def test_a_replay_whose_answer_is_lost_can_be_repeated(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a replay whose answer was lost
    (job,) = await stage.dead("ada")
    script = REPLAY

    async def lost(*arguments: Any) -> Any:
        await script(*arguments)
        raise ResponseError("lost")

    monkeypatch.setattr("worker.engine.replay.REPLAY", lost)
    with pytest.raises(ResponseError):
        await stage.replay(job.job_id)
    monkeypatch.undo()

    # Then the job is found dead as before, its letter is back, and it can be replayed again
    await burst(stage.settings)
    with pytest.raises(JobDead, match="failed"):
        await job.result(5)
    assert await stage.replay(job.job_id) == [Replayed.REPLAYED]
    await burst(stage.settings)
    assert await stage.users() == ["ada"]


async def test_a_letter_that_cannot_be_replayed_stays_with_a_reason(stage: Stage, command: Callable[..., Any]) -> None:
    # Given a letter without a payload, and one whose id was accepted again
    await stage.poison()
    queued = Request(user("bob"), idempotency_key="a").encode()
    await stage.bury_by_hand({queued.job_id: 0})
    await stage.producer.enqueue(user("bob"), idempotency_key="a")
    before = await stage.ledger()
    assert ("missing", "dead") in before

    code, out, _ = await command("replay", "missing", "a", "nothing")

    assert code == 1
    assert json.loads(out)["skipped"] == {"missing": "no_payload", "a": "already_queued", "nothing": "not_found"}
    assert await stage.ledger() == before
    assert {b"missing", b"a"} <= set(await stage.ids())
    assert await stage.redis.get(keys.job("a")) != b"x"


async def test_replay_ends_with_one_line_when_postgresql_is_unreachable(
    stage: Stage, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.bury_by_hand({"a": 0})
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hush@127.0.0.1:1/none")

    done = await command("replay", "a")

    assert done == (
        1,
        "",
        "the database cannot be reached (ConnectionRefusedError); check the server and DATABASE_URL\n",
    )
    assert await stage.ids() == [b"a"]


async def test_replayed_poison_dies_again_and_is_kept_again(stage: Stage) -> None:
    await stage.poison()
    ids = [job_id for job_id in await stage.ids() if job_id != b"missing"]

    assert await stage.replay(*ids) == [Replayed.REPLAYED] * len(ids)
    await burst(stage.settings)

    assert {*await stage.ids()} == {*ids, b"missing"}
    assert [await stage.redis.get(b"arq:dead:" + job_id) for job_id in POISON] == list(POISON.values())


async def test_all_matching_letters_are_replayed_in_the_order_of_their_deaths(
    stage: Stage, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE_SIZE", 2)
    await stage.poison()
    await stage.dead("ada", "bob", "cyd", "dan", "eve")
    order = [letter.job_id for letter in await stage.all() if letter.record.code == "failed"]

    code, out, _ = await command("replay", "--all", "--code", "failed", "--job", "create_user")

    assert (code, json.loads(out)["replayed"]) == (0, 5)
    assert await stage.redis.zrange(QUEUE, 0, -1) == order
    assert len(await stage.ids()) == len(POISON) + 2


async def test_paging_ends_although_replayed_jobs_die_again(stage: Stage) -> None:
    await stage.bury_by_hand({"a": 1000, "b": 0})
    pages = stage.letters.pages()
    async for letters in pages:
        for letter in letters:
            await stage.redis.zadd(keys.dead(QUEUE), {letter.job_id: 9e14})  # died again, later

    assert len(await stage.ids()) == 0  # among those that had died before


async def test_a_replay_that_redis_refuses_changes_nothing(stage: Stage) -> None:
    (job,) = await stage.dead("ada")
    await stage.redis.delete(keys.dead_letters(QUEUE))
    await stage.redis.set(keys.dead_letters(QUEUE), "a key of another type")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await stage.replay(job.job_id)

    assert await stage.ledger() == [(job.job_id, "dead")]
    assert await stage.redis.zscore(QUEUE, job.job_id) is None


async def test_only_deaths_are_removed_from_the_ledger(stage: Stage) -> None:
    async with stage.sessions() as session:
        for outcome in ("done", "rejected", "dead"):
            await ledger.record(session, ledger.LedgerEntry(outcome, "create_user", outcome, code="x", detail="y"))
        await session.commit()

        forgotten = await ledger.forget_dead(session, ["done", "rejected", "dead", "unknown", "it's"])
        await session.commit()

    assert forgotten == [ledger.LedgerEntry("dead", "create_user", "dead", code="x", detail="y")]
    assert await stage.ledger() == [("done", "done"), ("rejected", "rejected")]


# Purge


async def test_purged_letters_and_their_payloads_are_deleted(stage: Stage, command: Callable[..., Any]) -> None:
    await stage.poison()

    code, out, _ = await command("purge", "list", r"\x2d-all", "nothing", "--yes")

    assert (code, json.loads(out)) == (1, {"purged": 2, "not_found": 1, "skipped": {"nothing": "not_found"}})
    assert not await stage.redis.exists(keys.dead_payload("list"), keys.dead_payload("--all"))
    assert {b"list", b"--all"} & {*await stage.ids()} == set()
    code, out, _ = await command("purge", "--all", "--code", "undecodable", "--yes")
    assert (code, json.loads(out)["purged"]) == (0, 4)
    code, out, _ = await command("purge", "--all", "--yes")
    assert (code, json.loads(out)["purged"]) == (0, 3)
    assert not await stage.redis.keys("*dead*")


async def test_a_purge_by_age_deletes_only_older_letters(stage: Stage, command: Callable[..., Any]) -> None:
    await stage.bury_by_hand({"old": 8 * 86_400_000, "new": 6 * 86_400_000})

    code, out, _ = await command("purge", "--older-than", "7d", "--yes")

    assert (code, json.loads(out)["purged"]) == (0, 1)
    assert await stage.ids() == [b"new"]
    assert await stage.redis.exists(keys.dead_payload("new")) == 1


async def test_a_job_that_died_again_is_not_purged_for_its_earlier_death(stage: Stage) -> None:
    await stage.bury_by_hand({"a": 5000, "b": 5000})
    until_ms = (await stage.all())[-1].died_ms
    await stage.bury_by_hand({"a": 0})

    assert await stage.letters.purge([b"a", b"b"], until_ms=until_ms) == [False, True]
    assert await stage.ids() == [b"a"]


async def test_a_purge_without_a_terminal_needs_yes(stage: Stage, command: Callable[..., Any]) -> None:
    await stage.bury_by_hand({"a": 0})

    for words in (["a"], ["--all"], ["--older-than", "1s"]):
        code, out, err = await command("purge", *words)
        assert (code, out) == (2, "")
        assert "--yes" in err
    assert await stage.ids() == [b"a"]


@pytest.mark.parametrize(
    "words",
    [["replay"], ["purge", "--yes"], ["replay", "a", "--all"], ["purge", "a", "--job", "b"], ["replay", "--code", "b"],
     ["list", "--older-than", "soon"]],
)  # fmt: skip
async def test_missing_or_contradicting_arguments_are_refused(command: Callable[..., Any], words: list[str]) -> None:
    code, out, err = await command(*words)

    assert (code, out) == (2, "")
    assert err


# On a terminal


async def test_a_terminal_gets_a_table_and_a_purge_asks_for_confirmation(stage: Stage) -> None:
    await stage.poison()

    code, listed = await on_a_terminal(stage.settings, "dead", "list")
    assert code == 0
    assert "died (UTC)" in listed
    assert r"'\xff\xfe\x20not\x20text\x0a'" in listed  # as it can be pasted

    code, confirmation = await on_a_terminal(stage.settings, "dead", "purge", "--all", typed="n\n")
    assert code == 1
    assert "for good?" in confirmation
    assert len(await stage.ids()) == len(POISON) + 2
    code, purged = await on_a_terminal(stage.settings, "dead", "purge", "--all", typed="y\n")
    assert code == 0
    assert f"{len(POISON) + 2} purged, 0 not found" in purged
    assert await stage.ids() == []


# By the clock


async def tick(settings: Settings, tick_id: str) -> None:
    """Run one tick of the purge, as every worker does at its time; they share the id, so one has an effect."""
    worker = engine_worker(settings, burst=True)
    try:
        assert [job.name for job in worker.cron_jobs].count("cron:purge_dead_letters") == 1
        await worker.pool.enqueue_job("cron:purge_dead_letters", _job_id=tick_id, _queue_name=QUEUE)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await worker.async_run()
    finally:
        await worker.close()


async def test_the_scheduled_purge_deletes_old_letters_once_per_tick(stage: Stage) -> None:
    settings = stage.settings.model_copy(update={"dead_letter_retention_days": 30})
    await stage.bury_by_hand({"old": 31 * 86_400_000, "new": 29 * 86_400_000})

    await tick(settings, "cron:purge_dead_letters:1")

    assert await stage.ids() == [b"new"]
    assert ("cron:purge_dead_letters:1", "done") in await stage.ledger()

    # And the same tick, delivered again, purges nothing more
    await stage.bury_by_hand({"older": 32 * 86_400_000})
    await stage.redis.delete(keys.result("cron:purge_dead_letters:1"))
    await tick(settings, "cron:purge_dead_letters:1")
    assert await stage.ids() == [b"older", b"new"]


async def test_the_scheduled_purge_deletes_nothing_without_a_retention(stage: Stage) -> None:
    settings = stage.settings.model_copy(update={"dead_letter_retention_days": 0})
    await stage.bury_by_hand({"old": 1000 * 86_400_000})

    await tick(settings, "cron:purge_dead_letters:1")

    assert await stage.ids() == [b"old"]


# Logs


async def test_no_value_of_poison_is_logged(stage: Stage, logged: Any, command: Callable[..., Any]) -> None:
    with logged() as lines:
        await stage.poison()
        await stage.replay(*[job_id for job_id in await stage.ids() if job_id])
        await burst(stage.settings)
        log = json.dumps(lines())

    assert "job_dead" in log
    assert SECRET not in log
    assert "not text" not in log
