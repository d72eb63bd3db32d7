"""Child processes and the account they run under.

Each child runs in a session of its own, so that Ctrl-C in the terminal reaches this process alone, and with an
environment of its own, because the caller's may hold secrets, or variables such as PGPORT that mislead the server.
"""

import os
import pwd
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.embedded.errors import EmbeddedError

UNPRIVILEGED = "nobody"
PROGRAM_SECONDS = 120.0  # far more than any program here needs, unless it hangs
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True)
class Account:
    """A user of this system."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether this user may enter the folder. Access control lists and mount options count too."""
        try:
            run(["/bin/sh", "-c", 'cd -- "$0"', str(folder)], account=self)
        except EmbeddedError:
            return False
        return True


def unprivileged() -> Account | None:
    """The account to run PostgreSQL under, which refuses to run as root. None if the caller is not root.

    Raises EmbeddedError if the caller is root and that account does not exist.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and the user {UNPRIVILEGED!r} does not exist: add it "
            f"(useradd --system {UNPRIVILEGED}), or start as a normal user"
        ) from None
    return Account(UNPRIVILEGED, entry.pw_uid, entry.pw_gid)


def run(
    command: Sequence[str],
    *,
    account: Account | None,
    seconds: float = PROGRAM_SECONDS,
    text: str = "",
    password: str = "",
    inherit: Sequence[int] = (),
) -> str:
    """Run a program as `account` (None: the current user) with `text` as its input, and return its output.

    `password` is for PostgreSQL's clients; `inherit` are descriptors that stay open in the program.
    Raises EmbeddedError, with the end of its error output, if the program fails or takes longer than `seconds`.
    """
    program = Path(command[0]).name
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(  # noqa: S603  # no shell, no argument from outside
            command,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=max(seconds, 0.1),
            check=False,
            pass_fds=inherit,
            **_options(account, {"PGPASSWORD": password} if password else {}),
        )
    except subprocess.TimeoutExpired:
        raise EmbeddedError(f"{program} did not finish in {seconds:.0f} s") from None
    except OSError as error:
        raise EmbeddedError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise EmbeddedError(f"{program} failed with code {done.returncode}:\n{last_lines(done.stderr)}")
    return done.stdout


def launch(command: Sequence[str], *, account: Account | None, log: int, inherit: int) -> subprocess.Popen[bytes]:
    """Start a server. `log` and `inherit` are descriptors: for its output, and one that stays open in it."""
    return subprocess.Popen(  # noqa: S603  # no shell, no argument from outside
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(inherit,), **_options(account, {})
    )


def _options(account: Account | None, environment: Mapping[str, str]) -> dict[str, Any]:
    options = {
        "cwd": "/",  # the current folder may be closed to `account`
        "env": {"PATH": os.defpath, "LC_ALL": "C", **environment},
        "start_new_session": True,
    }
    return options | ({"user": account.uid, "group": account.gid, "extra_groups": []} if account else {})


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM for the block, so that their handlers cannot leave a server behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signal handlers run in the main thread only
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for received_number in received:
            signal.raise_signal(received_number)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait up to `seconds` until `condition` holds, and return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def last_lines(text: str, count: int = 15) -> str:
    """The last `count` lines of `text`.

    >>> last_lines("one\\ntwo\\nthree\\n", 2)
    'two\\nthree'
    """
    return "\n".join(text.rstrip().splitlines()[-count:])
