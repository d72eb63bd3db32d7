"""How are programs started, so that they end with us, and how long is anything waited for?

The kernel's promise to end a child when its parent ends (`_launch.py`) is tied to the *thread* that forked it:
a server started from a worker thread would end with that thread. So one daemon thread, which lasts as long as the
process, does all the forking, and callers may use any thread they like.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

from worker.embedded.account import Account
from worker.embedded.errors import EmbeddedError

_LAUNCHER = Path(__file__).with_name("_launch.py")
_PAUSE_SECONDS = 0.005

_Spawn = Callable[[], subprocess.Popen[bytes]]


class _Forker:
    """The thread that forks."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[tuple[Future[subprocess.Popen[bytes]], _Spawn]] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def fork(self, spawn: _Spawn) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="embedded-forker", daemon=True)
                self._thread.start()
        promise: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((promise, spawn))
        return promise.result()

    def _serve(self) -> None:
        while True:
            promise, spawn = self._orders.get()
            try:
                promise.set_result(spawn())
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                promise.set_exception(error)
            # Otherwise this thread would hold on to the last server until the next one is started.
            del promise, spawn


_forker = _Forker()


def _forget_thread() -> None:
    # Threads do not survive a fork: a child that starts servers of its own needs a thread of its own.
    global _forker  # noqa: PLW0603 - there is one per process
    _forker = _Forker()


os.register_at_fork(after_in_child=_forget_thread)


def spawn(
    command: Sequence[str],
    *,
    account: Account | None,
    log: int,
    at_owner_death: signal.Signals,
    inherit: int,
) -> subprocess.Popen[bytes]:
    """Starts a server in a session of its own, out of reach of the terminal's Ctrl-C.

    `account` is whom it runs as (None: as we do), `log` and `inherit` are file descriptors: for its output, and one
    to leave open in it. `at_owner_death` is sent to it when this process ends, however that comes (Linux only).
    """
    if not sys.executable:
        raise EmbeddedError("sys.executable is empty: the embedded servers need the path of a Python interpreter")
    uid, gid = (account.uid, account.gid) if account else (os.geteuid(), os.getegid())
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), *map(str, (os.getpid(), uid, gid, int(at_owner_death)))]
    return _forker.fork(
        lambda: subprocess.Popen(  # noqa: S603 - no shell, and every argument is ours
            [*launcher, *command],
            cwd="/",  # our own folder may be closed to `account`
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(inherit,),
        )
    )


def run(
    command: Sequence[str],
    *,
    account: Account | None,
    seconds: float,
    text: str = "",
    environment: Mapping[str, str] | None = None,
    inherit: Sequence[int] = (),
) -> str:
    """Runs a program to its end with `text` as its input; returns its output.

    `inherit` are file descriptors to leave open in it.
    Raises EmbeddedError with the program's last words if it fails or takes longer than `seconds`.
    """
    program = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and every argument is ours
            command,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", **(environment or {})},
            start_new_session=True,
            pass_fds=inherit,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=max(seconds, 0.1),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EmbeddedError(f"{program} did not finish in {seconds:.0f} s") from None
    except OSError as error:
        raise EmbeddedError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise EmbeddedError(f"{program} failed with code {done.returncode}:\n{last_lines(done.stderr)}")
    return done.stdout


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits until `condition` holds, at most `seconds`; tells whether it does."""
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
