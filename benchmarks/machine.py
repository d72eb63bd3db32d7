"""What the figures were measured on and with, without a name or a path of the machine."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.environments import PINS, ROOT, requirements


def describe(servers: str, command: str) -> dict[str, str]:
    """Each fact under its name.

    Args:
        servers: which servers were measured on.
        command: what was run.
    """
    shared = requirements("saq", (ROOT / "constraints.txt").read_text())[len(PINS["saq"]) :]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": f"`{command}`",
        "processor": f"{_processor()}, {_cores()} cores for the worker, the client and both servers together",
        "memory": f"{_memory_gib():.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "servers": f"{servers}, with the durable settings of the embedded servers "
        "(every commit synced, append-only file synced each second)",
        "other systems": ", ".join(pin.replace("==", " ") for pins in PINS.values() for pin in pins),
        "in every environment": ", ".join(pin.replace("==", " ") for pin in shared),
    }


def _processor() -> str:
    lines = _lines(Path("/proc/cpuinfo"), "model name")
    return lines[0].partition(":")[2].strip() if lines else platform.machine()


def _cores() -> int:
    return os.cpu_count() or 1


def _memory_gib() -> float:
    lines = _lines(Path("/proc/meminfo"), "MemTotal")
    return int(lines[0].split()[1]) / 1024**2 if lines else 0


def _lines(path: Path, start: str) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith(start)] if path.exists() else []
