"""No payload value, password hash or e-mail address is logged, and no hash is in a reply, however a job ends."""

import asyncio
import json
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from producers import keys, wire
from producers.messages import CreateUser, Deleted, DeletePost, DeleteUser
from tests.integration.running import settings_of, stock_burst
from worker.database import users
from worker.engine import arq_functions
from worker.jobs import REGISTRY, JobType
from worker.settings import Settings

HASH = "$argon2id$v=19$m=65536,t=3,p=4$S3cretS3cretS3cret$S3cretHashS3cretHashS3cretHashS3cretHash"
OTHER_HASH = "$2b$12$" + "S3cret.Other.Hash." * 2 + "S3cret.Other.Hash"
PASSWORD = "S3cret-plain-password"
EMAIL = "s3cret-ada@example.com"
NAME = "s3cret-name"
TITLE = "S3cret title"
CONTENT = "S3cret content that must not be in a log"
SECRETS = (HASH, OTHER_HASH, PASSWORD, EMAIL, NAME, TITLE, CONTENT, "s3cret-ada", "S3cret")

ADA = {"email": EMAIL, "username": NAME, "hashed_password": HASH}
POST = {"title": TITLE, "content": CONTENT}


def payload(job: str, **fields: object) -> bytes:
    return wire.encode(job, json.dumps(fields).encode(), enqueue_time_ms=round(time.time() * 1000))


# Every way in which a job can end, in the order of sending: id, payload, code.
JOBS: list[tuple[str, bytes | None, str]] = [
    ("done-user", payload("create_user", **ADA), "done"),
    ("done-hash", payload("update_user", user_id=1, changes={"hashed_password": OTHER_HASH}), "done"),
    ("done-post", payload("create_post", author_id=1, **POST), "done"),
    ("done-title", payload("update_post", post_id=1, changes=POST), "done"),
    ("conflict", payload("create_user", **ADA), "conflict"),
    ("missing-user", payload("update_user", user_id=99, changes=ADA), "not_found"),
    ("missing-author", payload("create_post", author_id=99, **POST), "not_found"),
    ("plain-password", payload("create_user", **{**ADA, "hashed_password": PASSWORD}), "invalid"),
    ("wrong-email", payload("create_user", **{**ADA, "email": EMAIL + " "}), "invalid"),
    ("extra-field", payload("create_user", **ADA, note=TITLE), "invalid"),
    ("wrong-type", payload("delete_user", user_id=EMAIL), "invalid"),
    ("fails", payload("delete_post", post_id=1), "failed"),
    ("fails-in-database", payload("delete_user", user_id=1), "failed"),
    ("no-json", f"{EMAIL} {HASH}".encode(), "undecodable"),
    ("pickled", pickle.dumps({"f": "create_user", "k": ADA}), "undecodable"),
    ("no-envelope", json.dumps({**ADA, "note": EMAIL}).encode(), "undecodable"),
    ("positional", json.dumps({"f": "create_user", "k": {}, "a": [HASH], "t": None, "et": 1}).encode(), "undecodable"),
    ("name-of-no-job", payload(f"{EMAIL} {HASH}"), "undecodable"),
    ("unknown-name", payload("S3cret.title", **ADA), "unknown_job"),
    ("too-large", payload("create_user", **ADA, note=CONTENT * 100), "too_large"),
    ("expired", None, "expired"),
    (f"no id: {EMAIL} {HASH}", payload("create_user", **ADA), "undecodable"),
    (f"no id, no job: {EMAIL}", b"", "expired"),
    (f"no id, no json: {EMAIL}", b"{" + HASH.encode(), "undecodable"),
    ("leaves-a-task", payload("create_user", **{**ADA, "username": "leaver", "email": "leaver@example.com"}), "done"),
]


async def _fail(_session: AsyncSession, _message: DeletePost) -> Deleted:
    try:
        raise KeyError(HASH)  # noqa: TRY301  # for its place in the chain
    except KeyError as error:
        error.add_note(EMAIL)
        raise LookupError(f"no {EMAIL} with {HASH} wrote {TITLE}: {CONTENT}") from error


async def _fail_in_database(session: AsyncSession, _message: DeleteUser) -> Deleted:
    try:
        await users.create_user(session, CreateUser(**ADA))  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001  # the bug under test
        # An error handler that quotes the database's message.
        raise TypeError(f"{error} {error.__cause__} {HASH}") from None
    raise AssertionError


async def _leave_a_task(session: AsyncSession, message: CreateUser) -> Any:
    if message.username == "leaver":
        failing = asyncio.ensure_future(_fail(session, DeletePost(post_id=1)))
        await asyncio.wait([failing])
    return await REAL_CREATE_USER(session, message)


