"""How late the event loop is: what it does at a time keeps everything else waiting for as long."""

import asyncio
import time
from collections import deque

EVERY_SECONDS = 0.25
SPAN_SECONDS = 10.0


class LoopLag:
    """How late the loop has been of late, measured by a timer."""

    def __init__(self) -> None:
        self._late: deque[float] = deque([0.0], maxlen=round(SPAN_SECONDS / EVERY_SECONDS))

    @property
    def seconds(self) -> float:
        """How late it was at the worst in the last ten seconds."""
        return max(self._late)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = time.monotonic() + EVERY_SECONDS
            await asyncio.sleep(EVERY_SECONDS)
            self._late.append(max(0.0, time.monotonic() - due))
