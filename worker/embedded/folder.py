"""The files in the folder of one server, besides its data. Only their owner can read them.

lock           held by the process that uses the folder, which writes its id into it
server.lock    held by the server and every process it starts
password       made at the first start
port           the port of the last start, so that URLs stay the same
server.log     the server's log (server.log.old: the part from before it grew too large)
"""

import fcntl
import os
import secrets
import tempfile
from pathlib import Path

from worker.embedded.errors import AlreadyRunning, EmbeddedError
from worker.embedded.process import Account, last_lines

_LOG_LIMIT_BYTES = 5 * 2**20
_TAIL_BYTES = 16 * 2**10


class ServerFolder:
    """The folder of one server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "server.log"

    def lock_for_server(self) -> int:
        """A locked descriptor for a server to inherit. Raises EmbeddedError if has_server()."""
        descriptor = try_lock(self.path / "server.lock")
        if descriptor is None:
            raise EmbeddedError(f"a server is still running in {self.path}")
        return descriptor

    def has_server(self) -> bool:
        """Whether a server of this folder, or any process that it started, is alive."""
        descriptor = try_lock(self.path / "server.lock")
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def password(self, *, create: bool) -> str:
        """The server's password, which needs no escaping in a URL or a configuration file.

        Raises EmbeddedError if there is none and `create` is false.
        """
        path = self.path / "password"
        if not path.exists():
            if not create:
                raise EmbeddedError(
                    f"{path} is lost, and the data cannot be opened without it: restore the file, or remove "
                    f"{self.path} to start with new data"
                )
            write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def read_port(self) -> int | None:
        """The port of the last start, or None before the first."""
        path = self.path / "port"
        text = path.read_text().strip() if path.exists() else ""
        return int(text) if text.isdigit() else None

    def write_port(self, port: int) -> None:
        """Record the port of this start."""
        write_private(self.path / "port", str(port))

    def open_log(self) -> int:
        """A descriptor that appends to the log. A log over the limit is moved aside first."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_name("server.log.old"))
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def log_tail(self, start: int) -> str:
        """The last lines of the log, without what was written before byte `start`."""
        with self.log.open("rb") as log:
            log.seek(max(start, self.log.stat().st_size - _TAIL_BYTES))
            return last_lines(log.read().decode(errors="replace"))


def lock_folder(folder: Path) -> int:
    """A descriptor that holds the right to use the folder until it is closed.

    Raises AlreadyRunning if another process holds it. The file `lock` is never removed: otherwise two processes could
    lock two files of this name.
    """
    path = folder / "lock"
    descriptor = try_lock(path)
    if descriptor is None:
        holder = path.read_text().strip()
        raise AlreadyRunning(folder, int(holder) if holder.isdigit() else None)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def try_lock(path: Path) -> int | None:
    """A descriptor that holds an exclusive lock on the file, or None while another process holds it.

    The kernel releases the lock when the last process that inherited the descriptor ends, so it cannot be stale.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def make_folder(folder: Path, account: Account | None) -> None:
    """Create `folder` and its missing parents, so that `account` can pass through and other users cannot list them.

    The modes of existing folders do not change.
    """
    if folder.exists():
        return
    make_folder(folder.parent, account)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711 if account else 0o700)


def write_private(path: Path, text: str) -> None:
    """Write a line into a file that only its owner can read. A reader never finds a part of it."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    Path(draft).replace(path)
