"""Who may use a folder, and does a server of an earlier owner still live on it?

Both questions are answered by `flock`, which the kernel lets go when the last process that holds the open file
ends: nothing here goes stale, and no process number is trusted.

- `lock` is held by the process that owns the folder, and by it alone.
- `server.lock` is handed down to a server and all its children. It is free when the last of them is gone.
"""

import fcntl
import os
from pathlib import Path

from worker.embedded.errors import AlreadyRunning


class OwnerLock:
    """The right to use `folder`, for one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock; nothing changes if it is ours already. Raises AlreadyRunning."""
        if self._descriptor is not None:
            return
        descriptor = _open(self._folder / "lock")
        if not _locked(descriptor):
            holder = os.read(descriptor, 32).strip()
            os.close(descriptor)
            raise AlreadyRunning(self._folder, int(holder) if holder.isdigit() else None)
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Lets the lock go, if it is ours. The file stays: removing it would let two owners in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class FamilyLock:
    """Tells whether a server of `folder`, or any child of it, is still alive."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "server.lock"

    def alive(self) -> bool:
        """Whether any process of the family is left."""
        descriptor = _open(self._path)
        try:
            return not _locked(descriptor)
        finally:
            os.close(descriptor)

    def take(self) -> int:
        """A locked descriptor for a new family to inherit; the caller closes its own copy after the fork.

        Only the folder's owner may call it, when no family is alive.
        """
        descriptor = _open(self._path)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
