"""As which user does PostgreSQL run, and where may that user go?"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from worker.embedded.errors import EmbeddedError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class Account:
    """A user that a server runs as, instead of the one who starts it."""

    name: str
    uid: int
    gid: int

    def closed_step(self, folder: Path) -> Path | None:
        """The first folder on the way to `folder`, itself included, that this user may not enter; else None.

        Steps that do not exist yet are left out. Access lists are not read, only mode bits.
        """
        whole = folder.resolve()
        for step in (*reversed(whole.parents), whole):
            try:
                status = step.stat()
            except FileNotFoundError:
                return None
            if status.st_uid == self.uid:
                needed = stat.S_IXUSR
            elif status.st_gid == self.gid:
                needed = stat.S_IXGRP
            else:
                needed = stat.S_IXOTH
            if not status.st_mode & needed:
                return step
        return None


def unprivileged() -> Account | None:
    """The user to become, because PostgreSQL refuses to run as root; None when we are not root.

    Raises EmbeddedError when we are root and there is no such user.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED!r} to run it as: add one "
            f"(useradd --system {UNPRIVILEGED}), or start as a normal user"
        ) from None
    return Account(UNPRIVILEGED, entry.pw_uid, entry.pw_gid)
