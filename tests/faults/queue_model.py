"""The model of the queue: what Redis must hold, and what each operation must change and return.

The model does not compute scores from the clock. It checks that Redis's score is in the expected range, then copies it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

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
    """A time: that of Redis's own clock, and that of the queue's monotonic clock."""

    raw_ms: float
    now_ms: float


class ExpectedClaim(NamedTuple):
    """A job as a claim must return it."""

    job_id: bytes
    score: float
    payload: bytes | None
    state: PayloadState
    attempt: int


@dataclass
class State:
    """Everything Redis holds, by job id unless documented otherwise."""

    queue: dict[bytes, float] = field(default_factory=dict)
    payloads: dict[bytes, bytes] = field(default_factory=dict)
    results: dict[bytes, bytes] = field(default_factory=dict)
    leases: dict[bytes, bytes] = field(default_factory=dict)
    attempts: dict[bytes, int] = field(default_factory=dict)
    abort: set[bytes] = field(default_factory=set)
    dead: dict[bytes, float] = field(default_factory=dict)
    records: dict[bytes, bytes] = field(default_factory=dict)
    dead_payloads: dict[bytes, bytes] = field(default_factory=dict)
    holders: dict[bytes, bytes] = field(default_factory=dict)
    """By ordering key."""
    parked: dict[bytes, dict[bytes, float]] = field(default_factory=dict)
    """By ordering key."""
    idempotency: dict[bytes, bytes] = field(default_factory=dict)
    """By idempotency key."""
    last_claims: dict[bytes, tuple[bytes, list[tuple[bytes, float]]]] = field(default_factory=dict)
    """By claimer: the token, and each job with its former score."""
    counters: dict[bytes, int] = field(default_factory=dict)
    """By field."""
    others: set[bytes] = field(default_factory=set)
    """Unknown keys."""

    def differences(self, other: "State") -> list[str]:
        """The members that differ from another state."""
        pairs = ((each.name, getattr(self, each.name), getattr(other, each.name)) for each in fields(State))
        return [f"{name}: {ours}, not {theirs}" for name, ours, theirs in pairs if ours != theirs]


_STRINGS = {
    b"arq:job:": "payloads",
    b"arq:result:": "results",
    b"arq:in-progress:": "leases",
    b"arq:retry:": "attempts",
    b"arq:dead:": "dead_payloads",
    b"arq:idempotency:": "idempotency",
}
_PARKED, _CLAIM = f"{QUEUE}:parked:".encode(), f"{QUEUE}:claim:".encode()
_NAMED = {name(QUEUE).encode() for name in (keys.holders, keys.dead, keys.dead_letters, keys.clock, keys.counters)} | {
    QUEUE.encode(), keys.ABORT.encode(),
}  # fmt: skip


async def read_state(redis: Redis) -> tuple[State, Clock]:
    """Everything Redis holds, and the time."""
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
        time, stored_clock, queue, dead, abort, *rest = await pipeline.execute()
    state = State(queue=dict(queue), dead=dict(dead), abort={job_id for job_id, _ in abort})
    for key in parked:
        state.parked[key.removeprefix(_PARKED)] = dict(rest.pop(0))
    state.holders, state.records, counters, *rest = rest
    state.counters = {field: int(counted) for field, counted in counters.items()}
    for key in claims:
        (token, *jobs), *rest = rest
        scores = map(float, jobs[1::2])
        state.last_claims[key.removeprefix(_CLAIM)] = (token, list(zip(jobs[::2], scores, strict=True)))
    for (prefix, key), value in zip(strings, rest[0][1:], strict=True):
        stored = FOREIGN if value is None else value
        getattr(state, _STRINGS[prefix])[key.removeprefix(prefix)] = int(stored) if prefix == b"arq:retry:" else stored
    state.others = set(found) - {key for _, key in strings} - set(parked) - set(claims) - _NAMED
    return state, _clock(time, stored_clock)


def _clock(time: tuple[int, int], stored_clock: Sequence[bytes | None]) -> Clock:
    raw_us = time[0] * 1_000_000 + time[1]
    raw, now = (float(value or 0) for value in stored_clock)
    now_us = raw_us if raw_us >= now else now + int(0.9 * max(0, raw_us - raw))
    return Clock(raw_us / 1000, now_us / 1000)


@dataclass
class Change:
    """The time before an operation, and the time and state after it."""

    before: Clock
    after: Clock
    state: State

    def adopt_score(self, scores: dict[bytes, float], job_id: bytes, delay_ms: float = 0) -> float:
        """The score Redis assigned; asserts that it is the operation's time plus `delay_ms`."""
        score = scores.get(job_id)
        assert score is not None, f"{job_id!r} has no score"
        low, high = self.before.now_ms + delay_ms, self.after.now_ms + delay_ms
        assert low - ROUNDING_MS <= score <= high + ROUNDING_MS, f"{job_id!r} at {score}, not in {low} … {high}"
        return score


