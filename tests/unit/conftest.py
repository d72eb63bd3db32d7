"""What the unit tests share: an in-memory Redis that runs the real Lua scripts."""

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

# A busy machine is slow; that is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    """A Redis of its own for each test."""
    client = FakeAsyncRedis()
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()
