"""Starts the systems' programs against the benchmark servers."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import NotMeasured
from benchmarks.servers import Servers
from benchmarks.systems import ROOT, System, python_for

CONCURRENCY = 16
_STOP_SECONDS = 15
_CALL_SECONDS = 300
LIMIT_SECONDS = 120.0
"""The longest wait for the jobs of a measurement, the start of the worker included."""
STALL_SECONDS = 12.0
"""A wait ends after this time without progress."""


@dataclass(frozen=True)
class WorkerProcess:
    """A worker that was started."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Raises NotMeasured when the worker has ended."""
        if self.process.poll() is not None:
            last = _last_line(self.log.read_text(errors="replace"))
            raise NotMeasured(f"the worker ended with code {self.process.returncode}: {last}")

    def kill(self) -> None:
        """Send SIGKILL to the worker and its children; return when it is gone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Send SIGTERM, then kill what is left."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            self.kill()
        self.process.wait()


@dataclass(frozen=True)
class Testbed:
    """The servers, and a folder for the workers' logs."""

    servers: Servers
    folder: Path

    def call(self, system: System, database_url: str, *arguments: str) -> dict[str, Any]:
        """Run a program of a system to its end; return what it printed.

        Raises:
            NotMeasured: when it fails, takes too long or cannot be installed.
        """
        command, environment = _command(system, *arguments), self._environment(system, database_url)
        options: Any = {"env": environment, "cwd": ROOT, "capture_output": True, "text": True}
        try:
            done = subprocess.run(command, **options, timeout=_CALL_SECONDS, check=True)  # noqa: S603  # no shell
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{arguments[0]} took longer than {_CALL_SECONDS} s") from None
        except subprocess.CalledProcessError as error:
            raise NotMeasured(f"{arguments[0]} failed: {_last_line(error.stderr)}") from None
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    @contextmanager
    def worker(
        self, system: System, database_url: str, *, command: str = "worker", number: int = 0
    ) -> Iterator[WorkerProcess]:
        """A worker process, stopped at the end. Workers that run side by side have different numbers."""
        log = self.folder / f"worker-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  # no shell
                _command(system, command),
                env=self._environment(system, database_url),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        worker = WorkerProcess(process, log)
        try:
            yield worker
        finally:
            worker.stop()

    def _environment(self, system: System, database_url: str) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": self.servers.embedded.urls.redis,
            "CONCURRENCY": str(CONCURRENCY),
            "WORKER_CONCURRENCY": str(CONCURRENCY),
            **system.settings,
        }


def await_progress(
    workers: Sequence[WorkerProcess],
    read: Callable[[], int],
    goal: float,
    *,
    poll_seconds: float,
    stall_seconds: float = STALL_SECONDS,
) -> tuple[int, float]:
    """Wait until a count reaches the goal, or stalls after it has grown, or the time is over.

    Returns:
        The count and the time of its last change.
    """
    value, moved = read(), time.monotonic()
    deadline = limit = moved + LIMIT_SECONDS
    while value < goal and time.monotonic() < deadline:
        for worker in workers:
            worker.check()
        time.sleep(poll_seconds)
        if (found := read()) > value:
            value, moved = found, time.monotonic()
            deadline = min(limit, moved + stall_seconds)
    return value, moved


def _command(system: System, *arguments: str) -> list[str]:
    return [python_for(system), "-m", f"benchmarks.adapters.{system.adapter}", *arguments]


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1][:200]