def counters_of(how: str) -> str:
    """The counters that the settlements of these tests add to."""
    return f"job/{how}/ 3 4 70 900 batch:2 1 batch:jobs 3"


def ordering_key(job_id: bytes) -> bytes | None:
    """The ordering key in a job id."""
    return job_id.partition(b"@")[2] or None


@dataclass
class Model(State):
    """What Redis must hold. Each public method is an operation on the model and returns the expected answer."""

    moved_by_hand: set[bytes] = field(default_factory=set)
    """Jobs moved by hand: neither their order nor their leftover keys are checked."""
    accepted: dict[bytes, float] = field(default_factory=dict)
    """The scores of the jobs that were due when they were accepted."""
    ended: dict[bytes, float] = field(default_factory=dict)
    """By ordering key: the score of the last settled job."""
    last_place: float = 0.0
    """The highest score of an accepted job."""
    unanswered: dict[str, list[bytes]] = field(default_factory=dict)
    """By claimer: the tokens of its claims whose answers were lost."""

    def holds(self, lease: Lease) -> bool:
        """Whether this lease is current."""
        return self.leases.get(lease.job_id) == lease.token

    # Accepting.

    def enqueue(self, jobs: Sequence[Encoded], max_queued: int, change: Change) -> list[int]:
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
            self.queue[job_id] = change.adopt_score(change.state.queue, job_id, job.delay_ms)
        elif job.due_ms > change.after.now_ms:
            self.queue[job_id] = float(job.due_ms)
        else:
            self._append(job_id, change)

    def _append(self, job_id: bytes, change: Change) -> None:
        score = change.adopt_score(change.state.queue, job_id)
        assert score > self.last_place, f"{job_id!r} at {score}, not above {self.last_place}"
        self.queue[job_id] = self.accepted[job_id] = self.last_place = score

    # Claiming.

    def claim(self, claimer: str, count: int, token: bytes, change: Change) -> list[ExpectedClaim]:
        self._release_unanswered(claimer)
        taken: list[ExpectedClaim] = []
        # Like the script, in rounds: a job unparked in one round is claimed in the next.
        while len(taken) < count and (due := self._due(count - len(taken), change)):
            for score, job_id in due:
                if not self._has_turn(job_id, score):
                    continue
                fetched = self._fetch(job_id)
                self.attempts[job_id] = self.attempts.get(job_id, 0) + 1
                self.leases[job_id] = token
                self.queue[job_id] = change.adopt_score(change.state.queue, job_id, LEASE_MS)
                taken.append(ExpectedClaim(job_id, score, *fetched, self.attempts[job_id]))
        if taken:
            self.last_claims[claimer.encode()] = (token, [(claim.job_id, claim.score) for claim in taken])
        return taken

    def _release_unanswered(self, claimer: str) -> None:
        token, claimed = self.last_claims.get(claimer.encode(), (b"", []))
        if token in self.unanswered.get(claimer, []):
            for job_id, score in claimed:
                if self.leases.get(job_id) == token:
                    self._release_one(job_id, score)

    def _due(self, count: int, change: Change) -> list[tuple[float, bytes]]:
        now_ms = change.before.now_ms
        between = [job_id for job_id, score in self.queue.items() if now_ms < score <= change.after.now_ms]
        assert not between, f"became due during the claim, so their order is unknown: {between}"
        return sorted((score, job_id) for job_id, score in self.queue.items() if score <= now_ms)[:count]

    def _has_turn(self, job_id: bytes, score: float) -> bool:
        if (key := ordering_key(job_id)) is None:
            return True
        holder = self.holders.get(key, job_id)
        if holder != job_id and (holder in self.queue or key in self.parked):
            self.parked.setdefault(key, {})[job_id] = score
            self.queue[job_id] = PARKED_MS
            if holder not in self.queue:
                self._unpark_next(key)
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
        known = job_id in self.attempts or job_id in self.results
        return payload, PayloadState.FETCHED if known else PayloadState.FRESH

    # Settling.

    def renew(self, leases: Sequence[Lease], change: Change) -> list[Renewal]:
        held, answers = self._held(leases)
        for lease in held:
            if lease.job_id in self.queue:
                self.queue[lease.job_id] = change.adopt_score(change.state.queue, lease.job_id, LEASE_MS)
        self._add("leases_lost", len(leases) - len(held))
        return [
            Renewal.LOST if not is_held else Renewal.CANCEL if lease.job_id in self.abort else Renewal.RENEWED
            for lease, is_held in zip(leases, answers, strict=True)
        ]

    def complete(self, leases: Sequence[Lease], result: bytes) -> list[bool]:
        """Settle jobs that are done or rejected."""
        held, answers = self._held(leases, "complete")
        for lease in held:
            self.results[lease.job_id] = result
        self._remove_settled(held)
        return answers

    def bury(self, leases: Sequence[Lease], result: bytes, record: bytes, change: Change) -> list[bool]:
        held, answers = self._held(leases, "bury")
        for lease in held:
            if (payload := self.payloads.pop(lease.job_id, None)) is not None:
                self.dead_payloads[lease.job_id] = payload
            self.dead[lease.job_id] = change.adopt_score(change.state.dead, lease.job_id)
            self.records[lease.job_id] = record
            self.results[lease.job_id] = result
        self._remove_settled(held)
        return answers

    def retry(self, leases: Sequence[Lease], delay_ms: int, change: Change) -> list[bool]:
        """Settle claims whose attempt failed."""
        held, answers = self._held(leases, "retry")
        for lease in held:
            del self.leases[lease.job_id]
            self.queue[lease.job_id] = change.adopt_score(change.state.queue, lease.job_id, delay_ms)
        return answers

    def release(self, leases: Sequence[Lease]) -> list[bool]:
        """Settle claims without counting an attempt."""
        held, answers = self._held(leases, "release")
        for lease in held:
            self._release_one(lease.job_id, float(lease.score))
        return answers

    def _held(self, leases: Sequence[Lease], how: str | None = None) -> tuple[list[Lease], list[bool]]:
        """The current ones of these leases, counted if they are settled, and whether each is current."""
        answers = [self.holds(lease) for lease in leases]
        held = [lease for lease, is_held in zip(leases, answers, strict=True) if is_held]
        if how is not None:
            for name, amount in (("3 4", 1), ("wait_us", 70), ("run_us", 900)):
                self._add(f"job/{how}/ {name}", amount * len(held))
            self._add("batch:2", len(held))
            self._add("batch:jobs", 3 * len(held))
        return held, answers

    def _add(self, name: str, amount: int) -> None:
        if amount:
            self.counters[name.encode()] = self.counters.get(name.encode(), 0) + amount

    def _release_one(self, job_id: bytes, score: float) -> None:
        del self.leases[job_id]
        self.queue[job_id] = score
        self.attempts[job_id] = max(0, self.attempts.get(job_id, 0) - 1)

    def _remove_settled(self, leases: Sequence[Lease]) -> None:
        for job_id in (lease.job_id for lease in leases):
            for keys_of_job in (self.queue, self.payloads, self.leases, self.attempts):
                keys_of_job.pop(job_id, None)
            self.abort.discard(job_id)
            self._check_order(job_id)
        for job_id in (lease.job_id for lease in leases):
            key = ordering_key(job_id)
            if key is not None and self.holders.get(key) == job_id:
                self._unpark_next(key)

    def _check_order(self, job_id: bytes) -> None:
        key, place = ordering_key(job_id), self.accepted.get(job_id)
        if key is not None and place is not None and job_id not in self.moved_by_hand:
            assert place > self.ended.get(key, 0), f"{job_id!r} was settled after a job accepted later"
            self.ended[key] = place

    def _unpark_next(self, key: bytes) -> None:
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
        self._append(job_id, change)
        del self.dead[job_id], self.records[job_id]
        self.attempts.pop(job_id, None)
        self.results.pop(job_id, None)
        self.abort.discard(job_id)
        return 1

    def purge(self, job_ids: Iterable[bytes], until_ms: float | None) -> list[bool]:
        answers = []
        for job_id in job_ids:
            died_ms = self.dead.get(job_id)
            answers.append(died_ms is not None and (until_ms is None or died_ms <= until_ms))
            if answers[-1]:
                del self.dead[job_id], self.records[job_id]
                self.dead_payloads.pop(job_id, None)
        return answers

    def cancel(self, job_id: bytes, change: Change) -> tuple[Answer, bytes | None]:
        if job_id not in self.queue:
            return Answer.NOT_QUEUED, self.results.get(job_id)
        if job_id in self.leases or job_id in self.attempts or job_id in self.results:
            self.abort.add(job_id)
            if job_id in self.leases:
                return Answer.REQUESTED_FROM_WORKER, None
            if change.before.raw_ms < self.queue[job_id] < PARKED_MS:
                # By Redis's own clock: it does not matter which jobs a cancelled job overtakes.
                self.queue[job_id] = change.state.queue[job_id]
                assert change.before.raw_ms - ROUNDING_MS <= self.queue[job_id] <= change.after.raw_ms
            return Answer.REQUESTED_FROM_NEXT_WORKER, None
        self.results[job_id] = change.state.results.get(job_id, b"")
        assert b'"cancelled"' in self.results[job_id]
        self.payloads.pop(job_id, None)
        del self.queue[job_id]
        self.abort.discard(job_id)
        self._unpark(job_id)
        if (key := ordering_key(job_id)) is not None and self.holders.get(key) == job_id:
            self._unpark_next(key)
        return Answer.CANCELLED, None

    def sweep(self) -> int:
        """Free the ordering keys of jobs that were removed by hand."""
        freed = [key for key, holder in self.holders.items() if holder not in self.queue]
        for key in freed:
            self._unpark_next(key)
        return len(freed)
