"""What the jobs of a worker share, made once at start-up: kept in arq's context, and handed to the pipeline."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool

from worker.database.connections import ping
from worker.engine.job_log import JobLog
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import Dead, Rejected


class JobRunner(Protocol):
    """Gives a job its outcome: `Transaction`, or a substitute."""

    async def run(self, job: ClaimedJob) -> Attempt:
        """Run one attempt. Raises only when it is cancelled."""

    async def record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        """Record the outcome of a job that is not to run. If it has one already, that one is returned."""


class BatchRunner(Protocol):
    """Gives many jobs of one type their outcomes together: `Batches`, or a substitute."""

    def accepts(self, job: ClaimedJob) -> bool:
        """Whether a job may share a session with others of its type."""

    def run(self, jobs: Sequence[ClaimedJob]) -> AsyncGenerator[Sequence[Attempt], None]:
        """Run one attempt of each job. Yields attempts as soon as they have ended; raises only when cancelled."""


Tick = Callable[[str], Awaitable[None]]
"""Runs a scheduled job for the tick with this id."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that jobs need once both servers answer. `worker.runtime.open_runtime` makes and closes it."""

    database: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    runner: JobRunner
    batches: BatchRunner
    ticks: Mapping[str, Tick]
    """Scheduled jobs, by the names that they have in the queue."""
    job_log: JobLog

    async def ping_database(self) -> None:
        """Return when the database answers, and raise while it does not."""
        await ping(self.database)

    def pool_gauges(self) -> dict[str, int]:
        """How many connections of the pool are in use and idle."""
        pool = self.database.pool
        if not isinstance(pool, QueuePool):
            return {}
        return {"pool_in_use": pool.checkedout(), "pool_idle": pool.checkedin()}


_KEY = "runtime"


def put_runtime(ctx: dict[Any, Any], runtime: Runtime) -> None:
    """Keep the runtime in arq's context."""
    ctx[_KEY] = runtime


def runtime_of(ctx: dict[Any, Any]) -> Runtime:
    """The runtime that arq's startup hook has put into its context."""
    runtime = ctx[_KEY]
    assert isinstance(runtime, Runtime)  # noqa: S101  # only the startup hook writes it
    return runtime
