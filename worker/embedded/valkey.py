"""A real Valkey (to its clients, a Redis), run from a folder.

<folder>/data           the append-only files
<folder>/valkey.conf    written at every start; it holds the password, which a command line would show to all users
<folder>/…              see folder.py
"""

import signal
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import ClassVar

import redis
from redis.exceptions import RedisError

from worker.embedded.folder import make_folder, write_private
from worker.embedded.ports import HOST
from worker.embedded.process import Account
from worker.embedded.programs import valkey_program
from worker.embedded.server import Server

_SETTINGS: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory-policy": "noeviction",
    "hide-user-data-from-log": "yes",
}
_ANSWER_SECONDS = 1.0


class ValkeyServer(Server):
    """A Valkey that keeps every acknowledged write when it is killed, and refuses writes rather than evict keys."""

    name: ClassVar[str] = "Valkey"
    stop_signals: ClassVar[Sequence[signal.Signals]] = (signal.SIGTERM, signal.SIGKILL)
    defaults: ClassVar[Mapping[str, str]] = _SETTINGS

    @property
    def url(self) -> str:
        # With the user name, which redis-cli requires in a URL.
        return f"redis://default:{self.password}@{HOST}:{self.port}/0"

    def _account(self) -> Account | None:
        return None

    def _prepare(self, deadline: float) -> None:  # noqa: ARG002  # nothing here takes long
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
        write_private(configuration, "\n".join(f"{k} {v}" for k, v in {**self._settings, **fixed}.items()))
        return [str(valkey_program()), str(configuration)]

    def _is_ready(self, pid: int) -> bool:
        with closing(self._client(self.port)) as client:
            try:
                client.ping()  # fails while the data is loading, unlike INFO
                answer = client.info("server")
            except RedisError:
                return False
        # Its id shows that this is not another server on the same port.
        return isinstance(answer, dict) and answer.get("process_id") == pid

    def _end_leftover(self, port: int) -> None:
        # By a command and not by a signal: only a server that accepts this folder's password obeys.
        with closing(self._client(port)) as client:
            try:
                client.shutdown(nosave=True)  # it still writes and syncs its append-only files
            except RedisError:
                return  # it may have ended meanwhile: the caller checks

    def _client(self, port: int) -> redis.Redis:
        return redis.Redis(
            host=HOST,
            port=port,
            password=self.password,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
        )
