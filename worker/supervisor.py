"""Runs several worker processes as one: starts them together, replaces each that dies, stops them together.

A process runs one event loop and so uses one core; more cores need more processes. The supervisor only waits for
signals and deaths, on one pipe. It has no event loop and no threads, so a fork copies no half-finished state.

A service manager that signals every process of a service sends each worker two signals, and the second one ends the
grace period of the running jobs at once. With systemd, set `KillMode=mixed`.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from worker.model.backoff import backoff_seconds

log = structlog.get_logger("worker.supervisor")

STEADY_SECONDS = 60.0
"""After a process has run this long, its death counts as the first in a row."""
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
MARGIN_SECONDS = 25.0
"""Time for a worker's last settlements and for closing its connections, after the grace period of its jobs."""
PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Slot:
    """A place for one process and for those that replace it."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    deaths: int = 0
    """Deaths in a row, each soon after the start."""
    restart_at: float | None = None
    """When to start the next process, on the monotonic clock; None if none is due."""


class Supervisor:
    """Runs processes of one command until SIGTERM or SIGINT.

    Args:
        command: the command of each process.
        processes: their number.
        stop_seconds: time to end after a signal; a process that takes longer is killed.
        once: the processes end by themselves, and only those that fail are replaced. The supervisor ends with the last.
    """

    def __init__(self, command: Sequence[str], *, processes: int, stop_seconds: float, once: bool = False) -> None:
        self._command = list(command)
        self._stop_seconds = stop_seconds
        self._once = once
        self._slots = [Slot(number) for number in range(1, processes + 1)]
        self._kill_at: float | None = None
        self._killed = False
        self._succeeded = True

    def run(self) -> int:
        """Supervise from start to end, in the main thread.

        Returns:
            0 if every process succeeded at the end, else 1.
        """
        try:
            with _signals() as wait:
                for slot in self._slots:
                    self._start(slot)
                while self._is_active():
                    for signum in wait(self._idle_seconds()):
                        self._forward(signum)
                    self._reap()
                    self._run_due()
        finally:
            for slot in self._slots:
                if slot.process is not None:  # only after an error in the supervisor itself
                    slot.process.terminate()
        return 0 if self._succeeded else 1

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def _is_active(self) -> bool:
        return any(slot.process is not None or slot.restart_at is not None for slot in self._slots)

    def _idle_seconds(self) -> float | None:
        """Seconds until the next restart or kill is due; None if none is."""
        times = [slot.restart_at for slot in self._slots if slot.restart_at is not None]
        if self._kill_at is not None:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _forward(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            return
        again = self._stopping
        log.info("processes_stopping", signal=signal.Signals(signum).name, again=again)
        if not self._killed:
            self._kill_at = time.monotonic() + (MARGIN_SECONDS if again else self._stop_seconds)
        for slot in self._slots:
            slot.restart_at = None
            if slot.process is not None:
                # Not SIGINT: Python prints a traceback for one that comes early. Workers treat both alike.
                slot.process.send_signal(signal.SIGTERM)

    def _reap(self) -> None:
        for slot in self._slots:
            if slot.process is None or (code := slot.process.poll()) is None:
                continue
            pid, slot.process = slot.process.pid, None
            lived_seconds = time.monotonic() - slot.started
            ended: dict[str, Any] = {"process": slot.number, "pid": pid, "lived_seconds": round(lived_seconds, 1)}
            if code < 0:
                log.warning("process_ended", signal=signal.Signals(-code).name, **ended)
            elif code:
                log.warning("process_ended", code=code, **ended)
            else:
                log.info("process_ended", code=0, **ended)
            if self._stopping:
                # -SIGTERM: the worker had not installed its handler yet, and had not begun to work.
                self._succeeded = self._succeeded and code in (0, -signal.SIGTERM)
            elif not (self._once and code == 0):
                self._schedule_start(slot, lived_seconds)

    def _run_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.restart_at is not None and slot.restart_at <= now:
                self._start(slot)
        if self._kill_at is not None and self._kill_at <= now:
            if self._killed:
                # SIGKILL did not end them either: they are stuck in the kernel, so stop waiting.
                self._succeeded = False
                self._slots.clear()
                return
            for slot in self._slots:
                if slot.process is not None:
                    log.error("process_killed", process=slot.number, pid=slot.process.pid)
                    slot.process.kill()
            self._killed = True
            self._kill_at = now + MARGIN_SECONDS

    def _schedule_start(self, slot: Slot, lived_seconds: float) -> None:
        slot.deaths = consecutive_deaths(slot.deaths, lived_seconds)
        slot.restart_at = time.monotonic() + restart_seconds(slot.deaths)

    def _start(self, slot: Slot) -> None:
        slot.restart_at = None
        slot.started = time.monotonic()
        try:
            slot.process = subprocess.Popen(  # noqa: S603  # no shell, and the command is ours
                self._command,
                stdin=subprocess.DEVNULL,
                # A group of its own, out of reach of the terminal's Ctrl-C, which the supervisor forwards.
                process_group=0,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  # there is one thread
            )
        except OSError as error:  # no memory, or too many processes
            log.error("process_not_started", process=slot.number, reason=error.strerror)  # noqa: TRY400  # the reason is enough
            self._schedule_start(slot, 0)
            return
        if slot.deaths:
            log.info("process_restarted", process=slot.number, pid=slot.process.pid, deaths=slot.deaths)
        else:
            log.info("process_started", process=slot.number, pid=slot.process.pid)


def consecutive_deaths(before: int, lived_seconds: float) -> int:
    """Deaths in a row, with one more that came this long after the start.

    >>> consecutive_deaths(4, lived_seconds=2), consecutive_deaths(4, lived_seconds=61)
    (5, 1)
    """
    return 1 if lived_seconds >= STEADY_SECONDS else before + 1


def restart_seconds(deaths: int) -> float:
    """Seconds before the process is replaced: more after each death, with jitter.

    >>> all(0.1 <= restart_seconds(deaths) <= 0.1 + min(30, 2 ** (deaths - 1)) for deaths in range(1, 100))
    True
    """
    return 0.1 + backoff_seconds(deaths, base=FIRST_SECONDS, cap=LONGEST_SECONDS)


@contextmanager
def _signals() -> Iterator[Callable[[float | None], list[int]]]:
    """Receive signals on a pipe, so that none is missed between two waits. Yields a function that waits for them."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {
        signum: signal.signal(signum, lambda _signum, _frame: None)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    }

    def wait(seconds: float | None) -> list[int]:
        ready, _, _ = select.select([reader], [], [], seconds)
        return list(os.read(reader, 512)) if ready else []

    try:
        yield wait
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def _die_with_parent() -> Callable[[], None] | None:
    """A function that a child calls before it runs the command: the kernel sends it SIGTERM when its parent is gone.

    Linux only. Elsewhere the children of a killed supervisor go on and must be stopped by hand.
    """
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def request_signal() -> None:
        if prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)

    return request_signal
