"""How is a real Valkey (or, to its clients, Redis) run from a folder?

<folder>/data           the append-only files
<folder>/valkey.conf    written at every start: it holds the password, which a command line would show to all
<folder>/…              see home.py
"""

import signal
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import redis
from redis.exceptions import RedisError

from worker.embedded.account import Account
from worker.embedded.child import Child
from worker.embedded.home import make_folder, write_private
from worker.embedded.ports import HOST
from worker.embedded.programs import valkey_program
from worker.embedded.server import Server

_OPTIONS: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory-policy": "noeviction",
    "hide-user-data-from-log": "yes",
}
_ANSWER_SECONDS = 1.0


class ValkeyServer(Server):
    """A Valkey that loses nothing it has acknowledged when it is killed, and refuses writes rather than evict.

    `options` are added to (or replace) the options above, each value as it would stand in valkey.conf.
    """

    name: ClassVar[str] = "Valkey"
    at_owner_death: ClassVar[signal.Signals] = signal.SIGTERM
    stop_signals: ClassVar[Sequence[signal.Signals]] = (signal.SIGTERM, signal.SIGKILL)

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        options: Mapping[str, str] = {},
        start_seconds: float = 30.0,
        stop_seconds: float = 10.0,
    ) -> None:
        super().__init__(folder, port=port, start_seconds=start_seconds, stop_seconds=stop_seconds)
        if any("\n" in word for option in options.items() for word in option):
            raise ValueError("options must not hold line breaks: each would begin another option")
        self._options = {**_OPTIONS, **options}

    @property
    def url(self) -> str:
        # With the user's name, which redis-cli wants in a URL.
        return f"redis://default:{self.password}@{HOST}:{self.port}/0"

    def _account(self) -> Account | None:
        return None

    def _prepare(self, deadline: float) -> None:  # noqa: ARG002 - nothing here takes long
        make_folder(self.data, None)

    def _command(self) -> Sequence[str]:
        fixed = {
            "bind": HOST,
            "port": str(self.port),
            "requirepass": self.password,
            "dir": '"{}"'.format(str(self.data).replace("\\", "\\\\").replace('"', '\\"')),
            "daemonize": "no",
            "logfile": '""',
        }
        configuration = self.folder / "valkey.conf"
        write_private(configuration, "".join(f"{k} {v}\n" for k, v in {**self._options, **fixed}.items()))
        return [str(valkey_program()), str(configuration)]

    def _ready(self, child: Child) -> bool:
        # Its own number, so that another server on this port is never taken for ours.
        return self._answering_pid() == child.pid

    def _answering_pid(self) -> int | None:
        with closing(self._client(self.port)) as client:
            try:
                client.ping()  # refused while the data is being loaded, which INFO is not
                answer = client.info("server")
            except RedisError:
                return None
        pid = answer.get("process_id") if isinstance(answer, dict) else None
        return pid if isinstance(pid, int) else None

    def _client(self, port: int) -> redis.Redis:
        return redis.Redis(
            host=HOST,
            port=port,
            password=self.password,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
        )

    def _ask_earlier_family_to_end(self) -> None:
        # By its own command, not by a signal: only a server that knows this folder's password obeys.
        port = self._home.remembered_port()
        if port is None:
            return
        with closing(self._client(port)) as client:
            try:
                client.shutdown(nosave=True)  # the append-only file is written and synced all the same
            except RedisError:
                return  # it may have ended by itself meanwhile: the caller looks
