"""Wraps the parts of a worker so that they open spans around their work."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from opentelemetry import trace
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from worker.database.session import create_sessions
from worker.engine.context import BatchRunner, JobRunner, Tick
from worker.observability.tracing.jobs import JobSpans, TracedBatches, TracedRunner, traced_tick
from worker.observability.tracing.statements import StatementSpans

if TYPE_CHECKING:
    from worker.observability.tracing.export import Export


class Tracing:
    """Opens spans around jobs and their statements.

    Args:
        export: sends the spans; None when an existing provider does.
        names: the known job names; others do not appear in traces.
        queue: the name of the queue.
    """

    def __init__(self, export: "Export | None", *, names: Collection[str], queue: str) -> None:
        self._export = export
        self._tracer = trace.get_tracer("worker")
        self._jobs = JobSpans(self._tracer, names, queue)

    def sessions(self, engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
        """Like `create_sessions`, with spans for the statements and commits of traced jobs. Call it once per engine."""
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

    async def close(self) -> None:
        """Send the remaining spans, for a bounded time."""
        if self._export is not None:
            await self._export.close()
