"""The queue as a plain model: what Redis holds of it, and what every operation makes of that.

Scores that come of Redis's clock are no part of the model: it takes those that Redis gave, once they are seen to lie
where they must. So nothing in it depends on the time that a test takes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from redis.asyncio import Redis

from producers import keys
from producers._encoding import Encoded
from producers.cancellation import Answer
from producers.keys import PARKED_MS
from worker.model.job import Lease, PayloadState
from worker.queue.queue import Renewal

QUEUE = keys.DEFAULT_QUEUE
MAX_PAYLOAD_BYTES = 200
LEASE_MS = 3_600_000
ROUNDING_MS = 0.01
FOREIGN = b"(a key of another type)"


class Clock(NamedTuple):
    """A time of Redis: its own, and what the queue's clock makes of it."""

    raw_ms: float
    now_ms: float


class Taken(NamedTuple):
    """A job as a claim must have returned it."""

    job_id: bytes
    score: float
    payload: bytes | None
    state: PayloadState
    tries: int


@dataclass
class State:
    """All that Redis holds, by job id unless noted otherwise."""

    queue: dict[bytes, float] = field(default_factory=dict)
    payloads: dict[bytes, bytes] = field(default_factory=dict)
    results: dict[bytes, bytes] = field(default_factory=dict)
    leases: dict[bytes, bytes] = field(default_factory=dict)
    tries: dict[bytes, int] = field(default_factory=dict)
    abort: set[bytes] = field(default_factory=set)
    dead: dict[bytes, float] = field(default_factory=dict)
    letters: dict[bytes, bytes] = field(default_factory=dict)
    dead_payloads: dict[bytes, bytes] = field(default_factory=dict)
    holders: dict[bytes, bytes] = field(default_factory=dict)
    """By ordering key."""
    parked: dict[bytes, dict[bytes, float]] = field(default_factory=dict)
    """By ordering key."""
    idempotency: dict[bytes, bytes] = field(default_factory=dict)
    """By idempotency key."""
    last_claims: dict[bytes, tuple[bytes, list[tuple[bytes, float]]]] = field(default_factory=dict)
    """By claimer: the token, and each job with the score it had."""
    tallies: dict[bytes, int] = field(default_factory=dict)
    """By field."""
    others: set[bytes] = field(default_factory=set)
    """Unknown keys."""

    def differences(self, other: "State") -> list[str]:
        """Where two differ; empty when they do not."""
        pairs = ((each.name, getattr(self, each.name), getattr(other, each.name)) for each in fields(State))
        return [f"{name}: {ours}, not {theirs}" for name, ours, theirs in pairs if ours != theirs]


_STRINGS = {
    b"arq:job:": "payloads",
    b"arq:result:": "results",
    b"arq:in-progress:": "leases",
    b"arq:retry:": "tries",
    b"arq:dead:": "dead_payloads",
    b"arq:idempotency:": "idempotency",
}
_PARKED, _CLAIM = f"{QUEUE}:parked:".encode(), f"{QUEUE}:claim:".encode()
_NAMED = {name(QUEUE).encode() for name in (keys.holders, keys.dead, keys.dead_letters, keys.clock, keys.counters)} | {
    QUEUE.encode(), keys.ABORT.encode(),
}  # fmt: skip


async def look(redis: Redis) -> tuple[State, Clock]:
    """All that Redis holds, and the time."""
    found: list[bytes] = await redis.keys("*")
    strings = [(prefix, key) for key in found for prefix in _STRINGS if key.startswith(prefix)]
    parked = [key for key in found if key.startswith(_PARKED)]
    claims = [key for key in found if key.startswith(_CLAIM)]
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.hmget(keys.clock(QUEUE), ["raw", "now"])
        for key in [QUEUE, keys.dead(QUEUE), keys.ABORT, *parked]:
            pipeline.zrange(key, 0, -1, withscores=True)  # type: ignore[arg-type]  # bytes are a key as well
        for name in (keys.holders(QUEUE), keys.dead_letters(QUEUE), keys.counters(QUEUE)):
            pipeline.hgetall(name)
        for key in claims:
            pipeline.lrange(key, 0, -1)  # type: ignore[arg-type]
        pipeline.mget([QUEUE, *(key for _, key in strings)])
        time, noted, queue, dead, abort, *rest = await pipeline.execute()
    state = State(queue=dict(queue), dead=dict(dead), abort={job_id for job_id, _ in abort})
    for key in parked:
        state.parked[key.removeprefix(_PARKED)] = dict(rest.pop(0))
    state.holders, state.letters, tallies, *rest = rest
    state.tallies = {field: int(counted) for field, counted in tallies.items()}
    for key in claims:
        (token, *jobs), *rest = rest
        scores = map(float, jobs[1::2])
        state.last_claims[key.removeprefix(_CLAIM)] = (token, list(zip(jobs[::2], scores, strict=True)))
    for (prefix, key), value in zip(strings, rest[0][1:], strict=True):
        stored = FOREIGN if value is None else value
        getattr(state, _STRINGS[prefix])[key.removeprefix(prefix)] = int(stored) if prefix == b"arq:retry:" else stored
    state.others = set(found) - {key for _, key in strings} - set(parked) - set(claims) - _NAMED
    return state, _clock(time, noted)


