"""`worker dev`: real servers and a worker in one process, used from outside, and gone when it ends."""

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import HASH, PRODUCERS, WORKER, Running, eventually, run
from tests.acceptance.conftest import Place

DEV = (*WORKER, "dev")
PRINTED = re.compile(r"^export (DATABASE_URL|REDIS_URL)=(\S+)$", re.MULTILINE)
CREATE_USER = (*PRODUCERS, "create-user", "--hashed-password", "-", "--wait", "20")


def started(worker: Running) -> dict[str, str]:
    """The variables that it has printed for other terminals."""
    variables = dict(PRINTED.findall(worker.wait_for("worker_started")))
    assert variables.keys() == {"DATABASE_URL", "REDIS_URL"}
    return variables


def create_user(name: str, variables: dict[str, str]) -> dict[str, Any]:
    """The reply to a job that another process enqueues, as another terminal would."""
    words = ("--username", name, "--email", f"{name}@example.com")
    done = run(*CREATE_USER, *words, variables={"REDIS_URL": variables["REDIS_URL"]}, text=HASH)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["status"] == "done"
    reply: dict[str, Any] = answer["reply"]
    return reply


def listening(variables: dict[str, str]) -> list[str]:
    """The names of the variables whose server takes connections."""
    found = []
    for name, url in variables.items():
        with socket.socket() as probe:
            probe.settimeout(2)
            if probe.connect_ex(("127.0.0.1", int(re.findall(r"@127\.0\.0\.1:(\d+)/", url)[0]))) == 0:
                found.append(name)
    return found


def test_ephemeral_runs_jobs_of_other_processes_and_leaves_nothing_at_sigterm(reachable: Path) -> None:
    with Running((*DEV, "--ephemeral"), {"TMPDIR": str(reachable)}) as worker:
        # Given the URLs that it printed
        variables = started(worker)
        assert listening(variables) == ["DATABASE_URL", "REDIS_URL"]
        assert list(reachable.glob("userpost-worker-*/*")) != []

        # When another process enqueues a job, then it is done, and the row is there
        reply = create_user("ada", variables)
        rows = Place(variables["DATABASE_URL"], variables["REDIS_URL"]).sql("SELECT id, username FROM users")
        assert rows == [(reply["id"], "ada")]

        # When it is told to stop, then it ends with 0, and neither servers nor data are left
        assert worker.stop(signal.SIGTERM) == 0
        assert listening(variables) == []
        assert list(reachable.glob("userpost-worker-*/postgresql")) == []


def test_kept_data_is_there_again_and_a_second_one_beside_it_is_refused(kept: Path) -> None:
    folder = ("--folder", str(kept))
    with Running((*DEV, *folder)) as worker:
        variables = started(worker)
        reply = create_user("kept", variables)

        # When a second one is started on the same data
        second = run(*DEV, *folder)

        # Then it says who has it and what to do, and the first goes on
        assert second.returncode == 2
        assert second.stdout == ""
        assert f"servers are already running in {kept}, held by process {worker.process.pid}" in second.stderr
        assert "--ephemeral" in second.stderr
        assert "Traceback" not in second.stderr
        assert create_user("beside", variables)["id"] == reply["id"] + 1

        # When it is interrupted, then it ends with 0, and no server is left
        assert worker.stop(signal.SIGINT) == 0
        assert listening(variables) == []

    # When it is started again, then the URLs and the data are those of before
    with Running((*DEV, *folder)) as worker:
        assert started(worker) == variables
        assert ("kept",) in Place(variables["DATABASE_URL"], "").sql("SELECT username FROM users")
        assert worker.stop() == 0


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_it_starts_it_leaves_nothing(reachable: Path, by: signal.Signals) -> None:
    with Running((*DEV, "--ephemeral"), {"TMPDIR": str(reachable)}) as worker:
        # Given that its servers are being made
        eventually(lambda: list(reachable.glob("userpost-worker-*/postgresql/.new-*")))

        code = worker.stop(by)

        assert code != 0
        assert "Traceback" not in worker.output()
        assert list(reachable.glob("userpost-worker-*/postgresql")) == []


def test_folder_and_ephemeral_exclude_each_other(reachable: Path) -> None:
    done = run(*DEV, "--ephemeral", "--folder", str(reachable))

    assert (done.returncode, done.stdout) == (2, "")
    assert "--folder or --ephemeral" in done.stderr
