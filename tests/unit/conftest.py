"""What the unit tests share: an in-memory Redis that runs the real Lua scripts, and logs that are read back."""

import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import redirect_stdout
from typing import Literal

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from tests.logging_state import logging_put_back
from tests.unit.written import Written
from worker.observability import logs

# A busy machine is slow; that is not a failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """A Redis of its own for each test."""
    client = FakeAsyncRedis()
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


@pytest.fixture
def kept() -> Iterator[None]:
    """Puts logging back as it was."""
    with logging_put_back():
        yield


@pytest.fixture
def written(kept: None) -> Iterator[Callable[..., Written]]:
    """Configures logs, and gives what reads them."""
    redirections = []

    def configure(
        log_format: Literal["json", "console"] = "json", level: str = "info", encoding: str = "utf-8"
    ) -> Written:
        buffer = io.BytesIO()
        redirection = redirect_stdout(io.TextIOWrapper(buffer, encoding=encoding, write_through=True))
        redirection.__enter__()
        redirections.append(redirection)
        logs.configure(log_format, level)
        return lambda: buffer.getvalue().decode(encoding)

    yield configure
    for redirection in reversed(redirections):
        redirection.__exit__(None, None, None)
