"""How is a real PostgreSQL run from a folder?

    <folder>/data        the data folder, of the user that PostgreSQL runs as
    <folder>/…           see home.py

TCP on 127.0.0.1 only (no unix socket, whose path may be no longer than some 100 bytes), passwords only, UTC. The
server's log never holds a value from a query: messages about a query are the client's to see, and are not logged.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, assert_never
from urllib.parse import quote

from worker.embedded import cluster
from worker.embedded.account import Account, unprivileged
from worker.embedded.child import Child
from worker.embedded.errors import EmbeddedError
from worker.embedded.ports import HOST
from worker.embedded.process import run
from worker.embedded.programs import postgres_programs
from worker.embedded.server import Server

StopMode = Literal["smart", "fast", "immediate"]

DATABASE = "worker"
USER = "postgres"

_SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "unix_socket_directories": "",
    # No value may reach the log: "log" ranks above "error", whose texts and details quote rows and parameters.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
_READY_LINE = 7  # of postmaster.pid, from 0: its last
_CLIENT_SECONDS = 30.0


class PostgresServer(Server):
    """A PostgreSQL with one user, `postgres`, and one database, `worker`.

    `settings` are added to (or replace) the settings above, as in postgresql.conf. Started by root it runs as the
    user `nobody`, who must be able to reach `folder`.
    """

    name: ClassVar[str] = "PostgreSQL"
    at_owner_death: ClassVar[signal.Signals] = signal.SIGINT
    stop_signals: ClassVar[Sequence[signal.Signals]] = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] = {},
        start_seconds: float = 30.0,
        stop_seconds: float = 10.0,
    ) -> None:
        super().__init__(folder, port=port, start_seconds=start_seconds, stop_seconds=stop_seconds)
        self._settings = {**_SETTINGS, **settings}
        self._programs: Path | None = None

    def stop(self, mode: StopMode = "fast") -> None:
        """Stops the server, and lets the folder go.

        `smart` waits for clients to leave, `fast` disconnects them, `immediate` leaves the rest to recovery at the
        next start. What is not over in `stop_seconds` is ended by `immediate`, and then by SIGKILL.
        """
        try:
            self._end(_signals(mode))
        finally:
            self._home.owner.release()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stops, as stop() does, and starts on the same port, without letting the folder go in between."""
        self._end(_signals(mode))
        self.start()

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Creates a database, as a copy of `template` if one is given, and returns its URL.

        Raises EmbeddedError with PostgreSQL's reason, such as that it exists, or that the template is in use.
        """
        copied = ["--template", template] if template is not None else []
        run(
            [self._program("createdb"), "-h", HOST, "-p", str(self.port), "-U", USER, "-w", *copied, "--", name],
            account=self._account(),
            seconds=_CLIENT_SECONDS,
            environment={"PGPASSWORD": self.password},
        )
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.port}/{quote(database, safe='')}"

    def _program(self, name: str) -> str:
        return str(self._find_programs() / name)

    def _find_programs(self) -> Path:
        if self._programs is None:
            self._programs = postgres_programs(self._account())
        return self._programs

    def _account(self) -> Account | None:
        return unprivileged()

    def _prepare(self, deadline: float) -> None:
        account = self._account()
        closed = account.closed_step(self.folder) if account else None
        if account and closed:
            raise EmbeddedError(
                f"{self.folder} cannot be used: root must run PostgreSQL as the user {account.name}, and {closed} "
                f"is closed to that user: choose a folder that all users can pass through (as /var/lib/… is), "
                f"open {closed} to them (chmod o+x), or use --ephemeral"
            )
        if self.data.exists():
            self._forget_stale_pid()
            return
        family = self._home.family.take()
        try:
            cluster.create(
                self.data,
                user=USER,
                password=self.password,
                database=DATABASE,
                programs=self._find_programs(),
                account=account,
                family=family,
                deadline=deadline,
            )
        finally:
            os.close(family)

    def _command(self) -> Sequence[str]:
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.data), *settings, "-h", HOST, "-p", str(self.port)]

    def _ready(self, child: Child) -> bool:
        lines = self._pid_file()
        return len(lines) > _READY_LINE and lines[0] == str(child.pid) and lines[_READY_LINE].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _ask_earlier_family_to_end(self) -> None:
        # Its number is not that of a stranger: something of that family is alive, and its head writes this file.
        if not self._pid_file():
            return
        seconds = str(max(1, round(self._stop_seconds)))
        for mode in ("fast", "immediate"):
            try:
                run(
                    [self._program("pg_ctl"), "stop", "-D", str(self.data), "-m", mode, "-w", "-t", seconds],
                    account=self._account(),
                    seconds=self._stop_seconds + 1,
                )
            except EmbeddedError:
                continue  # it may have ended by itself meanwhile: the caller looks
            return

    def _forget_stale_pid(self) -> None:
        # After a crash the number in postmaster.pid may belong to a stranger by now, above all in containers, where
        # numbers are small, or to a corpse that its new parent has not collected. PostgreSQL would take either for a
        # server and refuse to start. No server of ours is alive; one that was started by hand is left its file.
        lines = self._pid_file()
        if sys.platform != "linux" or not lines:
            return
        try:
            words = Path(f"/proc/{lines[0]}/cmdline").read_bytes().split(b"\0")
        except OSError:
            words = [b""]
        if not Path(os.fsdecode(words[0])).name.startswith("postgres"):
            (self.data / "postmaster.pid").unlink()


def _signals(mode: StopMode) -> Sequence[signal.Signals]:
    match mode:
        case "smart":
            return (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)
        case "fast":
            return PostgresServer.stop_signals
        case "immediate":
            return (signal.SIGQUIT, signal.SIGKILL)
        case _:
            assert_never(mode)
