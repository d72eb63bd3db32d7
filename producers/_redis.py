"""Connections to Redis, for producers and for the worker."""

import asyncio
from typing import Any

from arq.connections import ArqRedis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from producers import arq_wire

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 15
POOL_TIMEOUT_SECONDS = 20.0


def connect(
    url: str,
    *,
    queue: str,
    max_connections: int = 50,
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
    **options: Any,
) -> ArqRedis:
    """A client of the Redis at `url` (`redis://`, `rediss://` or `unix://`) that uses this project's wire format.

    It connects with the first command. Every connection has keepalive and timeouts for connecting and for each answer,
    so a silent peer is noticed. No command is retried here: only its caller knows whether it is safe to repeat.

    Raises:
        ValueError: it is not the URL of a Redis. The text holds no part of it.
    """
    try:
        pool = _Pool.from_url(
            url,
            max_connections=max_connections,
            socket_connect_timeout=min(CONNECT_TIMEOUT_SECONDS, answer_timeout_seconds),
            socket_timeout=answer_timeout_seconds,
            **({} if url.startswith("unix") else {"socket_keepalive": True}),
            health_check_interval=HEALTH_CHECK_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
        # Otherwise an unknown option in the query of the URL would fail with the first command.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError):
        # The cause quotes parts of the URL, possibly its password.
        raise ValueError(
            "not the URL of a Redis: use redis://[[user]:password@]host[:port][/number], rediss://… or unix://…, "
            "and percent-encode reserved characters of the password"
        ) from None
    return ArqRedis(
        pool_or_conn=pool,
        job_serializer=arq_wire.dumps,
        job_deserializer=arq_wire.loads,
        default_queue_name=queue,
    )


async def close_redis(redis: Redis) -> None:
    """Close a client and its connections."""
    await redis.aclose()
    await redis.connection_pool.disconnect()


class _Pool(ConnectionPool):
    """At most `max_connections`. Callers wait up to `timeout` seconds for a free one.

    redis-py's `BlockingConnectionPool` does the same with a lock, a condition and two timers for each command: more
    work than validating and encoding a job.
    """

    def __init__(self, *, max_connections: int, timeout: float | None = POOL_TIMEOUT_SECONDS, **options: Any) -> None:
        super().__init__(max_connections=max_connections, **options)
        self._free = asyncio.Semaphore(max_connections)
        self._free_seconds = timeout

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:  # noqa: ARG002
        """A connection that is ready for a command.

        Raises:
            ConnectionError: (of redis) none became free in time, or none could be made.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        connection: AbstractConnection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            if not await _is_reusable(connection):
                await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Return a connection to the pool."""
        await super().release(connection)
        self._free.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._free_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise RedisConnectionError("No connection available.") from error


async def _is_reusable(connection: AbstractConnection) -> bool:
    """Whether an idle connection is still open and has no unread data.

    `ensure_connection` checks the same with a read that it cancels at once. There is no public way without one.
    """
    reader = connection._reader  # noqa: SLF001
    if reader is None:
        return False
    await asyncio.sleep(0)  # lets the transport deliver what has arrived
    is_empty: bool = connection._socket_is_empty()  # type: ignore[no-untyped-call]  # noqa: SLF001
    return is_empty and not reader.at_eof() and reader.exception() is None
