"""What does a server keep in its folder besides its data?

    lock, server.lock    see lock.py
    password             made at the first start
    port                 the one used last, so that URLs stay the same
    server.log           what the server says (server.log.old: before it grew too long)

All of them can be read by their owner alone.
"""

import os
import secrets
import tempfile
from pathlib import Path

from worker.embedded.account import Account
from worker.embedded.errors import EmbeddedError
from worker.embedded.lock import FamilyLock, OwnerLock
from worker.embedded.process import last_lines

_LOG_LIMIT_BYTES = 5 * 2**20
_TAIL_BYTES = 16 * 2**10


class Home:
    """The folder of one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = OwnerLock(folder)
        self.family = FamilyLock(folder)
        self.log = folder / "server.log"

    def password(self, *, first: bool) -> str:
        """The server's password: safe to stand in a URL and in a configuration file as it is.

        It is made if this is the `first` start. Raises EmbeddedError if it is lost later.
        """
        path = self.folder / "password"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            if not first:
                raise EmbeddedError(
                    f"{path} is lost, and the data beside it cannot be opened without: put the file back, or remove "
                    f"{self.folder} to begin anew"
                ) from None
            password = secrets.token_urlsafe(24)
            write_private(path, password + "\n")
            return password

    def remembered_port(self) -> int | None:
        """The port of the last start, if there was one."""
        try:
            text = (self.folder / "port").read_text().strip()
        except FileNotFoundError:
            return None
        return int(text) if text.isdigit() else None

    def remember_port(self, port: int) -> None:
        write_private(self.folder / "port", f"{port}\n")

    def open_log(self) -> int:
        """A descriptor to append to the log."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_name("server.log.old"))
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def log_tail(self, start: int) -> str:
        """The log's last lines, of what was written after byte `start`."""
        with self.log.open("rb") as log:
            log.seek(max(start, self.log.stat().st_size - _TAIL_BYTES))
            return last_lines(log.read().decode(errors="replace"))


def make_folder(folder: Path, account: Account | None) -> None:
    """Creates `folder` and the parents it lacks, such that `account` can pass, and nobody else can look inside.

    The modes of folders that exist are left as they are: they are somebody's decision.
    """
    if not folder.parent.exists():
        make_folder(folder.parent, account)
    try:
        folder.mkdir()
    except FileExistsError:
        return
    folder.chmod(0o711 if account else 0o700)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read; a reader finds the old text or the new, never a part."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(draft).replace(path)
