"""The dispatcher keeps the order, the bounds and last attempts apart, whatever the jobs do. No servers here."""

import asyncio
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.jobs import claimed_job
from worker.engine import dispatcher as dispatching
from worker.engine.dispatcher import AHEAD_SECONDS, BATCHES_AHEAD_SECONDS, MAX_CLAIM, Dispatcher, Throughput
from worker.engine.executor import Executor
from worker.engine.signals import Signals
from worker.model.job import ClaimedJob


def jobs_of(text: str) -> list[ClaimedJob]:
    """A job for each word: its type and its number, as in "a1 a2 b1"."""
    return [claimed_job(word[0], {}, job_id=word) for word in text.split()]


def ids(jobs: Sequence[ClaimedJob]) -> str:
    return " ".join(job.job_id for job in jobs)


class Floor:
    """A dispatcher whose jobs run until they may end. Types in capitals share no session."""

    def __init__(self, concurrency: int = 1, *, batch_size: int = 1) -> None:
        self.begun: list[str] = []
        """What has begun; the jobs of one session in one string."""
        self.released: list[str] = []
        self.max_busy = 0
        """The most sessions that ran at once."""
        self._ends: dict[str, asyncio.Event] = {}
        self._busy = 0
        self.signals = Signals()
        self.dispatcher = Dispatcher(
            cast("Executor", self), self.signals, concurrency=concurrency, batch_size=batch_size
        )

    def add(self, jobs: str, last_attempts: str = "") -> None:
        self.dispatcher.add(jobs_of(jobs), jobs_of(last_attempts))

    async def end(self, jobs: str) -> None:
        """Let the jobs of one session end."""
        self._ends[jobs].set()
        await run_ready()

    async def end_all(self) -> list[str]:
        """Let everything end that begins. Returns all that has begun."""
        await run_ready()
        while self.dispatcher:
            for end in self._ends.values():
                end.set()
            await run_ready()
        return self.begun

    # The executor's part

    def batch_key(self, job: ClaimedJob) -> str | None:
        return job.name if job.name.islower() else None

    async def run(self, jobs: Sequence[ClaimedJob]) -> None:
        for job in jobs:
            job.progress.started_ms = 1.0
        self.begun.append(ids(jobs))
        self._busy += 1
        self.max_busy = max(self.max_busy, self._busy)
        try:
            await self._ends.setdefault(ids(jobs), asyncio.Event()).wait()
        finally:
            self._busy -= 1

    def release(self, job: ClaimedJob) -> None:
        self.released.append(job.job_id)


async def run_ready() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time of the throughput: it changes only when it is set."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(dispatching, "time", clock)
    return clock


# Order and bounds


async def test_jobs_begin_in_the_order_of_their_claims_as_sessions_become_free() -> None:
    floor = Floor(2)
    floor.add("a1 b2 a3")
    floor.add("c4")
    await run_ready()
    assert floor.begun == ["a1", "b2"]
    assert (ids(floor.dispatcher.running), len(floor.dispatcher), len(floor.dispatcher.tasks)) == ("a1 b2", 4, 2)

    await floor.end("b2")

    assert floor.begun == ["a1", "b2", "a3"]
    assert ids(floor.dispatcher.running) == "a1 a3"
    assert await floor.end_all() == ["a1", "b2", "a3", "c4"]
    assert floor.max_busy == 2
    assert (len(floor.dispatcher), floor.dispatcher.running, floor.dispatcher.tasks) == (0, [], [])


@pytest.mark.parametrize(
    ("batch_size", "jobs", "begun"),
    [
        (3, "x0 a1 B2 a3 b4 B5 a6 a7 b8", ["x0", "a1 a3 a6", "B2", "b4 b8", "B5", "a7"]),
        (1, "x0 a1 a2", ["x0", "a1", "a2"]),
    ],
)
async def test_waiting_jobs_of_one_type_share_a_session_and_the_others_keep_their_place(
    batch_size: int, jobs: str, begun: list[str]
) -> None:
    floor = Floor(batch_size=batch_size)
    floor.add(jobs)
    assert await floor.end_all() == begun


