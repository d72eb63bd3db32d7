"""Workers as real processes: started, frozen, stopped and killed, and checked from outside."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.waiting import PATIENCE_SECONDS

WORKER = ("-m", "worker", "run")
SABOTAGED = ("-m", "tests.faults.sabotage")

MAX_MEMORY_KB = 400_000
MAX_FILES = 200
MAX_TASKS = 40
"""Of an idle worker."""

PROBE = str(Path(__file__).with_name("worker_probe"))


class Workers:
    """Numbered workers; each may be ended in any way and started again.

    Args:
        folder: for their logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: Mapping[str, str] = {}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.expected_to_end: set[int] = set()
        """The pids of workers that were ended or will end themselves."""
        self.special: set[int] = set()
        """The pids of workers that no other run can use."""
        self.crashes: list[str] = []
        """Workers that exited unexpectedly and have since been replaced."""
        self.longest_start_seconds = 0.0
        self._logs: dict[int, Path] = {}
        self._began: dict[int, float] = {}
        self._count = 0

    def start(
        self,
        number: int,
        extra: Mapping[str, str] | None = None,
        *,
        command: Sequence[str] = WORKER,
        kills_itself: bool = False,
    ) -> None:
        """Start a worker, with additions to its environment or with another command."""
        if (old := self.processes.get(number)) is not None and (crash := self._describe_crash(number, old)):
            self.crashes.append(crash)
        self._count += 1
        self._logs[number] = self.folder / f"worker-{self._count}.log"
        probe = {"PYTHONPATH": os.pathsep.join(filter(None, [PROBE, os.environ.get("PYTHONPATH")]))}
        probe["FAULTS_PROBE_FOLDER"] = str(self.folder)
        environment = {**os.environ, **probe, **self.environment, **(extra or {})}
        with self._logs[number].open("wb") as log:
            process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
        self.processes[number] = process
        if extra or command != WORKER:
            self.special.add(process.pid)
        if kills_itself:
            self.expected_to_end.add(process.pid)
        self._began[number] = time.monotonic()

    async def wait_ready(self, *numbers: int) -> None:
        """Wait until these workers, or all, are ready."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for number in numbers or list(self.processes):
            while b'"worker_started"' not in self._logs[number].read_bytes():
                assert self.is_alive(number), f"worker {number} ended:\n{self.log(number)}"
                assert time.monotonic() < deadline, f"worker {number} did not start within {PATIENCE_SECONDS} s"
                await asyncio.sleep(0.02)
            if (began := self._began.pop(number, None)) is not None:
                self.longest_start_seconds = max(self.longest_start_seconds, time.monotonic() - began)

    async def wait_for_log(self, text: str) -> None:
        """Wait until every worker has logged this text since its start."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(text.encode() not in self._logs[number].read_bytes() for number in self.processes):
            assert time.monotonic() < deadline, f"not every worker logged {text} within {PATIENCE_SECONDS} s"
            await asyncio.sleep(0.02)

    def pid(self, number: int) -> int:
        return self.processes[number].pid

    def is_alive(self, number: int) -> bool:
        return self.processes[number].poll() is None

    def log(self, number: int) -> str:
        """The end of a worker's log."""
        return self._logs[number].read_text(errors="replace")[-4000:]

    def freeze(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGCONT)

    def kill(self, number: int) -> None:
        """Kill a worker with SIGKILL."""
        self.expected_to_end.add(self.pid(number))
        self.processes[number].kill()
        self.processes[number].wait()

    async def stop(self, number: int) -> int:
        """Stop a worker with SIGTERM; its exit code."""
        self.expected_to_end.add(self.pid(number))
        self.processes[number].send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.processes[number].wait, PATIENCE_SECONDS)

    async def wait_exit(self, number: int, *, seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait until a worker ends by itself; False if it does not in time."""
        process = self.processes[number]
        try:
            await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill_all(self) -> None:
        """Kill all workers and forget them."""
        for number, process in self.processes.items():
            if self.is_alive(number):
                self.kill(number)
            process.wait()
        self.processes.clear()
        self.expected_to_end.clear()
        self.special.clear()
        self.crashes.clear()

    @property
    def are_reusable(self) -> bool:
        """Whether another run can use these workers."""
        return not self.special & {process.pid for process in self.processes.values()}

    async def find_faults(self, *, seconds: float = PATIENCE_SECONDS) -> list[str]:
        """Workers that exited unexpectedly, have grown too large, or leak tasks or connections."""
        found, self.crashes = self.crashes, []
        for number, process in self.processes.items():
            if process.poll() is not None:
                found += filter(None, [self._describe_crash(number, process)])
                continue
            memory_kb, files = _memory_kb(process.pid), _open_files(process.pid)
            if memory_kb > MAX_MEMORY_KB or files > MAX_FILES:
                found.append(f"worker {number} has {memory_kb} kB and {files} open files")
            deadline = time.monotonic() + seconds
            # An idle worker polls for jobs from time to time: a single report may catch it at that.
            while (report := await self._probe(process.pid)) is not None:
                if report["tasks"] <= MAX_TASKS and not report["checked_out"]:
                    break
                if time.monotonic() > deadline:
                    found.append(f"worker {number} has {report['tasks']} tasks, {report['checked_out']} connections")
                    break
            else:
                found.append(f"worker {number} does not answer: {self.log(number)[-500:]}")
        return found

    async def _probe(self, pid: int) -> dict[str, int] | None:
        """The number of tasks in a worker and of connections taken from its pool; None without an answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        file = self.folder / f"{pid}.json"
        os.kill(pid, signal.SIGUSR2)
        while not file.exists():
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)
        report: dict[str, int] = json.loads(file.read_text())
        file.unlink()
        return report

    def _describe_crash(self, number: int, process: subprocess.Popen[bytes]) -> str | None:
        """A line about a worker that ended by itself; None if it did not."""
        if process.poll() is None or process.pid in self.expected_to_end:
            return None
        return f"worker {number} ended with {process.returncode}: {self.log(number)[-500:]}"


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _memory_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
