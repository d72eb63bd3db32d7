"""How long tests wait: for events, with room for a busy machine, and never for a fixed pause."""

import time

PATIENCE_SECONDS = 180.0
"""The longest wait for an event. Only a fault takes this long: a test goes on as soon as the event has come."""

HANG_SECONDS = 900.0
"""For tests that start several Python processes and servers: the end of a hang, not of a wait on a busy machine."""

SAMPLE_SECONDS = 0.05


def slowdown() -> float:
    """How much longer than on an idle machine something may take now; 1 on an idle machine.

    A short computation is timed by the wall clock and by the processor time that it got. The excess counts twice,
    because the load changes while a test runs.
    """
    began, began_processor = time.perf_counter(), time.thread_time()
    while (used := time.thread_time() - began_processor) < SAMPLE_SECONDS:
        pass
    return max(1.0, 2 * (time.perf_counter() - began) / used - 1)


class Stopwatch:
    """Measures how long something takes, in seconds of an idle machine: for promises such as "within 3 s"."""

    def __init__(self) -> None:
        self._slowdown = slowdown()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """The time since the start, divided by the slowdown then or now, whichever is larger."""
        elapsed = time.monotonic() - self._began
        return elapsed / max(self._slowdown, slowdown())
