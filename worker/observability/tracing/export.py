"""Export of spans to a collector: in the background, in bounded memory, and for a bounded time at the end."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = structlog.get_logger("worker")

NAME = "userpost-worker"
SHUTDOWN_SECONDS = 2.0
"""How long sending the last spans may take: an unreachable collector must not delay the end of a worker."""


class Export:
    """The tracer provider of this process. It sends spans by OTLP, as configured by OpenTelemetry's variables."""

    def __init__(self) -> None:
        # OpenTelemetry logs several lines for every batch that fails. Our events report only changes.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        # The provider's own shutdown at exit has no time limit.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        exporter = ReportingExporter(OTLPSpanExporter(), _log_in_loop(asyncio.get_running_loop()))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(self._provider)

    async def close(self) -> None:
        """Send the remaining spans, for at most `SHUTDOWN_SECONDS`."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(closed.set)

        # Not in the loop's executor: the interpreter waits for those threads without a limit.
        threading.Thread(target=shut_down, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await closed.wait()
        except TimeoutError:
            log.warning("last_traces_unsent", after_seconds=SHUTDOWN_SECONDS)


class ReportingExporter(SpanExporter):
    """An exporter that reports when exporting begins to fail and when it works again.

    Args:
        exporter: sends the spans.
        report: called with True when spans are sent again and with False when they no longer are, in the exporter's
            thread.
    """

    def __init__(self, exporter: SpanExporter, report: Callable[[bool], None]) -> None:
        self._exporter = exporter
        self._report = report
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        result = self._exporter.export(spans)
        if self._works is not (works := result is SpanExportResult.SUCCESS):
            self._works = works
            self._report(works)
        return result

    def shutdown(self) -> None:
        """Stop sending."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Let the wrapped exporter send what it has buffered; this one buffers nothing."""
        return self._exporter.force_flush(timeout_millis)


def _log_in_loop(loop: asyncio.AbstractEventLoop) -> Callable[[bool], None]:
    def write(works: bool) -> None:
        if works:
            log.info("traces_sent_again")
        else:
            log.warning("traces_unsent")

    def report(works: bool) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(write, works)

    return report


def _resource() -> Resource:
    """What identifies this process; OpenTelemetry's variables override it."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    known = Resource.create({SERVICE_NAME: NAME, SERVICE_VERSION: version(NAME), SERVICE_INSTANCE_ID: worker})
    return known.merge(OTELResourceDetector().detect())
