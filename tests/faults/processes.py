"""Workers as real processes: started, frozen, stopped and killed, and looked at from outside."""

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

MOST_MEMORY_KB = 400_000
MOST_FILES = 200
MOST_TASKS = 40
"""In a worker that has nothing to do."""

INSIDE = str(Path(__file__).with_name("inside"))


class Workers:
    """Some workers, by number; each may be ended in any way and begun again.

    Args:
        folder: where their logs go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: Mapping[str, str] = {}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.meant_to_end: set[int] = set()
        """The pids of those that were ended, or were to end."""
        self.odd: set[int] = set()
        """The pids of those that are not as the others: no next run can use them."""
        self.fallen: list[str] = []
        """Those that ended though nothing ended them, and that others have replaced."""
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
        doomed: bool = False,
    ) -> None:
        """Start a worker, with more in its environment, or by another command; `doomed` when it will kill itself."""
        if (before := self.processes.get(number)) is not None and (fell := self._fell(number, before)):
            self.fallen.append(fell)
        self._count += 1
        self._logs[number] = self.folder / f"worker-{self._count}.log"
        own = {"PYTHONPATH": os.pathsep.join(filter(None, [INSIDE, os.environ.get("PYTHONPATH")]))}
        environment = {**os.environ, **own, "FAULTS_INSIDE": str(self.folder), **self.environment, **(extra or {})}
        with self._logs[number].open("wb") as log:
            process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
        self.processes[number] = process
        if extra or command != WORKER:
            self.odd.add(process.pid)
        if doomed:
            self.meant_to_end.add(process.pid)
        self._began[number] = time.monotonic()

    async def started(self, *numbers: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until these workers are ready."""
        deadline = time.monotonic() + seconds
        for number in numbers or list(self.processes):
            while b'"worker_started"' not in self._logs[number].read_bytes():
                assert self.alive(number), f"worker {number} ended:\n{self.log(number)}"
                assert time.monotonic() < deadline, f"worker {number} did not start within {seconds} s"
                await asyncio.sleep(0.02)
            if (began := self._began.pop(number, None)) is not None:
                self.longest_start_seconds = max(self.longest_start_seconds, time.monotonic() - began)

    async def logged(self, what: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until every worker has logged this text since its start."""
        deadline = time.monotonic() + seconds
        while any(what.encode() not in self._logs[number].read_bytes() for number in self.processes):
            assert time.monotonic() < deadline, f"not every worker logged {what} within {seconds} s"
            await asyncio.sleep(0.02)

    def pid(self, number: int) -> int:
        """The process id of a worker."""
        return self.processes[number].pid

    def alive(self, number: int) -> bool:
        """Whether a worker's process is there."""
        return self.processes[number].poll() is None

    def log(self, number: int) -> str:
        """The end of a worker's log."""
        return self._logs[number].read_text(errors="replace")[-4000:]

    def freeze(self, number: int) -> None:
        """Stop a worker where it stands."""
        self.processes[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let a frozen worker go on."""
        self.processes[number].send_signal(signal.SIGCONT)

    def kill(self, number: int) -> None:
        """End a worker as a power cut does."""
        self.meant_to_end.add(self.pid(number))
        self.processes[number].kill()
        self.processes[number].wait()

    async def stop(self, number: int, *, seconds: float = PATIENCE_SECONDS) -> int:
        """End a worker as a deployment does; its exit code."""
        self.meant_to_end.add(self.pid(number))
        self.processes[number].send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.processes[number].wait, seconds)

    async def ended(self, number: int, *, seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait for a worker that is to end by itself; whether it did in time."""
        process = self.processes[number]
        try:
            await asyncio.to_thread(process.wait, seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end_all(self) -> None:
        """Leave none behind."""
        for number, process in self.processes.items():
            if self.alive(number):
                self.kill(number)
            process.wait()
        self.processes.clear()
        self.meant_to_end.clear()
        self.odd.clear()
        self.fallen.clear()

    @property
    def usual(self) -> bool:
        """Whether the workers are such that another run can use them."""
        return not self.odd & {process.pid for process in self.processes.values()}

    async def wrong(self, *, seconds: float = PATIENCE_SECONDS) -> list[str]:
        """Workers that ended though nothing ended them, that have grown too large, or that hold on to something."""
        found, self.fallen = self.fallen, []
        for number, process in self.processes.items():
            if process.poll() is not None:
                found += filter(None, [self._fell(number, process)])
                continue
            memory_kb, files = _memory_kb(process.pid), _open_files(process.pid)
            if memory_kb > MOST_MEMORY_KB or files > MOST_FILES:
                found.append(f"worker {number} has {memory_kb} kB and {files} open files")
            deadline = time.monotonic() + seconds
            # A worker that has nothing to do still looks for jobs now and then: it may be seen at that.
            while (inside := await self._inside(process.pid)) is not None:
                if inside["tasks"] <= MOST_TASKS and not inside["checked_out"]:
                    break
                if time.monotonic() > deadline:
                    found.append(f"worker {number} has {inside['tasks']} tasks, {inside['checked_out']} connections")
                    break
            else:
                found.append(f"worker {number} does not answer: {self.log(number)[-500:]}")
        return found

    async def _inside(self, pid: int, *, seconds: float = PATIENCE_SECONDS) -> dict[str, int] | None:
        """A worker's report on itself: its tasks, and the connections that are not in their pool."""
        deadline = time.monotonic() + seconds
        answer = self.folder / f"{pid}.json"
        os.kill(pid, signal.SIGUSR2)
        while (report := _taken(answer)) is None:
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.02)
        return report

    def _fell(self, number: int, process: subprocess.Popen[bytes]) -> str | None:
        """A line on a worker that ended by itself; None when it did not."""
        if process.poll() is None or process.pid in self.meant_to_end:
            return None
        return f"worker {number} ended with {process.returncode}: {self.log(number)[-500:]}"


def _taken(answer: Path) -> dict[str, int] | None:
    """Read and remove a report; None while it is not there."""
    if not answer.exists():
        return None
    report: dict[str, int] = json.loads(answer.read_text())
    answer.unlink()
    return report


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _memory_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
