"""Jobs written by `redis-cli` alone, run by the stock arq command and by `worker run`: the outcomes are the same."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.acceptance.commands import ARQ, HASH, WORKER, Running, eventually, run, run_together
from tests.acceptance.conftest import Place

SETTINGS = "worker.app.WorkerSettings"
STOCK = (*ARQ, SETTINGS)
OURS = (*WORKER, "run")
CHECKS = ((*WORKER, "check"), (*ARQ, "--check", SETTINGS))
EMAIL = "someone@example.com"


@pytest.fixture(scope="module", params=[STOCK, OURS], ids=["arq", "worker-run"])
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture(scope="module")
def place(command: tuple[str, ...], make_place: Callable[[], Place]) -> Place:
    return make_place()


@pytest.fixture(scope="module")
def worker(command: tuple[str, ...], place: Place) -> Iterator[Running]:
    with Running(command, place.variables) as worker:
        worker.wait_for("worker_started")
        yield worker


def deliver(place: Place, job_id: str, payload: str) -> None:
    """Put a job into the queue, as a client in any language does; the third command only wakes an idle worker."""
    assert place.redis_cli("SET", f"arq:job:{job_id}", payload) == "OK"
    assert place.redis_cli("ZADD", "arq:queue", str(time.time_ns() // 1_000_000), job_id) == "1"
    place.redis_cli("PUBLISH", "arq:queue:wake", "1")


def result(place: Place, job_id: str) -> dict[str, Any]:
    """The job's result as soon as the job is out of the queue."""
    settled(place, job_id)
    found: dict[str, Any] = json.loads(place.redis_cli("GET", f"arq:result:{job_id}"))
    return found


def settled(place: Place, job_id: str) -> None:
    eventually(lambda: not place.redis_cli("ZSCORE", "arq:queue", job_id), hint=lambda: f"{job_id} is still queued")


def ask(place: Place, job_id: str, job: str, **fields: Any) -> dict[str, Any]:
    deliver(place, job_id, json.dumps({"f": job, "k": fields, "a": [], "t": None, "et": 1_700_000_000_000}))
    return result(place, job_id)


