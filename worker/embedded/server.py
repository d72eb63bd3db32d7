"""What is the same for every embedded server: starting, stopping, killing, and the port between?"""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from worker.embedded import ports
from worker.embedded.account import Account
from worker.embedded.child import Child
from worker.embedded.errors import EmbeddedError, ServerFailed
from worker.embedded.home import Home, make_folder
from worker.embedded.process import wait_until

_LEAVING_SECONDS = 1.0


class Server(AbstractContextManager["Server"], ABC):
    """One server and the folder it lives in.

    Any thread may call the methods, but only one at a time. On Linux the server ends with the process that started
    it, however that ends; elsewhere a server left behind is ended by the next start on its folder.
    """

    name: ClassVar[str]
    at_owner_death: ClassVar[signal.Signals]
    stop_signals: ClassVar[Sequence[signal.Signals]]

    def __init__(
        self, folder: Path, *, port: int | None = None, start_seconds: float = 30.0, stop_seconds: float = 10.0
    ) -> None:
        """`folder` is created if needed. Without a `port` the folder's last one is used if free, else a free one.

        `start_seconds` bounds a start as a whole; `stop_seconds` each step of a stop, from the mildest to SIGKILL.
        """
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self._home = Home(self.folder)
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._port = port
        self._port_settled = port is not None
        self._password: str | None = None
        self._child: Child | None = None

    def start(self) -> None:
        """Returns when the server accepts connections. Raises AlreadyRunning, or another EmbeddedError.

        A server that was started before keeps its port, since others hold its URL.
        """
        if self.running:
            raise EmbeddedError(f"{self.name} runs already, as process {self.pid}: stop() or restart() it")
        deadline = time.monotonic() + self._start_seconds
        try:
            make_folder(self.folder, self._account())
            self._home.owner.acquire()
            try:
                self._password = self._home.password(first=not self.data.exists())
                self._end_earlier_family()
                self._prepare(deadline)
                self._start_on_some_port(deadline)
            except BaseException:
                self.stop()
                raise
        except OSError as error:
            raise EmbeddedError(
                f"{self.name} cannot be started in {self.folder}: {error}; choose another folder, or --ephemeral"
            ) from error

    def stop(self) -> None:
        """Stops the server in order, or harder if that takes too long; nothing happens if it is stopped."""
        try:
            self._end(self.stop_signals)
        finally:
            self._home.owner.release()

    def kill(self) -> None:
        """SIGKILL, and wait until no process of the server is left. The folder stays ours, for start()."""
        self._end((signal.SIGKILL,))

    def restart(self) -> None:
        """Stops and starts on the same port, without letting the folder go in between."""
        self._end(self.stop_signals)
        self.start()

    @property
    def running(self) -> bool:
        """Whether the process that start() started is alive."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """The server's main process. Raises EmbeddedError when it does not run."""
        if self._child is None or not self._child.alive:
            raise EmbeddedError(f"{self.name} does not run: call start() first")
        return self._child.pid

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1. Raises EmbeddedError before the first start, unless one was given."""
        if self._port is None:
            raise EmbeddedError(f"{self.name} has no port yet: call start() first")
        return self._port

    @property
    def password(self) -> str:
        """The password of the only user. Raises EmbeddedError before the first start."""
        if self._password is None:
            raise EmbeddedError(f"{self.name} has no password yet: call start() first")
        return self._password

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client needs to connect, the password included. Raises EmbeddedError before the first start."""

    @abstractmethod
    def _account(self) -> Account | None:
        """Whom the server runs as, if not as ourselves."""

    @abstractmethod
    def _prepare(self, deadline: float) -> None:
        """Makes the folder ready. No process of the server is alive."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The server's command line; anybody on the machine can read it."""

    @abstractmethod
    def _ready(self, child: Child) -> bool:
        """Whether `child` accepts connections."""

    @abstractmethod
    def _ask_earlier_family_to_end(self) -> None:
        """Stops a server that an earlier owner of the folder left behind, if it can be reached."""

    def _end_earlier_family(self) -> None:
        def gone() -> bool:
            return not self._home.family.alive()

        # Most are on their way out, since the kernel told them that their owner is gone: then there is none to ask.
        if wait_until(gone, _LEAVING_SECONDS):
            return
        self._ask_earlier_family_to_end()
        if not wait_until(gone, self._stop_seconds):
            raise EmbeddedError(
                f"a {self.name} of an earlier start still runs in {self.folder} and does not end: end it by hand, "
                f"choose another folder, or --ephemeral"
            )

    def _start_on_some_port(self, deadline: float) -> None:
        while True:
            if not self._port_settled:
                remembered = self._home.remembered_port()
                self._port = remembered if remembered and ports.is_free(remembered) else ports.pick()
            elif not ports.is_free(self.port):
                raise EmbeddedError(f"{self.name} needs port {self.port}, which is taken: end what listens there")
            self._home.remember_port(self.port)
            try:
                self._child = Child(
                    self.name,
                    self._home,
                    self._command(),
                    account=self._account(),
                    at_owner_death=self.at_owner_death,
                )
                self._child.wait_until(self._ready, deadline)
            except ServerFailed:
                # Somebody may have taken the port between our look and the server's.
                if self._port_settled or self.running or ports.is_free(self.port):
                    raise
            else:
                self._port_settled = True
                return

    def _end(self, signals: Sequence[signal.Signals]) -> None:
        if self._child is not None:
            self._child.end(signals, self._stop_seconds)
            self._child = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
