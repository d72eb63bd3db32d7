"""How this package, and the worker, connect to Redis."""

from typing import Any

from arq.connections import ArqRedis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from producers import wire

CONNECT_TIMEOUT_SECONDS = 2.0
ANSWER_TIMEOUT_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 15


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
        pool = BlockingConnectionPool.from_url(
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
