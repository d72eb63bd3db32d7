"""A PostgreSQL and a Valkey together, as `worker dev`, `worker demo` and tests use them."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from worker.embedded.errors import EmbeddedError
from worker.embedded.folder import lock_folder, make_folder
from worker.embedded.postgres import PostgresServer
from worker.embedded.process import Account, deferred_signals, unprivileged
from worker.embedded.programs import SYSTEM_FOLDER
from worker.embedded.valkey import ValkeyServer

_NAME = "userpost-worker"


@dataclass(frozen=True)
class Urls:
    """The URLs of both servers. Each holds a password, so `repr` shows neither."""

    database: str = field(repr=False)
    redis: str = field(repr=False)


class EmbeddedServers:
    """A PostgreSQL and a Valkey that run during the `with` block, or from start() to stop()."""

    def __init__(self, folder: Path | None = None, *, ephemeral: bool = False) -> None:
        """Data, passwords and ports are kept in `folder`, by default the user's own (see `default_folder`).

        `ephemeral`: in a temporary folder instead, which stop() removes. Raises ValueError if both are given.
        """
        if folder is not None and ephemeral:
            raise ValueError("a folder is kept and an ephemeral one is not: give one of the two")
        self._folder = folder
        self._ephemeral = ephemeral
        self._starter: int | None = None
        self._running: tuple[PostgresServer, ValkeyServer] | None = None
        self._cleanup = ExitStack()

    def start(self) -> Urls:
        """Start both servers, and return when both accept connections.

        Raises AlreadyRunning if another process runs servers in the folder, otherwise EmbeddedError.
        """
        if self._running is not None:
            raise EmbeddedError("these servers are started already: use their urls, or stop() them first")
        self._starter = os.getpid()
        with ExitStack() as cleanup:
            folder = self._open_folder(cleanup)
            valkey = ValkeyServer(folder / "valkey")
            postgres = PostgresServer(folder / "postgresql")
            for server in (valkey, postgres):
                cleanup.enter_context(server)
            self._running = (postgres, valkey)
            self._cleanup = cleanup.pop_all()
        return self.urls

    def stop(self) -> None:
        """Stop both servers, and remove an ephemeral folder. Safe to repeat."""
        # A forked child has a copy of this object, and must not remove the servers and the folder of its parent.
        if self._starter == os.getpid():
            self._running = None
            with deferred_signals():
                self._cleanup.close()

    @property
    def urls(self) -> Urls:
        """The URLs of both servers. Raises EmbeddedError if they are not running, as the next two properties do."""
        return Urls(database=self.postgres.url, redis=self.valkey.url)

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL."""
        return self._started()[0]

    @property
    def valkey(self) -> ValkeyServer:
        """The Valkey."""
        return self._started()[1]

    def _started(self) -> tuple[PostgresServer, ValkeyServer]:
        if self._running is None:
            raise EmbeddedError("the servers are not running: call start() first")
        return self._running

    def _open_folder(self, cleanup: ExitStack) -> Path:
        account = unprivileged()
        if self._ephemeral:
            folder = _temporary_folder(account)
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = (self._folder or default_folder()).absolute()
        try:
            make_folder(folder, account)
            cleanup.callback(os.close, lock_folder(folder))
        except OSError as error:
            raise EmbeddedError(f"cannot use {folder}: {error}; choose another folder, or --ephemeral") from error
        return folder

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


def default_folder() -> Path:
    """The current user's folder for data that is kept.

    For root /var/lib/userpost-worker, because PostgreSQL runs under an account that cannot enter root's home folder;
    for other users $XDG_DATA_HOME/userpost-worker or ~/.local/share/userpost-worker.
    """
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
    if data_home.is_absolute():
        return data_home / _NAME
    try:
        return Path.home() / ".local" / "share" / _NAME
    except RuntimeError as error:
        raise EmbeddedError("there is no home folder to keep data in: set HOME, or use --ephemeral") from error


def _temporary_folder(account: Account | None) -> Path:
    for parent in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108  # mkdtemp picks the name
        if account and not account.can_enter(Path(parent)):
            continue
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}-", dir=parent))
        except OSError:
            continue
        if account:
            folder.chmod(0o711)
        return folder
    raise EmbeddedError("the servers can use no temporary folder: set TMPDIR to one that all users can enter")
