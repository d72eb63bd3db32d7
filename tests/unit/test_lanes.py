"""Do the lanes keep the order, the bounds and the last tries apart, whatever their jobs do? No servers here."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker.engine.job import Job

from worker.engine import dispatcher as lanes_module
from worker.engine.dispatcher import AHEAD_SECONDS, BATCHES_AHEAD_SECONDS, LONGEST_CLAIM, Lanes, Pace
from worker.engine.transaction import Claim
from worker.queue.queue import Claimed, Lease, PayloadState


def jobs_of(text: str) -> list[Job]:
    """A job for each word: its kind and its number, as in "a1 a2 b1"."""
    return [
        Job(Claimed(Lease(word.encode(), b"t", b"0"), b"{}", PayloadState.FETCHED, 1), Claim(word, word[0], {}, 1))
        for word in text.split()
    ]


def shown(jobs: Sequence[Job]) -> str:
    return " ".join(job.claim.job_id for job in jobs)


class Floor:
    """Lanes whose jobs run until they are told to end, and what was seen of them. Kinds in capitals share nothing."""

    def __init__(self, count: int = 1, *, batch_size: int = 1) -> None:
        self.begun: list[str] = []
        """What has begun, a lane's jobs in one string."""
        self.given_back: list[str] = []
        self.rooms = 0
        self.most = 0
        """The most lanes that were busy at once."""
        self._ends: dict[str, asyncio.Event] = {}
        self._busy = 0
        self.lanes = Lanes(
            count,
            batch_size=batch_size,
            sharing=lambda job: job.claim.job if job.claim.job.islower() else None,
            run=self._run,
            not_begun=lambda job: self.given_back.append(job.claim.job_id),
            room=self._room,
        )

    def add(self, jobs: str, last_tries: str = "") -> None:
        self.lanes.add(jobs_of(jobs), jobs_of(last_tries))

    async def end(self, jobs: str) -> None:
        """Let the jobs of one lane end."""
        self._ends[jobs].set()
        await settle()

    async def end_all(self) -> list[str]:
        """Let everything end that begins; all that has begun."""
        await settle()
        while self.lanes:
            for end in self._ends.values():
                end.set()
            await settle()
        return self.begun

    async def _run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.started_ms = 1.0
        self.begun.append(shown(jobs))
        self._busy += 1
        self.most = max(self.most, self._busy)
        try:
            await self._ends.setdefault(shown(jobs), asyncio.Event()).wait()
        finally:
            self._busy -= 1

    def _room(self) -> None:
        self.rooms += 1


async def settle() -> None:
    """Let all go on that can."""
    for _ in range(5):
        await asyncio.sleep(0)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lanes_module, "time", clock)
    return clock


# Order and bounds


async def test_jobs_begin_in_the_order_of_their_claims_as_lanes_become_free() -> None:
    floor = Floor(2)
    floor.add("a1 b2 a3")
    floor.add("c4")
    await settle()
    assert floor.begun == ["a1", "b2"]
    assert (shown(floor.lanes.running), len(floor.lanes), len(floor.lanes.tasks)) == ("a1 b2", 4, 2)

    await floor.end("b2")

    assert floor.begun == ["a1", "b2", "a3"]
    assert shown(floor.lanes.running) == "a1 a3"
    assert await floor.end_all() == ["a1", "b2", "a3", "c4"]
    assert floor.most == 2
    assert (len(floor.lanes), floor.lanes.running, floor.lanes.tasks) == (0, [], [])


async def test_jobs_of_one_kind_that_wait_share_a_session_and_the_others_keep_their_place() -> None:
    floor = Floor(batch_size=3)
    floor.add("x0 a1 B2 a3 b4 B5 a6 a7 b8")

    assert await floor.end_all() == ["x0", "a1 a3 a6", "B2", "b4 b8", "B5", "a7"]


