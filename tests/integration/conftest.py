"""One real PostgreSQL and one real Valkey for all tests, and for each test a database and an empty Redis of its own.

A server that does not start fails the tests that need it: nothing here skips.
"""

import asyncio
import io
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import asyncpg  # type: ignore[import-untyped]
import pytest
import redis
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from tests.logging_state import logging_put_back
from tests.waiting import PATIENCE_SECONDS
from worker.database.session import create_engine, create_sessions
from worker.database.startup import create_tables
from worker.embedded import PostgresServer, ValkeyServer
from worker.observability import logs

# Nothing is lost but what a power cut would take, and that takes the tests too.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "deadlock_timeout": "100ms"}
TEMPLATE = "template_worker"

_names = (f"test_{number}" for number in itertools.count())


class Sql(Protocol):
    """Runs one statement on a connection of its own, outside of the engine under test; the first value of it."""

    async def __call__(self, statement: str, *arguments: object) -> Any: ...


class Eventually(Protocol):
    """Waits until a question is answered with something true, and returns that; fails after a bound."""

    async def __call__(self, question: Callable[[], Awaitable[Any]], *, seconds: float = PATIENCE_SECONDS) -> Any: ...


class Logged(Protocol):
    """Collects the logs while it is entered; what it gives reads those so far, a line each, as the JSON that it is."""

    def __call__(self) -> AbstractContextManager[Callable[[], list[dict[str, Any]]]]: ...


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    # Not pytest's own: when root runs the tests, PostgreSQL's user must be able to pass through.
    path = Path(tempfile.mkdtemp(prefix="test-servers-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[PostgresServer]:
    with PostgresServer(server_folder / "postgres", settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(server_folder / "valkey") as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> str:
    """The name of a database that has the tables."""

    async def make() -> None:
        engine = create_engine(url, pool_size=1)
        await create_tables(engine)
        await engine.dispose()

    url = postgres.create_database(TEMPLATE)
    asyncio.run(make())
    return TEMPLATE


@pytest.fixture
async def database_url(postgres: PostgresServer, template: str) -> AsyncIterator[str]:
    """The URL of a database of the test's own, with empty tables."""
    name = next(_names)
    await _run(postgres.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield postgres.url.rpartition("/")[0] + "/" + name
    await _run(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def empty_database_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """The URL of a database of the test's own, without tables."""
    name = next(_names)
    await _run(postgres.url, f"CREATE DATABASE {name}")
    yield postgres.url.rpartition("/")[0] + "/" + name
    await _run(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, pool_size=16)
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return create_sessions(engine)


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The URL of an empty Redis."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
async def sql(database_url: str) -> Sql:
    async def run(statement: str, *arguments: object) -> Any:
        return await _run(database_url, statement, *arguments)

    return run


@pytest.fixture
def eventually() -> Eventually:
    async def wait(question: Callable[[], Awaitable[Any]], *, seconds: float = PATIENCE_SECONDS) -> Any:
        deadline = time.monotonic() + seconds
        while not (answer := await question()):
            assert time.monotonic() < deadline, f"not so within {seconds} s: the last answer was {answer!r}"
            await asyncio.sleep(0.01)
        return answer

    return wait


@pytest.fixture
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    """The statements that the engine sends, as they are sent; `statements.clear()` begins anew."""
    with recorded(engine) as sent:
        yield sent


@contextmanager
def recorded(engine: AsyncEngine) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine.sync_engine, "before_cursor_execute", note)


@pytest.fixture
def logging_kept() -> Iterator[None]:
    """Puts logging back as it was."""
    with logging_put_back():
        yield


@pytest.fixture
def logged(logging_kept: None) -> Logged:
    @contextmanager
    def collect() -> Iterator[Callable[[], list[dict[str, Any]]]]:
        written = io.BytesIO()
        with redirect_stdout(io.TextIOWrapper(written, encoding="utf-8", write_through=True)):
            logs.configure("json", "info")
            yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]

    return collect


async def _run(url: str, statement: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *arguments, timeout=PATIENCE_SECONDS)
    finally:
        await connection.close()
