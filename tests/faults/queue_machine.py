"""Hypothesis generates actions of producers, workers, operators and faults on a queue and on its model."""

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from producers import Deleted, keys, wire
from producers._encoding import Encoded
from producers._script import NotSent, Script
from producers._sender import Sender
from producers.cancellation import cancel
from producers.errors import IdempotencyConflict, QueueFull
from producers.keys import PARKED_MS
from tests.faults.queue_model import (
    FOREIGN,
    LEASE_MS,
    MAX_PAYLOAD_BYTES,
    QUEUE,
    Change,
    Clock,
    Model,
    counters_of,
    ordering_key,
    read_state,
)
from worker.model import settlement
from worker.model.job import Lease
from worker.queue import scripts
from worker.queue.dead_letters import DeadLetters
from worker.queue.queue import Queue

LONG_MS = 10 * LEASE_MS
JUMP_US = 100 * LEASE_MS * 1000
WORKERS = 2
RESULT, RECORD = b'{"done":true}', b'{"code":"failed"}'

NAMES = st.sampled_from([f"{base}{key}" for base in "abcd" for key in ("", "@k", "@l")])
PICK = st.integers(0, 40)
PICKS = st.lists(PICK, min_size=1, max_size=4, unique=True)
DUE = st.sampled_from(["now", "now", "now", "past", "future", "delayed"])
OPTIONS = st.tuples(NAMES, st.integers(0, 2), DUE, st.booleans())


class FaultyQueue(Queue):
    """The queue of one worker, whose calls may fail."""

    fault: Exception | None = None
    token = b""
    answer: Sequence[Any] = ()
    """The last return value of claim.lua."""

    async def _run(self, script: Script, arguments: list[str | bytes | int]) -> Any:
        if isinstance(self.fault, NotSent):
            raise self.fault
        if script is scripts.CLAIM:
            self.token = str(arguments[2]).encode()
        answer = await super()._run(script, arguments)
        if script is scripts.CLAIM:
            self.answer = answer
        if self.fault is not None:
            raise self.fault
        return answer


