"""Where claimed jobs wait and run: so many sessions at once, and a job on its last try by itself.

With batches, jobs of one kind that wait together share a session. A batch never waits to fill.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence

from worker.engine.job import Job

# As much is claimed ahead as ended within this time: enough to be busy while the next claim is under way, and little
# enough that a worker which dies keeps few jobs waiting for their leases to end.
AHEAD_SECONDS = 0.05
# A batch is longer under way than a job, and so is the claim of what fills some.
BATCHES_AHEAD_SECONDS = 0.15
LONGEST_CLAIM = 200
"""In one call: Redis serves nobody else meanwhile, and this worker reads nothing else when the answer comes."""


class Lanes:
    """The jobs that this worker holds, and the lanes that run them: one session each.

    Args:
        count: how many lanes there are.
        batch_size: how many jobs may share a session.
        sharing: the name of what can share a session with a job; None when it needs one of its own.
        run: tries jobs that share a session, and sees to their settlement.
        not_begun: told of a job that was stopped before it began.
        room: called when there is room for more jobs.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        sharing: Callable[[Job], str | None],
        run: Callable[[Sequence[Job]], Coroutine[None, None, None]],
        not_begun: Callable[[Job], None],
        room: Callable[[], None],
    ) -> None:
        self._count = count
        self._batch_size = batch_size
        self._sharing = sharing
        self._run = run
        self._not_begun = not_begun
        self._room = room
        self._waiting: deque[deque[Job]] = deque()
        """In the order in which they were claimed, those that can share a session together."""
        self._open: dict[str, deque[Job]] = {}
        """Those of them that have room for more, by what can share a session."""
        self._running: dict[asyncio.Task[None], Sequence[Job]] = {}
        self._last_tries: deque[Job] = deque()
        """Jobs on their last try. Each runs by itself: if it takes the worker down, it takes no other job along."""
        self._alone = False
        """Whether one of them runs."""
        self._held = 0
        """How many wait or run, those on their last try not counted before they run."""
        self._ahead_seconds = AHEAD_SECONDS if batch_size == 1 else BATCHES_AHEAD_SECONDS
        self._pace = Pace()

    def __len__(self) -> int:
        return self._held + len(self._last_tries)

    @property
    def running(self) -> list[Job]:
        """The jobs that are tried now."""
        return [job for jobs in self._running.values() for job in jobs]

    @property
    def tasks(self) -> list["asyncio.Task[None]"]:
        """What tries them."""
        return list(self._running)

    def room(self) -> int:
        """How many more jobs are to be claimed now; 0 while there is enough to do."""
        if self._last_tries or self._alone:
            return 0
        most = max(2 * self._count, round(self._pace.per_second * self._ahead_seconds))
        room = min(most - self._held, LONGEST_CLAIM)
        return room if room >= min(max(self._count, most // 4), LONGEST_CLAIM) else 0  # a call for each job is dear

    def add(self, jobs: Iterable[Job], last_tries: Iterable[Job]) -> None:
        """Run jobs in their order, as lanes become free."""
        for job in jobs:
            self._held += 1
            sharing = self._sharing(job) if self._batch_size > 1 else None
            if sharing is None:
                self._waiting.append(deque([job]))
            elif batch := self._open.get(sharing):
                batch.append(job)
                if len(batch) == self._batch_size:
                    del self._open[sharing]
            else:
                self._open[sharing] = deque([job])
                self._waiting.append(self._open[sharing])
        self._last_tries.extend(last_tries)
        self._fill()

    def take_waiting(self) -> list[Job]:
        """The jobs that have not begun; they are no more run."""
        waiting = [job for batch in self._waiting for job in batch]
        last_tries = list(self._last_tries)
        self._held -= len(waiting)
        for jobs in (self._waiting, self._open, self._last_tries):
            jobs.clear()
        return waiting + last_tries

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._count and not self._alone:
            self._start(self._waiting.popleft())
        if self._last_tries and not self._running:
            self._alone = True
            self._held += 1
            self._start([self._last_tries.popleft()])

    def _start(self, jobs: Sequence[Job]) -> None:
        if len(self._open) and self._open.get(sharing := jobs[0].claim.job) is jobs:
            del self._open[sharing]
        task = asyncio.get_running_loop().create_task(self._run(jobs))
        for job in jobs:
            job.task, job.lane = task, jobs
        self._running[task] = jobs
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        jobs = self._running.pop(task)
        self._held -= len(jobs)
        self._alone = False
        self._pace.count(len(jobs))
        for job in jobs:
            if not job.started_ms:
                self._not_begun(job)
        self._fill()
        if self.room():
            self._room()


class Pace:
    """How many jobs end a second, of late."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self._counted = 0
        self._since = time.monotonic()

    def count(self, jobs: int) -> None:
        """So many have ended."""
        self._counted += jobs
        passed = time.monotonic() - self._since
        if passed >= AHEAD_SECONDS:
            self.per_second = self._counted / passed
            self._counted = 0
            self._since += passed
