"""The processes of `worker run --processes` work as one, lose nothing when one is killed, and end together."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from producers import CreateUser, SyncProducer
from tests.acceptance.commands import HASH, WORKER, Running, eventually, run
from tests.acceptance.conftest import Place
from tests.waiting import PATIENCE_SECONDS

RUN = (*WORKER, "run", "--processes", "2")
FAST = {"WORKER_LEASE_SECONDS": "2"}


def user(name: str) -> CreateUser:
    return CreateUser(email=f"{name}@example.com", username=name, hashed_password=HASH)


def events(worker: Running, name: str) -> list[dict[str, Any]]:
    """The complete log lines of this event."""
    lines = [json.loads(line) for line in worker.output().splitlines(keepends=True) if line.endswith("}\n")]
    return [line for line in lines if line["event"] == name]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(worker: Running, count: int) -> list[int]:
    """The pids of the processes, once this many workers have started."""
    eventually(lambda: len(events(worker, "worker_started")) >= count, hint=worker.output)
    return [event["pid"] for name in ("process_started", "process_restarted") for event in events(worker, name)]


def test_all_jobs_are_done_when_a_process_is_killed_and_all_processes_end_at_sigterm(place: Place) -> None:
    with Running(RUN, {**place.variables, **FAST}) as worker, SyncProducer(place.redis) as producer:
        # Given two processes in the middle of many jobs
        first, second = started(worker, 2)
        jobs = producer.enqueue_many([user(f"user{number}") for number in range(400)])
        eventually(lambda: place.count("users") > 20)

        # When one is killed
        os.kill(first, signal.SIGKILL)

        # Then it is replaced, and every job is done, once
        _, _, third = started(worker, 3)
        assert [job.result(timeout=PATIENCE_SECONDS).username for job in jobs] == [
            f"user{number}" for number in range(400)
        ]
        assert place.count("users") == place.count("job_ledger") == 400
        (ended,) = events(worker, "process_ended")
        assert (ended["pid"], ended["signal"]) == (first, "SIGKILL")
        status = json.loads(run(*WORKER, "status", variables=place.variables).stdout)
        assert {f":{second}", f":{third}"} <= {each["name"][each["name"].index(":") :] for each in status["workers"]}

        # When it is stopped, then all processes succeed, and none is left
        assert worker.stop() == 0
        assert not any(map(alive, (first, second, third)))
        assert len(events(worker, "worker_stopped")) == 2
        assert "Traceback" not in worker.output()


def test_a_burst_ends_when_the_queue_is_empty_and_options_are_passed_on(place: Place) -> None:
    with SyncProducer(place.redis) as producer:
        jobs = producer.enqueue_many([user(f"burst{number}") for number in range(40)])

        done = run(*RUN, "--burst", "--concurrency", "3", "--batch-size", "7", variables=place.variables)

        assert done.returncode == 0, done.stdout
        assert {job.status().value for job in jobs} == {"done"}
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["concurrency"] for line in lines if line["event"] == "worker_started"] == [3, 3]
    assert [line["batch_size"] for line in lines if line["event"] == "worker_started"] == [7, 7]
    assert [line["code"] for line in lines if line["event"] == "process_ended"] == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process when its parent dies")
def test_no_process_outlives_its_supervisor(place: Place) -> None:
    with Running(RUN, place.variables) as worker:
        pids = started(worker, 2)

        worker.process.kill()

        eventually(lambda: not any(map(alive, pids)), hint=worker.output)
        assert len(events(worker, "worker_stopped")) == 2


def test_a_wrong_environment_starts_no_process(place: Place) -> None:
    done = run(*RUN, variables={**place.variables, "WORKER_MAX_TRIES": "many"})

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("WORKER_MAX_TRIES='many' is not allowed")
