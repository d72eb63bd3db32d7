"""Health checks: of this worker and its servers for `/readyz`, and from outside for `worker check`."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine

from producers import keys
from producers._redis import close_redis, connect
from worker.database.connections import describe_error as describe_database_error
from worker.database.connections import ping
from worker.database.session import create_engine
from worker.queue.availability import describe_error as describe_redis_error
from worker.settings import Settings

ANSWER_SECONDS = 1.0
FRESH_SECONDS = 0.5
CHECK_SECONDS = 3.0
"""How long `worker check` waits for each server."""


class Probe:
    """One check of a server, shared by all requests: at most one runs, and its result is reused for a moment.

    Args:
        check: returns why the server cannot be used, or None. It may take any time.
    """

    def __init__(self, check: Callable[[], Awaitable[str | None]]) -> None:
        self._check = check
        self._running: asyncio.Task[None] | None = None
        self._started = 0.0
        self._problem: str | None = None
        self._finished = float("-inf")

    async def problem(self) -> str | None:
        """Why the server cannot be used; None when it can. Takes at most a second, even if the server hangs."""
        if time.monotonic() - self._finished < FRESH_SECONDS:
            return self._problem
        if self._running is None or self._running.done():
            self._started = time.monotonic()
            self._running = asyncio.create_task(self._run())
        await asyncio.wait({self._running}, timeout=ANSWER_SECONDS)
        if self._running.done():
            return self._problem
        return f"no answer within {max(ANSWER_SECONDS, time.monotonic() - self._started):.0f} s"

    async def _run(self) -> None:
        self._problem = await self._check()
        self._finished = time.monotonic()

    async def close(self) -> None:
        """Cancel a check that is running."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=ANSWER_SECONDS)


async def database_problem(engine: AsyncEngine) -> str | None:
    """Why the database cannot be used, or None."""
    try:
        await ping(engine)
    except Exception as error:  # noqa: BLE001  # any error is the result of the check
        return describe_database_error(error)
    return None


async def redis_problem(redis: Redis) -> str | None:
    """Why Redis cannot be used, or None."""
    try:
        await redis.ping()
    except Exception as error:  # noqa: BLE001  # likewise
        return describe_redis_error(error)
    return None


async def find_problems(settings: Settings) -> list[str]:
    """Check PostgreSQL, Redis and the workers' heartbeat: one line for each problem. Takes a few seconds at most."""
    found = await asyncio.gather(_check_database(settings), _check_redis_and_workers(settings))
    return [problem for problem in found if problem is not None]


async def _check_database(settings: Settings) -> str | None:
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1, name="worker-check")
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await ping(engine)
    except Exception as error:  # noqa: BLE001  # likewise
        return f"database: {describe_database_error(error)}"
    finally:
        await engine.dispose()
    return None


async def _check_redis_and_workers(settings: Settings) -> str | None:
    try:
        redis = connect(
            settings.redis_url.get_secret_value(), queue=settings.queue, answer_timeout_seconds=CHECK_SECONDS
        )
    except ValueError as error:
        return f"redis: REDIS_URL is {error}"
    try:
        heartbeat = await redis.get(keys.health(settings.queue))
    except (RedisError, OSError) as error:
        return f"redis: {error}"
    finally:
        await close_redis(redis)
    if heartbeat is None:
        return f"worker: no heartbeat for the queue {settings.queue}: start a worker, or read its log"
    return None
