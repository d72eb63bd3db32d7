"""The span of an enqueue, and the headers that carry its context to the worker.

Imported only if the application has loaded OpenTelemetry. Names follow OpenTelemetry's conventions for messaging. No
value of a message appears in a span.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from producers import wire


@contextmanager
def sending(name: str, queue: str) -> Iterator[Span]:
    """The span of one call. `name` is the job type, or "jobs" for many."""
    span = _tracer(trace.get_tracer_provider()).start_span(
        f"send {name}",
        kind=SpanKind.PRODUCER,
        attributes={
            "messaging.system": "arq",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
        },
    )
    # The text of an exception may hold values, so only its type is recorded.
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def headers(span: Span, producer: str) -> bytes:
    """The headers of the jobs sent within a span, as returned by `wire.headers_json`."""
    context = span.get_span_context()
    if not context.is_valid:  # OpenTelemetry is loaded but not configured
        return wire.headers_json({"producer": producer})
    # `tracestate` is left out: it is free text from other systems.
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"
    return wire.headers_json({"producer": producer, "traceparent": traceparent})


@lru_cache(maxsize=4)
def _tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("producers")
