"""Whether a server is there: said once when it goes and once when it is back, with a wait between tries that grows."""

import time

import structlog

from worker.engine.retry import backoff_seconds

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
