"""What every stage of the pipeline shares: whether both servers can be used, and three events."""

import asyncio

from worker.queue.availability import ServerState


class Signals:
    """The shared state of one worker."""

    def __init__(self) -> None:
        self.redis = ServerState("redis")
        self.database = ServerState("database")
        self.wake = asyncio.Event()
        """Jobs may be due, or there is capacity for more: the claimer looks again."""
        self.stop = asyncio.Event()
        """Claim no more, and drain."""
        self.stop_now = asyncio.Event()
        """Release running jobs at once instead of waiting for the grace period."""
