"""Whether a server is there: said once when it goes and once when it is back, with a wait between tries that grows."""

import asyncio
import time
from contextlib import suppress

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from producers._script import NotSent
from worker.model.backoff import backoff_seconds

log = structlog.get_logger("worker.outage")

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 5.0


class Outage:
    """The state of one server, as this worker sees it.

    Args:
        server: `redis` or `database`, as the log names it.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.reason: str | None = None
        """Why the server cannot be used; None while it can."""
        self._since = 0.0
        self._tries = 0

    @property
    def lasts(self) -> bool:
        """Whether the server is away."""
        return self.reason is not None

    def met(self, reason: str) -> None:
        """The server did not answer, or refused."""
        self._tries += 1
        if self.reason is None:
            self._since = time.monotonic()
            log.warning("server_lost", server=self.server, reason=reason)
        elif reason != self.reason:
            log.warning("server_still_lost", server=self.server, reason=reason)
        self.reason = reason

    def over(self) -> None:
        """The server answered."""
        if self.reason is not None:
            log.info("server_back", server=self.server, away_seconds=round(time.monotonic() - self._since, 1))
        self.reason = None
        self._tries = 0

    def wait_seconds(self) -> float:
        """How long to wait before the next try."""
        return 0.05 + backoff_seconds(max(1, self._tries), base=FIRST_SECONDS, cap=LONGEST_SECONDS)


async def redis_there(redis: Redis, outage: Outage) -> None:
    """Return when Redis answers, and say what would lose jobs in how it is configured."""
    while True:
        try:
            await redis.ping()
        except (RedisError, OSError) as error:
            outage.met(reason(error))
            await asyncio.sleep(outage.wait_seconds())
        else:
            outage.over()
            break
    with suppress(RedisError):  # a server that hides its configuration
        policy = (await redis.config_get("maxmemory-policy")).get("maxmemory-policy")
        if policy not in (None, "noeviction"):
            log.warning("redis_may_evict_jobs", maxmemory_policy=policy, set_it_to="noeviction")


def reason(error: Exception) -> str:
    """Why Redis could not be used, in its own words: they hold no value of a message."""
    return str(error.__cause__ if isinstance(error, NotSent) and error.__cause__ else error) or type(error).__name__
