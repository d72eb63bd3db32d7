"""Whether this worker could take a job now: asked by whoever starts, stops and replaces it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

ANSWER_SECONDS = 1.0
FRESH_SECONDS = 0.5


class Probe:
    """One question to a server, whoever asks: at most one is under way, and its answer serves all for a moment.

    Args:
        ask: returns when the server answers, and raises when it cannot be used.
        tell: says why, without any value of a message.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[object]],
        tell: Callable[[Exception], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._clock = clock
        self._asking: asyncio.Task[str | None] | None = None
        self._since = 0.0
        self._answer: str | None = None
        self._answered = float("-inf")

    async def trouble(self) -> str | None:
        """Why the server cannot be used; None when it can. Takes a second at the most, however the server hangs."""
        if self._clock() - self._answered < FRESH_SECONDS:
            return self._answer
        if self._asking is None or self._asking.done():
            self._since = self._clock()
            self._asking = asyncio.create_task(self._asked())
        await asyncio.wait({self._asking}, timeout=ANSWER_SECONDS)
        if self._asking.done():
            return self._answer
        return f"no answer within {max(ANSWER_SECONDS, self._clock() - self._since):.0f} s"

    async def _asked(self) -> None:
        try:
            await self._ask()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
            self._answer = self._tell(error)
        else:
            self._answer = None
        self._answered = self._clock()

    async def end(self) -> None:
        """Give up a question that is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking}, timeout=ANSWER_SECONDS)


class Health:
    """Why a worker takes no jobs, by itself and by asking both servers.

    Args:
        worker: what it says of itself: why it takes none, by `worker`, `redis` or `database`; empty when it does.
        probes: the servers to ask, by the same names.
    """

    def __init__(self, worker: Callable[[], Mapping[str, str]], probes: Mapping[str, Probe]) -> None:
        self._worker = worker
        self._probes = probes

    async def trouble(self) -> dict[str, str]:
        """All reasons; empty when it is ready. Takes a second at the most."""
        answers = await asyncio.gather(*(probe.trouble() for probe in self._probes.values()))
        asked = {name: answer for name, answer in zip(self._probes, answers, strict=True) if answer is not None}
        return {**asked, **self._worker()}

    async def end(self) -> None:
        """Give up what is under way."""
        for probe in self._probes.values():
            await probe.end()
