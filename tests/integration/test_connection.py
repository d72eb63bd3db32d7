"""Whether connections to Redis are shared out, bounded, and looked at before they are used again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from producers._redis import connect

Eventually = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Waits until a question is answered with something true."""


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that may have two connections."""
    client = connect(redis_url, queue="q", max_connections=2)
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


async def test_whoever_finds_no_connection_free_waits_for_one(redis: Redis) -> None:
    await asyncio.gather(*(redis.incr("n") for _ in range(50)))

    assert await redis.get("n") == b"50"
    assert len(await redis.client_list(_type="normal")) == 2


async def test_when_none_becomes_free_in_time_it_is_told(redis: Redis) -> None:
    pool = redis.connection_pool
    held = [await pool.get_connection() for _ in range(2)]
    pool._free_seconds = 0.05

    with pytest.raises(RedisConnectionError, match="No connection available"):
        await redis.ping()

    for connection in held:
        await pool.release(connection)
    assert await redis.ping()


async def test_one_who_stops_waiting_takes_nothing_from_the_others(redis: Redis) -> None:
    pool = redis.connection_pool
    held = [await pool.get_connection() for _ in range(2)]
    waiting = asyncio.create_task(pool.get_connection())
    await asyncio.sleep(0)  # it waits
    waiting.cancel()
    for connection in held:
        await pool.release(connection)
    with pytest.raises(asyncio.CancelledError):
        await waiting

    both = await asyncio.gather(pool.get_connection(), pool.get_connection())

    assert set(both) == set(held)
    for connection in both:
        await pool.release(connection)


async def test_a_server_that_cannot_be_reached_uses_up_no_connection() -> None:
    client = connect("redis://127.0.0.1:1", queue="q", max_connections=2)
    for _ in range(5):
        with pytest.raises(RedisConnectionError, match="connecting"):
            await client.ping()
    await client.aclose()


async def test_an_answer_that_nobody_has_read_is_never_taken_for_the_next_one(
    redis: Redis, eventually: Eventually
) -> None:
    pool = redis.connection_pool
    connection = await pool.get_connection()
    await connection.send_command("ECHO", "stray")

    async def has_come() -> bool:
        return not connection._socket_is_empty()

    await eventually(has_come)
    await pool.release(connection)

    assert await redis.echo("mine") == b"mine"


async def test_a_connection_that_ended_while_nobody_looked_is_replaced(redis: Redis, redis_url: str) -> None:
    await redis.ping()
    async with Redis.from_url(redis_url) as other:
        await other.client_kill_filter(_type="normal", skipme=True)

        assert await redis.ping()
