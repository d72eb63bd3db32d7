"""How the real commands are run as processes: each bounded in time, each ended by the test that started it."""

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

# In its form only: nobody's password has this hash.
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZSBzYWx0IGhlcmU$bm90IGEgcmVhbCBoYXNoLCBvbmx5IGl0cyBmb3Jt"

T = TypeVar("T")


def environment(variables: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment, without what would reach into the tests, and with the environment's programs."""
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
    """Run commands, each with its variables, side by side; what became of them, in the same order."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda call: run(*call[0], variables=call[1]), calls))


def eventually(look: Callable[[], T], *, seconds: float = PATIENCE_SECONDS, hint: Callable[[], str] = str) -> T:
    """What `look` finds as soon as it finds something; AssertionError, with the hint, when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {hint()}"
        time.sleep(0.02)
    return found


class Running:
    """A command that goes on until it is told to stop. At the end of the `with` block it is gone in any case."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str] = {}) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed with the process
        # A shell lets its background jobs ignore this signal, and all that they start inherits that.
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
        """All that it has printed so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    def wait_for(self, *texts: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until it has printed each of these; all that it has printed."""

        def said() -> str:
            output = self.output()
            if all(text in output for text in texts):
                return output
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{output}"
            return ""

        return eventually(said, seconds=seconds, hint=lambda: f"{texts} in\n{self.output()}")

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
