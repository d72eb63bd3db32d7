"""`/livez` and `/readyz` answer quickly and correctly, whatever the servers do."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

from producers import SyncProducer
from tests.acceptance.commands import HASH, WORKER, Running, eventually, run
from tests.acceptance.conftest import FAST, Place
from tests.acceptance.pages import Metrics, free_port, page, ready
from tests.waiting import PATIENCE_SECONDS, Stopwatch
from worker.embedded import PostgresServer, ValkeyServer


@pytest.fixture(scope="module")
def postgres(reachable_for_all: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL that is stopped and started."""
    server = PostgresServer(reachable_for_all / "postgresql-on-and-off", settings=FAST)
    server.start()
    yield server
    server.stop("immediate")


@pytest.fixture(scope="module")
def valkey(reachable_for_all: Path) -> Iterator[ValkeyServer]:
    """A Valkey that is stopped and started."""
    server = ValkeyServer(reachable_for_all / "valkey-on-and-off")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def worker(postgres: PostgresServer, valkey: ValkeyServer, port: int) -> Iterator[Running]:
    variables = {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url, "WORKER_HTTP_PORT": str(port)}
    with Running((*WORKER, "run"), variables) as worker:
        eventually(lambda: ready(port)[0] == 200, hint=worker.output)
        yield worker


def test_readyz_answers_503_within_three_seconds_when_postgresql_stops_and_200_when_it_starts(
    postgres: PostgresServer, worker: Running, port: int
) -> None:
    # When PostgreSQL stops under an idle worker, which has no other reason to notice
    postgres.stop("immediate")
    stopped = Stopwatch()

    # Then it is not ready within three seconds, with the reason, and lives
    eventually(lambda: ready(port)[0] == 503)
    assert stopped.seconds() < 3
    status, answer = ready(port)
    assert (status, answer["ready"], list(answer["reasons"])) == (503, False, ["database"])
    assert answer["reasons"]["database"].startswith("the database cannot be reached")
    assert page(port, "/livez")[0] == 200

    # And when it is started again, it is ready by itself
    postgres.start()
    eventually(lambda: ready(port)[0] == 200, hint=worker.output)


def test_readyz_answers_503_when_redis_stops_and_metrics_keep_what_the_worker_itself_knows(
    valkey: ValkeyServer, worker: Running, port: int
) -> None:
    valkey.stop()
    stopped = Stopwatch()

    eventually(lambda: ready(port)[0] == 503)
    assert stopped.seconds() < 3
    assert list(ready(port)[1]["reasons"]) == ["redis"]
    eventually(lambda: Metrics(port).by("worker_server_up", "server") == {("redis",): 0, ("database",): 1})
    assert Metrics(port).by("worker_queue_jobs") == {}, "an unknown number is missing, not 0"

    valkey.start()
    eventually(lambda: ready(port)[0] == 200, hint=worker.output)
    assert Metrics(port).by("worker_queue_jobs", "state")[("due",)] == 0


def test_every_page_answers_in_time_when_redis_hangs(valkey: ValkeyServer, worker: Running, port: int) -> None:
    # Given a Redis that accepts everything and answers nothing
    os.kill(valkey.pid, signal.SIGSTOP)
    stopped = Stopwatch()
    try:
        # Then it is not ready, and every page answers meanwhile
        eventually(lambda: ready(port)[0] == 503)
        assert stopped.seconds() < 3
        for path, expected, longest in (("/readyz", 503, 2.0), ("/livez", 200, 1.0), ("/metrics", 200, 3.0)):
            watch = Stopwatch()
            assert page(port, path)[0] == expected
            assert watch.seconds() < longest
        assert ready(port)[1]["reasons"]["redis"].startswith("no answer within")
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    eventually(lambda: ready(port)[0] == 200, hint=worker.output)


def test_it_lives_and_is_not_ready_before_the_servers_start(port: int) -> None:
    variables = {
        "DATABASE_URL": "postgresql://someone@127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "WORKER_HTTP_PORT": str(port),
    }
    with Running((*WORKER, "run"), variables) as worker:
        eventually(lambda: page(port, "/livez")[0] == 200, hint=worker.output)
        status, answer = ready(port)
        assert status == 503
        assert answer["reasons"].keys() == {"worker", "redis", "database"}
        assert worker.stop() == 0


async def test_it_is_not_ready_while_it_drains(place: Place, port: int) -> None:
    variables = {**place.variables, "WORKER_HTTP_PORT": str(port)}
    with Running((*WORKER, "run"), variables) as worker, SyncProducer(place.redis) as producer:
        eventually(lambda: ready(port)[0] == 200, hint=worker.output)

        # Given a job that waits for a lock
        holder = await asyncpg.connect(place.database)
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        job = producer.create_user(email="slow@example.com", username="slow", hashed_password=HASH)
        eventually(lambda: job.status().value == "claimed")

        # When the worker is to stop, then it is not ready for as long as the job takes
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: ready(port) == (503, {"ready": False, "reasons": {"worker": "it is stopping"}}))
        assert page(port, "/livez")[0] == 200
        await transaction.rollback()
        await holder.close()
        assert worker.process.wait(PATIENCE_SECONDS) == 0


def test_nothing_listens_unless_a_port_is_set(place: Place, port: int) -> None:
    with Running((*WORKER, "run"), place.variables) as worker:
        worker.wait_for("worker_started")
        assert "http_listening" not in worker.output()


def test_a_wrong_port_is_refused(place: Place) -> None:
    done = run(*WORKER, "run", variables={**place.variables, "WORKER_HTTP_PORT": "http"})

    assert done.returncode == 2
    assert done.stderr.startswith("WORKER_HTTP_PORT='http' is not allowed")
