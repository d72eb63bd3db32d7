"""Spans of jobs: one per attempt, or one per batch, below the span of the producer.

The names follow OpenTelemetry's conventions for messaging. Spans hold no value of a message, and only the types of an
exception.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from producers import ids
from worker.engine.context import BatchRunner, JobRunner, Tick
from worker.model.job import Attempt, ClaimedJob
from worker.model.outcome import Dead, Rejected, Retry, label

MAX_LINKS = 100
"""Links from the span of a batch to the spans of its producers; the rest is left out."""

_PROPAGATOR = TraceContextTextMapPropagator()


class JobSpans:
    """Opens the spans of jobs.

    Args:
        tracer: creates the spans.
        names: the known job names; any other name is recorded as `unknown`.
        queue: the name of the queue.
    """

    def __init__(self, tracer: Tracer, names: Collection[str], queue: str) -> None:
        self._tracer = tracer
        self._names = frozenset(names)
        self._attributes = {"messaging.system": "arq", "messaging.destination.name": queue}

    @contextmanager
    def of_attempt(self, operation: str, job: ClaimedJob) -> Iterator[Span]:
        """Open the span of one attempt, below the span of the job's producer."""
        attributes: dict[str, str | int | float] = {"job.attempt": job.attempt}
        if ids.is_job_id(job.job_id):
            attributes["messaging.message.id"] = job.job_id
        if job.due_ms:
            attributes["job.wait_seconds"] = round(max(0.0, time.time() - job.due_ms / 1000), 6)
        # A job that was split from its batch runs within the batch's span: it gets a link to that span, not a parent.
        around = trace.get_current_span().get_span_context()
        links = [Link(around)] if around.is_valid else []
        with self.of(operation, self._known(job), attributes, _producer(job), links) as span:
            yield span

    @contextmanager
    def of_batch(self, jobs: Sequence[ClaimedJob]) -> Iterator[Span]:
        """Open the span of a batch, below the span of the call that enqueued its jobs if one call enqueued them all."""
        parents = [_producer(job) for job in jobs]
        contexts = {(context.trace_id, context.span_id): context for context in map(_span_context, parents)}
        one = len(contexts) == 1
        links = [] if one else [Link(context) for context in contexts.values() if context.is_valid][:MAX_LINKS]
        attributes = {"messaging.batch.message_count": len(jobs)}
        with self.of("process", self._known(jobs[0]), attributes, parents[0] if one else Context(), links) as span:
            yield span

    @contextmanager
    def of(
        self,
        operation: str,
        job: str,
        attributes: Mapping[str, str | int | float],
        parent: Context,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """Open a span and make it the current one. Lines logged within it have its ids."""
        span = self._tracer.start_span(
            f"{operation} {job}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={
                **self._attributes,
                "messaging.operation.name": operation,
                "messaging.operation.type": operation,
                "job.name": job,
                **attributes,
            },
            links=links,
        )
        trace_id, span_id = _ids(span)
        with (
            structlog.contextvars.bound_contextvars(trace_id=trace_id, span_id=span_id),
            # The text of an exception may hold values.
            trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False),
        ):
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                if not isinstance(error, asyncio.CancelledError):
                    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def _known(self, job: ClaimedJob) -> str:
        return job.name if job.name in self._names else "unknown"


class TracedRunner:
    """Runs jobs with a span for each attempt."""

    def __init__(self, runner: JobRunner, spans: JobSpans) -> None:
        self._runner = runner
        self._spans = spans

    async def run(self, job: ClaimedJob) -> Attempt:
        """Run one attempt. Raises only when it is cancelled."""
        with self._spans.of_attempt("process", job) as span:
            return _describe(span, await self._runner.run(job))

    async def record(self, job: ClaimedJob, outcome: Rejected | Dead) -> Attempt:
        """Record the outcome of a job that must not run."""
        with self._spans.of_attempt("settle", job) as span:
            return _describe(span, await self._runner.record(job, outcome))


class TracedBatches:
    """Runs batches with a span for each batch."""

    def __init__(self, batches: BatchRunner, spans: JobSpans) -> None:
        self._batches = batches
        self._spans = spans

    def accepts(self, job: ClaimedJob) -> bool:
        """Whether a job may share a session with others of its type."""
        return self._batches.accepts(job)

    async def run(self, jobs: Sequence[ClaimedJob]) -> AsyncGenerator[Sequence[Attempt], None]:
        """Run one attempt of each job. Yields attempts as soon as they have ended."""
        outcomes: Counter[str] = Counter()
        with self._spans.of_batch(jobs) as span:
            try:
                async with aclosing(self._batches.run(jobs)) as ended:
                    async for attempts in ended:
                        outcomes.update(label(attempt.result) for attempt in attempts)
                        yield [
                            replace(attempt, trace=_ids(span)) if attempt.trace is None else attempt
                            for attempt in attempts
                        ]
            finally:
                span.set_attributes({f"job.outcomes.{outcome}": count for outcome, count in outcomes.items()})


def traced_tick(name: str, tick: Tick, spans: JobSpans) -> Tick:
    """Wrap a scheduled job so that each run has its own span."""

    async def run(tick_id: str) -> None:
        with spans.of("process", name, {"messaging.message.id": tick_id}, Context()):
            await tick(tick_id)

    return run


def _producer(job: ClaimedJob) -> Context:
    """The trace context in the job's headers; empty if there is none or it is invalid."""
    header = job.headers.get("traceparent")
    return _PROPAGATOR.extract({"traceparent": header}, Context()) if header else Context()


def _ids(span: Span) -> tuple[str, str]:
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def _span_context(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def _describe(span: Span, attempt: Attempt) -> Attempt:
    """Add the result of an attempt to its span, and the ids of the span to the attempt."""
    result = attempt.result
    span.set_attribute("job.outcome", label(result))
    if attempt.redelivered:
        span.set_attribute("job.redelivered", value=True)
    if isinstance(result, Rejected | Dead | Retry):
        span.set_attribute("job.code", result.code)
    if isinstance(result, Dead | Retry):
        span.set_attribute("error.type", _types(result))
        span.set_status(Status(StatusCode.ERROR, _types(result)))
    return replace(attempt, trace=_ids(span))


def _types(result: Dead | Retry) -> str:
    """The exception types that `worker.model.failures.describe` lists; other details are left out."""
    return result.detail.partition(" at ")[0] if result.code in {"failed", "timeout"} else result.code
