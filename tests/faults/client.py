"""The client: what it enqueued, whether that was accepted, and the outcomes that it observed."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from redis.exceptions import RedisError

from producers import CreateUser, EnqueueError, EnqueueUnconfirmed, Message, PartialEnqueueError, Producer, Request

State = Literal["invoked", "ok", "failed", "unknown"]

JOBS_A_CALL = 500
"""As many as the producer hands to Redis at once: of one call either all are accepted or none."""
LOOKED_AT = 2000


@dataclass(slots=True, eq=False)
class Asked:
    """One enqueue, from its invocation on. Its number is its place in the order in which they were invoked."""

    number: int
    base: str
    message: Message[Any]
    mark: str
    """The text in the rows that it makes or changes; empty when it deletes."""
    call: int
    """The call that it was first part of: it was accepted by this one or by a later one."""
    accepted_by: float = math.inf
    """The call after which it is known to have been accepted; infinite while it is not."""
    state: State = "invoked"
    observed: str | None = None
    """The first outcome that was observed, as JSON."""
    events: list[tuple[float, str]] = field(default_factory=list)
    key: str | None = field(init=False)
    """The ordering key."""
    job_id: str = field(init=False)
    """The id, by the rule of the wire."""

    def __post_init__(self) -> None:
        self.key = self.message.ordering_key
        self.job_id = self.base if self.key is None else f"{self.base}@{self.key}"

    def note(self, event: str) -> None:
        """Something happened to it."""
        self.events.append((time.time(), event))

    def __str__(self) -> str:
        events = "; ".join(f"{datetime.fromtimestamp(at, UTC):%H:%M:%S.%f} {event}" for at, event in self.events)
        return f"#{self.number} {self.job_id} {self.message.job} {self.mark} {self.state}: {events}"


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
        self.made: list[int] = []
        """Users that are known to be there, the newest last."""
        self._run = run
        self._one_call = asyncio.Lock()
        self._numbers, self._calls = itertools.count(1), itertools.count(1)
        self._unobserved: dict[str, Asked] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self.producer.close()

    async def enqueue(self, jobs: Sequence[tuple[Message[Any], str]]) -> list[Asked]:
        """Enqueue messages, each with the mark that its rows bear, and note what became of each."""
        asked = []
        for start in range(0, len(jobs), JOBS_A_CALL):
            # One call after the other: of two at once it is unknown which was accepted first.
            async with self._one_call:
                call = next(self._calls)
                some = []
                for message, mark in jobs[start : start + JOBS_A_CALL]:
                    number = next(self._numbers)
                    some.append(Asked(number, f"{self._run}-{number}", message, mark, call))
                self.history += some
                asked += some
                await self._send(some, call)
        return asked

    async def repeat(self, asked: Iterable[Asked]) -> None:
        """Enqueue again what is not sure to have been accepted, under the same ids."""
        unsure = [one for one in asked if one.state == "unknown"]
        # What came together goes together: of one call all are accepted at once, by whichever attempt it is.
        for _, together in itertools.groupby(unsure, key=lambda one: one.call):
            async with self._one_call:
                await self._send(list(together), next(self._calls))

    def forget(self, gone: Collection[Asked]) -> None:
        """These were taken out by hand: nothing is known of them."""
        self.history = [one for one in self.history if one not in gone]
        for one in gone:
            self._unobserved.pop(one.job_id, None)

    async def watch(self) -> None:
        """Look at outcomes now and then, and keep the first that is seen of each."""
        while True:
            # Some at a time, each in turn: a hundred thousand that wait must not take all the time there is.
            some = list(itertools.islice(self._unobserved.values(), LOOKED_AT))
            with suppress(RedisError, OSError):
                await self.look(some)
            for one in some:
                if self._unobserved.pop(one.job_id, None) is not None:
                    self._unobserved[one.job_id] = one
            await asyncio.sleep(0.2)

    async def look(self, asked: Sequence[Asked] | None = None) -> None:
        """Look once at outcomes that were not seen yet: of these jobs, or of all."""
        waiting = [one for one in (self._unobserved.values() if asked is None else asked) if one.observed is None]
        for start in range(0, len(waiting), 500):
            some = waiting[start : start + 500]
            for one, result in zip(some, await self.results(some), strict=True):
                # Another task may have looked meanwhile.
                if result is not None and self._unobserved.pop(one.job_id, None) is not None:
                    one.observed = result
                    one.note(f"observed {result[:80]}")
                    if isinstance(one.message, CreateUser) and result.startswith("[true"):
                        self.made.append(json.loads(result)[1]["id"])

    async def results(self, some: Sequence[Asked]) -> list[str | None]:
        """The current outcomes of these jobs."""
        found = await self.looks.mget([f"arq:result:{one.job_id}" for one in some])
        return [None if data is None else outcome_of(data) for data in found]

    async def tries(self) -> set[int]:
        """The numbers of attempts that the jobs of the history took, by their results."""
        tries: set[int] = set()
        for start in range(0, len(self.history), 500):
            keys = [f"arq:result:{one.job_id}" for one in self.history[start : start + 500]]
            tries |= {json.loads(data)["t"] for data in await self.looks.mget(keys) if data is not None}
        return tries

    async def _send(self, asked: list[Asked], call: int) -> None:
        for one in asked:
            one.note("invoked")
            # Whether the error was reported or not, it may be accepted: an outcome may come.
            if one.observed is None:
                self._unobserved.setdefault(one.job_id, one)
        requests = [Request(one.message, idempotency_key=one.base) for one in asked]
        try:
            outcomes: Sequence[object] = await self.producer.enqueue_many(requests)
        except PartialEnqueueError as refused:
            outcomes = refused.outcomes
        for one, outcome in zip(asked, outcomes, strict=True):
            match outcome:
                case EnqueueUnconfirmed():
                    one.state = "unknown"
                case EnqueueError():
                    # It may have been accepted by an earlier call that was not answered.
                    one.state = "unknown" if one.state == "unknown" else "failed"
                case _:
                    one.state, one.accepted_by = "ok", call
            one.note(one.state)


def outcome_of(data: bytes) -> str:
    """The outcome in a result, in one form: done and the reply, or the code."""
    result = json.loads(data)
    return json.dumps([result["s"], result["r"]], sort_keys=True)
