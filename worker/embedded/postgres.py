"""A real PostgreSQL, run from a folder.

    <folder>/data        the data folder, which belongs to the account that PostgreSQL runs under
    <folder>/…           see folder.py

It listens on TCP on 127.0.0.1 only (no Unix socket, whose path is limited to about 100 bytes), requires a password and
uses UTC. Its log holds no value from a query: messages about a query go to the client and are not logged.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import quote

from worker.embedded.errors import EmbeddedError
from worker.embedded.ports import HOST
from worker.embedded.process import Account, run, unprivileged
from worker.embedded.programs import postgres_programs
from worker.embedded.server import Server

StopMode = Literal["fast", "immediate"]

DATABASE = "worker"
USER = "postgres"

_SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "unix_socket_directories": "",
    # "log" ranks above "error", whose messages quote rows and parameters.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
# PostgreSQL's own locale: the same on every platform, and it needs nothing from the system.
_LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_STOP_SIGNALS: Mapping[StopMode, Sequence[signal.Signals]] = {
    "fast": (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
    "immediate": (signal.SIGQUIT, signal.SIGKILL),
}
_STATUS_LINE = 7  # of postmaster.pid, counted from 0


class PostgresServer(Server):
    """A PostgreSQL with one user, `postgres`, and one database, `worker`.

    If the caller is root, the server runs under an unprivileged account, which must be able to reach `folder`.
    """

    name: ClassVar[str] = "PostgreSQL"
    stop_signals: ClassVar[Sequence[signal.Signals]] = _STOP_SIGNALS["fast"]
    defaults: ClassVar[Mapping[str, str]] = _SETTINGS

    @cached_property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs."""
        return postgres_programs(self._account())

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and release the folder.

        `fast` disconnects clients and shuts down; `immediate` ends at once and leaves the rest to recovery at the next
        start. Each step that takes longer than `stop_seconds` is followed by a harder one.
        """
        self._stop(_STOP_SIGNALS[mode])

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if that is given, and return its URL.

        Raises EmbeddedError with PostgreSQL's reason, for example that the database exists or the template is in use.
        """
        copy = ["--template", template] if template is not None else []
        self._run_client("createdb", self.port, *copy, "--", name)
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.port}/{quote(database, safe='')}"

    def _run_client(self, program: str, port: int, *arguments: str) -> str:
        command = [str(self.programs / program), "-h", HOST, "-p", str(port), "-U", USER, "-w", *arguments]
        return run(command, account=self._account(), password=self.password)

    def _account(self) -> Account | None:
        return unprivileged()

    def _prepare(self, deadline: float) -> None:
        account = self._account()
        if account and not account.can_enter(self.folder):
            raise EmbeddedError(
                f"root must run PostgreSQL as the user {account.name}, and {self.folder}, or a folder above it, is "
                f"closed to that user: choose one that all users can enter, open it (chmod o+x), or use --ephemeral"
            )
        if self.data.exists():
            self._clear_stale_pid()
        else:
            self._create_cluster(account, deadline)

    def _create_cluster(self, account: Account | None, deadline: float) -> None:
        """Create the data folder in a temporary one beside it and move it, so that it is complete or does not exist.

        The programs inherit the server's lock, so that the next start waits for them if this process is killed.
        """
        for leftover in self.folder.glob(".new-*"):  # of a first start that was killed
            shutil.rmtree(leftover)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        lock = self._files.lock_for_server()

        def step(program: str, *arguments: str, text: str = "") -> None:
            command = [str(self.programs / program), *arguments]
            run(command, account=account, seconds=deadline - time.monotonic(), text=text, inherit=(lock,))

        try:
            secret, data = draft / "password", str(draft / "data")
            secret.touch(0o600)
            secret.write_text(self.password + "\n")
            if account:
                for path in (secret, draft):
                    os.chown(path, account.uid, account.gid)
            step("initdb", "-D", data, "-U", USER, *_LOCALE, "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync")
            # In single-user mode, because no server is running yet.
            step("postgres", "--single", "-F", "-D", data, "postgres", text=f'CREATE DATABASE "{DATABASE}";\n')
            step("initdb", "-D", data, "--sync-only")
            Path(data).rename(self.data)
        finally:
            os.close(lock)
            self._wait_until_gone()  # for the children of initdb
            shutil.rmtree(draft, ignore_errors=True)

    def _command(self) -> Sequence[str]:
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), *settings, "-h", HOST, "-p", str(self.port)]

    def _is_ready(self, pid: int) -> bool:
        lines = self._pid_file()
        return len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _end_leftover(self, port: int) -> None:
        # A server that accepts this folder's password and uses its data is the one that wrote its postmaster.pid.
        try:
            answer = self._run_client("psql", port, "-X", "-A", "-t", "-c", "SHOW data_directory", DATABASE)
            if not Path(answer.strip()).samefile(self.data):
                return
            command = [str(self.programs / "pg_ctl"), "stop", "-D", str(self.data), "-m", "fast", "--no-wait"]
            run(command, account=self._account())
        except (EmbeddedError, OSError):
            return  # it may have ended meanwhile: the caller checks

    def _clear_stale_pid(self) -> None:
        """Let PostgreSQL start after a crash, even if another process now has the id in postmaster.pid.

        PostgreSQL ignores the id of its parent, which is this process, and still checks for processes that use the
        data. The file of a PostgreSQL that was started by hand does not change.
        """
        lines = self._pid_file()
        if sys.platform != "linux" or not lines:
            return
        try:
            program = Path(f"/proc/{lines[0]}/cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            program = b""
        if not Path(os.fsdecode(program)).name.startswith("postgres"):
            (self.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
