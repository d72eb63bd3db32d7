"""What producers, workers, operators and mischance do to a queue, made up by Hypothesis, and told to the model too."""

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
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
    look,
    ordering_key,
    tally_of,
)
from worker.model import settlement
from worker.model.job import Lease
from worker.queue import scripts
from worker.queue.dead_letters import DeadLetters
from worker.queue.queue import Queue

FAR_MS = 10 * LEASE_MS
JUMP_US = 100 * LEASE_MS * 1000
WORKERS = 2
RESULT, LETTER = b'{"done":true}', b'{"code":"failed"}'

NAMES = st.sampled_from([f"{base}{key}" for base in "abcd" for key in ("", "@k", "@l")])
PICK = st.integers(0, 40)
SOME = st.lists(PICK, min_size=1, max_size=4, unique=True)
DUE = st.sampled_from(["now", "now", "now", "past", "future", "delayed"])
OPTIONS = st.tuples(NAMES, st.integers(0, 2), DUE, st.booleans())


class Faulty(Queue):
    """One worker's queue, whose calls may fail."""

    fault: Exception | None = None
    token = b""
    answer: Sequence[Any] = ()
    """What claim.lua returned last."""

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
    """Everything that may happen to one queue.

    Args:
        redis: the server; it is emptied.
        run: runs a coroutine to its end.
    """

    def __init__(self, redis: Redis, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        super().__init__()
        self.redis, self._run = redis, run
        self.model = Model()
        self.claims: list[Lease] = []
        """All that were ever answered, the newest last: workers that lost theirs may still come with them."""
        self.fresh = itertools.count(1)
        self.clock = Clock(0, 0)
        self.done(redis.flushall())

    @initialize(start=st.sampled_from(["empty", "queued", "claimed", "dead"]))
    def begin(self, start: str) -> None:
        """Some runs begin where others seldom come."""
        self.workers = [self.worker() for _ in range(WORKERS)]
        if start == "empty":
            return
        self.accept([self.encoded(job_id, 0, "now", idempotent=False) for job_id in ("a@k", "b@k", "c@l", "d@l", "a")])
        if start != "queued":
            self.claim_all()
        if start == "dead":
            self.bury([0])
            self.bury([0, 2])

    def worker(self) -> Faulty:
        return Faulty(self.redis, QUEUE, lease_ms=LEASE_MS, result_ms=60_000, max_payload_bytes=MAX_PAYLOAD_BYTES)

    def done(self, act: Awaitable[Any]) -> tuple[Any, Change]:
        """Do something, and look."""

        async def do() -> Any:
            answer = await act
            return answer, *await look(self.redis)

        before = self.clock
        answer, self.seen, self.clock = self._run(do())
        return answer, Change(before, self.clock, self.seen)

    def commands(self, *commands: Sequence[str | bytes | float]) -> None:
        async def send() -> None:
            for words in commands:
                await self.redis.execute_command(*words)  # type: ignore[no-untyped-call]

        self.done(send())

    def picked(self, picks: Iterable[int]) -> list[Lease]:
        """Claims: an even number picks one that holds if there is one, an odd number any."""
        holding = [lease for lease in self.claims if self.model.holds(lease)]
        found = {}
        for pick in picks:
            among = self.claims if pick % 2 or not holding else holding
            lease = among[-1 - (pick // 2) % len(among)]
            found[lease.token, lease.job_id] = lease
        return list(found.values())

    @staticmethod
    def some(job_ids: Iterable[bytes], pick: int) -> bytes:
        among = sorted(job_ids)
        return among[pick % len(among)]

    # Producers.

    def accept(self, jobs: list[Encoded], max_queued: int = 0) -> None:
        sender = Sender(self.redis, QUEUE, max_queued=max_queued, timeout_seconds=10)
        outcomes, change = self.done(sender.send(jobs))
        codes: dict[type, int] = {IdempotencyConflict: -1, QueueFull: -2}
        assert [codes.get(type(each), each) for each in outcomes] == self.model.enqueue(jobs, max_queued, change)

    def encoded(self, job_id: str, content: int, due: str, *, idempotent: bool) -> Encoded:
        payload = wire.encode("delete_user", b'{"user_id":%d}' % (content + 1), enqueue_time_ms=1)
        if content == 2:
            payload = payload.ljust(MAX_PAYLOAD_BYTES + 1)
        due_ms = {"past": 1, "future": round(self.clock.now_ms) + FAR_MS}.get(due, 0)
        base, at, key = job_id.partition("@")
        digest = f"{content}{at}{key}" if idempotent else ""
        return Encoded(job_id, payload, FAR_MS if due == "delayed" else 0, due_ms, base or None, digest, Deleted)

    @rule(options=st.lists(OPTIONS, min_size=1, max_size=4), max_queued=st.sampled_from([0, 0, 4]))
    def enqueue(self, options: list[tuple[str, int, str, bool]], max_queued: int) -> None:
        jobs = [self.encoded(job_id, content, due, idempotent=same) for job_id, content, due, same in options]
        self.accept(jobs, max_queued)

    @rule(kinds=st.lists(st.sampled_from(["", "@k", "@k", "@l"]), min_size=1, max_size=5))
    def enqueue_fresh(self, kinds: list[str]) -> None:
        self.accept([self.encoded(f"n{next(self.fresh)}{key}", 0, "now", idempotent=False) for key in kinds])

    @precondition(lambda self: self.model.queue)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        claimed = set(self.model.leases) & set(self.model.queue)
        job_id = self.some(claimed if pick % 2 and claimed else self.model.queue, pick // 2)
        self.cancel_one(job_id.decode(errors="replace"))

    @rule(job_id=NAMES)
    def cancel_one(self, job_id: str) -> None:
        answer, change = self.done(cancel(self.redis, QUEUE, job_id))
        assert answer == self.model.cancel(job_id.encode(), change)

    # Workers.

    @rule(worker=st.integers(0, WORKERS - 1), count=st.integers(1, 4))
    def claim(self, worker: int, count: int) -> None:
        queue = self.workers[worker]
        answer, change = self.done(queue.claim(count))
        taken = self.model.claim(queue._claimer, count, queue.token, change)
        self.model.unanswered.pop(queue._claimer, None)
        self.claims += [job.lease for job in answer.jobs]
        assert {job.lease.token for job in answer.jobs} <= {queue.token}
        # What the worker has decoded holds neither payload nor state.
        five = zip(*(queue.answer[first::5] for first in range(1, 6)), strict=True)
        claimed = [(job_id, float(score), payload, state, attempt) for job_id, payload, attempt, score, state in five]
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
    def claim_without_an_answer(self, worker: int, count: int, sent: bool, again: bool) -> None:
        """The worker may come again at once, or when others have been there."""
        queue = self.workers[worker]
        queue.fault = RedisConnectionError("lost") if sent else NotSent("no way")

        async def claim() -> None:
            with suppress(RedisConnectionError, NotSent):
                await queue.claim(count)

        _, change = self.done(claim())
        queue.fault = None
        if sent:
            self.model.claim(queue._claimer, count, queue.token, change)
            self.model.unanswered.setdefault(queue._claimer, []).append(queue.token)
        if again:
            self.redis_holds_what_the_model_holds()
            self.claim(worker, count)

    @precondition(lambda self: self.claims)
    @rule(picks=SOME)
    def complete(self, picks: list[int]) -> None:
        leases = self.picked(picks)
        held, _ = self.done(
            self.workers[0].complete([settlement.Complete(lease, RESULT, "", tally_of("complete")) for lease in leases])
        )
        assert held == self.model.complete(leases, RESULT)

    @precondition(lambda self: self.claims)
    @rule(picks=SOME)
    def bury(self, picks: list[int]) -> None:
        leases = self.picked(picks)
        held, change = self.done(
            self.workers[0].bury([settlement.Bury(lease, RESULT, "c", LETTER, tally_of("bury")) for lease in leases])
        )
        assert held == self.model.bury(leases, RESULT, LETTER, change)

    @precondition(lambda self: self.claims)
    @rule(picks=SOME, delay_ms=st.sampled_from([0, FAR_MS]))
    def retry(self, picks: list[int], delay_ms: int) -> None:
        leases = self.picked(picks)
        held, change = self.done(
            self.workers[0].retry([settlement.Retry(lease, delay_ms, tally_of("retry")) for lease in leases])
        )
        assert held == self.model.retry(leases, delay_ms, change)

    @precondition(lambda self: self.claims)
    @rule(picks=SOME)
    def release(self, picks: list[int]) -> None:
        leases = self.picked(picks)
        held, _ = self.done(
            self.workers[0].release([settlement.Release(lease, tally_of("release")) for lease in leases])
        )
        assert held == self.model.release(leases)

    @precondition(lambda self: self.claims)
    @rule(picks=SOME)
    def renew(self, picks: list[int]) -> None:
        leases = self.picked(picks)
        renewed, change = self.done(self.workers[0].renew(leases))
        assert renewed == self.model.renew(leases, change)

    @precondition(lambda self: self.claims)
    @rule(picks=SOME, how=st.sampled_from(["renew", "retry", "release", "bury"]))
    def not_complete(self, picks: list[int], how: str) -> None:
        """More of what is done less often."""
        match how:
            case "renew":
                self.renew(picks)
            case "retry":
                self.retry(picks, FAR_MS if len(picks) > 1 else 0)
            case "release":
                self.release(picks)
            case _:
                self.bury(picks)

    @precondition(lambda self: self.model.holders)
    @rule()
    def sweep(self) -> None:
        freed, _ = self.done(self.workers[0].sweep())
        assert freed == self.model.sweep()

    @precondition(lambda self: self.claims)
    @rule(worker=st.integers(0, WORKERS - 1))
    def crash(self, worker: int) -> None:
        """Another comes in its place, and knows nothing."""
        self.workers[worker] = self.worker()

    # Operators.

    @precondition(lambda self: self.model.dead)
    @rule(picks=SOME)
    def replay(self, picks: list[int]) -> None:
        job_ids = list(dict.fromkeys(self.some([*self.model.dead, b"nobody"], pick) for pick in picks))
        script_args: list[str | bytes | int] = [keys.wake(QUEUE), *job_ids]
        answers, change = self.done(scripts.REPLAY(self.redis, [QUEUE], script_args))
        assert answers == self.model.replay(job_ids, change)

    @precondition(lambda self: self.model.dead)
    @rule(picks=SOME, until=st.one_of(st.none(), PICK))
    def purge(self, picks: list[int], until: int | None) -> None:
        job_ids = list(dict.fromkeys(self.some([*self.model.dead, b"nobody"], pick) for pick in picks))
        until_ms = None
        if until is not None:
            # As all that is older than some time is purged.
            job_ids, until_ms = sorted(self.model.dead), self.model.dead[self.some(self.model.dead, until)]
        purged, _ = self.done(DeadLetters(self.redis, QUEUE).purge(job_ids, until_ms=until_ms))
        assert purged == self.model.purge(job_ids, until_ms)

    @precondition(lambda self: self.model.queue)
    @rule(pick=PICK, whole=st.booleans(), holder=st.booleans())
    def take_out(self, pick: int, whole: bool, holder: bool) -> None:
        holders = set(self.model.holders.values()) & set(self.model.queue)
        job_id = self.some(holders if holder and holders else self.model.queue, pick)
        self.commands(("ZREM", QUEUE, job_id), *[("DEL", b"arq:job:" + job_id)] * whole)
        self.model.by_hand.add(job_id)
        # Should a worker have it, it is the one that the next pick means.
        self.claims.sort(key=lambda lease: lease.job_id == job_id)
        del self.model.queue[job_id]
        if whole:
            self.model.payloads.pop(job_id, None)

    @rule(job_id=st.one_of(NAMES.map(str.encode), st.sampled_from([b"\xff\x00", b"\xfe@k", b"@", b"x@"])), score=PICK)
    def put_in(self, job_id: bytes, score: int) -> None:
        """As other clients of arq do it; when the score is odd, without a payload."""
        self.commands(("ZADD", QUEUE, score, job_id), *[("SET", b"arq:job:" + job_id, b"{}")] * (score % 2 == 0))
        self.model.by_hand.add(job_id)
        self.model.queue[job_id] = float(score)
        if score % 2 == 0:
            self.model.payloads[job_id] = b"{}"

    # Mischance.

    @precondition(lambda self: self.model.leases)
    @rule(pick=PICK, due=st.sampled_from([None, 1.0, 2.0]))
    def lease_ends(self, pick: int, due: float | None) -> None:
        """As time does it; without a time when it is due, its token is gone before its score has come."""
        job_id = self.some(self.model.leases, pick)
        due = due if job_id in self.model.queue else None
        self.commands(("DEL", b"arq:in-progress:" + job_id), *[("ZADD", QUEUE, due or 0, job_id)] * (due is not None))
        del self.model.leases[job_id]
        if due is not None:
            self.model.queue[job_id] = due

    @rule(tokens_too=st.booleans())
    def clock_steps_back(self, tokens_too: bool) -> None:
        """The queue has seen a time that Redis's own clock does not show yet; what was to be due by then is due."""
        now_us = round(self.clock.now_ms * 1000) + JUMP_US
        commands: list[Sequence[str | bytes | float]] = [("HSET", keys.clock(QUEUE), "raw", now_us, "now", now_us)]
        if tokens_too and self.model.leases:
            commands.append(["DEL", *(b"arq:in-progress:" + job_id for job_id in self.model.leases)])
        self.commands(*commands)
        if tokens_too:
            self.model.leases.clear()

    @precondition(lambda self: self.model.results)
    @rule(pick=PICK)
    def result_is_forgotten(self, pick: int) -> None:
        job_id = self.some(self.model.results, pick)
        self.commands(("DEL", b"arq:result:" + job_id))
        del self.model.results[job_id]
        self.model.by_hand.add(job_id)  # its id may be accepted again, while it is a dead letter too

    @precondition(lambda self: self.model.dead)
    @rule(pick=PICK)
    def what_died_is_accepted_again(self, pick: int) -> None:
        """Its result is past its time to live."""
        job_id = self.some(self.model.dead, pick)
        self.commands(("DEL", b"arq:result:" + job_id))
        self.model.results.pop(job_id, None)
        self.model.by_hand.add(job_id)
        if job_id.isascii():
            self.accept([self.encoded(job_id.decode(), 1, "now", idempotent=False)])

    @precondition(lambda self: self.model.payloads)
    @rule(pick=PICK, foreign=st.booleans())
    def payload_is_lost(self, pick: int, foreign: bool) -> None:
        job_id = self.some(self.model.payloads, pick)
        key = b"arq:job:" + job_id
        self.commands(("DEL", key), *[("LPUSH", key, "x")] * foreign)
        self.model.by_hand.add(job_id)
        del self.model.payloads[job_id]
        if foreign:
            self.model.payloads[job_id] = FOREIGN

    @rule()
    def scripts_are_forgotten(self) -> None:
        self.commands(("SCRIPT FLUSH",))

    # What holds after every step.

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        differences = self.seen.differences(self.model)
        assert not differences, "\n".join(differences)

    @invariant()
    def nothing_is_where_it_must_not_be(self) -> None:
        """Of what nobody moved by hand; told without the model's word for it."""
        seen, by_hand = self.seen, self.model.by_hand
        queued = set(seen.queue)
        running = [ordering_key(job_id) for job_id in seen.leases if job_id not in by_hand]
        with_keys = [key for key in running if key is not None]
        parked = {job_id for waiting in seen.parked.values() for job_id in waiting}
        out_of_reach = {job_id for job_id, score in seen.queue.items() if score == PARKED_MS}
        wrong = {
            "keys with two holders": {key for key in with_keys if with_keys.count(key) > 1},
            "jobs in two places": (queued & (set(seen.dead) | set(seen.results))) - by_hand,
            "jobs without payloads": queued - set(seen.payloads) - by_hand,
            "parked or out of reach, not both": (parked ^ out_of_reach) - by_hand,
            "holders that are not there": set(seen.holders.values()) - queued - by_hand,
            "left by jobs that are gone": {*seen.payloads, *seen.leases, *seen.tries, *seen.abort} - queued - by_hand,
            "keys that nobody will free": set(seen.parked) - set(seen.holders),
            "letters and the order of deaths": set(seen.dead) ^ set(seen.letters),
            "payloads of no letter": set(seen.dead_payloads) - set(seen.dead),
            "unknown keys": seen.others,
        }
        assert not any(wrong.values()), {what: found for what, found in wrong.items() if found}

    def teardown(self) -> None:
        """Whatever has happened, all that is left comes to its end."""
        if self.seen.differences(self.model) or not hasattr(self, "workers"):
            return
        self._run(self.lifetimes())
        self.sweep()
        for _ in range(len(self.model.queue)):
            if not self.model.queue:
                break
            self.clock_steps_back(tokens_too=True)
            self.claim_all()
            self.complete([2 * number for number in range(len(self.model.leases))])
            self.redis_holds_what_the_model_holds()
        self.sweep()
        assert not self.seen.queue, f"nobody can claim these: {self.seen.queue}"
        assert not self.seen.parked
        assert not self.seen.holders

    async def lifetimes(self) -> None:
        """What is to end by itself does, and nothing else."""
        mortal = ("arq:result:", "arq:in-progress:", "arq:idempotency:", f"{QUEUE}:claim:")
        found = await self.redis.keys("*")
        async with self.redis.pipeline(transaction=False) as pipeline:
            for key in found:
                pipeline.pttl(key)
            ends = await pipeline.execute()
        for key, left_ms in zip(found, ends, strict=True):
            assert (left_ms > 0) == key.decode(errors="replace").startswith(mortal), f"{key!r} ends in {left_ms} ms"


# The runs.
