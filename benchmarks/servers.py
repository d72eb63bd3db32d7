"""The PostgreSQL and the Valkey of the benchmarks, and a fresh database for each measurement."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import redis

from benchmarks.adapters.base import USER_CREATED_CHANNEL
from worker.embedded import EmbeddedServers

_DATABASE, _TEMPLATE = "benchmark", "benchmark_template"
_NOTIFY_TRIGGER = f"""
CREATE FUNCTION notify_user_created() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('{USER_CREATED_CHANNEL}', NEW.username); RETURN NULL; END $$;
CREATE TRIGGER notify_user_created AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION notify_user_created();
"""


class Database:
    """A connection to a database, for code without an event loop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(url))

    def execute(self, *statements: str) -> None:
        """Run statements."""
        for statement in statements:
            self._runner.run(self._connection.execute(statement))

    def row(self, query: str, *values: Any) -> tuple[Any, ...]:
        """The first row of a query."""
        return tuple(self._runner.run(self._connection.fetchrow(query, *values)))

    def close(self) -> None:
        """Disconnect."""
        self._runner.run(self._connection.close())
        self._runner.close()


@dataclass(frozen=True)
class Servers:
    """Both servers, as durable as `worker dev` runs them."""

    embedded: EmbeddedServers

    @contextmanager
    def fresh(self, *, notify: bool = False) -> Iterator[Database]:
        """A database with empty tables, and an empty Redis. `notify` adds the trigger for the latency."""
        self._flush()
        url = self.embedded.postgres.create_database(_DATABASE, template=_TEMPLATE)
        try:
            with closing(Database(url)) as database:
                if notify:
                    database.execute(_NOTIFY_TRIGGER)
                # The writes of the previous measurement must not slow this one.
                database.execute("CHECKPOINT")
                yield database
        finally:
            with closing(Database(self.embedded.urls.database)) as admin:
                admin.execute(f"DROP DATABASE {_DATABASE} WITH (FORCE)")
            self._flush()

    def versions(self) -> str:
        """The servers' names and versions."""
        with closing(Database(self.embedded.urls.database)) as database:
            (postgres,) = database.row("SHOW server_version")
        with redis.Redis.from_url(self.embedded.urls.redis) as client:
            info: Any = client.info("server")
        return f"PostgreSQL {postgres.split()[0]}, Valkey {info.get('valkey_version', info['redis_version'])}"

    def _flush(self) -> None:
        with redis.Redis.from_url(self.embedded.urls.redis, socket_timeout=60) as client:
            client.flushall()


@contextmanager
def started_servers() -> Iterator[Servers]:
    """Servers that stop at the end."""
    with EmbeddedServers(ephemeral=True) as embedded:
        template = embedded.postgres.create_database(_TEMPLATE)
        migrate = [sys.executable, "-m", "worker", "migrate"]
        subprocess.run(migrate, env={**os.environ, "DATABASE_URL": template}, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        yield Servers(embedded)
