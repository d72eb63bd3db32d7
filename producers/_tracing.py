"""The span of a call that enqueues, and the headers that carry its context to the worker.

Imported only by applications that have loaded OpenTelemetry themselves. What is opened and named here follows
OpenTelemetry's conventions for messaging; of a message no value is told.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from producers import wire


@contextmanager
def sending(what: str, queue: str) -> Iterator[Span]:
    """The span of one call; `what` is sent: a job's name, or "jobs" when there are many."""
    span = _tracer(trace.get_tracer_provider()).start_span(
        f"send {what}",
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": "arq",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
        },
    )
    # An exception's text may hold values, so that only its type is told.
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def headers(span: Span, producer: str) -> bytes:
    """The headers of the jobs that are sent within a span, as `wire.headers_json` gives them."""
    context = span.get_span_context()
    if not context.is_valid:  # the application has loaded OpenTelemetry and set nothing up
        return wire.headers_json({"producer": producer})
    # `tracestate` stays behind: it is free text of whatever the application's requests went through.
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"
    return wire.headers_json({"producer": producer, "traceparent": traceparent})


@lru_cache(maxsize=4)
def _tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("producers")
