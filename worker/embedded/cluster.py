"""How is PostgreSQL's data folder made, so that it is either complete or not there?"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from worker.embedded.account import Account
from worker.embedded.process import run

# PostgreSQL's own locale, the same on every platform and in need of none from the system.
_LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_DRAFT = ".new-"


def create(
    data: Path,
    *,
    user: str,
    password: str,
    database: str,
    programs: Path,
    account: Account | None,
    family: int,
    deadline: float,
) -> None:
    """Makes the folder `data`, with one user and one database; `account` owns it and does the work.

    It is made beside its place, synced to disk once at the end, and moved there. All programs inherit the family's
    locked descriptor `family`: should we be killed, the next start waits for them before it clears their work away.
    Raises EmbeddedError, also when `deadline` (time.monotonic()) passes.
    """
    for leftover in data.parent.glob(f"{_DRAFT}*"):  # of a first start that was killed
        shutil.rmtree(leftover)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=data.parent))

    def step(program: str, *arguments: str, text: str = "") -> None:
        command = [str(programs / program), *arguments]
        run(command, account=account, seconds=deadline - time.monotonic(), text=text, inherit=(family,))

    try:
        secret = draft / "password"
        secret.touch(0o600)
        secret.write_text(password + "\n")
        if account:
            for path in (secret, draft):
                os.chown(path, account.uid, account.gid)
        new = draft / "data"
        step("initdb", "-D", str(new), "-U", user, *_LOCALE, "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync")
        # In PostgreSQL's single-user mode, since no server runs yet that could be asked.
        step("postgres", "--single", "-F", "-D", str(new), "postgres", text=f'CREATE DATABASE "{database}";\n')
        step("initdb", "-D", str(new), "--sync-only")
        new.rename(data)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
