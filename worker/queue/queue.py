"""The queue in Redis, with types: claim, renew, settle. The scripts say how each is kept safe."""

import secrets
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from redis.asyncio import Redis

from producers import keys
from producers._script import Script
from worker.queue.scripts import BURY, CLAIM, COMPLETE, RELEASE, RENEW, RETRY, SWEEP

Arguments = Sequence[str | bytes | int]


class PayloadState(IntEnum):
    """What became of fetching a payload."""

    FETCHED = 0
    MISSING = 1
    TOO_LARGE = 2
    FOREIGN = 3
    """The payload's key is of a type other than string."""
    CANCEL = 4
    """It was fetched, and somebody wants the job cancelled."""
    FRESH = 5
    """It was fetched, and Redis knows nothing of the job: no claim of it before this one, and no result."""


_STATES = tuple(PayloadState)


class Lease(NamedTuple):
    """A claim as Redis knows it. The id is bytes: what is in the queue need not be a job id, nor text."""

    job_id: bytes
    token: bytes
    score: bytes
    """The score that the job had when it was claimed, as Redis prints it."""


class Claimed(NamedTuple):
    """A job that was claimed, as it was found."""

    lease: Lease
    payload: bytes | None
    state: PayloadState
    tries: int


class Claims(NamedTuple):
    """The answer to a claim."""

    jobs: list[Claimed]
    next_due_ms: int | None
    """How long until something in the queue is due, a lease's end included; None: nothing is."""


class Renewal(IntEnum):
    """What became of renewing a lease."""

    LOST = 0
    RENEWED = 1
    CANCEL = 2
    """Renewed, and somebody wants the job cancelled."""


class Completion(NamedTuple):
    """A job that ended, its result, the channel that its producer listens on (empty: none), and what it counts for."""

    lease: Lease
    result: bytes
    channel: str
    tally: str = ""


class Burial(NamedTuple):
    """A job that died, likewise, and the letter that says what is known of its death."""

    lease: Lease
    result: bytes
    channel: str
    letter: bytes
    tally: str = ""


class RetryLater(NamedTuple):
    """A claim whose try failed, and how long the job is to wait for the next."""

    lease: Lease
    delay_ms: int
    tally: str = ""


class GiveBack(NamedTuple):
    """A claim that counts for nothing as far as the job goes: it could not be tried, or not to its end."""

    lease: Lease
    tally: str = ""


Settlement = Completion | Burial | RetryLater | GiveBack


class Queue:
    """One queue. Every method is one round trip, and raises what `Script` raises.

    Args:
        redis: the client.
        name: the queue's name.
        lease_ms: how long a claim lasts unless renewed.
        result_ms: how long results are kept.
        max_payload_bytes: larger payloads are not fetched.
    """

    def __init__(self, redis: Redis, name: str, *, lease_ms: int, result_ms: int, max_payload_bytes: int) -> None:
        self._redis = redis
        self._keys = [name]
        self._wake = keys.wake(name)
        self._lease_ms = lease_ms
        self.result_ms = result_ms
        self._max_payload_bytes = max_payload_bytes
        self._claimer = secrets.token_hex(8)
        self._unanswered: deque[str] = deque(maxlen=1000)
        """Tokens of the calls since the last that was answered: of some of them the answer was lost."""

    async def claim(self, count: int) -> Claims:
        """Claim at most `count` due jobs, one call at a time. The next gives back what a lost answer had."""
        token = secrets.token_hex(8)
        unanswered = " ".join(self._unanswered)
        self._unanswered.append(token)
        answer = await self._run(
            CLAIM, [count, self._lease_ms, token, self._max_payload_bytes, self._claimer, unanswered]
        )
        self._unanswered.clear()
        jobs = [
            Claimed(Lease(job_id, token.encode(), score), payload, _STATES[state], tries)
            for job_id, payload, tries, score, state in zip(*(answer[first::5] for first in range(1, 6)), strict=True)
        ]
        return Claims(jobs, None if answer[0] < 0 else answer[0])

    async def renew(self, leases: Sequence[Lease]) -> list[Renewal]:
        """Renew leases; what became of each."""
        arguments: list[str | bytes | int] = [self._lease_ms]
        for lease in leases:
            arguments += lease.job_id, lease.token
        return [Renewal(answer) for answer in await self._run(RENEW, arguments)]

    async def complete(self, completions: Sequence[Completion]) -> list[bool]:
        """Settle jobs that ended, done or rejected; whether each was still held."""
        arguments: list[str | bytes | int] = [self.result_ms]
        for item in completions:
            arguments += item.lease.job_id, item.lease.token, item.result, item.channel, item.tally
        return _held(await self._run(COMPLETE, arguments))

    async def retry(self, retries: Sequence[RetryLater]) -> list[bool]:
        """Settle claims whose try failed; whether each was still held."""
        arguments: list[str | bytes | int] = []
        for item in retries:
            arguments += item.lease.job_id, item.lease.token, item.delay_ms, item.tally
        return _held(await self._run(RETRY, arguments))

    async def release(self, claims: Sequence[GiveBack], *, wake: bool = True) -> list[bool]:
        """Give claims back, their tries uncounted; whether each was still held."""
        arguments: list[str | bytes | int] = [self._wake if wake else ""]
        for item in claims:
            arguments += item.lease.job_id, item.lease.token, item.lease.score, item.tally
        return _held(await self._run(RELEASE, arguments))

    async def bury(self, burials: Sequence[Burial]) -> list[bool]:
        """Settle jobs that are dead; whether each was still held."""
        arguments: list[str | bytes | int] = [self.result_ms]
        for item in burials:
            arguments += item.lease.job_id, item.lease.token, item.result, item.channel, item.letter, item.tally
        return _held(await self._run(BURY, arguments))

    async def sweep(self) -> int:
        """Free ordering keys whose holders were taken out of the queue by hand; how many there were."""
        cursor = b"0"
        freed = 0
        while True:
            cursor, found = await self._run(SWEEP, [cursor])
            freed += int(found)
            if cursor == b"0":
                return freed

    async def _run(self, script: Script, arguments: Arguments) -> Any:
        return await script(self._redis, self._keys, arguments)


def _held(answers: list[int]) -> list[bool]:
    return [answer == 1 for answer in answers]