def logged(output: str) -> list[dict[str, Any]]:
    """The lines of the log, without those that arq writes in its own format before the startup of the worker."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_all_six_job_types_have_their_effects_and_replies(worker: Running, place: Place) -> None:
    # Given a user and two posts, created by raw jobs
    created = ask(place, "six-1", "create_user", email=EMAIL, username="someone", hashed_password=HASH)
    user = created["r"]["id"]
    first = ask(place, "six-2", "create_post", author_id=user, title="First", content="one")["r"]["id"]
    second = ask(place, "six-3", "create_post", author_id=user, title="Second", content="two")["r"]["id"]

    # When they are changed and one is deleted, with ordering keys in the ids
    renamed = ask(place, f"six-4@user:{user}", "update_user", user_id=user, changes={"username": "renamed"})
    retitled = ask(place, f"six-5@post:{first}", "update_post", post_id=first, changes={"title": "Retitled"})
    deleted = ask(place, f"six-6@post:{second}", "delete_post", post_id=second)

    # Then the replies have the changes
    assert created["s"] is True
    assert created["r"].pop("created_at")
    assert created["r"] == {"id": user, "email": EMAIL, "username": "someone", "is_active": True}
    assert (renamed["s"], renamed["r"]["username"]) == (True, "renamed")
    assert retitled["r"] == {"id": first, "title": "Retitled", "content": "one", "author_id": user}
    assert deleted["r"] == {"deleted": True}

    # And the tables have them
    assert place.sql("SELECT id, email, username, hashed_password, is_active FROM users") == [
        (user, EMAIL, "renamed", HASH, True)
    ]
    assert place.sql("SELECT id, title, content, author_id FROM posts") == [(first, "Retitled", "one", user)]

    # When the user is deleted, then so are the posts
    assert ask(place, f"six-7@user:{user}", "delete_user", user_id=user)["r"] == {"deleted": True}
    assert place.count("users") == place.count("posts") == 0
    assert ask(place, f"six-8@user:{user}", "delete_user", user_id=user)["r"] == {"deleted": False}

    # And only the results of the jobs are left in Redis, without the fields
    assert place.redis_cli("KEYS", "arq:job:six-*") == ""
    assert created["k"] == {}
    assert place.sql("SELECT count(*) FROM job_ledger WHERE job_id LIKE 'six-%' AND outcome = 'done'") == [(8,)]


def test_a_second_delivery_has_no_effect_and_the_first_reply(worker: Running, place: Place) -> None:
    author = ask(place, "twice-1", "create_user", email="two@example.com", username="two", hashed_password=HASH)
    fields = {"author_id": author["r"]["id"], "title": "Once", "content": ""}

    replies = [ask(place, "twice-2", "create_post", **fields)["r"] for _ in range(3)]

    assert replies[1:] == replies[:1] * 2
    assert place.sql("SELECT count(*) FROM posts WHERE title = 'Once'") == [(1,)]
    # A second attempt would have taken an id of the sequence
    after = ask(place, "twice-3", "create_post", **fields)["r"]
    assert after["id"] == replies[0]["id"] + 1


def test_a_second_delivery_of_a_rejected_job_is_rejected_again(worker: Running, place: Place) -> None:
    # Given a post without an author, which is rejected
    author = place.sql("SELECT coalesce(max(id), 0) + 1 FROM users")[0][0]
    fields = {"author_id": author, "title": "Too early", "content": ""}
    rejected = ask(place, "early-1", "create_post", **fields)
    assert rejected["s"] is False
    assert rejected["r"] == {"code": "not_found", "detail": "author_id names nothing that exists"}

    # When the author exists at the second delivery
    made = ask(place, "early-2", "create_user", email="late@example.com", username="late", hashed_password=HASH)
    assert made["r"]["id"] == author
    again = ask(place, "early-1", "create_post", **fields)

    # Then the outcome is that of the first
    assert again["r"] == rejected["r"]
    assert place.sql("SELECT count(*) FROM posts WHERE title = 'Too early'") == [(0,)]


def test_a_known_id_with_other_content_is_a_conflict(worker: Running, place: Place) -> None:
    ask(place, "same-1", "delete_post", post_id=1_000_001)

    other = ask(place, "same-1", "delete_post", post_id=1_000_002)

    assert (other["s"], other["r"]["code"]) == (False, "conflict")


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        ("garbage", "\x7f not JSON", "undecodable"),
        ("foreign", '{"f":"create_user"}', "undecodable"),
        ("unknown", '{"f":"drop_tables","k":{},"a":[],"t":null,"et":1}', "unknown_job"),
        ("wrong", '{"f":"delete_user","k":{"user_id":"seven"},"a":[],"t":null,"et":1}', "invalid"),
        (
            "plain",
            '{"f":"create_user","k":{"email":"p@example.com","username":"p","hashed_password":"hunter2"},'
            '"a":[],"t":null,"et":1}',
            "invalid",
        ),
        ("large", json.dumps({"f": "delete_user", "k": {"x": "y" * 2**20}, "a": [], "t": None, "et": 1}), "too_large"),
    ],
)
def test_an_invalid_job_has_the_code_of_its_fault(
    worker: Running, place: Place, name: str, payload: str, code: str
) -> None:
    if name == "large":
        # Longer than a command line may be
        place.set(f"arq:job:{name}", payload)
        place.redis_cli("ZADD", "arq:queue", "1", name)
    else:
        deliver(place, name, payload)

    answer = result(place, name)

    assert (answer["s"], answer["r"]["code"]) == (False, code)
    assert worker.process.poll() is None


def test_the_log_has_a_line_for_each_job_and_no_value(worker: Running, place: Place) -> None:
    email, title = "quiet@example.com", "A title that no log holds"
    user = ask(place, "quiet-1", "create_user", email=email, username="quiet-name", hashed_password=HASH)["r"]["id"]
    ask(place, "quiet-2", "create_user", email=email, username="quiet-name", hashed_password=HASH)
    ask(place, "quiet-3", "create_post", author_id=user, title=title, content="")
    ask(place, "quiet-4", "create_user", email="q@example.com", username="q", hashed_password="hunter2")

    log = worker.wait_for("quiet-4")

    jobs = [line for line in logged(log) if line.get("job_id", "").startswith("quiet-")]
    outcomes = {line["job_id"]: line["outcome"] for line in jobs}
    assert outcomes == {"quiet-1": "done", "quiet-2": "rejected", "quiet-3": "done", "quiet-4": "rejected"}
    for value in (email, "quiet-name", HASH, title, "hunter2"):
        assert value not in log


def test_the_scheduled_clean_up_deletes_old_ledger_rows(worker: Running, place: Place) -> None:
    # Given one old and one new row
    for job_id, days in (("old", 15), ("new", 13)):
        place.sql(
            "INSERT INTO job_ledger (job_id, job, outcome, recorded_at) VALUES ($1, 'delete_user', 'done', $2)",
            job_id,
            datetime.now(UTC) - timedelta(days=days),
        )

    # When the tick is enqueued twice, as by two workers
    tick = "cron:purge_ledger:1700000000000"
    for _ in range(2):
        deliver(place, tick, '{"f":"cron:purge_ledger","k":{},"a":[],"t":null,"et":1700000000000}')
        settled(place, tick)
        # arq's own guard against a second run lasts for a minute.
        place.redis_cli("DEL", f"arq:in-progress:{tick}")

    # Then the row past its retention is deleted, and the second tick did nothing
    assert place.sql("SELECT job_id FROM job_ledger WHERE job_id IN ('old', 'new')") == [("new",)]
    events = [line["event"] for line in logged(worker.wait_for("tick_skipped"))]
    assert (events.count("tick_done"), events.count("tick_skipped")) == (1, 1)


def test_both_checks_find_the_worker(worker: Running, place: Place) -> None:
    ours, theirs = run_together(*((check, place.variables) for check in CHECKS))

    assert (ours.returncode, ours.stdout) == (0, "healthy\n")
    assert theirs.returncode == 0, theirs.stderr


def test_sigterm_ends_stock_arq_with_0_and_fails_the_checks(make_place: Callable[[], Place]) -> None:
    place = make_place()
    with Running(STOCK, place.variables) as worker:
        log = worker.wait_for("worker_started")
        assert "cron:purge_ledger, cron:delete_inactive_users" in log
        assert worker.stop(signal.SIGTERM) == 0
        assert "worker_stopped" in worker.output()

    ours, theirs = run_together(*((check, place.variables) for check in CHECKS))

    assert (ours.returncode, theirs.returncode) == (1, 1)
    assert ours.stderr == "worker: no heartbeat for the queue arq:queue: start a worker, or read its log\n"


def test_a_wrong_environment_stops_stock_arq_with_one_line_a_variable() -> None:
    done = run(*STOCK, variables={"REDIS_URL": "redis://nowhere", "WORKER_CONCURRENCY": "many"})

    assert done.returncode != 0
    assert done.stdout == ""
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == [
        "DATABASE_URL",
        "WORKER_CONCURRENCY='many'",
    ]