REAL_CREATE_USER: Callable[[AsyncSession, CreateUser], Awaitable[Any]] = REGISTRY["create_user"].handler


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real job types, some with bugs, retried without delay."""
    monkeypatch.setitem(REGISTRY, "delete_post", JobType("delete_post", DeletePost, _fail))
    monkeypatch.setitem(REGISTRY, "delete_user", JobType("delete_user", DeleteUser, _fail_in_database))
    monkeypatch.setitem(REGISTRY, "create_user", JobType("create_user", CreateUser, _leave_a_task))
    monkeypatch.setattr(arq_functions, "backoff_seconds", lambda _failures: 0.01)


@pytest.fixture(params=[("json", "info"), ("json", "debug"), ("console", "debug")], ids="-".join)
def settings(database_url: str, redis_url: str, request: pytest.FixtureRequest) -> Settings:
    log_format, level = request.param
    return settings_of(
        redis_url,
        database_url,
        concurrency=1,
        max_tries=2,
        max_payload_bytes=2048,
        log_format=log_format,
        log_level=level,
    )


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


async def run_jobs(settings: Settings, redis: Any, jobs: Sequence[tuple[str, bytes | None, str]]) -> None:
    """Send all jobs, and run arq's own worker until the queue is empty."""
    for score, (job_id, body, _code) in enumerate(jobs, start=1):
        if body is not None:
            await redis.set(keys.job(job_id), body)
        await redis.zadd(settings.queue, {job_id: score})
    await stock_burst(settings)


def assert_no_secret(text: str, *, but: tuple[str, ...] = ()) -> None:
    for secret in SECRETS:
        if secret not in but:
            at = text.find(secret)
            assert at < 0, f"{secret!r} in {text[max(0, at - 300) : at + 100]!r}"


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq closes its pool so
@pytest.mark.usefixtures("handlers", "logging_kept")
async def test_a_job_leaks_no_value_however_it_ends(
    settings: Settings, redis: Any, sql: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    # When: jobs end in every possible way.
    await run_jobs(settings, redis, JOBS)

    # Then: each has its outcome,
    results = {job_id: json.loads(await redis.get(keys.result(job_id))) for job_id, _, _ in JOBS}
    assert {job_id: "done" if result["s"] else result["r"]["code"] for job_id, result in results.items()} == {
        job_id: code for job_id, _, code in JOBS
    }
    # no log line holds a value of it,
    printed = capfd.readouterr()
    assert printed.err == ""
    assert_no_secret(printed.out)
    # no result holds a hash, and only the result of a done job holds other values,
    for job_id, result in results.items():
        assert (result["k"], result["a"]) == ({}, [])
        result.pop("id")  # chosen by the sender
        result.pop("f")
        assert_no_secret(json.dumps(result), but=(EMAIL, NAME, TITLE, CONTENT, "s3cret-ada", "S3cret") * result["s"])
        assert HASH not in json.dumps(result)
        assert OTHER_HASH not in json.dumps(result)
        assert await redis.exists(keys.job(job_id)) == 0
    # nor does the ledger.
    assert await sql("SELECT count(*) FROM job_ledger") == 14
    rows = await sql("SELECT string_agg(job_ledger::text, ' ') FROM job_ledger WHERE outcome = 'done'")
    assert HASH not in rows
    assert OTHER_HASH not in rows
    assert_no_secret(await sql("SELECT string_agg(job_ledger::text, ' ') FROM job_ledger WHERE outcome <> 'done'"))
    if settings.log_format == "json":
        check_lines(printed.out)


def check_lines(out: str) -> None:
    """The log has the outcome of every job and its reason."""
    lines = [json.loads(line) for line in out.splitlines()]
    attempts = [(line["job_id"], line["event"], line.get("code")) for line in lines if "attempt" in line]
    assert ("done-user", "job_done", None) in attempts
    assert ("conflict", "job_rejected", "conflict") in attempts
    assert ("fails", "job_retried", "failed") in attempts
    assert ("fails", "job_dead", "failed") in attempts
    errors = [line["error"] for line in lines if line["event"] == "unhandled_error"]
    assert [[link["type"] for link in error] for error in errors] == [["LookupError", "KeyError"]]
    events = {line["event"] for line in lines}
    assert {"worker_started", "worker_stopped", "job with an unknown name", "job expired expired"} <= events


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq closes its pool so
@pytest.mark.usefixtures("logging_kept")
@pytest.mark.parametrize("settings", [("json", "info")], indirect=True, ids="-".join)
async def test_a_value_sent_as_a_field_name_is_not_leaked(
    settings: Settings, redis: Any, sql: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [
        ("in-the-envelope", json.dumps({**ADA, HASH: EMAIL}).encode(), "undecodable"),
        ("in-the-message", payload("update_user", user_id=1, changes={EMAIL: 1, HASH: 2}), "invalid"),
    ]
    await run_jobs(settings, redis, jobs)

    assert_no_secret(capfd.readouterr().out)
    for job_id, _, code in jobs:
        result = json.loads(await redis.get(keys.result(job_id)))
        assert result["r"]["code"] == code
        assert_no_secret(json.dumps(result))
    assert_no_secret(await sql("SELECT string_agg(job_ledger::text, ' ') FROM job_ledger"))
