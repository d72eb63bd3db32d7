"""Whether a server can be used: logged once when it goes and once when it is back, with a backoff in between."""

import asyncio
import time
from contextlib import suppress

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from producers._script import NotSent
from worker.model.backoff import backoff_seconds

log = structlog.get_logger("worker.outage")

REDIS_ERRORS = (RedisError, OSError)
"""What the client raises when Redis cannot be used."""

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 5.0


class ServerState:
    """The state of one server, as this worker sees it.

    Args:
        server: its name in the log, `redis` or `database`.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.reason: str | None = None
        """Why the server cannot be used; None while it can."""
        self._since = 0.0
        self._failures = 0

    @property
    def is_down(self) -> bool:
        """Whether the server cannot be used."""
        return self.reason is not None

    def failed(self, reason: str) -> None:
        """The server did not answer, or refused."""
        self._failures += 1
        if self.reason is None:
            self._since = time.monotonic()
            log.warning("server_lost", server=self.server, reason=reason)
        elif reason != self.reason:
            log.warning("server_still_lost", server=self.server, reason=reason)
        self.reason = reason

    def recovered(self) -> None:
        """The server answered."""
        if self.reason is not None:
            log.info("server_back", server=self.server, away_seconds=round(time.monotonic() - self._since, 1))
        self.reason = None
        self._failures = 0

    def wait_seconds(self) -> float:
        """How long to wait before the server is used again."""
        return 0.05 + backoff_seconds(max(1, self._failures), base=FIRST_SECONDS, cap=LONGEST_SECONDS)


async def wait_for_redis(redis: Redis, state: ServerState) -> None:
    """Return when Redis answers. Warn about a configuration that could lose jobs."""
    while True:
        try:
            await redis.ping()
        except REDIS_ERRORS as error:
            state.failed(describe_error(error))
            await asyncio.sleep(state.wait_seconds())
        else:
            state.recovered()
            break
    with suppress(RedisError):  # a server that hides its configuration
        policy = (await redis.config_get("maxmemory-policy")).get("maxmemory-policy")
        if policy not in (None, "noeviction"):
            log.warning("redis_may_evict_jobs", maxmemory_policy=policy, required_policy="noeviction")


def describe_error(error: Exception) -> str:
    """Why Redis cannot be used, in its own words: they hold no value of a message."""
    return str(error.__cause__ if isinstance(error, NotSent) and error.__cause__ else error) or type(error).__name__
