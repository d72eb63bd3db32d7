"""Connections to Redis are shared, bounded, and checked before they are used again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from producers._redis import connect

Eventually = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Waits until a check returns a true value."""


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client with at most two connections."""
    client = connect(redis_url, queue="q", max_connections=2)
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


async def test_a_command_waits_when_no_connection_is_free(redis: Redis) -> None:
    await asyncio.gather(*(redis.incr("n") for _ in range(50)))

    assert await redis.get("n") == b"50"
    assert len(await redis.client_list(_type="normal")) == 2


async def test_a_command_fails_when_no_connection_becomes_free_in_time(redis: Redis) -> None:
    pool = redis.connection_pool
    held = [await pool.get_connection() for _ in range(2)]
    pool._free_seconds = 0.05  # type: ignore[attr-defined]  # it is the pool of `producers`

    with pytest.raises(RedisConnectionError, match="No connection available"):
        await redis.ping()

    for connection in held:
        await pool.release(connection)
    assert await redis.ping()


async def test_a_cancelled_wait_takes_no_connection_from_the_pool(redis: Redis) -> None:
    pool = redis.connection_pool
    held = [await pool.get_connection() for _ in range(2)]
    waiting = asyncio.create_task(pool.get_connection())
    await asyncio.sleep(0)  # it starts to wait
    waiting.cancel()
    for connection in held:
        await pool.release(connection)
    with pytest.raises(asyncio.CancelledError):
        await waiting

    both = await asyncio.gather(pool.get_connection(), pool.get_connection())

    assert set(both) == set(held)
    for connection in both:
        await pool.release(connection)


async def test_a_failed_connect_uses_up_no_connection_of_the_pool() -> None:
    client = connect("redis://127.0.0.1:1", queue="q", max_connections=2)
    for _ in range(5):
        with pytest.raises(RedisConnectionError, match="connecting"):
            await client.ping()
    await client.aclose()


async def test_an_unread_answer_is_never_taken_for_the_next_one(redis: Redis, eventually: Eventually) -> None:
    pool = redis.connection_pool
    connection = await pool.get_connection()
    await connection.send_command("ECHO", "stray")

    async def has_come() -> bool:
        return not connection._socket_is_empty()

    await eventually(has_come)
    await pool.release(connection)

    assert await redis.echo("mine") == b"mine"


async def test_a_connection_that_ended_while_idle_is_replaced(redis: Redis, redis_url: str) -> None:
    await redis.ping()
    async with Redis.from_url(redis_url) as other:
        await other.client_kill_filter(_type="normal", skipme=True)

        assert await redis.ping()
