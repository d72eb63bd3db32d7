"""Real servers for the real commands: started once, with a new database and an empty Redis for each test."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg  # type: ignore[import-untyped]
import pytest
import redis

from tests.acceptance.commands import BIN, run
from worker.embedded import EmbeddedServers, PostgresServer, ValkeyServer

REDIS_DATABASES = 16
# This loses data only in a power cut, which ends the tests as well.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Place:
    """A database and a Redis of one test."""

    database: str
    redis: str

    @property
    def variables(self) -> dict[str, str]:
        """The variables that name them to a worker."""
        return {"DATABASE_URL": self.database, "REDIS_URL": self.redis}

    def sql(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """The rows that a statement returns."""
        return asyncio.run(self._sql(statement, arguments))

    async def _sql(self, statement: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.database, server_settings={"application_name": "test"})
        try:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    def count(self, table: str) -> int:
        """The number of rows of a table."""
        return int(self.sql(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608  # a name from a test

    def redis_cli(self, *words: str) -> str:
        """The answer of the real `redis-cli`."""
        url = urlsplit(self.redis)
        place = ("-h", str(url.hostname), "-p", str(url.port), "-n", url.path.lstrip("/"))
        done = run(str(BIN / "redis-cli"), *place, *words, variables={"REDISCLI_AUTH": str(url.password)})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def set(self, key: str, value: str) -> None:
        """Set a value that may be too long for a command line."""
        with closing(redis.Redis.from_url(self.redis)) as client:
            client.set(key, value)


@pytest.fixture(scope="session")
def make_place(reachable_for_all: Path) -> Iterator[Callable[[], Place]]:
    numbers = itertools.count(1)
    with (
        PostgresServer(reachable_for_all / "postgresql", settings=FAST) as postgres,
        ValkeyServer(reachable_for_all / "valkey") as valkey,
    ):

        def make() -> Place:
            number = next(numbers)
            url = f"{valkey.url.rpartition('/')[0]}/{number % REDIS_DATABASES}"
            with closing(redis.Redis.from_url(url)) as client:
                client.flushdb()
            return Place(postgres.create_database(f"place{number}"), url)

        yield make


@pytest.fixture
def place(make_place: Callable[[], Place]) -> Place:
    return make_place()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A temporary folder that the servers' user can reach. Pytest's own is closed to it when root runs the tests."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def reachable_for_all() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def kept() -> Iterator[Path]:
    """A data folder whose servers have run before and are stopped; each test leaves it in this state."""
    with reachable_folder() as folder:
        with EmbeddedServers(folder):
            pass
        yield folder


@contextmanager
def reachable_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="test-acceptance-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)
