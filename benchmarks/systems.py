"""The systems that are compared. Each peer has a virtual environment of its own in `.bench/`, with pinned versions."""

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import NotMeasured

ROOT = Path(__file__).parent.parent
_INSTALL_SECONDS = 600


@dataclass(frozen=True)
class System:
    """A job queue with its settings."""

    label: str
    adapter: str
    """Its module in `benchmarks.adapters`, which names its virtual environment as well."""
    pins: tuple[str, ...] = ()
    """Its packages, with the extras that make it fastest; none for this project."""
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Environment variables of its programs."""


ARQ = System("stock arq", "arq", ("arq==0.28.0", "redis[hiredis]==5.3.1"))
SAQ = System("SAQ", "saq", ("saq[hiredis,redis]==0.26.4",))
TASKIQ = System("taskiq", "taskiq", ("taskiq==0.13.0", "taskiq-redis==1.2.4", "hiredis==3.5.0"))
STREAQ = System("streaq", "streaq", ("streaq==7.2.0",))
PEERS = (ARQ, SAQ, TASKIQ, STREAQ)

USERPOST = System("userpost-worker", "userpost")
USERPOST_BATCHES = System("userpost-worker, batches of 64", "userpost", settings={"WORKER_BATCH_SIZE": "64"})
OWN_LABELS = frozenset({USERPOST.label, USERPOST_BATCHES.label})
PGBENCH_LABEL = "pgbench"

_failures: dict[str, str] = {}
"""Why peers could not be installed. An installation is not repeated within a run."""


def shared_pins() -> list[str]:
    """What every environment holds besides its peer, in the versions that are installed here."""
    return [f"{name}=={version(name.partition('[')[0])}" for name in ("asyncpg", "sqlalchemy[asyncio]", "uvloop")]


def python_for(system: System) -> str:
    """The interpreter of a system. A peer's environment is created on first use, and again when its pins change.

    Raises:
        NotMeasured: when the system cannot be installed.
    """
    if not system.pins:
        return sys.executable
    folder = ROOT / ".bench" / system.adapter
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    pins = [*system.pins, *shared_pins()]
    contents = "\n".join([sys.version, *pins])
    if python.exists() and stamp.exists() and stamp.read_text() == contents:
        return str(python)
    if system.adapter in _failures:
        raise NotMeasured(_failures[system.adapter])
    print(f"installing {system.adapter} into .bench (done once) …", file=sys.stderr)  # noqa: T201  # takes a while
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *pins)
    except NotMeasured as error:
        _failures[system.adapter] = str(error)
        raise
    stamp.write_text(contents)
    return str(python)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"not installable: pip took longer than {_INSTALL_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: no reason given"]
        # Reports are published: they must not name registries and folders of this machine.
        reason = re.sub(r"\S*(?:://|/)\S*", "…", lines[-1].removeprefix("ERROR: "))
        raise NotMeasured(f"not installable on Python {platform.python_version()}: {reason}") from None
