"""How this package, and the worker, connect to Redis."""

import asyncio
from typing import Any

from arq.connections import ArqRedis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from producers import wire

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 15
FREE_CONNECTION_SECONDS = 20.0


def connect(
    url: str,
    *,
    queue: str,
    max_connections: int = 50,
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
    **options: Any,
) -> ArqRedis:
    """A client of the Redis at `url` (`redis://`, `rediss://` or `unix://`), speaking this project's wire.

    Nothing is opened yet. Every connection has keepalive and a limit on how long connecting and each answer may
    take, so that a peer that went silent is noticed. Nothing is repeated behind the caller's back: whoever sends a
    command knows whether it may be sent twice.

    Raises:
        ValueError: when the URL is of another kind. The text holds nothing of it.
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
        # An unknown option after the question mark would otherwise come to light with the first command.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError):
        # The cause quotes parts of the URL, and its password may be one of them.
        raise ValueError(
            "not the URL of a Redis: it must look like redis://[[user]:password@]host[:port][/number], rediss://… "
            "or unix://…, with reserved characters of a password percent-encoded"
        ) from None
    return ArqRedis(
        pool_or_conn=pool,
        job_serializer=wire.dumps,
        job_deserializer=wire.loads,
        default_queue_name=queue,
    )


class _Pool(ConnectionPool):
    """At most `max_connections`; whoever wants one more waits until one is given back, for `timeout` seconds.

    So does redis-py's `BlockingConnectionPool`, but with a lock, a condition and two timers for each command: more
    work than validating and encoding a job.
    """

    def __init__(
        self, *, max_connections: int, timeout: float | None = FREE_CONNECTION_SECONDS, **options: Any
    ) -> None:
        super().__init__(max_connections=max_connections, **options)
        self._free = asyncio.Semaphore(max_connections)
        self._free_seconds = timeout

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> AbstractConnection:  # noqa: ARG002
        """A connection that stands.

        Raises:
            ConnectionError: (of redis) when none was given back in time, or none could be made.
        """
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        connection: AbstractConnection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            if not await _stands(connection):
                await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Give a connection back."""
        await super().release(connection)
        self._free.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._free_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise RedisConnectionError("No connection available.") from error


async def _stands(connection: AbstractConnection) -> bool:
    """Whether a connection that was idle can be used as it is: nobody has ended it, and nothing is left in it.

    What `ensure_connection` asks as well, by a read that is cancelled at once; nothing public tells it without.
    """
    reader = connection._reader  # noqa: SLF001
    if reader is None:
        return False
    await asyncio.sleep(0)  # what has come meanwhile gets in
    nothing_left: bool = connection._socket_is_empty()  # type: ignore[no-untyped-call]  # noqa: SLF001
    return nothing_left and not reader.at_eof() and reader.exception() is None
