"""How does one server process live, from its start until the last of its own children is gone?"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Self

from worker.embedded.account import Account
from worker.embedded.errors import EmbeddedError, ServerFailed
from worker.embedded.home import Home
from worker.embedded.process import spawn, wait_until

_POLL_SECONDS = 0.01


class Child:
    """A server process that we started, and the only one that we send signals to."""

    def __init__(
        self,
        name: str,
        home: Home,
        command: Sequence[str],
        *,
        account: Account | None,
        at_owner_death: signal.Signals,
    ) -> None:
        self._name = name
        self._home = home
        self._owner = os.getpid()
        log, family = home.open_log(), home.family.take()
        try:
            self._log_start = os.fstat(log).st_size
            self._process = spawn(command, account=account, log=log, at_owner_death=at_owner_death, inherit=family)
        finally:
            os.close(log)
            os.close(family)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[Self], bool], deadline: float) -> None:
        """Waits until `ready` says so. Raises ServerFailed at `deadline` (time.monotonic()), or if the process ends."""
        while not ready(self):
            if time.monotonic() > deadline:
                raise self._failed("was not ready in time (start_seconds)")
            try:
                code = self._process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise self._failed(f"ended with code {code} while it was starting")

    def end(self, signals: Sequence[signal.Signals], seconds: float) -> None:
        """Sends one signal after the other until the process is gone, giving each `seconds`, then waits for its family.

        Raises EmbeddedError if a part of the family is still alive `seconds` later.
        """
        if self._owner != os.getpid():
            return  # a forked copy of this object, in a child of ours, has no say over the server
        for step in signals:
            self._process.send_signal(step)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            break
        # After a SIGKILL its children go by themselves, once they notice.
        if not wait_until(lambda: not self._home.family.alive(), seconds):
            raise EmbeddedError(f"{self._name} (process {self.pid}), or a child of it, did not end in {seconds:g} s")

    def _failed(self, reason: str) -> ServerFailed:
        return ServerFailed(self._name, reason, self._home.log, self._home.log_tail(self._log_start))
