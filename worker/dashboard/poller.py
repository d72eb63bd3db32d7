"""One poller for all viewers: it polls once a second while there are any, and not at all while there are none."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

import structlog

from worker.model.failures import causes

POLL_SECONDS = 1.0
MAX_VIEWERS = 100

T = TypeVar("T")
log = structlog.get_logger("worker.dashboard")


class TooManyViewers(Exception):
    """There are `MAX_VIEWERS` already."""


class SharedPoller(Generic[T]):
    """Polls while there are viewers, and gives each of them the newest value.

    Args:
        poll: makes a value; takes a few seconds at most.
        interval_seconds: between the starts of two polls.
    """

    def __init__(self, poll: Callable[[], Awaitable[T]], interval_seconds: float = POLL_SECONDS) -> None:
        self._poll = poll
        self._interval_seconds = interval_seconds
        self._latest: T | None = None
        self._polled_at = float("-inf")
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        """The current polling task; an earlier one may still be finishing."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._closed = False
        self.viewers = 0
        self.polls = 0
        """Number of polls so far."""

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[T]]:
        """The values from now on, while the block lasts. A slow viewer skips some and gets the newest.

        Raises:
            TooManyViewers: if `MAX_VIEWERS` are connected.
        """
        if self.viewers >= MAX_VIEWERS:
            raise TooManyViewers
        self.viewers += 1
        if self._task is None and not self._closed:
            if asyncio.get_running_loop().time() - self._polled_at > self._interval_seconds:
                self._latest = None  # from before the pause
            self._stopped.clear()
            self._task = asyncio.create_task(self._run(), name="dashboard-poller")
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        try:
            yield self._values()
        finally:
            self.viewers -= 1
            if not self.viewers:
                self._stop()

    async def first(self, timeout_seconds: float) -> T | None:
        """A value at most one interval old, or a new one; None when that takes too long."""
        with self.subscribe() as values:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await anext(values, None)
            except TimeoutError:
                return None

    def close(self) -> None:
        """Stop polling and end the values of every viewer."""
        self._closed = True
        self._stop()
        self._notify()

    async def wait_closed(self) -> None:
        """Wait for a poll that is under way."""
        await asyncio.gather(*self._tasks)

    async def _values(self) -> AsyncIterator[T]:
        while not self._closed:
            changed = self._changed
            if self._latest is not None:
                yield self._latest
            await changed.wait()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        # A viewer that reconnects must not trigger an extra poll.
        due = max(loop.time(), self._polled_at + self._interval_seconds)
        while self._task is asyncio.current_task():
            if due > loop.time():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._stopped.wait()
                continue
            self._polled_at = loop.time()
            try:
                self._latest = await self._poll()
            except Exception as error:  # noqa: BLE001  # logged, and polled again: one failure must not end all viewers
                log.error("dashboard_poll_failed", error=causes(error))  # noqa: TRY400  # without its text
            self.polls += 1
            self._notify()
            due = max(due + self._interval_seconds, loop.time())

    def _stop(self) -> None:
        # Not cancelled: cancelling mid-query would make the pool discard the connection.
        self._task = None
        self._stopped.set()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
