"""What it costs to be watched: a worker with metrics and logs on beside the same worker without either."""

import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from benchmarks.systems import OURS_BATCH, OURS_SESSION, System

EVERY_SECONDS = 1.0
"""Fifteen times as often as Prometheus asks."""


def told(system: System, port: int) -> System:
    """The genuine worker: a line a job, and `/metrics`."""
    return replace(system, settings={**system.settings, "WORKER_HTTP_PORT": str(port)})


def quiet(system: System) -> System:
    """The same without lines for jobs, counts and pages."""
    return replace(system, label=f"{system.label}, nothing told", worker="quiet")


PAIRS = tuple((system, quiet(system)) for system in (OURS_SESSION, OURS_BATCH))


@contextmanager
def scraped(port: int) -> Iterator[None]:
    """Ask for the metrics again and again meanwhile, as soon as somebody answers."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(EVERY_SECONDS):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                page.read()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def free_port() -> int:
    """A port of this machine that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
