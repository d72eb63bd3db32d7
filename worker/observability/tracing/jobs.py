"""The spans of jobs: one a try, and one for those that share a session; below the spans of who enqueued them.

The names are those of OpenTelemetry's conventions for messaging. No value of a message is told, and of an exception its
types alone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from producers import ids
from worker.engine.executor import Batched, Effects, Tick
from worker.engine.transaction import Claim
from worker.model.outcome import Attempt, Dead, Done, Outcome, Rejected, Release, Retry

MOST_LINKS = 100
"""Of the span of a batch: so many of its producers' spans are named, which need not be all."""

Told = Callable[[Sequence[tuple[Claim, Attempt]]], None]

_PROPAGATOR = TraceContextTextMapPropagator()


class JobSpans:
    """Opens spans.

    Args:
        tracer: makes them.
        names: the jobs that are known here; a name that is not may be anything, and is not told.
        queue: the queue's name.
    """

    def __init__(self, tracer: Tracer, names: Collection[str], queue: str) -> None:
        self._tracer = tracer
        self._names = frozenset(names)
        self._always = {"messaging.system": "arq", "messaging.destination.name": queue}

    @contextmanager
    def of_try(self, operation: str, claim: Claim) -> Iterator[Span]:
        """The span of one try of a job, below that of its producer."""
        attributes: dict[str, str | int | float] = {"job.try": claim.tries}
        if ids.is_job_id(claim.job_id):
            attributes["messaging.message.id"] = claim.job_id
        if claim.due_ms:
            attributes["job.wait_seconds"] = round(max(0.0, time.time() - claim.due_ms / 1000), 6)
        # What shares no session after all is tried within its batch's span, but is not below it.
        around = trace.get_current_span().get_span_context()
        links = [Link(around)] if around.is_valid else []
        with self.of(operation, self._known(claim), attributes, _producer(claim), links) as span:
            claim.traced = _ids(span)
            yield span

    @contextmanager
    def of_batch(self, claims: Sequence[Claim]) -> Iterator[Span]:
        """The span of jobs that share a session. If one call has enqueued them all, it is below that of the call."""
        parents = [_producer(claim) for claim in claims]
        contexts = {(context.trace_id, context.span_id): context for context in map(_span_context, parents)}
        one = len(contexts) == 1
        links = [] if one else [Link(context) for context in contexts.values() if context.is_valid][:MOST_LINKS]
        attributes = {"messaging.batch.message_count": len(claims)}
        with self.of("process", self._known(claims[0]), attributes, parents[0] if one else Context(), links) as span:
            for claim in claims:
                claim.traced = _ids(span)
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
        """A span that is the current one meanwhile; what is logged within it has its ids."""
        span = self._tracer.start_span(
            f"{operation} {job}",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes={
                **self._always,
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
            # An exception's text may hold values.
            trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False),
        ):
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                if not isinstance(error, asyncio.CancelledError):
                    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def _known(self, claim: Claim) -> str:
        return claim.job if claim.job in self._names else "unknown"


class TracedEffects:
    """Effects, each within a span of its own."""

    def __init__(self, effects: Effects, spans: JobSpans) -> None:
        self._effects = effects
        self._spans = spans

    async def run(self, claim: Claim) -> Attempt:
        """Try a job once; raises only when it is cancelled."""
        with self._spans.of_try("process", claim) as span:
            attempt = await self._effects.run(claim)
            _tell(span, claim, attempt)
            return attempt

    async def settle(self, claim: Claim, outcome: Rejected | Dead) -> Outcome | Release:
        """Write down the outcome of a job that is not to be tried, unless it has one already."""
        with self._spans.of_try("settle", claim) as span:
            settled = await self._effects.settle(claim, outcome)
            _tell(span, claim, settled)
            return settled


class TracedBatches:
    """Effects of many claims together, within one span."""

    def __init__(self, batched: Batched, spans: JobSpans) -> None:
        self._batched = batched
        self._spans = spans

    def takes(self, claim: Claim) -> bool:
        """Whether a claim may share a session with others of its kind."""
        return self._batched.takes(claim)

    async def run(self, claims: Sequence[Claim], tell: Told) -> None:
        """Try claims once; tell what they came to, as soon as it is known; raises only when it is cancelled."""
        outcomes: Counter[str] = Counter()

        def told(attempts: Sequence[tuple[Claim, Attempt]]) -> None:
            outcomes.update(_outcome(attempt) for _, attempt in attempts)
            tell(attempts)

        with self._spans.of_batch(claims) as span:
            try:
                await self._batched.run(claims, told)
            finally:
                span.set_attributes({f"job.outcomes.{outcome}": count for outcome, count in outcomes.items()})


def traced_tick(name: str, tick: Tick, spans: JobSpans) -> Tick:
    """A scheduled job, each time within a span of its own."""

    async def run(tick_id: str) -> None:
        with spans.of("process", name, {"messaging.message.id": tick_id}, Context()):
            await tick(tick_id)

    return run


def _producer(claim: Claim) -> Context:
    """The context that the claim's job carries; an empty one when that is none, whatever it may be."""
    header = (claim.headers or {}).get("traceparent")
    return _PROPAGATOR.extract({"traceparent": header}, Context()) if header else Context()


def _ids(span: Span) -> tuple[str, str]:
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def _span_context(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def _tell(span: Span, claim: Claim, attempt: Attempt) -> None:
    span.set_attribute("job.outcome", _outcome(attempt))
    if claim.redelivered:
        span.set_attribute("job.redelivered", value=True)
    if isinstance(attempt, Rejected | Dead | Retry):
        span.set_attribute("job.code", attempt.code)
    if isinstance(attempt, Dead | Retry):
        span.set_attribute("error.type", _types(attempt))
        span.set_status(Status(StatusCode.ERROR, _types(attempt)))


def _outcome(attempt: Attempt) -> str:
    match attempt:
        case Done():
            return "done"
        case Rejected():
            return "rejected"
        case Dead():
            return "dead"
        case Retry():
            return "retry"
        case Release():
            return "release"


def _types(attempt: Dead | Retry) -> str:
    """The types of the exceptions, as `classify.describe` tells them; other details stay where they are."""
    return attempt.detail.partition(" at ")[0] if attempt.code in {"failed", "timeout"} else attempt.code
