"""Waiting for a state: looked at again and again, and never for longer than allowed."""

import asyncio
import time
from collections.abc import Awaitable, Callable

LOOK_SECONDS = 0.02


async def until(holds: Callable[[], Awaitable[object]], *, seconds: float, what: str) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: when it does not in time; the text names it.
    """
    deadline = time.monotonic() + seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(LOOK_SECONDS)
