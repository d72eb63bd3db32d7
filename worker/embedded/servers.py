"""Where do `worker dev`, `worker demo` and tests get a database and a Redis from?"""

import os
import shutil
import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.embedded.account import Account, unprivileged
from worker.embedded.errors import EmbeddedError
from worker.embedded.home import make_folder
from worker.embedded.lock import OwnerLock
from worker.embedded.postgres import PostgresServer
from worker.embedded.valkey import ValkeyServer

_NAME = "userpost-worker"


@dataclass(frozen=True)
class Urls:
    """Where the servers can be reached. Both hold a password, so neither shows in `repr`."""

    database: str = field(repr=False)
    redis: str = field(repr=False)


class EmbeddedServers(AbstractContextManager["EmbeddedServers"]):
    """A PostgreSQL and a Valkey that live as long as the `with` block, or from start() to stop()."""

    def __init__(self, folder: Path | None = None, *, ephemeral: bool = False, start_seconds: float = 30.0) -> None:
        """Data, passwords and ports are kept in `folder`, by default the user's own (see `default_folder`).

        `ephemeral`: in a temporary folder instead, which is removed at the end. `start_seconds` bounds the start of
        each server. Raises ValueError if both a folder and `ephemeral` are given.
        """
        if folder is not None and ephemeral:
            raise ValueError("a folder is kept and an ephemeral one is not: give one of the two")
        self._folder = folder
        self._ephemeral = ephemeral
        self._start_seconds = start_seconds
        self._owner: int | None = None
        self._running: tuple[PostgresServer, ValkeyServer] | None = None
        self._undo = ExitStack()

    def start(self) -> Urls:
        """Starts both servers; returns when both accept connections.

        Raises AlreadyRunning if another process runs servers in the folder, otherwise EmbeddedError.
        """
        if self._running is not None:
            raise EmbeddedError("these servers are started already: use their urls, or stop() them first")
        self._owner = os.getpid()
        with ExitStack() as undo:
            folder = self._open_folder(undo)
            valkey = ValkeyServer(folder / "valkey", start_seconds=self._start_seconds)
            postgres = PostgresServer(folder / "postgresql", start_seconds=self._start_seconds)
            for server in (valkey, postgres):
                undo.enter_context(server)
            self._running = (postgres, valkey)
            self._undo = undo.pop_all()
        return self.urls

    def stop(self) -> None:
        """Stops both servers, and removes an ephemeral folder; nothing happens if they are stopped."""
        # In a forked child this object is a copy, and neither the servers nor the folder are the child's to remove.
        if self._owner == os.getpid():
            self._running = None
            self._undo.close()

    @property
    def urls(self) -> Urls:
        """Raises EmbeddedError when not started, as the next two do."""
        return Urls(database=self.postgres.url, redis=self.valkey.url)

    @property
    def postgres(self) -> PostgresServer:
        return self._started()[0]

    @property
    def valkey(self) -> ValkeyServer:
        return self._started()[1]

    def _started(self) -> tuple[PostgresServer, ValkeyServer]:
        if self._running is None:
            raise EmbeddedError("the servers are not running: call start() first")
        return self._running

    def _open_folder(self, undo: ExitStack) -> Path:
        account = unprivileged()
        if self._ephemeral:
            folder = _temporary_folder(account)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = (self._folder or default_folder()).absolute()
        lock = OwnerLock(folder)
        try:
            make_folder(folder, account)
            lock.acquire()
        except OSError as error:
            raise EmbeddedError(f"cannot use {folder}: {error}; choose another folder, or --ephemeral") from error
        undo.callback(lock.release)
        return folder

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def default_folder() -> Path:
    """The present user's folder for data that is kept.

    For root /var/lib/userpost-worker, since PostgreSQL runs as another user, to whom root's home is closed;
    for others $XDG_DATA_HOME/userpost-worker, or ~/.local/share/userpost-worker.
    """
    if os.geteuid() == 0:
        return Path("/var/lib", _NAME)
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    if given.is_absolute():
        return given / _NAME
    try:
        return Path.home() / ".local" / "share" / _NAME
    except RuntimeError as error:
        raise EmbeddedError("there is no home folder to keep data in: set HOME, or use --ephemeral") from error


def _temporary_folder(account: Account | None) -> Path:
    for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - mkdtemp picks the name
        if account and account.closed_step(Path(place)):
            continue
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}-", dir=place))
        except OSError:
            continue
        if account:
            folder.chmod(0o711)
        return folder
    raise EmbeddedError("no temporary folder can be used by the servers: set TMPDIR to one that all users can enter")
