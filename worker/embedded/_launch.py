"""How does a server become another user, and end with the process that started it?

Run as a script, in a process of its own, by `process.spawn`:

    python -I -S _launch.py OWNER UID GID SIGNAL PROGRAM [ARGUMENT…]

It changes to UID and GID (if it is not that user already), asks the kernel for SIGNAL when the process OWNER
ends, and becomes PROGRAM. A script, because the same work in `preexec_fn` would run Python in a forked copy of a
process with threads. It starts as the caller's own user and changes afterwards, because the interpreter itself
may lie where the other user cannot go. It uses the standard library only, and nothing of this package.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    owner, uid, gid, death_signal = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid, which would clear it. An exec keeps it.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        if os.getppid() != owner:
            sys.exit("the process that wanted this server has ended meanwhile")
    # What Python, or a thread of the owner, set for itself must not be handed on to the server.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Nothing of the owner's environment either: it may hold secrets, and LD_* or PG* that mislead the server.
    os.execve(command[0], command, {"PATH": os.defpath, "LC_ALL": "C"})  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot start {sys.argv[5]} as user {sys.argv[2]}: {error}")