def _clock(time: tuple[int, int], noted: Sequence[bytes | None]) -> Clock:
    raw_us = time[0] * 1_000_000 + time[1]
    raw, now = (float(value or 0) for value in noted)
    now_us = raw_us if raw_us >= now else now + int(0.9 * max(0, raw_us - raw))
    return Clock(raw_us / 1000, now_us / 1000)


@dataclass
class Change:
    """What was seen before an operation and after it."""

    before: Clock
    after: Clock
    seen: State

    def given(self, scores: dict[bytes, float], job_id: bytes, delay_ms: float = 0) -> float:
        """The score that Redis gave: of the time of the operation, and so long after."""
        score = scores.get(job_id)
        assert score is not None, f"{job_id!r} has no score"
        low, high = self.before.now_ms + delay_ms, self.after.now_ms + delay_ms
        assert low - ROUNDING_MS <= score <= high + ROUNDING_MS, f"{job_id!r} at {score}, not in {low} … {high}"
        return score


def tally_of(how: str) -> str:
    """What the settlements of these tests count for."""
    return f"job/{how}/ 3 4 70 900 batch:2 1 batch:jobs 3"


def ordering_key(job_id: bytes) -> bytes | None:
    """What a job shares with those that it must not run beside."""
    return job_id.partition(b"@")[2] or None