async def test_a_batch_takes_in_what_is_claimed_while_it_waits_and_nothing_once_it_runs() -> None:
    floor = Floor(batch_size=3)
    floor.add("x0")
    await settle()
    floor.add("a1")
    floor.add("a2")
    await floor.end("x0")
    assert floor.begun[1:] == ["a1 a2"]

    floor.add("a3")

    assert shown(floor.lanes.running) == "a1 a2"
    assert await floor.end_all() == ["x0", "a1 a2", "a3"]


async def test_a_batch_does_not_wait_to_fill() -> None:
    floor = Floor(2, batch_size=64)
    floor.add("a1")
    await settle()
    assert floor.begun == ["a1"]
    floor.add("a2 a3")
    await settle()
    assert floor.begun == ["a1", "a2 a3"]
    assert await floor.end_all() == ["a1", "a2 a3"]


async def test_without_batches_nobody_is_asked_what_can_share_a_session() -> None:
    floor = Floor(batch_size=1)
    floor.add("x0 a1 a2")
    assert await floor.end_all() == ["x0", "a1", "a2"]


async def test_a_job_knows_its_task_and_its_mates() -> None:
    floor = Floor(batch_size=2)
    jobs = jobs_of("a1 a2 a3")
    floor.lanes.add(jobs, [])
    await settle()

    assert [shown(job.lane) for job in jobs] == ["a1 a2", "a1 a2", ""]
    assert (jobs[0].task, jobs[1].task, jobs[2].task) == (*floor.lanes.tasks * 2, None)
    await floor.end_all()


steps = st.lists(st.tuples(st.text("aabbXY", max_size=9), st.text("l", max_size=2), st.integers(0, 2)), max_size=8)


@given(steps=steps, count=st.integers(1, 4), batch_size=st.integers(1, 5))
def test_whatever_comes_each_begins_once_in_order_within_the_bounds(
    steps: list[tuple[str, str, int]], count: int, batch_size: int
) -> None:
    async def go() -> None:
        floor, numbers = Floor(count, batch_size=batch_size), itertools.count(10)
        added: list[str] = []
        for kinds, last, ends in steps:
            jobs = [f"{kind}{next(numbers)}" for kind in kinds]
            last_tries = [f"{kind}{next(numbers)}" for kind in last]
            floor.add(" ".join(jobs), " ".join(last_tries))
            added += jobs + last_tries
            for _ in range(ends):
                await settle()
                if running := floor.lanes.running:
                    await floor.end(shown(running[0].lane))
        begun = [jobs.split() for jobs in await floor.end_all()]

        assert sorted(itertools.chain(*begun)) == sorted(added)
        assert floor.most <= count
        assert all(len(jobs) <= batch_size and len({job[0] for job in jobs}) == 1 for jobs in begun)
        assert all(len(jobs) == 1 for jobs in begun if jobs[0][0] in "XYl")
        for kind in "abl":
            of_kind = [job for job in itertools.chain(*begun) if job[0] == kind]
            assert of_kind == sorted(of_kind)
        # No job begins before one that was claimed earlier, but for those that join a mate who was.
        firsts = [jobs[0][1:] for jobs in begun if jobs[0][0] != "l"]
        assert firsts == sorted(firsts)

    asyncio.run(go())


# Last tries


async def test_a_last_try_waits_for_all_that_runs_and_runs_with_nobody() -> None:
    floor = Floor(2, batch_size=4)
    floor.add("a1 b2", "a3 a4")
    await settle()
    assert floor.begun == ["a1", "b2"]
    assert len(floor.lanes) == 4

    await floor.end("a1")
    assert floor.begun == ["a1", "b2"]
    await floor.end("b2")
    assert floor.begun[2:] == ["a3"]

    floor.add("c5 d6")
    await settle()
    assert floor.begun[2:] == ["a3"]
    await floor.end("a3")
    # What waited goes on before the next of them.
    assert floor.begun[3:] == ["c5", "d6"]
    assert await floor.end_all() == ["a1", "b2", "a3", "c5", "d6", "a4"]


