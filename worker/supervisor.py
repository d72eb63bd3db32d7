"""Several worker processes as one: started together, each replaced when it dies, stopped together.

A process runs one event loop, which is one core; more cores take more processes. The supervisor does nothing else, and
waits on one pipe for signals and deaths: no loop, no threads, nothing that a fork could copy half-way.

A service manager that signals every process of a service, not only this one, makes each worker see two signals, which
ends the grace of the running jobs at once: with systemd, set `KillMode=mixed`.
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
"""A process that has lived for so long was started well: its next death is counted as the first."""
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 30.0
MARGIN_SECONDS = 25.0
"""What a worker may take for its last settlements and good-byes, beyond the grace of its jobs."""
PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Slot:
    """A place for one process, whoever is in it."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    deaths: int = 0
    """How many in a row came soon after the start."""
    restart_at: float | None = None
    """When the next process is started, by the monotonic clock; None: not."""


class Supervisor:
    """Runs some processes of one command until told to stop, or until all have ended well if that is expected.

    Args:
        command: what each process runs.
        processes: how many.
        stop_seconds: how long they may take to end after a signal, before they are killed.
        once: they are expected to end by themselves, and are replaced only if they fail.
    """

    def __init__(self, command: Sequence[str], *, processes: int, stop_seconds: float, once: bool = False) -> None:
        self._command = list(command)
        self._stop_seconds = stop_seconds
        self._once = once
        self._slots = [Slot(number) for number in range(1, processes + 1)]
        self._kill_at: float | None = None
        self._killed = False
        self._well = True

    def run(self) -> int:
        """Supervise from start to end, in the main thread.

        Returns:
            0 when every process that was there at the end ended well, else 1.
        """
        try:
            with _signals() as wait:
                for slot in self._slots:
                    self._start(slot)
                while self._going_on():
                    for signum in wait(self._idle_seconds()):
                        self._pass_on(signum)
                    self._reap()
                    self._act_in_time()
        finally:
            for slot in self._slots:
                if slot.process is not None:  # by a fault of our own
                    slot.process.terminate()
        return 0 if self._well else 1

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def _going_on(self) -> bool:
        return any(slot.process is not None or slot.restart_at is not None for slot in self._slots)

    def _idle_seconds(self) -> float | None:
        """How long there is nothing to do unless something happens; None: for ever."""
        times = [slot.restart_at for slot in self._slots if slot.restart_at is not None]
        if self._kill_at is not None:
            times.append(self._kill_at)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _pass_on(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            return
        again = self._stopping
        log.info("processes_stopping", signal=signal.Signals(signum).name, again=again)
        if not self._killed:
            self._kill_at = time.monotonic() + (MARGIN_SECONDS if again else self._stop_seconds)
        for slot in self._slots:
            slot.restart_at = None
            if slot.process is not None:
                # Always this one: Python answers an early SIGINT with a traceback, and workers take both the same way.
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
                # Ended by the signal itself: the worker had not begun to listen for it, nor to work.
                self._well = self._well and code in (0, -signal.SIGTERM)
            elif not (self._once and code == 0):
                self._start_later(slot, lived_seconds)

    def _act_in_time(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.restart_at is not None and slot.restart_at <= now:
                self._start(slot)
        if self._kill_at is not None and self._kill_at <= now:
            if self._killed:
                # Not even that ended them: the kernel holds them, and we cannot wait for it.
                self._well = False
                self._slots.clear()
                return
            for slot in self._slots:
                if slot.process is not None:
                    log.error("process_killed", process=slot.number, pid=slot.process.pid)
                    slot.process.kill()
            self._killed = True
            self._kill_at = now + MARGIN_SECONDS

    def _start_later(self, slot: Slot, lived_seconds: float) -> None:
        slot.deaths = deaths_in_a_row(slot.deaths, lived_seconds)
        slot.restart_at = time.monotonic() + restart_seconds(slot.deaths)

    def _start(self, slot: Slot) -> None:
        slot.restart_at = None
        slot.started = time.monotonic()
        try:
            slot.process = subprocess.Popen(  # noqa: S603  # no shell, and the command is ours
                self._command,
                stdin=subprocess.DEVNULL,
                # Out of reach of the terminal's Ctrl-C, which we pass on.
                process_group=0,
                preexec_fn=_end_with_us(),  # noqa: PLW1509  # there is one thread
            )
        except OSError as error:  # no memory, or too many processes
            log.error("process_not_started", process=slot.number, reason=error.strerror)  # noqa: TRY400  # it says all
            self._start_later(slot, 0)
            return
        if slot.deaths:
            log.info("process_restarted", process=slot.number, pid=slot.process.pid, deaths=slot.deaths)
        else:
            log.info("process_started", process=slot.number, pid=slot.process.pid)


def deaths_in_a_row(before: int, lived_seconds: float) -> int:
    """How many deaths in a row it is, with one that came so long after the start.

    >>> deaths_in_a_row(4, lived_seconds=2), deaths_in_a_row(4, lived_seconds=61)
    (5, 1)
    """
    return 1 if lived_seconds >= STEADY_SECONDS else before + 1


def restart_seconds(deaths: int) -> float:
    """How long to wait before the process is replaced: longer after each death, with jitter.

    >>> all(0.1 <= restart_seconds(deaths) <= 0.1 + min(30, 2 ** (deaths - 1)) for deaths in range(1, 100))
    True
    """
    return 0.1 + backoff_seconds(deaths, base=FIRST_SECONDS, cap=LONGEST_SECONDS)


@contextmanager
def _signals() -> Iterator[Callable[[float | None], list[int]]]:
    """Hear signals on a pipe, so that none is missed between two looks; gives what waits for the next ones."""
    heard, said = os.pipe()
    os.set_blocking(heard, False)
    os.set_blocking(said, False)
    before = signal.set_wakeup_fd(said, warn_on_full_buffer=False)
    handlers = {
        signum: signal.signal(signum, lambda _signum, _frame: None)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    }

    def wait(seconds: float | None) -> list[int]:
        ready, _, _ = select.select([heard], [], [], seconds)
        return list(os.read(heard, 512)) if ready else []

    try:
        yield wait
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(before)
        os.close(heard)
        os.close(said)


def _end_with_us() -> Callable[[], None] | None:
    """What a child does before it becomes the command: have the kernel tell it to stop once we are gone in any way.

    Linux only. Elsewhere the children of a supervisor that was killed go on, and must be stopped by hand.
    """
    if sys.platform != "linux":
        return None
    prctl, us = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def ask() -> None:
        if prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0 or os.getppid() != us:
            os._exit(1)

    return ask
