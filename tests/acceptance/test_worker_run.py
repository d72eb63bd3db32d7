"""`worker run`: its settings, what it waits for, and how it ends."""

import json
import signal
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from producers import CreateUser, SyncProducer
from tests.acceptance.commands import HASH, WORKER, Running, eventually, run, run_together
from tests.acceptance.conftest import Place
from tests.waiting import PATIENCE_SECONDS
from worker.embedded import PostgresServer, ValkeyServer

RUN = (*WORKER, "run")
NOWHERE = {"DATABASE_URL": "postgresql://someone:hush@127.0.0.1:1/none", "REDIS_URL": "redis://:hush@127.0.0.1:1/0"}


def user(name: str) -> CreateUser:
    return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH)


def connections(place: Place) -> tuple[int, int]:
    """The number of connections that a worker holds to the database and to Redis."""
    ((found,),) = place.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'worker' AND datname = current_database()"
    )
    clients = place.redis_cli("CLIENT", "LIST").splitlines()
    number = place.redis.rpartition("/")[2]
    others = [each for each in clients if f" db={number} " in each and " cmd=client" not in each]
    return int(found), len(others)


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        ({}, ["DATABASE_URL is not set: ", "REDIS_URL is not set: "]),
        (
            {"DATABASE_URL": "mysql://someone:hush@host/none", "REDIS_URL": "http://:hush@host"},
            [
                "DATABASE_URL=…: must be a postgresql:// URL, not mysql://",
                "REDIS_URL=…: must be a redis://, rediss:// or unix:// URL",
            ],
        ),
        # Passwords that are not escaped: the place of the port has a part of them.
        (
            {"DATABASE_URL": "postgresql://someone:p@ss:hush@host/none", "REDIS_URL": "redis://:hush/more@host"},
            [
                "DATABASE_URL=…: not a database URL: postgresql://user:password@host:5432/database",
                "REDIS_URL=…: not a Redis URL: redis://:password@host:6379/0",
            ],
        ),
        (
            {**NOWHERE, "WORKER_CONCURRENCY": "0", "WORKER_MAX_TRIES": "many", "WORKER_LOG_FORMAT": "xml"},
            [
                "WORKER_CONCURRENCY='0' is not allowed: expected a whole number from 1 to 1000",
                "WORKER_MAX_TRIES='many' is not allowed: expected a whole number from 1 to 100",
                "WORKER_LOG_FORMAT='xml' is not allowed: expected json or console",
            ],
        ),
    ],
)
def test_wrong_environment_is_reported_in_one_line_per_variable(variables: dict[str, str], lines: list[str]) -> None:
    done = run(*RUN, variables=variables)

    assert (done.returncode, done.stdout) == (2, "")
    assert [line[: len(text)] for line, text in zip(done.stderr.splitlines(), lines, strict=True)] == lines
    assert "hush" not in done.stderr


def test_option_out_of_range_is_reported_as_its_variable() -> None:
    done = run(*RUN, "--concurrency", "1001", variables=NOWHERE)

    assert done.returncode == 2
    assert done.stderr == "WORKER_CONCURRENCY='1001' is not allowed: expected a whole number from 1 to 1000\n"


def test_worker_waits_for_postgresql_and_continues_when_it_starts(kept: Path, place: Place) -> None:
    # Given a PostgreSQL that does not run
    with PostgresServer(kept / "postgresql") as server:
        database, port = server.url, server.port

    # When a worker is started, and a job is in the queue
    variables = {"DATABASE_URL": database, "REDIS_URL": place.redis}
    with Running(RUN, variables) as worker, SyncProducer(place.redis) as producer:
        job = producer.enqueue(user("patient"))

        # Then it logs that it waits, and claims no job
        eventually(lambda: worker.output().count("database_awaited") > 1, hint=worker.output)
        log = worker.output()
        assert server.password not in log
        assert "worker_started" not in log
        assert job.status().value != "running"

        # When PostgreSQL starts, then it continues by itself
        with PostgresServer(kept / "postgresql", port=port):
            worker.wait_for("worker_started")
            assert job.result(timeout=PATIENCE_SECONDS).username == "patient"
            assert worker.stop() == 0


def test_worker_ends_at_sigterm_while_it_waits(place: Place) -> None:
    with Running(RUN, {**place.variables, "DATABASE_URL": NOWHERE["DATABASE_URL"]}) as worker:
        worker.wait_for("database_awaited")

        assert worker.stop() == 0
        assert "Traceback" not in worker.output()


