"""The environments of the other systems: one each, below `.bench/`, with exactly these versions."""

import hashlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".bench"
INSTALL_SECONDS = 600

# What each is at its quickest with. uvloop, SQLAlchemy and asyncpg are added in the versions that this project has.
PINS: Mapping[str, Sequence[str]] = {
    "arq": ("arq==0.28.0", "redis[hiredis]==5.3.1"),
    "saq": ("saq[hiredis,redis]==0.26.4",),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "hiredis==3.5.0"),
    "streaq": ("streaq==7.2.0",),
    "procrastinate": ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"),
    "celery": ("celery[redis]==5.7.0", "hiredis==3.5.0", "psycopg[binary]==3.3.9"),
}
_SHARED = {"sqlalchemy": "sqlalchemy[asyncio]", "asyncpg": "asyncpg", "uvloop": "uvloop"}


class NotInstallable(Exception):
    """A system cannot be installed here; the text says why."""


_refused: dict[str, str] = {}
"""Why systems could not be installed: it is not tried again in this run."""


def interpreter(name: str) -> Path:
    """The interpreter of a system's environment, which is made if it is not there.

    Raises:
        NotInstallable: with the last line of what the installer said.
    """
    folder = FOLDER / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = requirements(name, (ROOT / "constraints.txt").read_text())
    # The interpreter is a part of what was asked for: an environment of another one is made anew.
    mark = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == mark and python.exists():
        return python
    if name in _refused:
        raise NotInstallable(_refused[name])
    print(f"installing {name} into .bench/{name} (done once) …", file=sys.stderr)  # noqa: T201  # it takes a while
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *wanted])
    except NotInstallable as error:
        _refused[name] = str(error)
        raise
    stamp.write_text(mark)
    return python


def requirements(name: str, constraints: str) -> list[str]:
    """What is installed for a system: its own pins, and what all share in the versions of `constraints`.

    >>> requirements("saq", "asyncpg==0.1\\nSQLAlchemy==2.9\\nuvloop==3")[1:]
    ['asyncpg==0.1', 'sqlalchemy[asyncio]==2.9', 'uvloop==3']
    """
    pinned = re.findall(r"^([A-Za-z_-]+)==(\S+)$", constraints, re.MULTILINE)
    shared = sorted(f"{_SHARED[key.lower()]}=={version}" for key, version in pinned if key.lower() in _SHARED)
    return [*PINS[name], *shared]


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise NotInstallable(f"not installable: it took longer than {INSTALL_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: no reason given"]
        # Registries and folders are of this machine only, and nobody else's business.
        reason = re.sub(r"\S*(?:://|/)\S*", "…", lines[-1].removeprefix("ERROR: "))
        raise NotInstallable(f"not installable on Python {platform.python_version()}: {reason}") from None
