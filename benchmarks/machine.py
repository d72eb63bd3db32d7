"""The machine and the versions of a run, without host names or paths."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.systems import PEERS, shared_pins


def describe(servers: str, command: str, rounds: str) -> dict[str, str]:
    """The facts of a run, by name."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": f"`{command}`",
        "processor": f"{_processor()}, {os.cpu_count()} cores for the worker, the client and both servers together",
        "memory": f"{_memory_gib():.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "servers": f"{servers}, with the durable settings of the embedded servers "
        "(every commit synced, append-only file synced each second)",
        "other systems": ", ".join(pin.replace("==", " ") for system in PEERS for pin in system.pins),
        "in every environment": ", ".join(pin.replace("==", " ") for pin in shared_pins()),
        "rounds": rounds,
    }


def _processor() -> str:
    line = _first_line(Path("/proc/cpuinfo"), "model name")
    return line.partition(":")[2].strip() if line else platform.machine()


def _memory_gib() -> float:
    line = _first_line(Path("/proc/meminfo"), "MemTotal")
    return int(line.split()[1]) / 1024**2 if line else 0


def _first_line(path: Path, start: str) -> str | None:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line for line in lines if line.startswith(start)), None)
