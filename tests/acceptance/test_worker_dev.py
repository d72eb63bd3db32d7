"""`worker dev` runs servers and a worker for other processes, and leaves nothing behind."""

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import HASH, PRODUCERS, WORKER, Running, eventually, run
from tests.acceptance.conftest import Place
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.timeout(HANG_SECONDS)

DEV = (*WORKER, "dev")
PRINTED = re.compile(r"^export (DATABASE_URL|REDIS_URL)=(\S+)$", re.MULTILINE)
CREATE_USER = (*PRODUCERS, "create-user", "--hashed-password", "-", "--wait", "300")


def started(worker: Running) -> dict[str, str]:
    """The variables that the command prints for other terminals."""
    variables = dict(PRINTED.findall(worker.wait_for("worker_started", seconds=HANG_SECONDS)))
    assert variables.keys() == {"DATABASE_URL", "REDIS_URL"}
    return variables


def create_user(name: str, variables: dict[str, str]) -> dict[str, Any]:
    """Enqueue a job from another process, and return its reply."""
    words = ("--username", name, "--email", f"{name}@example.com")
    done = run(*CREATE_USER, *words, variables={"REDIS_URL": variables["REDIS_URL"]}, text=HASH, seconds=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["status"] == "done"
    reply: dict[str, Any] = answer["reply"]
    return reply


def listening(variables: dict[str, str]) -> list[str]:
    """The names of the variables whose server accepts connections."""
    found = []
    for name, url in variables.items():
        with socket.socket() as probe:
            probe.settimeout(HANG_SECONDS)
            if probe.connect_ex(("127.0.0.1", int(re.findall(r"@127\.0\.0\.1:(\d+)/", url)[0]))) == 0:
                found.append(name)
    return found


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 129)])
def test_ephemeral_dev_runs_jobs_and_leaves_nothing_after_a_signal(
    reachable: Path, by: signal.Signals, code: int
) -> None:
    with Running((*DEV, "--ephemeral"), {"TMPDIR": str(reachable)}) as worker:
        # given the URLs that it printed
        variables = started(worker)
        assert listening(variables) == ["DATABASE_URL", "REDIS_URL"]
        assert list(reachable.glob("userpost-worker-*/*")) != []

        # when another process enqueues a job, then it is done, and the row exists
        reply = create_user("ada", variables)
        rows = Place(variables["DATABASE_URL"], variables["REDIS_URL"]).sql("SELECT id, username FROM users")
        assert rows == [(reply["id"], "ada")]

        # when it receives the signal, then neither servers nor data are left
        assert worker.stop(by, seconds=HANG_SECONDS) == code
        assert listening(variables) == []
        assert list(reachable.glob("userpost-worker-*/postgresql")) == []


def test_dev_keeps_data_and_refuses_a_second_one_in_its_folder(kept: Path) -> None:
    folder = ("--folder", str(kept))
    with Running((*DEV, *folder)) as worker:
        variables = started(worker)
        reply = create_user("kept", variables)

        # when a second one is started on the same data
        second = run(*DEV, *folder, seconds=HANG_SECONDS)

        # then it names the process that holds it and how to fix it, and the first one continues
        assert second.returncode == 2
        assert second.stdout == ""
        assert f"servers are already running in {kept}, held by process {worker.process.pid}" in second.stderr
        assert "--ephemeral" in second.stderr
        assert "Traceback" not in second.stderr
        assert create_user("beside", variables)["id"] == reply["id"] + 1

        # when the first one is interrupted, then it ends with 0, and no server is left
        assert worker.stop(signal.SIGINT, seconds=HANG_SECONDS) == 0
        assert listening(variables) == []

    # when it is started again, then the URLs and the data are the same
    with Running((*DEV, *folder)) as worker:
        assert started(worker) == variables
        assert ("kept",) in Place(variables["DATABASE_URL"], "").sql("SELECT username FROM users")
        assert worker.stop(seconds=HANG_SECONDS) == 0


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda by: by.name)
def test_dev_leaves_nothing_after_a_signal_during_its_start(reachable: Path, by: signal.Signals) -> None:
    with Running((*DEV, "--ephemeral"), {"TMPDIR": str(reachable)}) as worker:
        # given that its data folder is being created
        eventually(lambda: creates_data(worker, reachable), seconds=HANG_SECONDS)

        code = worker.stop(by, seconds=HANG_SECONDS)

        assert code != 0
        assert "Traceback" not in worker.output()
        assert list(reachable.glob("userpost-worker-*/postgresql")) == []


def creates_data(worker: Running, folder: Path) -> bool:
    """Whether a data folder is being created. The command must still be running."""
    assert worker.process.poll() is None, worker.output()
    return any(folder.glob("userpost-worker-*/postgresql/.new-*"))


def test_dev_refuses_a_folder_with_ephemeral(reachable: Path) -> None:
    done = run(*DEV, "--ephemeral", "--folder", str(reachable), seconds=HANG_SECONDS)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--folder or --ephemeral" in done.stderr
