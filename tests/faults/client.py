"""The client: what it asked for, whether that was accepted, and what it was told of it."""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from redis.exceptions import RedisError

from producers import EnqueueError, EnqueueUnconfirmed, Message, Producer, Request, SomeRefused

State = Literal["invoked", "ok", "failed", "unknown"]


@dataclass(slots=True, eq=False)
class Asked:
    """One enqueue, from its invocation on. Its place in the history is the order in which they were invoked."""

    number: int
    base: str
    message: Message[Any]
    mark: str
    """What the rows that it makes or changes say; empty when it deletes."""
    state: State = "invoked"
    placed: bool = True
    """Whether it is known when it was accepted: by its first call, or not at all."""
    told: str | None = None
    """The first outcome that was seen, as JSON of what its result says."""
    events: list[str] = field(default_factory=list)

    @property
    def key(self) -> str | None:
        """The ordering key."""
        return self.message.ordering_key

    @property
    def job_id(self) -> str:
        """The id, by the rule of the wire."""
        return self.base if self.key is None else f"{self.base}@{self.key}"

    def note(self, event: str) -> None:
        """Something happened to it."""
        self.events.append(f"{time.strftime('%H:%M:%S')}.{time.time_ns() // 1_000_000 % 1000:03d} {event}")

    def __str__(self) -> str:
        return f"#{self.number} {self.job_id} {self.message.job} {self.mark} {self.state}: {'; '.join(self.events)}"


class Client:
    """Enqueues by way of the proxy, and keeps the history.

    Args:
        url: Redis behind the proxy.
        looks: Redis itself, to look at outcomes; it does not wait while Redis is away.
        run: what the ids of this run begin with.
    """

    def __init__(self, url: str, looks: Any, run: str, *, timeout_seconds: float = 1.5) -> None:
        self.producer = Producer(url, timeout_seconds=timeout_seconds)
        self.history: list[Asked] = []
        self.looks = looks
        self._run = run
        self._one_call = asyncio.Lock()
        self._untold: dict[str, Asked] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self.producer.close()

    async def enqueue(self, jobs: Sequence[tuple[Message[Any], str]]) -> list[Asked]:
        """Enqueue messages, each with the mark that its rows bear, and note what became of each."""
        asked = []
        # One call after the other: of two at once nobody knows which was accepted first.
        async with self._one_call:
            for message, mark in jobs:
                number = len(self.history) + 1
                asked.append(Asked(number, f"{self._run}-{number}", message, mark))
                self.history.append(asked[-1])
            await self._send(asked)
        return asked

    async def repeat(self, asked: Iterable[Asked]) -> None:
        """Enqueue again what is not sure to have been accepted, under the same ids."""
        unsure = [one for one in asked if one.state == "unknown"]
        if unsure:
            async with self._one_call:
                await self._send(unsure)

    async def watch(self) -> None:
        """Look at outcomes now and then, and keep the first that is seen of each."""
        while True:
            with suppress(RedisError, OSError):
                await self.look()
            await asyncio.sleep(0.2)

    async def look(self) -> None:
        """Look once at all outcomes that were not seen yet."""
        for start in range(0, len(waiting := list(self._untold.values())), 500):
            some = waiting[start : start + 500]
            for one, result in zip(some, await self.results(some), strict=True):
                # Somebody else may have looked meanwhile.
                if result is not None and self._untold.pop(one.job_id, None) is not None:
                    one.told = result
                    one.note(f"told {result[:80]}")

    async def results(self, some: Sequence[Asked]) -> list[str | None]:
        """What the results of these jobs say now."""
        found = await self.looks.mget([f"arq:result:{one.job_id}" for one in some])
        return [None if data is None else said(data) for data in found]

    async def tries(self) -> set[int]:
        """How many tries the jobs of the history took, as their results say."""
        tries: set[int] = set()
        for start in range(0, len(self.history), 500):
            keys = [f"arq:result:{one.job_id}" for one in self.history[start : start + 500]]
            tries |= {json.loads(data)["t"] for data in await self.looks.mget(keys) if data is not None}
        return tries

    async def _send(self, asked: list[Asked]) -> None:
        for one in asked:
            one.note("invoked")
            # Told or not, it may be accepted: an outcome may come.
            self._untold.setdefault(one.job_id, one)
        requests = [Request(one.message, idempotency_key=one.base) for one in asked]
        try:
            outcomes: Sequence[object] = await self.producer.enqueue_many(requests)
        except SomeRefused as refused:
            outcomes = refused.outcomes
        for one, outcome in zip(asked, outcomes, strict=True):
            match outcome:
                case EnqueueUnconfirmed():
                    one.state, one.placed = "unknown", False
                case EnqueueError():
                    # It may have been accepted by an earlier call that was not answered.
                    one.state = "unknown" if one.state == "unknown" else "failed"
                case _:
                    one.state = "ok"
            one.note(one.state)


def said(data: bytes) -> str:
    """What a result says, in one form: done and the reply, or the code."""
    result = json.loads(data)
    return json.dumps([result["s"], result["r"]], sort_keys=True)