async def test_nothing_is_to_be_claimed_while_there_are_last_tries() -> None:
    floor = Floor(4)
    assert floor.lanes.room() == 8
    floor.add("", "a1")
    assert floor.lanes.room() == 0
    await settle()
    assert floor.lanes.room() == 0
    await floor.end("a1")
    assert floor.lanes.room() == 8
    assert floor.rooms == 1


# Taking back


async def test_what_has_not_begun_can_be_taken_and_is_not_run() -> None:
    floor = Floor(batch_size=2)
    floor.add("x0 a1 a2 B3 a4", "l5")
    await settle()

    assert shown(floor.lanes.take_waiting()) == "a1 a2 B3 a4 l5"

    assert len(floor.lanes) == 1
    floor.add("a6")
    assert await floor.end_all() == ["x0", "a6"]
    assert floor.lanes.take_waiting() == []


async def test_a_task_that_is_cancelled_before_its_first_step_gives_its_jobs_back() -> None:
    floor = Floor(batch_size=2)
    floor.add("a1")
    floor.add("b2 b3 c4")
    (first,) = floor.lanes.tasks

    first.cancel()
    await settle()
    assert (floor.given_back, floor.begun) == (["a1"], ["b2 b3"])

    # One that has begun is another's to give back.
    floor.lanes.tasks[0].cancel()
    await settle()
    assert (floor.given_back, floor.begun) == (["a1"], ["b2 b3", "c4"])
    await floor.end_all()
    assert len(floor.lanes) == 0


# Room and pace


@pytest.mark.parametrize(
    ("held", "per_second", "room"),
    [
        (0, 0, 8), (1, 0, 7), (4, 0, 4), (5, 0, 0), (8, 0, 0),  # twice the lanes; no fewer than there are lanes
        (0, 160, 8), (0, 200, 10), (6, 200, 4), (7, 200, 0),  # or what ends in AHEAD_SECONDS
        (0, 800, 40), (30, 800, 10), (31, 800, 0),  # a quarter of it at the least
        (0, 2e4, LONGEST_CLAIM), (800, 2e4, LONGEST_CLAIM), (801, 2e4, 0),  # or a whole call's worth
    ],
)  # fmt: skip
async def test_as_much_is_claimed_as_keeps_the_lanes_busy(held: int, per_second: float, room: int) -> None:
    floor = Floor(4)
    floor.lanes._pace.per_second = per_second
    floor.add(" ".join(f"a{number}" for number in range(held)))
    assert floor.lanes.room() == room
    await floor.end_all()


async def test_whoever_claims_is_told_when_there_is_room_again() -> None:
    floor = Floor(2, batch_size=2)
    floor.add("a1 a2 a3 b4")
    await settle()
    assert (floor.lanes.room(), floor.rooms) == (0, 0)

    await floor.end("a1 a2")

    assert (floor.lanes.room(), floor.rooms) == (2, 1)
    await floor.end_all()


def test_the_pace_is_that_of_the_last_stretch(clock: Clock) -> None:
    pace = Pace()
    pace.count(10)
    assert pace.per_second == 0
    clock.now += AHEAD_SECONDS
    pace.count(10)
    assert pace.per_second == pytest.approx(20 / AHEAD_SECONDS)
    # Jobs that end at once are one stretch; a lull is a slow one.
    pace.count(5)
    assert pace.per_second == pytest.approx(20 / AHEAD_SECONDS)
    clock.now += 10
    pace.count(5)
    assert pace.per_second == pytest.approx(1)


async def test_every_job_of_a_batch_counts_for_the_pace(clock: Clock) -> None:
    floor = Floor(batch_size=50)
    floor.add("x0 " + " ".join(f"a{number}" for number in range(50)))
    await settle()
    clock.now += AHEAD_SECONDS
    await floor.end_all()
    clock.now += AHEAD_SECONDS
    floor.add("x1")
    await floor.end_all()
    assert floor.lanes._pace.per_second == pytest.approx(51 / AHEAD_SECONDS)
    assert floor.lanes.room() == round(51 / AHEAD_SECONDS * BATCHES_AHEAD_SECONDS)
