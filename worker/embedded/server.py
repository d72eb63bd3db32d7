"""The life of an embedded server: start, stop, kill, and the port it listens on."""

import atexit
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from worker.embedded import ports
from worker.embedded.errors import EmbeddedError, ServerFailed
from worker.embedded.folder import ServerFolder, lock_folder, make_folder
from worker.embedded.process import Account, deferred_signals, launch, wait_until

T = TypeVar("T")

_POLL_SECONDS = 0.01


class Server(ABC):
    """One server and its folder.

    Any thread may call the methods, but only one at a time. The server ends with this process, unless that is killed:
    then the server keeps running until the next start in its folder ends it.
    """

    name: ClassVar[str]
    stop_signals: ClassVar[Sequence[signal.Signals]]
    defaults: ClassVar[Mapping[str, str]]

    # Generous, because only a server that hangs takes this long: one that ends is noticed at once.
    start_seconds = 120.0
    stop_seconds = 30.0
    """For each step of a stop, from the mildest to SIGKILL."""

    def __init__(self, folder: Path, *, port: int | None = None, settings: Mapping[str, str] = {}) -> None:
        """`folder` is created if it is missing. Without `port`, the port of its last start is used if it is free.

        `settings` are added to `defaults` or replace them, as in the server's configuration file.
        """
        if any("\n" in word for setting in settings.items() for word in setting):
            raise ValueError("settings must not hold line breaks: each would begin another setting")
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self._files = ServerFolder(self.folder)
        self._settings = {**self.defaults, **settings}
        self._port = port
        self._port_is_fixed = port is not None
        self._password: str | None = None
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = os.getpid()

    def start(self) -> None:
        """Start the server, and return when it accepts connections. Raises AlreadyRunning or another EmbeddedError.

        Later starts of one object use the same port, because clients hold its URL.
        """
        if self.running:
            raise EmbeddedError(f"{self.name} is running already, as process {self.pid}: stop() it first")
        deadline = time.monotonic() + self.start_seconds
        try:
            make_folder(self.folder, self._account())
            if self._lock is None:
                self._lock = lock_folder(self.folder)
            try:
                self._password = self._files.password(create=not self.data.exists())
                self._stop_leftover()
                self._prepare(deadline)
                self._start_on_free_port(deadline)
            except BaseException:
                self.stop()
                raise
        except OSError as error:
            raise EmbeddedError(
                f"{self.name} cannot start in {self.folder}: {error}; choose another folder, or --ephemeral"
            ) from error

    def stop(self) -> None:
        """Stop the server, by force if that takes too long, and release the folder. Safe to repeat."""
        self._stop(self.stop_signals)

    def kill(self) -> None:
        """Send SIGKILL, and wait until no process of the server is left. The folder stays locked for start()."""
        self._end((signal.SIGKILL,))

    @property
    def running(self) -> bool:
        """Whether the server that start() started is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the server's main process. Raises EmbeddedError if the server is not running."""
        return self._if_started(self._process.pid if self._process and self.running else None)

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1. Raises EmbeddedError before the first start, unless a port was given."""
        return self._if_started(self._port)

    @property
    def password(self) -> str:
        """The password of the only user. Raises EmbeddedError before the first start."""
        return self._if_started(self._password)

    def _if_started(self, value: T | None) -> T:
        if value is None:
            raise EmbeddedError(f"{self.name} is not running: call start() first")
        return value

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients, with the password. Raises EmbeddedError before the first start."""

    @abstractmethod
    def _account(self) -> Account | None:
        """The account that the server runs under, or None for the current user."""

    @abstractmethod
    def _prepare(self, deadline: float) -> None:
        """Prepare the folder for a start. No process of the server is alive."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The command line of the server. Every user of this machine can read it, so it holds no password."""

    @abstractmethod
    def _is_ready(self, pid: int) -> bool:
        """Whether the server with this process id accepts connections."""

    @abstractmethod
    def _end_leftover(self, port: int) -> None:
        """End a server that an earlier process left in this folder, if it proves on `port` that it is this folder's."""

    def _stop_leftover(self) -> None:
        if not self._files.has_server():
            return
        port = self._files.read_port()
        if port is not None:
            self._end_leftover(port)
        if not self._wait_until_gone():
            raise EmbeddedError(
                f"a {self.name} of an earlier start is still running in {self.folder} and does not end: end it by "
                f"hand, choose another folder, or --ephemeral"
            )

    def _start_on_free_port(self, deadline: float) -> None:
        while True:
            if not self._port_is_fixed:
                last = self._files.read_port()
                self._port = last if last and ports.is_free(last) else ports.pick()
            elif not ports.is_free(self.port):
                raise EmbeddedError(f"{self.name} needs port {self.port}, which is taken: end what listens there")
            self._files.write_port(self.port)
            try:
                self._launch(deadline)
            except ServerFailed:
                # Another process may have taken the port after the check above. Then try another port.
                if self._port_is_fixed or self.running or ports.is_free(self.port):
                    raise
            else:
                self._port_is_fixed = True
                return

    def _launch(self, deadline: float) -> None:
        command = self._command()
        log, lock = self._files.open_log(), self._files.lock_for_server()
        try:
            log_start = os.fstat(log).st_size
            with deferred_signals():
                self._process = process = launch(command, account=self._account(), log=log, inherit=lock)
                self._starter = os.getpid()
                atexit.register(self.stop)
        finally:
            os.close(log)
            os.close(lock)
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                reason = f"ended with code {process.returncode} during its start"
            elif time.monotonic() > deadline:
                reason = f"was not ready in {self.start_seconds:g} s"
            else:
                time.sleep(_POLL_SECONDS)
                continue
            raise ServerFailed(self.name, reason, self._files.log, self._files.log_tail(log_start))

    def _stop(self, signals: Sequence[signal.Signals]) -> None:
        with deferred_signals():
            try:
                self._end(signals)
            finally:
                if self._lock is not None:
                    os.close(self._lock)
                    self._lock = None

    def _end(self, signals: Sequence[signal.Signals]) -> None:
        process = self._process
        if process is None or self._starter != os.getpid():
            return  # a forked child has a copy of this object, but the server is not the child's
        with deferred_signals():
            for number in signals:
                process.send_signal(number)
                if wait_until(lambda: process.poll() is not None, self.stop_seconds):
                    break
            # Child processes of a killed server end by themselves, once they notice.
            if not self._wait_until_gone():
                raise EmbeddedError(f"{self.name} (process {process.pid}), or a child of it, did not end")
            self._process = None
            atexit.unregister(self.stop)

    def _wait_until_gone(self) -> bool:
        return wait_until(lambda: not self._files.has_server(), self.stop_seconds)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