@dataclass
class Model(State):
    """What Redis must hold. Each method is an operation, done to the model, and returns what it must have answered."""

    by_hand: set[bytes] = field(default_factory=set)
    """Jobs that were moved by hand: their order, and what is left of them, is not checked."""
    accepted: dict[bytes, float] = field(default_factory=dict)
    """The places in the order of the jobs that were due as they were accepted."""
    ended: dict[bytes, float] = field(default_factory=dict)
    """By ordering key: the place of the last of those that ended."""
    last_given: float = 0.0
    """The last place in the order that was given out."""
    unanswered: dict[str, list[bytes]] = field(default_factory=dict)
    """Of each claimer, its claims whose answers were lost."""

    def holds(self, lease: Lease) -> bool:
        """Whether a claim holds."""
        return self.leases.get(lease.job_id) == lease.token

    # Accepting.

    def enqueue(self, jobs: Sequence[Encoded], max_queued: int, change: Change) -> list[int]:
        """Accept jobs."""
        answers: list[int] = []
        queued = len(self.queue)
        for job in jobs:
            job_id, idempotency_key = job.job_id.encode(), (job.idempotency_key or "").encode()
            answer = self._acceptance(job, job_id, idempotency_key, full=0 < max_queued <= queued)
            answers.append(answer)
            if answer == 1:
                queued += 1
                self.payloads[job_id] = job.payload
                self._place(job, job_id, change)
            if job.digest and answer >= 0:
                self.idempotency[idempotency_key] = job.digest.encode()
        return answers

    def _acceptance(self, job: Encoded, job_id: bytes, idempotency_key: bytes, *, full: bool) -> int:
        if job.digest and self.idempotency.get(idempotency_key, job.digest.encode()) != job.digest.encode():
            return -1
        if job_id in self.payloads or job_id in self.results:
            return 0
        return -2 if full else 1

    def _place(self, job: Encoded, job_id: bytes, change: Change) -> None:
        self.accepted.pop(job_id, None)
        if job.delay_ms:
            self.queue[job_id] = change.given(change.seen.queue, job_id, job.delay_ms)
        elif job.due_ms > change.after.now_ms:
            self.queue[job_id] = float(job.due_ms)
        else:
            self._place_last(job_id, change)

    def _place_last(self, job_id: bytes, change: Change) -> None:
        score = change.given(change.seen.queue, job_id)
        assert score > self.last_given, f"{job_id!r} at {score}, not behind {self.last_given}"
        self.queue[job_id] = self.accepted[job_id] = self.last_given = score

    # Claiming.

    def claim(self, claimer: str, count: int, token: bytes, change: Change) -> list[Taken]:
        """Claim jobs, under this token."""
        self._give_back_lost(claimer)
        taken: list[Taken] = []
        # In rounds, as the script looks: who is freed by one round comes with the next.
        while len(taken) < count and (due := self._due(count - len(taken), change)):
            for score, job_id in due:
                if not self._has_turn(job_id, score):
                    continue
                fetched = self._fetch(job_id)
                self.tries[job_id] = self.tries.get(job_id, 0) + 1
                self.leases[job_id] = token
                self.queue[job_id] = change.given(change.seen.queue, job_id, LEASE_MS)
                taken.append(Taken(job_id, score, *fetched, self.tries[job_id]))
        if taken:
            self.last_claims[claimer.encode()] = (token, [(one.job_id, one.score) for one in taken])
        return taken

    def _give_back_lost(self, claimer: str) -> None:
        token, claimed = self.last_claims.get(claimer.encode(), (b"", []))
        if token in self.unanswered.get(claimer, []):
            for job_id, score in claimed:
                if self.leases.get(job_id) == token:
                    self._give_back(job_id, score)

    def _due(self, count: int, change: Change) -> list[tuple[float, bytes]]:
        now_ms = change.before.now_ms
        between = [one for one, score in self.queue.items() if now_ms < score <= change.after.now_ms]
        assert not between, f"due while the claim ran, so their order is unknown: {between}"
        return sorted((score, job_id) for job_id, score in self.queue.items() if score <= now_ms)[:count]

    def _has_turn(self, job_id: bytes, score: float) -> bool:
        if (key := ordering_key(job_id)) is None:
            return True
        holder = self.holders.get(key, job_id)
        if holder != job_id and (holder in self.queue or key in self.parked):
            self.parked.setdefault(key, {})[job_id] = score
            self.queue[job_id] = PARKED_MS
            if holder not in self.queue:
                self._pass_on(key)
            return False
        self.holders[key] = job_id
        return True

    def _fetch(self, job_id: bytes) -> tuple[bytes | None, PayloadState]:
        payload = self.payloads.get(job_id)
        if payload is None:
            return None, PayloadState.MISSING
        if payload == FOREIGN:
            return None, PayloadState.FOREIGN
        if len(payload) > MAX_PAYLOAD_BYTES:
            return None, PayloadState.TOO_LARGE
        if job_id in self.abort:
            return payload, PayloadState.CANCEL
        known = job_id in self.tries or job_id in self.results
        return payload, PayloadState.FETCHED if known else PayloadState.FRESH

    # Settling.

    def renew(self, leases: Iterable[Lease], change: Change) -> list[Renewal]:
        """Renew leases."""

        def act(lease: Lease) -> None:
            if lease.job_id in self.queue:
                self.queue[lease.job_id] = change.given(change.seen.queue, lease.job_id, LEASE_MS)

        leases = list(leases)
        if lost := sum(not self.holds(lease) for lease in leases):
            self._add("leases_lost", lost)
        return [
            Renewal.LOST if not held else Renewal.CANCEL if lease.job_id in self.abort else Renewal.RENEWED
            for lease, held in zip(leases, self._each_held(leases, act), strict=True)
        ]

    def complete(self, leases: Iterable[Lease], result: bytes) -> list[bool]:
        """Settle jobs that ended."""
        left: list[bytes] = []

        def act(lease: Lease) -> None:
            self.results[lease.job_id] = result
            left.append(lease.job_id)

        answers = self._each_held(leases, act, "complete")
        self._leave(left)
        return answers

    def bury(self, leases: Iterable[Lease], result: bytes, letter: bytes, change: Change) -> list[bool]:
        """Settle jobs that are dead."""
        left: list[bytes] = []

        def act(lease: Lease) -> None:
            if (payload := self.payloads.pop(lease.job_id, None)) is not None:
                self.dead_payloads[lease.job_id] = payload
            self.dead[lease.job_id] = change.given(change.seen.dead, lease.job_id)
            self.letters[lease.job_id] = letter
            self.results[lease.job_id] = result
            left.append(lease.job_id)

        answers = self._each_held(leases, act, "bury")
        self._leave(left)
        return answers

    def retry(self, leases: Iterable[Lease], delay_ms: int, change: Change) -> list[bool]:
        """Settle claims whose try failed."""

        def act(lease: Lease) -> None:
            del self.leases[lease.job_id]
            self.queue[lease.job_id] = change.given(change.seen.queue, lease.job_id, delay_ms)

        return self._each_held(leases, act, "retry")

    def release(self, leases: Iterable[Lease]) -> list[bool]:
        """Give claims back."""
        return self._each_held(leases, lambda lease: self._give_back(lease.job_id, float(lease.score)), "release")

    def _each_held(self, leases: Iterable[Lease], act: Callable[[Lease], Any], how: str | None = None) -> list[bool]:
        answers = []
        for lease in leases:
            answers.append(self.holds(lease))
            if answers[-1]:
                act(lease)
                if how is not None:
                    self._count(how)
        return answers

    def _count(self, how: str) -> None:
        """In the form of `tally_of`."""
        for name, amount in (("3 4", 1), ("wait_us", 70), ("run_us", 900)):
            self._add(f"job/{how}/ {name}", amount)
        self._add("batch:2", 1)
        self._add("batch:jobs", 3)

    def _add(self, name: str, amount: int) -> None:
        self.tallies[name.encode()] = self.tallies.get(name.encode(), 0) + amount

    def _give_back(self, job_id: bytes, score: float) -> None:
        del self.leases[job_id]
        self.queue[job_id] = score
        self.tries[job_id] = max(0, self.tries.get(job_id, 0) - 1)

    def _leave(self, job_ids: Iterable[bytes]) -> None:
        job_ids = list(job_ids)
        for job_id in job_ids:
            for of_job in (self.queue, self.payloads, self.leases, self.tries):
                of_job.pop(job_id, None)
            self.abort.discard(job_id)
            self._in_order(job_id)
        for job_id in job_ids:
            key = ordering_key(job_id)
            if key is not None and self.holders.get(key) == job_id:
                self._pass_on(key)

    def _in_order(self, job_id: bytes) -> None:
        key, place = ordering_key(job_id), self.accepted.get(job_id)
        if key is not None and place is not None and job_id not in self.by_hand:
            assert place > self.ended.get(key, 0), f"{job_id!r} ended after one that was accepted behind it"
            self.ended[key] = place

    def _pass_on(self, key: bytes) -> None:
        while waiting := self.parked.get(key):
            score, job_id = min((score, job_id) for job_id, score in waiting.items())
            self._unpark(job_id)
            if job_id in self.queue:
                self.queue[job_id], self.holders[key] = score, job_id
                return
        self.holders.pop(key, None)

    def _unpark(self, job_id: bytes) -> None:
        key = ordering_key(job_id)
        if key is not None and key in self.parked:
            self.parked[key].pop(job_id, None)
            if not self.parked[key]:
                del self.parked[key]

    # Operations.

    def replay(self, job_ids: Iterable[bytes], change: Change) -> list[int]:
        """Put dead letters back into the queue."""
        return [self._replay(job_id, change) for job_id in job_ids]

    def _replay(self, job_id: bytes, change: Change) -> int:
        if job_id not in self.dead:
            return 0
        if job_id not in self.dead_payloads:
            return -1
        if job_id in self.queue or job_id in self.payloads:
            return -2
        self.payloads[job_id] = self.dead_payloads.pop(job_id)
        self._place_last(job_id, change)
        del self.dead[job_id], self.letters[job_id]
        self.tries.pop(job_id, None)
        self.results.pop(job_id, None)
        self.abort.discard(job_id)
        return 1

    def purge(self, job_ids: Iterable[bytes], until_ms: float | None) -> list[bool]:
        """Delete dead letters."""
        answers = []
        for job_id in job_ids:
            died_ms = self.dead.get(job_id)
            answers.append(died_ms is not None and (until_ms is None or died_ms <= until_ms))
            if answers[-1]:
                del self.dead[job_id], self.letters[job_id]
                self.dead_payloads.pop(job_id, None)
        return answers

    def cancel(self, job_id: bytes, change: Change) -> tuple[Answer, bytes | None]:
        """Cancel a job."""
        if job_id not in self.queue:
            return Answer.NOT_QUEUED, self.results.get(job_id)
        if job_id in self.leases or job_id in self.tries or job_id in self.results:
            self.abort.add(job_id)
            if job_id in self.leases:
                return Answer.REQUESTED_FROM_WORKER, None
            if change.before.raw_ms < self.queue[job_id] < PARKED_MS:
                # Of Redis's own clock: a job to be cancelled overtakes no job that matters.
                self.queue[job_id] = change.seen.queue[job_id]
                assert change.before.raw_ms - ROUNDING_MS <= self.queue[job_id] <= change.after.raw_ms
            return Answer.REQUESTED_FROM_NEXT_WORKER, None
        self.results[job_id] = change.seen.results.get(job_id, b"")
        assert b'"cancelled"' in self.results[job_id]
        self.payloads.pop(job_id, None)
        del self.queue[job_id]
        self.abort.discard(job_id)
        self._unpark(job_id)
        if (key := ordering_key(job_id)) is not None and self.holders.get(key) == job_id:
            self._pass_on(key)
        return Answer.CANCELLED, None

    def sweep(self) -> int:
        """Free the keys of those who were taken out by hand."""
        gone = [key for key, holder in self.holders.items() if holder not in self.queue]
        for key in gone:
            self._pass_on(key)
        return len(gone)