def test_worker_waits_for_the_migration_when_it_may_not_create_tables(place: Place) -> None:
    variables = {**place.variables, "WORKER_CREATE_TABLES": "false"}

    # Given that it waits, it can be stopped
    with Running(RUN, variables) as worker:
        worker.wait_for("migration_awaited", "run `worker migrate`")
        assert worker.stop() == 0

    # When the database is migrated while it waits, it continues
    with Running(RUN, variables) as worker, SyncProducer(place.redis) as producer:
        job = producer.enqueue(user("patient"))
        worker.wait_for("migration_awaited")
        done = run(*WORKER, "migrate", variables={"DATABASE_URL": place.database})
        assert (done.returncode, done.stderr) == (0, "")
        assert job.result(timeout=PATIENCE_SECONDS).username == "patient"
        assert worker.stop() == 0


def test_worker_continues_after_an_outage_of_redis(reachable: Path, place: Place) -> None:
    # Given the address of a Redis that does not run
    with ValkeyServer(reachable / "valkey") as valkey:
        variables, port = {"DATABASE_URL": place.database, "REDIS_URL": valkey.url}, valkey.port

    # When a worker is started, then it logs that it waits
    with Running(RUN, variables) as worker:
        log = worker.wait_for("server_lost", "redis")
        assert valkey.password not in log

        # When Redis starts, then jobs are run
        with ValkeyServer(reachable / "valkey", port=port) as valkey, SyncProducer(valkey.url) as producer:
            assert producer.enqueue(user("before")).result(timeout=PATIENCE_SECONDS).username == "before"

            # When Redis is killed, then the worker logs it, and the same process continues when it is back
            valkey.kill()
            eventually(lambda: worker.output().count("server_lost") == 2, hint=worker.output)
            valkey.start()
            assert producer.enqueue(user("after")).result(timeout=PATIENCE_SECONDS).username == "after"
            assert worker.stop() == 0
    assert place.sql("SELECT username FROM users ORDER BY id") == [("before",), ("after",)]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_worker_exits_with_0_and_leaves_no_connection(place: Place, by: signal.Signals) -> None:
    # Given a worker that holds connections to both servers
    with Running(RUN, place.variables) as worker:
        with SyncProducer(place.redis) as producer:
            producer.enqueue(user("someone")).result(timeout=PATIENCE_SECONDS)
        database, broker = connections(place)
        assert (database > 0, broker > 0) == (True, True)

        # When it is stopped
        code = worker.stop(by)

        # Then it exits with 0, and its connections to both servers are closed
        assert code == 0
        assert "worker_stopped" in worker.output()
        eventually(lambda: connections(place) == (0, 0))


async def test_worker_finishes_its_running_job_before_it_ends(place: Place) -> None:
    with Running(RUN, place.variables) as worker, SyncProducer(place.redis) as producer:
        worker.wait_for("worker_started")

        # Given a job that waits for a lock in the middle of its transaction
        holder = await asyncpg.connect(place.database)
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        job = producer.enqueue(user("slow"))
        eventually(lambda: job.status().value == "claimed")

        # When the worker is stopped, and another job is enqueued after that
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("worker_stopping")
        late = producer.enqueue(user("late"))
        await transaction.rollback()
        await holder.close()

        # Then the running job is done, the other one waits for the next worker, and the exit code is 0
        assert worker.process.wait(PATIENCE_SECONDS) == 0
        assert job.status().value == "done"
        assert late.status().value == "due"


def test_burst_ends_when_the_queue_is_empty(place: Place) -> None:
    with SyncProducer(place.redis) as producer:
        jobs = producer.enqueue_many([user(f"burst{number}") for number in range(30)])

        done = run(*RUN, "--burst", "--concurrency", "4", variables=place.variables)

        assert done.returncode == 0, done.stderr
        assert {job.status().value for job in jobs} == {"done"}
    assert place.count("users") == 30


def test_log_is_json_or_console_text(place: Place) -> None:
    people = {**place.variables, "WORKER_LOG_FORMAT": "console"}
    as_json, for_people = run_together(((*RUN, "--burst"), place.variables), ((*RUN, "--burst"), people))

    assert "worker_started" in [json.loads(line)["event"] for line in as_json.stdout.splitlines()]
    assert "worker_started" in for_people.stdout
    assert not for_people.stdout.startswith("{")


def test_two_workers_start_at_once_on_an_empty_database(place: Place) -> None:
    workers = [Running(RUN, place.variables) for _ in range(2)]
    try:
        for worker in workers:
            worker.wait_for("worker_started")
        with SyncProducer(place.redis) as producer:
            jobs = producer.enqueue_many([user(f"shared{number}") for number in range(60)])
            for job in jobs:
                job.result(timeout=PATIENCE_SECONDS)
        assert place.count("users") == place.count("job_ledger") == 60
        assert [worker.stop() for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.__exit__(None, None, None)
