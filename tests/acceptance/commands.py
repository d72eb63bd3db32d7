"""Runs the real commands as processes: each has a time limit, and the test that starts it ends it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
WORKER = (sys.executable, "-m", "worker")
PRODUCERS = (sys.executable, "-m", "producers")
ARQ = (str(BIN / "arq"),)

# It has the form of a hash, and is the hash of no password.
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"

T = TypeVar("T")


def environment(variables: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment, without variables that affect the tests, and with `.venv/bin` on the path."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER_", "MAKE", "MFLAGS"))}
    for name in ("DATABASE_URL", "REDIS_URL", "FORCE_COLOR", "COLUMNS"):
        ours.pop(name, None)
    path = os.pathsep.join((str(BIN), os.environ.get("PATH", os.defpath)))
    return {**ours, "PATH": path, **variables}


def run(
    *command: str,
    variables: Mapping[str, str] = {},
    text: str = "",
    seconds: float = PATIENCE_SECONDS,
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with `text` as its input."""
    return subprocess.run(
        command,
        env=environment(variables),
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run_together(*calls: tuple[Sequence[str], Mapping[str, str]]) -> list[subprocess.CompletedProcess[str]]:
    """Run commands side by side, each with its variables; their results in the same order."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda call: run(*call[0], variables=call[1]), calls))


def eventually(
    question: Callable[[], T | None], *, seconds: float = PATIENCE_SECONDS, hint: Callable[[], str] = str
) -> T:
    """The first true answer to the question; AssertionError with the hint when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := question()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {hint()}"
        time.sleep(0.02)
    return found


class Running:
    """A command that runs until it is stopped, at the latest at the end of the `with` block."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str] = {}) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed with the process
        # A shell makes its background jobs ignore this signal, and their children inherit that.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            self.process = subprocess.Popen(
                command,
                env=environment(variables),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def output(self) -> str:
        """Its output so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    def wait_for(self, *texts: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until it has printed each of these; its output so far."""

        def printed() -> str:
            output = self.output()
            if all(text in output for text in texts):
                return output
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{output}"
            return ""

        return eventually(printed, seconds=seconds, hint=lambda: f"{texts} in\n{self.output()}")

    def stop(self, by: signal.Signals = signal.SIGTERM, *, seconds: float = PATIENCE_SECONDS) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(by)
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.process.poll() is None:
                self.process.terminate()
                try:
                    self.process.wait(PATIENCE_SECONDS)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
        finally:
            self._log.close()
