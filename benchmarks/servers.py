"""The PostgreSQL and the Valkey that everything is measured on, made fresh for each measurement."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg  # type: ignore[import-untyped]
import redis

from benchmarks.peers.common import CHANNEL
from worker.database.session import create_engine
from worker.database.startup import create_tables
from worker.embedded import PostgresServer, ValkeyServer

_TEMPLATE = "benchmark_template"
_TELL = f"""
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('{CHANNEL}', NEW.username); RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION tell();
"""


class Database:
    """One connection to one database, for code that does not run in an event loop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runner = asyncio.Runner()
        self._connection = self._runner.run(asyncpg.connect(url))

    def execute(self, *statements: str) -> None:
        """Run statements."""
        for statement in statements:
            self._runner.run(self._connection.execute(statement))

    def row(self, query: str, *values: Any) -> tuple[Any, ...]:
        """The first row of a query's answer."""
        return tuple(self._runner.run(self._connection.fetchrow(query, *values)))

    def close(self) -> None:
        """Disconnect."""
        self._runner.run(self._connection.close())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Servers:
    """Both servers, with all the durability that this project's embedded ones have."""

    folder: Path
    postgres: PostgresServer
    valkey: ValkeyServer
    _made: int = 0

    @contextmanager
    def fresh(self, *, telling: bool = False) -> Iterator[Database]:
        """An empty Redis and a database with this project's tables; `telling`: with the trigger for the latency."""
        name = f"benchmark_{self._made}"
        self._made += 1
        self.flush()
        url = self.postgres.create_database(name, template=_TEMPLATE)
        try:
            with Database(url) as database:
                if telling:
                    database.execute(_TELL)
                # So that none pays for the writes of the one before.
                database.execute("CHECKPOINT")
                yield database
        finally:
            with Database(self.postgres.url) as admin:
                admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            self.flush()

    def flush(self) -> None:
        """Empty Redis."""
        with redis.Redis.from_url(self.valkey.url, socket_timeout=60) as client:
            client.flushall()

    def versions(self) -> str:
        """Which servers these are, in words."""
        with Database(self.postgres.url) as database:
            (postgres,) = database.row("SHOW server_version")
        with redis.Redis.from_url(self.valkey.url) as client:
            info: Any = client.info("server")
        return f"PostgreSQL {postgres.split()[0]}, Valkey {info.get('valkey_version', info['redis_version'])}"


@contextmanager
def servers() -> Iterator[Servers]:
    """Started, and stopped at the end."""
    # PostgreSQL runs as another user when we are root, and must be able to pass through.
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with PostgresServer(folder / "postgres") as postgres, ValkeyServer(folder / "valkey") as valkey:
            template = postgres.create_database(_TEMPLATE)
            asyncio.run(_create_tables(template))
            yield Servers(folder, postgres, valkey)


async def _create_tables(url: str) -> None:
    engine = create_engine(url, pool_size=1)
    await create_tables(engine)
    await engine.dispose()
