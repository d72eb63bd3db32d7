"""The one who asks: once a second for all viewers together, and not at all while nobody watches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

import structlog

from worker.model.failures import causes

EVERY_SECONDS = 1.0
MOST_VIEWERS = 100

T = TypeVar("T")
log = structlog.get_logger("worker.dashboard")


class TooManyViewers(Exception):
    """There are `MOST_VIEWERS` already."""


class Poller(Generic[T]):
    """Looks again and again while there are viewers, and gives each of them what was seen.

    Args:
        look: asks; takes a few seconds at the most.
        every_seconds: from one look's beginning to the next one's.
    """

    def __init__(self, look: Callable[[], Awaitable[T]], every_seconds: float = EVERY_SECONDS) -> None:
        self._look = look
        self._every_seconds = every_seconds
        self._seen: T | None = None
        self._looked_at = float("-inf")
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        """The one that goes on; another may be about to end its last look."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._closed = False
        self.viewers = 0
        self.looks = 0
        """How many there have been."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[AsyncIterator[T]]:
        """What is seen from now on, for as long as the block lasts. Who is slow misses some, and gets the newest.

        Raises:
            TooManyViewers: when there are.
        """
        if self.viewers >= MOST_VIEWERS:
            raise TooManyViewers
        self.viewers += 1
        if self._task is None and not self._closed:
            if asyncio.get_running_loop().time() - self._looked_at > self._every_seconds:
                self._seen = None  # of before the pause
            self._stopped.clear()
            self._task = asyncio.create_task(self._poll(), name="dashboard-poller")
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        try:
            yield self._views()
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._stop()

    def close(self) -> None:
        """Look no more; every viewer's views end."""
        self._closed = True
        self._stop()
        self._tell()

    async def ended(self) -> None:
        """Wait for the end of a look that is under way."""
        await asyncio.gather(*self._tasks)

    async def first(self, wait_seconds: float) -> T | None:
        """What was seen a moment ago, or is seen now; None when that takes longer."""
        with self.watching() as views:
            try:
                async with asyncio.timeout(wait_seconds):
                    return await anext(views, None)
            except TimeoutError:
                return None

    async def _views(self) -> AsyncIterator[T]:
        while not self._closed:
            news = self._news
            if self._seen is not None:
                yield self._seen
            await news.wait()

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        # Whoever comes and goes does not make it look more often.
        due = max(loop.time(), self._looked_at + self._every_seconds)
        while self._task is asyncio.current_task():
            if due > loop.time():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._stopped.wait()
                continue
            self._looked_at = loop.time()
            try:
                self._seen = await self._look()
            except Exception as error:  # noqa: BLE001  # told, and tried again: one bad look must not end them all
                log.error("dashboard_poll_failed", error=causes(error))  # noqa: TRY400  # without its text
            self.looks += 1
            self._tell()
            due = max(due + self._every_seconds, loop.time())

    def _stop(self) -> None:
        # A look is never cancelled half-way: that would cost its connections.
        self._task = None
        self._stopped.set()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
