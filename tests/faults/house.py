"""The servers and the proxies before them: started once, empty for every run."""

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

from tests.faults import seen
from tests.faults.processes import Workers
from tests.faults.proxy import Proxy
from worker.embedded import PostgresServer, ValkeyServer

LEASE_SECONDS = 2.0
T = TypeVar("T")

# The machine itself never goes down: what a server has handed to the kernel is safe. The oracle asks when commits were.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "track_commit_timestamp": "on"}


class House:
    """A PostgreSQL, a Valkey, a proxy before each, and the workers.

    Args:
        folder: where all of it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.postgres = PostgresServer(folder / "postgres", settings=_SETTINGS)
        self.valkey = ValkeyServer(folder / "valkey")
        self.workers = Workers(folder)
        self.database_proxy: Proxy
        self.redis_proxy: Proxy
        self.client_proxy: Proxy
        self.redis: Any
        """Waits for a while when Valkey is away."""
        self.impatient: Any
        self._noting = False

    async def open(self) -> None:
        """Start the servers."""
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.valkey.start)
        self.database_proxy = Proxy(self.postgres.port)
        self.redis_proxy, self.client_proxy = Proxy(self.valkey.port), Proxy(self.valkey.port)
        for proxy in self.proxies:
            await proxy.open()
        patient = Retry(ConstantBackoff(0.1), 50)
        self.impatient = Redis.from_url(self.valkey.url, socket_timeout=1, retry=Retry(NoBackoff(), 0))
        self.redis = Redis.from_url(self.valkey.url, retry=patient, retry_on_error=[RedisConnectionError, OSError])

    async def close(self) -> None:
        """Leave nothing running."""
        self.workers.end_all()
        await self.redis.aclose()
        await self.impatient.aclose()
        for proxy in self.proxies:
            await proxy.close()
        await asyncio.to_thread(self.valkey.stop)
        await asyncio.to_thread(self.postgres.stop, "immediate")

    @property
    def proxies(self) -> tuple[Proxy, Proxy, Proxy]:
        """The workers' ways to PostgreSQL and to Valkey, and the client's to Valkey."""
        return self.database_proxy, self.redis_proxy, self.client_proxy

    @property
    def database_url(self) -> str:
        """PostgreSQL behind the proxy."""
        return _by_way_of(self.postgres.url, self.postgres.port, self.database_proxy.port)

    @property
    def redis_url(self) -> str:
        """Valkey behind the proxy."""
        return _by_way_of(self.valkey.url, self.valkey.port, self.redis_proxy.port)

    @property
    def client_url(self) -> str:
        """Valkey behind the client's own proxy."""
        return _by_way_of(self.valkey.url, self.valkey.port, self.client_proxy.port)

    async def observe(self, look: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Let the oracle look, on a connection of its own that no proxy stands before."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return await look(connection)
        finally:
            await connection.close()

    async def empty(self) -> None:
        """Forget the run before. The workers may be there, and have nothing to do."""
        await self.redis.flushall()
        if self._noting:
            await self.observe(seen.reset)

    async def note(self) -> None:
        """Begin to note what happens, once a worker has created the tables."""
        if not self._noting:
            await self.observe(seen.install)
            await self.observe(seen.reset)
            self._noting = True

    async def heal(self) -> None:
        """Both servers are there, and so is the way to them."""
        for server in (self.valkey, self.postgres):
            if not server.running:
                await asyncio.to_thread(server.start)
        for proxy in self.proxies:
            await proxy.heal()


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    """A house in a folder of its own, which PostgreSQL's user can reach."""
    folder = _reachable_folder()
    made = House(folder)
    try:
        await made.open()
        yield made
    finally:
        await made.close()
        shutil.rmtree(folder, ignore_errors=True)


def _reachable_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    folder.chmod(0o711)
    return folder


def _by_way_of(url: str, port: int, proxy_port: int) -> str:
    return url.replace(f":{port}/", f":{proxy_port}/")
