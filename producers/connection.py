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
        ValueError: when the URL is of another kind.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=answer_timeout_seconds,
        **({} if url.startswith("unix") else {"socket_keepalive": True}),
        health_check_interval=HEALTH_CHECK_SECONDS,
        retry=Retry(NoBackoff(), 0),
        **options,
    )
    return ArqRedis(
        pool_or_conn=pool,
        job_serializer=wire.dumps,
        job_deserializer=wire.loads,
        default_queue_name=queue,
    )
