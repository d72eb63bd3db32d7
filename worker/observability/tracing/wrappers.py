"""What is traced: the parts of a worker, each in a form that opens spans around what it does."""

from collections.abc import Collection, Mapping
from typing import Protocol

from opentelemetry import trace
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from worker.database.session import create_sessions
from worker.engine.context import BatchRunner, JobRunner, Tick
from worker.observability.tracing.jobs import JobSpans, TracedBatches, TracedRunner, traced_tick
from worker.observability.tracing.statements import StatementSpans


class Ends(Protocol):
    """What has something to do at the end."""

    async def end(self) -> None:
        """Come to an end, within a bound."""


class Tracing:
    """Opens spans around jobs and around the statements below them.

    Args:
        export: what sends the spans; None when that is not this worker's business.
        names: the jobs that are known here; others are not named.
        queue: the queue's name.
    """

    def __init__(self, export: Ends | None, *, names: Collection[str], queue: str) -> None:
        self._export = export
        self._tracer = trace.get_tracer("worker")
        self._jobs = JobSpans(self._tracer, names, queue)

    def sessions(self, engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
        """As `create_sessions`; statements and commits within a traced job have spans. Call it once an engine."""
        spans = StatementSpans(self._tracer, engine.sync_engine)

        class TracedSession(AsyncSession):
            async def commit(self) -> None:
                with spans.of("COMMIT"):
                    await super().commit()

        return create_sessions(engine, TracedSession)

    def runner(self, runner: JobRunner) -> JobRunner:
        """Open a span for each attempt."""
        return TracedRunner(runner, self._jobs)

    def batches(self, batches: BatchRunner) -> BatchRunner:
        """Open a span for each batch."""
        return TracedBatches(batches, self._jobs)

    def ticks(self, ticks: Mapping[str, Tick]) -> dict[str, Tick]:
        """Open a span for each tick."""
        return {name: traced_tick(name, tick, self._jobs) for name, tick in ticks.items()}

    async def end(self) -> None:
        """Send what is left, within a bound."""
        if self._export is not None:
            await self._export.end()