async def test_a_batch_takes_in_what_is_claimed_while_it_waits_and_nothing_once_it_runs() -> None:
    floor = Floor(batch_size=3)
    floor.add("x0")
    await run_ready()
    floor.add("a1")
    floor.add("a2")
    await floor.end("x0")
    assert floor.begun[1:] == ["a1 a2"]

    floor.add("a3")

    assert ids(floor.dispatcher.running) == "a1 a2"
    assert await floor.end_all() == ["x0", "a1 a2", "a3"]


async def test_a_batch_does_not_wait_to_fill() -> None:
    floor = Floor(2, batch_size=64)
    floor.add("a1")
    await run_ready()
    assert floor.begun == ["a1"]
    floor.add("a2 a3")
    await run_ready()
    assert floor.begun == ["a1", "a2 a3"]
    await floor.end_all()


async def test_a_running_job_knows_its_task_and_its_batch() -> None:
    floor = Floor(batch_size=2)
    jobs = jobs_of("a1 a2 a3")
    floor.dispatcher.add(jobs, [])
    await run_ready()

    assert [ids(job.progress.batch) for job in jobs] == ["a1 a2", "a1 a2", ""]
    assert [job.progress.task for job in jobs] == [*floor.dispatcher.tasks * 2, None]
    await floor.end_all()


steps = st.lists(st.tuples(st.text("aabbXY", max_size=9), st.text("l", max_size=2), st.integers(0, 2)), max_size=8)


@given(steps=steps, concurrency=st.integers(1, 4), batch_size=st.integers(1, 5))
def test_every_job_begins_once_in_order_within_the_bounds(
    steps: list[tuple[str, str, int]], concurrency: int, batch_size: int
) -> None:
    async def go() -> None:
        floor, numbers = Floor(concurrency, batch_size=batch_size), itertools.count(10)
        added: list[str] = []
        for types, last, ends in steps:
            jobs = [f"{name}{next(numbers)}" for name in types]
            last_attempts = [f"{name}{next(numbers)}" for name in last]
            floor.add(" ".join(jobs), " ".join(last_attempts))
            added += jobs + last_attempts
            for _ in range(ends):
                await run_ready()
                if running := floor.dispatcher.running:
                    await floor.end(ids(running[0].progress.batch))
        begun = [jobs.split() for jobs in await floor.end_all()]

        assert sorted(itertools.chain(*begun)) == sorted(added)
        assert floor.max_busy <= concurrency
        assert all(len(jobs) <= batch_size and len({job[0] for job in jobs}) == 1 for jobs in begun)
        assert all(len(jobs) == 1 for jobs in begun if jobs[0][0] in "XYl")
        for name in "abl":
            of_type = [job for job in itertools.chain(*begun) if job[0] == name]
            assert of_type == sorted(of_type)
        # No job begins before one that was claimed earlier, except for those that join a batch that was.
        firsts = [jobs[0][1:] for jobs in begun if jobs[0][0] != "l"]
        assert firsts == sorted(firsts)

    asyncio.run(go())


# Last attempts


async def test_a_last_attempt_waits_for_all_that_runs_and_runs_alone() -> None:
    floor = Floor(2, batch_size=4)
    floor.add("a1 b2", "a3 a4")
    await run_ready()
    assert floor.begun == ["a1", "b2"]
    assert len(floor.dispatcher) == 4

    await floor.end("a1")
    assert floor.begun == ["a1", "b2"]
    await floor.end("b2")
    assert floor.begun[2:] == ["a3"]

    floor.add("c5 d6")
    await run_ready()
    assert floor.begun[2:] == ["a3"]
    await floor.end("a3")
    # The jobs that waited go on before the next last attempt.
    assert floor.begun[3:] == ["c5", "d6"]
    assert await floor.end_all() == ["a1", "b2", "a3", "c5", "d6", "a4"]


async def test_no_capacity_is_left_while_there_are_last_attempts() -> None:
    floor = Floor(4)
    assert floor.dispatcher.capacity() == 8
    floor.add("", "a1")
    assert floor.dispatcher.capacity() == 0
    await run_ready()
    assert floor.dispatcher.capacity() == 0
    assert not floor.signals.wake.is_set()
    await floor.end("a1")
    assert floor.dispatcher.capacity() == 8
    assert floor.signals.wake.is_set()


