"""Give claimed jobs to sessions: a fixed number at once, and a job on its last attempt alone.

With batches, jobs of one type that wait together share a session. A batch never waits to fill.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

from worker.engine.executor import Executor
from worker.engine.signals import Signals
from worker.model.job import ClaimedJob

# Jobs are claimed ahead for this long: enough to be busy while the next claim is under way, and few enough that a
# worker that dies leaves few jobs waiting for their leases to end.
AHEAD_SECONDS = 0.05
# A batch takes longer than a job, and so does a claim for several batches.
BATCHES_AHEAD_SECONDS = 0.15
MAX_CLAIM = 200
"""Jobs in one claim: meanwhile Redis serves no other client, and this worker reads nothing else from the answer on."""


class Dispatcher:
    """The jobs that this worker holds, waiting and running.

    Args:
        executor: the next stage.
        signals: woken when there is capacity for more jobs.
        concurrency: how many sessions run at once.
        batch_size: how many jobs may share a session.
    """

    def __init__(self, executor: Executor, signals: Signals, *, concurrency: int, batch_size: int) -> None:
        self._executor = executor
        self._signals = signals
        self._concurrency = concurrency
        self._batch_size = batch_size
        self._waiting: deque[deque[ClaimedJob]] = deque()
        """Batches in the order in which they were claimed."""
        self._open: dict[str, deque[ClaimedJob]] = {}
        """The batches that can take more jobs, by batch key."""
        self._running: dict[asyncio.Task[None], Sequence[ClaimedJob]] = {}
        self._last_attempts: deque[ClaimedJob] = deque()
        """Jobs on their last attempt. Each runs alone: if it takes the worker down, it takes no other job along."""
        self._running_alone = False
        self._held = 0
        """How many jobs wait or run, those on their last attempt not counted before they run."""
        self._ahead_seconds = AHEAD_SECONDS if batch_size == 1 else BATCHES_AHEAD_SECONDS
        self._throughput = Throughput()

    def __len__(self) -> int:
        return self._held + len(self._last_attempts)

    @property
    def running(self) -> list[ClaimedJob]:
        """The jobs that run now."""
        return [job for jobs in self._running.values() for job in jobs]

    @property
    def tasks(self) -> list["asyncio.Task[None]"]:
        """The tasks that run them."""
        return list(self._running)

    def capacity(self) -> int:
        """How many more jobs to claim now; 0 while there is enough to do."""
        if self._last_attempts or self._running_alone:
            return 0
        target = max(2 * self._concurrency, round(self._throughput.per_second * self._ahead_seconds))
        capacity = min(target - self._held, MAX_CLAIM)
        # A call for each job would be expensive.
        return capacity if capacity >= min(max(self._concurrency, target // 4), MAX_CLAIM) else 0

    def add(self, jobs: Iterable[ClaimedJob], last_attempts: Iterable[ClaimedJob]) -> None:
        """Run jobs in their order, as sessions become free."""
        for job in jobs:
            self._held += 1
            key = self._executor.batch_key(job) if self._batch_size > 1 else None
            if key is None:
                self._waiting.append(deque([job]))
            elif batch := self._open.get(key):
                batch.append(job)
                if len(batch) == self._batch_size:
                    del self._open[key]
            else:
                self._open[key] = deque([job])
                self._waiting.append(self._open[key])
        self._last_attempts.extend(last_attempts)
        self._fill()

    def release_waiting(self) -> None:
        """Release every job that has not begun."""
        waiting = [job for batch in self._waiting for job in batch]
        self._held -= len(waiting)
        for job in [*waiting, *self._last_attempts]:
            self._executor.release(job)
        for jobs in (self._waiting, self._open, self._last_attempts):
            jobs.clear()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._concurrency and not self._running_alone:
            self._start(self._waiting.popleft())
        if self._last_attempts and not self._running:
            self._running_alone = True
            self._held += 1
            self._start([self._last_attempts.popleft()])

    def _start(self, jobs: Sequence[ClaimedJob]) -> None:
        if self._open and self._open.get(key := jobs[0].name) is jobs:
            del self._open[key]
        task = asyncio.get_running_loop().create_task(self._executor.run(jobs))
        for job in jobs:
            job.progress.task, job.progress.batch = task, jobs
        self._running[task] = jobs
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        jobs = self._running.pop(task)
        self._held -= len(jobs)
        assert self._held >= 0  # noqa: S101  # a job is counted once
        self._running_alone = False
        self._throughput.count(len(jobs))
        for job in jobs:
            if not job.progress.started_ms:
                self._executor.release(job)  # cancelled before it began
        self._fill()
        if self.capacity():
            self._signals.wake.set()


class Throughput:
    """How many jobs end each second, measured over a short interval."""

    def __init__(self) -> None:
        self.per_second = 0.0
        self._count = 0
        self._since = time.monotonic()

    def count(self, jobs: int) -> None:
        """Count jobs that have ended, and take the rate anew once the interval has passed."""
        self._count += jobs
        passed = time.monotonic() - self._since
        if passed >= AHEAD_SECONDS:
            self.per_second = self._count / passed
            self._count = 0
            self._since += passed