class QueueMachine(RuleBasedStateMachine):
    """All actions on one queue.

    Args:
        redis: the server; it is emptied.
        run: runs a coroutine.
    """

    def __init__(self, redis: Redis, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        super().__init__()
        self.redis, self._run = redis, run
        self.model = Model()
        self.claims: list[Lease] = []
        """All returned leases, the newest last: a worker may still use one that it has lost."""
        self.fresh = itertools.count(1)
        self.clock = Clock(0, 0)
        self.perform(redis.flushall())

    @initialize(start=st.sampled_from(["empty", "queued", "claimed", "dead"]))
    def begin(self, start: str) -> None:
        """Start from a state that is rarely reached from an empty queue."""
        self.workers = [self.create_worker() for _ in range(WORKERS)]
        if start == "empty":
            return
        self.accept_jobs(
            [self.encode_job(job_id, 0, "now", idempotent=False) for job_id in ("a@k", "b@k", "c@l", "d@l", "a")]
        )
        if start != "queued":
            self.claim_all()
        if start == "dead":
            self.bury([0])
            self.bury([0, 2])

    def create_worker(self) -> FaultyQueue:
        return FaultyQueue(self.redis, QUEUE, lease_ms=LEASE_MS, result_ms=60_000, max_payload_bytes=MAX_PAYLOAD_BYTES)

    def perform(self, action: Awaitable[Any]) -> tuple[Any, Change]:
        """Perform an action, then read the state."""

        async def act() -> Any:
            answer = await action
            return answer, *await read_state(self.redis)

        before = self.clock
        answer, self.state, self.clock = self._run(act())
        return answer, Change(before, self.clock, self.state)

    def execute(self, *commands: Sequence[str | bytes | float]) -> None:
        async def send() -> None:
            for command in commands:
                await self.redis.execute_command(*command)  # type: ignore[no-untyped-call]

        self.perform(send())

    def pick_leases(self, picks: Iterable[int]) -> list[Lease]:
        """Leases: an even number picks a current one if there is any, an odd number any."""
        current = [lease for lease in self.claims if self.model.holds(lease)]
        found = {}
        for pick in picks:
            candidates = self.claims if pick % 2 or not current else current
            lease = candidates[-1 - (pick // 2) % len(candidates)]
            found[lease.token, lease.job_id] = lease
        return list(found.values())

    @staticmethod
    def pick_one(job_ids: Iterable[bytes], pick: int) -> bytes:
        candidates = sorted(job_ids)
        return candidates[pick % len(candidates)]

    # Producers.

    def accept_jobs(self, jobs: list[Encoded], max_queued: int = 0) -> None:
        sender = Sender(self.redis, QUEUE, max_queued=max_queued, timeout_seconds=10)
        outcomes, change = self.perform(sender.send(jobs))
        codes: dict[type, int] = {IdempotencyConflict: -1, QueueFull: -2}
        answers = [codes.get(type(outcome), outcome) for outcome in outcomes]
        assert answers == self.model.enqueue(jobs, max_queued, change)

    def encode_job(self, job_id: str, content: int, due: str, *, idempotent: bool) -> Encoded:
        payload = wire.encode("delete_user", b'{"user_id":%d}' % (content + 1), enqueue_time_ms=1)
        if content == 2:
            payload = payload.ljust(MAX_PAYLOAD_BYTES + 1)
        due_ms = {"past": 1, "future": round(self.clock.now_ms) + LONG_MS}.get(due, 0)
        base, at, key = job_id.partition("@")
        digest = f"{content}{at}{key}" if idempotent else ""
        return Encoded(job_id, payload, LONG_MS if due == "delayed" else 0, due_ms, base or None, digest, Deleted)

    @rule(options=st.lists(OPTIONS, min_size=1, max_size=4), max_queued=st.sampled_from([0, 0, 4]))
    def enqueue(self, options: list[tuple[str, int, str, bool]], max_queued: int) -> None:
        jobs = [self.encode_job(job_id, content, due, idempotent=same) for job_id, content, due, same in options]
        self.accept_jobs(jobs, max_queued)

    @rule(kinds=st.lists(st.sampled_from(["", "@k", "@k", "@l"]), min_size=1, max_size=5))
    def enqueue_fresh(self, kinds: list[str]) -> None:
        self.accept_jobs([self.encode_job(f"n{next(self.fresh)}{key}", 0, "now", idempotent=False) for key in kinds])

    @precondition(lambda self: self.model.queue)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        claimed = set(self.model.leases) & set(self.model.queue)
        job_id = self.pick_one(claimed if pick % 2 and claimed else self.model.queue, pick // 2)
        self.cancel_one(job_id.decode(errors="replace"))

    @rule(job_id=NAMES)
    def cancel_one(self, job_id: str) -> None:
        answer, change = self.perform(cancel(self.redis, QUEUE, job_id))
        assert answer == self.model.cancel(job_id.encode(), change)

    # Workers.

    @rule(worker=st.integers(0, WORKERS - 1), count=st.integers(1, 4))
    def claim(self, worker: int, count: int) -> None:
        queue = self.workers[worker]
        answer, change = self.perform(queue.claim(count))
        taken = self.model.claim(queue._claimer, count, queue.token, change)
        self.model.unanswered.pop(queue._claimer, None)
        self.claims += [job.lease for job in answer.jobs]
        assert {job.lease.token for job in answer.jobs} <= {queue.token}
        # The decoded jobs hold neither payload nor state.
        rows = zip(*(queue.answer[first::5] for first in range(1, 6)), strict=True)
        claimed = [(job_id, float(score), payload, found, attempt) for job_id, payload, attempt, score, found in rows]
        assert taken == claimed, f"{claimed}, not {taken}"
        first = min(self.model.queue.values(), default=PARKED_MS)
        assert (answer.next_due_ms is None) == (first >= PARKED_MS)
        if answer.next_due_ms is not None:
            assert abs(answer.next_due_ms - max(0, first - change.after.now_ms)) < 60_000

    @rule()
    def claim_all(self) -> None:
        self.claim(0, 100)

    @rule(
        worker=st.integers(0, WORKERS - 1),
        count=st.integers(1, 4),
        sent=st.sampled_from([True, True, False]),
        again=st.booleans(),
    )
    def claim_with_lost_answer(self, worker: int, count: int, sent: bool, again: bool) -> None:
        """The worker may claim again at once, or after other actions."""
        queue = self.workers[worker]
        queue.fault = RedisConnectionError("lost") if sent else NotSent("not sent")

        async def claim() -> None:
            with suppress(RedisConnectionError, NotSent):
                await queue.claim(count)

        _, change = self.perform(claim())
        queue.fault = None
        if sent:
            self.model.claim(queue._claimer, count, queue.token, change)
            self.model.unanswered.setdefault(queue._claimer, []).append(queue.token)
        if again:
            self.redis_matches_the_model()
            self.claim(worker, count)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS)
    def complete(self, picks: list[int]) -> None:
        leases = self.pick_leases(picks)
        items = [settlement.Complete(lease, RESULT, "", counters_of("complete")) for lease in leases]
        held, _ = self.perform(self.workers[0].complete(items))
        assert held == self.model.complete(leases, RESULT)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS)
    def bury(self, picks: list[int]) -> None:
        leases = self.pick_leases(picks)
        items = [settlement.Bury(lease, RESULT, "c", RECORD, counters_of("bury")) for lease in leases]
        held, change = self.perform(self.workers[0].bury(items))
        assert held == self.model.bury(leases, RESULT, RECORD, change)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS, delay_ms=st.sampled_from([0, LONG_MS]))
    def retry(self, picks: list[int], delay_ms: int) -> None:
        leases = self.pick_leases(picks)
        items = [settlement.Retry(lease, delay_ms, counters_of("retry")) for lease in leases]
        held, change = self.perform(self.workers[0].retry(items))
        assert held == self.model.retry(leases, delay_ms, change)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS)
    def release(self, picks: list[int]) -> None:
        leases = self.pick_leases(picks)
        items = [settlement.Release(lease, counters_of("release")) for lease in leases]
        held, _ = self.perform(self.workers[0].release(items))
        assert held == self.model.release(leases)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS)
    def renew(self, picks: list[int]) -> None:
        leases = self.pick_leases(picks)
        renewed, change = self.perform(self.workers[0].renew(leases))
        assert renewed == self.model.renew(leases, change)

    @precondition(lambda self: self.claims)
    @rule(picks=PICKS, how=st.sampled_from(["renew", "retry", "release", "bury"]))
    def settle_otherwise(self, picks: list[int], how: str) -> None:
        """Make these actions more frequent than completions."""
        delay = (LONG_MS if len(picks) > 1 else 0,) if how == "retry" else ()
        getattr(self, how)(picks, *delay)

    @precondition(lambda self: self.model.holders)
    @rule()
    def sweep(self) -> None:
        freed, _ = self.perform(self.workers[0].sweep())
        assert freed == self.model.sweep()

    @precondition(lambda self: self.claims)
    @rule(worker=st.integers(0, WORKERS - 1))
    def crash(self, worker: int) -> None:
        """A new worker replaces it."""
        self.workers[worker] = self.create_worker()

    # Operators.

    @precondition(lambda self: self.model.dead)
    @rule(picks=PICKS)
    def replay(self, picks: list[int]) -> None:
        job_ids = list(dict.fromkeys(self.pick_one([*self.model.dead, b"unknown"], pick) for pick in picks))
        script_args: list[str | bytes | int] = [keys.wake(QUEUE), *job_ids]
        answers, change = self.perform(scripts.REPLAY(self.redis, [QUEUE], script_args))
        assert answers == self.model.replay(job_ids, change)

    @precondition(lambda self: self.model.dead)
    @rule(picks=PICKS, until=st.one_of(st.none(), PICK))
    def purge(self, picks: list[int], until: int | None) -> None:
        job_ids = list(dict.fromkeys(self.pick_one([*self.model.dead, b"unknown"], pick) for pick in picks))
        until_ms = None
        if until is not None:
            # As the purge of old dead letters does.
            job_ids, until_ms = sorted(self.model.dead), self.model.dead[self.pick_one(self.model.dead, until)]
        purged, _ = self.perform(DeadLetters(self.redis, QUEUE).purge(job_ids, until_ms=until_ms))
        assert purged == self.model.purge(job_ids, until_ms)

    @precondition(lambda self: self.model.queue)
    @rule(pick=PICK, whole=st.booleans(), holder=st.booleans())
    def remove_by_hand(self, pick: int, whole: bool, holder: bool) -> None:
        holders = set(self.model.holders.values()) & set(self.model.queue)
        job_id = self.pick_one(holders if holder and holders else self.model.queue, pick)
        self.execute(("ZREM", QUEUE, job_id), *[("DEL", b"arq:job:" + job_id)] * whole)
        self.model.moved_by_hand.add(job_id)
        # If a worker holds its lease, the next pick returns that one.
        self.claims.sort(key=lambda lease: lease.job_id == job_id)
        del self.model.queue[job_id]
        if whole:
            self.model.payloads.pop(job_id, None)

    @rule(job_id=st.one_of(NAMES.map(str.encode), st.sampled_from([b"\xff\x00", b"\xfe@k", b"@", b"x@"])), score=PICK)
    def add_by_raw_client(self, job_id: bytes, score: int) -> None:
        """Enqueue as another arq client does; an odd score means no payload."""
        self.execute(("ZADD", QUEUE, score, job_id), *[("SET", b"arq:job:" + job_id, b"{}")] * (score % 2 == 0))
        self.model.moved_by_hand.add(job_id)
        self.model.queue[job_id] = float(score)
        if score % 2 == 0:
            self.model.payloads[job_id] = b"{}"

    # Faults.

    @precondition(lambda self: self.model.leases)
    @rule(pick=PICK, due=st.sampled_from([None, 1.0, 2.0]))
    def lease_expires(self, pick: int, due: float | None) -> None:
        """The lease expires. Without a due time, its key expires before its score is due."""
        job_id = self.pick_one(self.model.leases, pick)
        due = due if job_id in self.model.queue else None
        self.execute(("DEL", b"arq:in-progress:" + job_id), *[("ZADD", QUEUE, due or 0, job_id)] * (due is not None))
        del self.model.leases[job_id]
        if due is not None:
            self.model.queue[job_id] = due

    @rule(tokens_too=st.booleans())
    def clock_steps_back(self, tokens_too: bool) -> None:
        """The queue's clock is ahead of Redis's own clock, so jobs with a score in between are due."""
        now_us = round(self.clock.now_ms * 1000) + JUMP_US
        commands: list[Sequence[str | bytes | float]] = [("HSET", keys.clock(QUEUE), "raw", now_us, "now", now_us)]
        if tokens_too and self.model.leases:
            commands.append(["DEL", *(b"arq:in-progress:" + job_id for job_id in self.model.leases)])
        self.execute(*commands)
        if tokens_too:
            self.model.leases.clear()

    @precondition(lambda self: self.model.results)
    @rule(pick=PICK)
    def result_expires(self, pick: int) -> None:
        job_id = self.pick_one(self.model.results, pick)
        self.execute(("DEL", b"arq:result:" + job_id))
        del self.model.results[job_id]
        self.model.moved_by_hand.add(job_id)  # its id may be accepted again while it is a dead letter

    @precondition(lambda self: self.model.dead)
    @rule(pick=PICK)
    def dead_job_is_accepted_again(self, pick: int) -> None:
        """The result of a dead job expires."""
        job_id = self.pick_one(self.model.dead, pick)
        self.execute(("DEL", b"arq:result:" + job_id))
        self.model.results.pop(job_id, None)
        self.model.moved_by_hand.add(job_id)
        if job_id.isascii():
            self.accept_jobs([self.encode_job(job_id.decode(), 1, "now", idempotent=False)])

    @precondition(lambda self: self.model.payloads)
    @rule(pick=PICK, foreign=st.booleans())
    def payload_is_lost(self, pick: int, foreign: bool) -> None:
        job_id = self.pick_one(self.model.payloads, pick)
        key = b"arq:job:" + job_id
        self.execute(("DEL", key), *[("LPUSH", key, "x")] * foreign)
        self.model.moved_by_hand.add(job_id)
        del self.model.payloads[job_id]
        if foreign:
            self.model.payloads[job_id] = FOREIGN

    @rule()
    def scripts_are_flushed(self) -> None:
        self.execute(("SCRIPT FLUSH",))

    # After every step.

    @invariant()
    def redis_matches_the_model(self) -> None:
        differences = self.state.differences(self.model)
        assert not differences, "\n".join(differences)

    @invariant()
    def keys_are_consistent(self) -> None:
        """Check the jobs that were not moved by hand, without the model."""
        state, moved_by_hand = self.state, self.model.moved_by_hand
        queued = set(state.queue)
        running = [ordering_key(job_id) for job_id in state.leases if job_id not in moved_by_hand]
        held_keys = [key for key in running if key is not None]
        parked = {job_id for waiting in state.parked.values() for job_id in waiting}
        with_parked_score = {job_id for job_id, score in state.queue.items() if score == PARKED_MS}
        of_jobs = {*state.payloads, *state.leases, *state.attempts, *state.abort}
        violations = {
            "keys with two holders": {key for key in held_keys if held_keys.count(key) > 1},
            "jobs in two places": (queued & (set(state.dead) | set(state.results))) - moved_by_hand,
            "jobs without payloads": queued - set(state.payloads) - moved_by_hand,
            "parked without the parked score, or the reverse": (parked ^ with_parked_score) - moved_by_hand,
            "holders that are not in the queue": set(state.holders.values()) - queued - moved_by_hand,
            "keys of jobs that are not in the queue": of_jobs - queued - moved_by_hand,
            "ordering keys that are never freed": set(state.parked) - set(state.holders),
            "dead letters without a record, or the reverse": set(state.dead) ^ set(state.records),
            "payloads without a dead letter": set(state.dead_payloads) - set(state.dead),
            "unknown keys": state.others,
        }
        assert not any(violations.values()), {kind: found for kind, found in violations.items() if found}

    def teardown(self) -> None:
        """All remaining jobs can be claimed and completed."""
        if self.state.differences(self.model) or not hasattr(self, "workers"):
            return
        self._run(self.check_lifetimes())
        self.sweep()
        for _ in range(len(self.model.queue)):
            if not self.model.queue:
                break
            self.clock_steps_back(tokens_too=True)
            self.claim_all()
            self.complete([2 * number for number in range(len(self.model.leases))])
            self.redis_matches_the_model()
        self.sweep()
        assert not self.state.queue, f"cannot be claimed: {self.state.queue}"
        assert not self.state.parked
        assert not self.state.holders

    async def check_lifetimes(self) -> None:
        """Only the keys that must expire have a time to live."""
        expiring = ("arq:result:", "arq:in-progress:", "arq:idempotency:", f"{QUEUE}:claim:")
        found = await self.redis.keys("*")
        async with self.redis.pipeline(transaction=False) as pipeline:
            for key in found:
                pipeline.pttl(key)
            times_to_live = await pipeline.execute()
        for key, left_ms in zip(found, times_to_live, strict=True):
            expires = key.decode(errors="replace").startswith(expiring)
            assert (left_ms > 0) == expires, f"{key!r} expires in {left_ms} ms"