# Release


async def test_jobs_that_have_not_begun_are_released_and_do_not_run() -> None:
    floor = Floor(batch_size=2)
    floor.add("x0 a1 a2 B3 a4", "l5")
    await run_ready()

    floor.dispatcher.release_waiting()

    assert floor.released == ["a1", "a2", "B3", "a4", "l5"]
    assert len(floor.dispatcher) == 1
    floor.add("a6")
    assert await floor.end_all() == ["x0", "a6"]
    floor.dispatcher.release_waiting()
    assert len(floor.released) == 5


async def test_a_task_cancelled_before_its_first_step_releases_its_jobs() -> None:
    floor = Floor(batch_size=2)
    floor.add("a1")
    floor.add("b2 b3 c4")
    (first,) = floor.dispatcher.tasks

    first.cancel()
    await run_ready()
    assert (floor.released, floor.begun) == (["a1"], ["b2 b3"])

    # The executor releases jobs that have begun.
    floor.dispatcher.tasks[0].cancel()
    await run_ready()
    assert (floor.released, floor.begun) == (["a1"], ["b2 b3", "c4"])
    await floor.end_all()
    assert len(floor.dispatcher) == 0


# Capacity and throughput


@pytest.mark.parametrize(
    ("held", "per_second", "capacity"),
    [
        (0, 0, 8), (1, 0, 7), (4, 0, 4), (5, 0, 0), (8, 0, 0),  # twice the sessions; no fewer than there are sessions
        (0, 160, 8), (0, 200, 10), (6, 200, 4), (7, 200, 0),  # or what ends in AHEAD_SECONDS
        (0, 800, 40), (30, 800, 10), (31, 800, 0),  # at least a quarter of it
        (0, 2e4, MAX_CLAIM), (800, 2e4, MAX_CLAIM), (801, 2e4, 0),  # or a whole claim
    ],
)  # fmt: skip
async def test_capacity_keeps_the_sessions_busy(held: int, per_second: float, capacity: int) -> None:
    floor = Floor(4)
    floor.dispatcher._throughput.per_second = per_second
    floor.add(" ".join(f"a{number}" for number in range(held)))
    assert floor.dispatcher.capacity() == capacity
    await floor.end_all()


async def test_the_claimer_is_woken_when_there_is_capacity_again() -> None:
    floor = Floor(2, batch_size=2)
    floor.add("a1 a2 a3 b4")
    await run_ready()
    assert (floor.dispatcher.capacity(), floor.signals.wake.is_set()) == (0, False)

    await floor.end("a1 a2")

    assert (floor.dispatcher.capacity(), floor.signals.wake.is_set()) == (2, True)
    await floor.end_all()


def test_throughput_is_that_of_the_last_interval(clock: Any) -> None:
    throughput = Throughput()
    throughput.count(10)
    assert throughput.per_second == 0
    clock.now += AHEAD_SECONDS
    throughput.count(10)
    assert throughput.per_second == pytest.approx(20 / AHEAD_SECONDS)
    # Jobs that end at once belong to one interval; a lull is a slow one.
    throughput.count(5)
    assert throughput.per_second == pytest.approx(20 / AHEAD_SECONDS)
    clock.now += 10
    throughput.count(5)
    assert throughput.per_second == pytest.approx(1)


async def test_every_job_of_a_batch_counts_towards_the_throughput(clock: Any) -> None:
    floor = Floor(batch_size=50)
    floor.add("x0 " + " ".join(f"a{number}" for number in range(50)))
    await run_ready()
    clock.now += AHEAD_SECONDS
    await floor.end_all()
    clock.now += AHEAD_SECONDS
    floor.add("x1")
    await floor.end_all()
    assert floor.dispatcher._throughput.per_second == pytest.approx(51 / AHEAD_SECONDS)
    assert floor.dispatcher.capacity() == round(51 / AHEAD_SECONDS * BATCHES_AHEAD_SECONDS)
