"""Where claimed jobs wait and run: so many sessions at once, and a job on its last try by itself."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from worker.engine.job import Job

# As much is claimed ahead as ended within this time: enough to be busy while the next claim is under way, and little
# enough that a worker which dies keeps few jobs waiting for their leases to end.
AHEAD_SECONDS = 0.05
LONGEST_CLAIM = 500


class Lanes:
    """The jobs that this worker holds, and the lanes that run them: one session each.

    Args:
        count: how many lanes there are.
        run: tries a job and sees to its settlement.
        not_begun: told of a job that was stopped before it began.
        room: called when there is room for more jobs.
    """

    def __init__(
        self,
        count: int,
        *,
        run: Callable[[Job], Awaitable[None]],
        not_begun: Callable[[Job], None],
        room: Callable[[], None],
    ) -> None:
        self._count = count
        self._run = run
        self._not_begun = not_begun
        self._room = room
        self._waiting: deque[Job] = deque()
        self._running: dict[asyncio.Task[None], Job] = {}
        self._last_tries: deque[Job] = deque()
        """Jobs on their last try. Each runs by itself: if it takes the worker down, it takes no other job along."""
        self._alone = False
        """Whether one of them runs."""
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running) + len(self._last_tries)

    @property
    def running(self) -> list[Job]:
        """The jobs that are tried now."""
        return list(self._running.values())

    @property
    def tasks(self) -> list["asyncio.Task[None]"]:
        """What tries them."""
        return list(self._running)

    def room(self) -> int:
        """How many more jobs are to be claimed now; 0 while there is enough to do."""
        if self._last_tries or self._alone:
            return 0
        held, most = len(self._waiting) + len(self._running), self._most()
        return min(most - held, LONGEST_CLAIM) if held <= most // 2 else 0

    def add(self, jobs: Iterable[Job], last_tries: Iterable[Job]) -> None:
        """Run jobs in their order, as lanes become free."""
        self._waiting.extend(jobs)
        self._last_tries.extend(last_tries)
        self._fill()

    def take_waiting(self) -> list[Job]:
        """The jobs that have not begun; they are no more run."""
        jobs = [*self._waiting, *self._last_tries]
        self._waiting.clear()
        self._last_tries.clear()
        return jobs

    def _most(self) -> int:
        return max(2 * self._count, round(self._pace.per_second * AHEAD_SECONDS))

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._count and not self._alone:
            self._start(self._waiting.popleft())
        if self._last_tries and not self._running:
            self._alone = True
            self._start(self._last_tries.popleft())

    def _start(self, job: Job) -> None:
        job.task = asyncio.get_running_loop().create_task(self._run(job))  # type: ignore[arg-type]  # a coroutine
        self._running[job.task] = job
        job.task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        job = self._running.pop(task)
        self._alone = False
        self._pace.count()
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

    def count(self) -> None:
        """One has ended."""
        self._counted += 1
        passed = time.monotonic() - self._since
        if passed >= AHEAD_SECONDS:
            self.per_second = self._counted / passed
            self._counted = 0
            self._since += passed
