"""The metrics are exact, with several processes, one of which is killed."""

import json
import os
import signal
from collections import Counter
from typing import Any

import pytest

from producers import CreateUser, DeleteUser, Message, SyncProducer, UpdateUser
from tests.acceptance.commands import HASH, WORKER, Running, eventually
from tests.acceptance.conftest import Place
from tests.acceptance.pages import Metrics, free_port, page
from tests.acceptance.test_processes import events, started
from tests.acceptance.test_raw_jobs import deliver, settled

CREATED, UPDATED, DELETED, TAKEN = 8_800, 400, 400, 400
BROKEN, DAMAGED, TWICE = 20, 30, 7
ATTEMPTS = 3

# Creating users with such names fails.
BREAK = (
    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$",
    "CREATE TRIGGER fail BEFORE INSERT ON users FOR EACH ROW"
    " WHEN (NEW.username LIKE 'broken%') EXECUTE FUNCTION fail()",
)
LEDGER = "SELECT job, outcome, code, count(*) FROM job_ledger WHERE job_id NOT LIKE 'cron:%' GROUP BY 1, 2, 3"


def user(name: str) -> CreateUser:
    return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH)


def load() -> list[Message[Any]]:
    """Ten thousand jobs: done, rejected, and with an ordering key."""
    return [
        *(user(f"user{number}") for number in range(CREATED)),
        *(UpdateUser.model_validate({"user_id": n + 1, "changes": {"is_active": False}}) for n in range(UPDATED)),
        *(DeleteUser(user_id=10_000_000 + number) for number in range(DELETED)),
        *(user(f"user{number}") for number in range(TAKEN)),
    ]


def twice(place: Place, number: int) -> None:
    """A job that is delivered again when it has finished."""
    fields = {"email": f"twice{number}@example.com", "username": f"twice{number}", "hashed_password": HASH}
    for _ in range(2):
        deliver(place, f"twice-{number}", json.dumps({"f": "create_user", "k": fields, "a": [], "t": None, "et": 1}))
        settled(place, f"twice-{number}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("batch_size", [1, 20], ids=["a-session-a-job", "batches"])
def test_every_series_is_exact_when_a_process_is_killed(place: Place, batch_size: int) -> None:
    port = free_port()
    variables = {
        **place.variables,
        "WORKER_LEASE_SECONDS": "2",
        "WORKER_MAX_TRIES": str(ATTEMPTS),
        "WORKER_BATCH_SIZE": str(batch_size),
        "WORKER_HTTP_PORT": str(port),
    }

    def empty() -> bool:
        return place.redis_cli("ZCARD", "arq:queue") == "0"

    with Running((*WORKER, "run", "--processes", "3"), variables) as worker, SyncProducer(place.redis) as producer:
        # Given three processes in the middle of ten thousand jobs
        first, *_ = started(worker, 3)
        producer.enqueue_many(load())
        eventually(lambda: place.count("job_ledger") > CREATED // 4)

        # When one of them is killed
        os.kill(first, signal.SIGKILL)
        started(worker, 4)
        eventually(empty, seconds=300)

        # And then jobs fail in every attempt, cannot be read, or are delivered again
        for statement in BREAK:
            place.sql(statement)
        producer.enqueue_many([user(f"broken{number}") for number in range(BROKEN)])
        for number in range(DAMAGED):
            deliver(place, f"damaged-{number}", "{")
        for number in range(TWICE):
            twice(place, number)
        eventually(empty)
        eventually(lambda: Metrics(port).value("worker_workers", state="alive") == 3)

        # Then the counts equal those of the ledger, which was written in the transactions of the effects
        found = Metrics(port)
        jobs = {
            key: count
            for key, count in found.by("worker_jobs_total", "kind", "outcome", "code").items()
            if not key[0].startswith("cron:")
        }
        ledger = Counter({(job, outcome, code or ""): count for job, outcome, code, count in place.sql(LEDGER)})
        ledger["create_user", "done", ""] += TWICE
        assert jobs == ledger
        assert jobs["create_user", "rejected", "conflict"] == TAKEN
        assert jobs["create_user", "dead", "failed"] == BROKEN
        assert jobs["unknown", "dead", "undecodable"] == DAMAGED

        # And those of the log
        redelivered = [line for line in events(worker, "job_done") if line.get("redelivered")]
        assert found.by("worker_redeliveries_total") == {(): len(redelivered)}
        attempts = found.by("worker_attempts_total", "kind", "outcome")
        assert attempts["create_user", "retry"] == BROKEN * (ATTEMPTS - 1) == len(events(worker, "job_retried"))
        by_job: Counter[tuple[str]] = Counter()
        for (job, _), count in attempts.items():
            by_job[job,] += int(count)
        assert found.by("worker_job_wait_seconds_count", "kind") == by_job
        assert found.by("worker_job_run_seconds_count", "kind") == by_job
        assert found.value("worker_batch_jobs_sum") == (sum(by_job.values()) if batch_size > 1 else 0)
        assert (found.value("worker_batch_splits_total") > 0) == (batch_size > 1)

        # And the gauges are right
        assert found.by("worker_queue_jobs", "state") == {
            ("due",): 0, ("deferred",): 0, ("claimed",): 0, ("parked",): 0, ("dead",): BROKEN + DAMAGED,
        }  # fmt: skip
        assert found.value("worker_queue_oldest_due_seconds") == 0
        assert found.by("worker_workers", "state") == {("alive",): 3, ("missing",): 1}
        assert len(found.by("worker_running_jobs", "worker")) == 3
        assert set(found.by("worker_server_up", "worker", "server").values()) == {1}
        assert len(found.by("worker_pool_connections", "worker", "state")) == 6
        assert len(found.by("worker_loop_lag_seconds", "worker")) == 3
        assert worker.stop() == 0


def test_another_process_answers_when_the_first_is_killed(place: Place) -> None:
    port = free_port()
    variables = {**place.variables, "WORKER_HTTP_PORT": str(port)}
    with Running((*WORKER, "run"), variables) as first:
        first.wait_for('"event":"http_listening"')
        with Running((*WORKER, "run"), variables) as second:
            second.wait_for('"event":"http_port_taken"', '"event":"worker_started"')

            first.stop(signal.SIGKILL)

            second.wait_for('"event":"http_listening"')
            assert page(port, "/livez")[0] == 200
