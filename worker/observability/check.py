"""Whether all that a worker needs is there: what `worker check` asks, for people and containers."""

import asyncio

from redis.exceptions import RedisError
from sqlalchemy import text

from producers import keys
from producers._redis import connect
from worker.database.connections import Unreachable
from worker.database.session import create_engine
from worker.model.failures import classify, describe
from worker.model.outcome import Release
from worker.settings import Settings

TIMEOUT_SECONDS = 3.0


async def problems(settings: Settings) -> list[str]:
    """One line for each thing that is not as it should be; empty when all is well. Takes a few seconds at the most."""
    found = await asyncio.gather(_database(settings), _redis(settings))
    return [problem for problem in found if problem is not None]


async def _database(settings: Settings) -> str | None:
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=1, name="worker-check")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
        return f"database: {_reason(error)}"
    finally:
        await engine.dispose()
    return None


async def _redis(settings: Settings) -> str | None:
    try:
        redis = connect(
            settings.redis_url.get_secret_value(), queue=settings.queue, answer_timeout_seconds=TIMEOUT_SECONDS
        )
    except ValueError as error:
        return f"redis: REDIS_URL is {error}"
    try:
        alive = await redis.get(keys.health(settings.queue))
    except (RedisError, OSError) as error:
        return f"redis: {error}"
    finally:
        await redis.aclose()
        await redis.connection_pool.disconnect()
    if alive is None:
        return f"worker: none has given a sign of life for the queue {settings.queue}: is one running? see its log"
    return None


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, Unreachable) else error
    if isinstance(cause, OSError):
        return f"cannot be reached ({type(cause).__name__})"
    attempt = classify(error)
    return attempt.detail if isinstance(attempt, Release) else describe(error)
