"""The supervisor replaces processes that die, stops all that it started, and reports failures in its exit code.

These tests supervise small scripts; `tests/acceptance/test_processes.py` does it with workers.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.waiting import PATIENCE_SECONDS

MAIN = """
import json, sys
from worker.observability import logs
from worker.supervisor import Supervisor
logs.configure("json", "info")
options = json.loads(sys.argv[1])
sys.exit(Supervisor([sys.executable, "-I", "-S", "-c", *sys.argv[2:]], **options).run())
"""

# As a worker does: it waits for SIGTERM, and succeeds.
PATIENT = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
open(sys.argv[1] + f"/{os.getpid()}", "x").close()
while True: signal.pause()
"""


class Running:
    """A supervisor in its own process, which ends with all that it started at the end of the `with` block."""

    def __init__(self, script: str, folder: Path, **options: Any) -> None:
        self.folder = folder
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed with the process
        arguments = {"processes": 2, "stop_seconds": PATIENCE_SECONDS, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, json.dumps(arguments), script, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def output(self) -> str:
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of this event."""
        lines = [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def until(self, question: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := question()):
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)
        return found

    def ready(self, count: int = 2) -> set[int]:
        """The pids of the processes that are ready, once there are this many."""
        return set(self.until(lambda: len(found := self.pids()) >= count and found))

    def pids(self) -> set[int]:
        return {int(path.name) for path in self.folder.iterdir() if path.name.isdigit()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for pid in {self.process.pid, *(event["pid"] for event in self.started())}:
                if self.process.poll() is None or alive(pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.process.wait()
        finally:
            self._log.close()

    def started(self) -> list[dict[str, Any]]:
        return self.events("process_started") + self.events("process_restarted")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def test_all_processes_start_and_end_with_the_supervisor(folder: Path) -> None:
    with Running(PATIENT, folder, processes=3) as running:
        pids = running.ready(3)

        running.process.send_signal(signal.SIGTERM)

        assert running.process.wait(PATIENCE_SECONDS) == 0
        assert {event["pid"] for event in running.events("process_started")} == pids
        assert {event["process"] for event in running.events("process_started")} == {1, 2, 3}
        assert [event["code"] for event in running.events("process_ended")] == [0, 0, 0]
        assert not any(map(alive, pids))


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_is_replaced_and_the_others_continue(folder: Path, by: signal.Signals) -> None:
    with Running(PATIENT, folder) as running:
        first, second = running.ready()

        os.kill(first, by)

        (restarted,) = running.until(lambda: running.events("process_restarted"))
        (ended,) = running.events("process_ended")
        assert (ended["pid"], restarted["process"], restarted["deaths"]) == (first, ended["process"], 1)
        assert ended.get("signal", ended.get("code")) == ("SIGKILL" if by == signal.SIGKILL else 0)
        assert running.ready(3) == {first, second, restarted["pid"]}
        assert alive(second)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE_SECONDS) == 0


def test_a_process_that_keeps_dying_is_replaced_each_time(folder: Path) -> None:
    with Running("import sys; sys.exit(3)", folder, processes=1) as running:
        running.until(lambda: len(running.events("process_restarted")) >= 2)

        assert [event["deaths"] for event in running.events("process_restarted")][:2] == [1, 2]
        assert [event["code"] for event in running.events("process_ended")][:2] == [3, 3]


def test_the_exit_code_is_1_when_a_process_fails_after_the_signal(folder: Path) -> None:
    bad = PATIENT.replace("sys.exit(0)", "sys.exit(4)")
    with Running(bad, folder) as running:
        running.ready()

        running.process.send_signal(signal.SIGTERM)

        assert running.process.wait(PATIENCE_SECONDS) == 1


def test_a_process_without_a_signal_handler_yet_has_succeeded(folder: Path) -> None:
    deaf = PATIENT.replace("lambda *_: sys.exit(0)", "signal.SIG_DFL")
    with Running(deaf, folder) as running:
        running.ready()

        running.process.send_signal(signal.SIGINT)

        assert running.process.wait(PATIENCE_SECONDS) == 0
        assert [event["signal"] for event in running.events("process_ended")] == ["SIGTERM"] * 2


def test_a_process_that_does_not_end_is_killed_after_its_time(folder: Path) -> None:
    stubborn = PATIENT.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
    with Running(stubborn, folder, stop_seconds=0.2) as running:
        pids = running.ready()

        running.process.send_signal(signal.SIGTERM)

        assert running.process.wait(PATIENCE_SECONDS) == 1
        assert {event["pid"] for event in running.events("process_killed")} == pids
        assert not any(map(alive, pids))


def test_the_second_signal_is_forwarded_as_well(folder: Path) -> None:
    twice = PATIENT.replace(
        "lambda *_: sys.exit(0)", "lambda *_: heard.append(1) or (open(sys.argv[1] + '/heard', 'a').write('1'), "
        "len(heard) == 2 and sys.exit(0))"
    ).replace("import os", "heard = []; import os")  # fmt: skip
    with Running(twice, folder, processes=1) as running:
        (pid,) = running.ready(1)
        running.process.send_signal(signal.SIGTERM)
        running.until((folder / "heard").exists)
        assert alive(pid)

        running.process.send_signal(signal.SIGTERM)

        assert running.process.wait(PATIENCE_SECONDS) == 0
        assert [event["again"] for event in running.events("processes_stopping")] == [False, True]


def test_a_supervisor_of_one_run_ends_when_all_processes_have_succeeded(folder: Path) -> None:
    # Given a script that fails the first time
    fails_once = "import sys, pathlib; mark = pathlib.Path(sys.argv[1], 'once'); been = mark.exists(); mark.touch(); sys.exit(not been)"  # noqa: E501
    with Running(fails_once, folder, once=True, processes=1) as running:
        assert running.process.wait(PATIENCE_SECONDS) == 0

        assert [event["code"] for event in running.events("process_ended")] == [1, 0]
        assert len(running.events("process_restarted")) == 1


def test_a_command_that_cannot_start_is_started_again(folder: Path) -> None:
    gone = MAIN.replace('sys.executable, "-I"', '"/nowhere", "-I"')
    process = subprocess.Popen(
        [sys.executable, "-c", gone, '{"processes": 1, "stop_seconds": 1}'], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [event["event"] for event in events] == ["process_not_started"] * 2
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process when its parent dies")
def test_no_process_outlives_a_supervisor_that_is_killed(folder: Path) -> None:
    with Running(PATIENT, folder) as running:
        pids = running.ready()

        running.process.kill()

        running.until(lambda: not any(map(alive, pids)))


def test_signals_of_the_terminal_reach_processes_only_through_the_supervisor(folder: Path) -> None:
    with Running(PATIENT, folder) as running:
        pids = running.ready()

        assert {os.getpgid(pid) for pid in pids} & {os.getpgid(running.process.pid)} == set()
