"""The servers, the proxies in front of them and the workers: started once, emptied for each run."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.faults import observations
from tests.faults.processes import Workers
from tests.faults.proxy import Proxy
from worker.embedded import PostgresServer, ValkeyServer

LEASE_SECONDS = 2.0
T = TypeVar("T")

# The machine itself never fails, so fsync is not needed. The oracle reads the times of commits.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "track_commit_timestamp": "on"}


class Cluster:
    """PostgreSQL, Valkey, a proxy in front of each, and the workers.

    Args:
        folder: for the data of the servers and the logs of the workers.
    """

    def __init__(self, folder: Path) -> None:
        self.postgres = PostgresServer(folder / "postgres", settings=_SETTINGS)
        self.valkey = ValkeyServer(folder / "valkey")
        self.workers = Workers(folder)
        self.database_proxy: Proxy
        self.redis_proxy: Proxy
        self.client_proxy: Proxy
        self.redis: Any
        """Retries for a while when Valkey is down."""
        self.redis_without_retry: Any
        self._observing = False

    async def open(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.valkey.start)
        self.database_proxy = Proxy(self.postgres.port)
        self.redis_proxy, self.client_proxy = Proxy(self.valkey.port), Proxy(self.valkey.port)
        for proxy in self.proxies:
            await proxy.open()
        retry = Retry(ConstantBackoff(0.1), 50)
        self.redis = Redis.from_url(self.valkey.url, retry=retry, retry_on_error=[RedisConnectionError, OSError])
        self.redis_without_retry = Redis.from_url(self.valkey.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))

    async def close(self) -> None:
        self.workers.kill_all()
        await self.redis.aclose()
        await self.redis_without_retry.aclose()
        for proxy in self.proxies:
            await proxy.close()
        await asyncio.to_thread(self.valkey.stop)
        await asyncio.to_thread(self.postgres.stop, "immediate")

    @property
    def proxies(self) -> tuple[Proxy, Proxy, Proxy]:
        """Workers to PostgreSQL, workers to Valkey, client to Valkey."""
        return self.database_proxy, self.redis_proxy, self.client_proxy

    @property
    def database_url(self) -> str:
        """PostgreSQL behind the workers' proxy."""
        return self.postgres.url.replace(f":{self.postgres.port}/", f":{self.database_proxy.port}/")

    def redis_url(self, proxy: Proxy) -> str:
        return self.valkey.url.replace(f":{self.valkey.port}/", f":{proxy.port}/")

    async def query(self, read: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Call a function with a direct connection to PostgreSQL."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return await read(connection)
        finally:
            await connection.close()

    async def empty(self) -> None:
        """Remove all data of the previous run. Idle workers may be running."""
        await self.redis.flushall()
        if self._observing:
            await self.query(observations.reset)

    async def observe(self) -> None:
        """Install the triggers of the oracle, once a worker has created the tables."""
        if not self._observing:
            await self.query(observations.install)
            await self.query(observations.reset)
            self._observing = True

    async def heal(self) -> None:
        """Start the servers that are down, and end the faults of the proxies."""
        for server in (self.valkey, self.postgres):
            if not server.running:
                await asyncio.to_thread(server.start)
        for proxy in self.proxies:
            await proxy.heal()


@asynccontextmanager
async def open_cluster() -> AsyncIterator[Cluster]:
    """A cluster in a folder of its own."""
    folder = _create_folder()
    cluster = Cluster(folder)
    try:
        await cluster.open()
        yield cluster
    finally:
        await cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def _create_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    folder.chmod(0o711)  # PostgreSQL's user must be able to enter it
    return folder
