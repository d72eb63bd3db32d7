"""The systems that are measured, in their variants, and how their programs are started."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.environments import NotInstallable, interpreter
from worker.settings import Settings

CONCURRENCY = 16
STOP_SECONDS = 15
CALL_SECONDS = 300


class NotMeasured(Exception):
    """There is no figure; the text says why."""


@dataclass(frozen=True)
class System:
    """One way to run jobs."""

    label: str
    peer: str | None = None
    """The name of its program and its environment; None: ours."""
    settings: Mapping[str, str] = field(default_factory=dict)
    worker: str = "worker"
    """What its program is told to be."""

    def command(self, *arguments: str) -> list[str]:
        """The command line of its program.

        Raises:
            NotMeasured: when it is not to be had here.
        """
        if self.peer is None:
            if "WORKER_BATCH_SIZE" in self.settings and "batch_size" not in Settings.model_fields:
                raise NotMeasured("not available: this version of the worker has no WORKER_BATCH_SIZE")
            return [sys.executable, "-m", "benchmarks.ours", *arguments]
        try:
            return [str(interpreter(self.peer)), "-m", f"benchmarks.peers.{self.peer}", *arguments]
        except NotInstallable as error:
            raise NotMeasured(str(error)) from None


NAMES = {
    "arq": "stock arq",
    "saq": "SAQ",
    "taskiq": "taskiq",
    "streaq": "streaq",
    "procrastinate": "procrastinate",
    "celery": "Celery",
}
USUAL = tuple(System(f"{NAMES[peer]}, usual", peer, {"HANDLERS": "usual"}) for peer in environments.PINS)
BEST = tuple(System(f"{NAMES[peer]}, best", peer, {"HANDLERS": "best"}) for peer in environments.PINS)
PEERS = tuple(System(NAMES[peer], peer, {"HANDLERS": "best"}) for peer in environments.PINS)
ARQ_AS_IT_COMES = System(f"{NAMES['arq']}, as it comes", "arq", {"HANDLERS": "usual", "AS_IT_COMES": "1"})
OURS = System("ours")
OURS_NOOP = System("ours", worker="noop")
OURS_SESSION = System("ours, a session a job")
OURS_BATCH = System("ours, batches of 64", settings={"WORKER_BATCH_SIZE": "64"})


@dataclass(frozen=True)
class Programs:
    """Starts the programs of systems, on some servers."""

    folder: Path
    redis_url: str

    def call(self, system: System, database_url: str, *arguments: str) -> dict[str, Any]:
        """Run a program to its end; what it printed."""
        try:
            done = subprocess.run(  # noqa: S603  # no shell, and the command is ours
                system.command(*arguments),
                env=self._environment(system, database_url),
                cwd=environments.ROOT,
                capture_output=True,
                text=True,
                timeout=CALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{arguments[0]} took longer than {CALL_SECONDS} s") from None
        if done.returncode:
            raise NotMeasured(f"{arguments[0]} failed: {_last_line(done.stderr)}")
        result: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        return result

    @contextmanager
    def worker(self, system: System, database_url: str, number: int = 0) -> "Iterator[Worker]":
        """A worker process, which is stopped at the end; `number` tells those that run side by side apart."""
        log = self.folder / f"worker-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  # no shell, and the command is ours
                system.command(system.worker),
                env=self._environment(system, database_url),
                cwd=environments.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        try:
            yield Worker(process, log)
        finally:
            _stop(process)

    def forget_counts(self) -> None:
        """Begin to count from nought."""
        for file in self.counters.iterdir():
            file.unlink()

    @property
    def counters(self) -> Path:
        """Where the processes of a worker count their jobs."""
        folder = self.folder / "counters"
        folder.mkdir(exist_ok=True)
        return folder

    def _environment(self, system: System, database_url: str) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": self.redis_url,
            "CONCURRENCY": str(CONCURRENCY),
            "WORKER_CONCURRENCY": str(CONCURRENCY),
            "COUNTERS": str(self.counters),
            **system.settings,
        }


@dataclass(frozen=True)
class Worker:
    """A worker that was started."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Raises NotMeasured when the worker has ended, which it should not."""
        if self.process.poll() is not None:
            last = _last_line(self.log.read_text(errors="replace"))
            raise NotMeasured(f"the worker ended with code {self.process.returncode}: {last}")

    def kill(self) -> None:
        """SIGKILL, to it and to all that it has started; returns when it is gone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        # Whatever it left behind.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["without a word"])[-1][:200]
