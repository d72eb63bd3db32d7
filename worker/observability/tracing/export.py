"""The way of spans to a collector: in the background, in bounded memory, and for a bounded time at the end."""

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
LAST_SECONDS = 2.0
"""How long the last spans may take: a collector that is away must not keep a worker from ending."""


class Export:
    """A provider of this worker's own, which sends what it gets by OTLP, as OpenTelemetry's variables say."""

    def __init__(self) -> None:
        # The exporter says with each batch that it failed, several lines each time; ours say when that changes.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        # At the process's end there would be no bound.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(Told(OTLPSpanExporter(), _say())))
        trace.set_tracer_provider(self._provider)

    async def end(self) -> None:
        """Send what is left, but not for longer than `LAST_SECONDS`."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(ended.set)

        # Not one of the loop's own threads: those are waited for, for as long as they take.
        threading.Thread(target=shut_down, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await ended.wait()
        except TimeoutError:
            log.warning("last_traces_unsent", after_seconds=LAST_SECONDS)


class Told(SpanExporter):
    """An exporter that tells whether it gets its spans away, whenever that changes.

    Args:
        exporter: what sends the spans.
        say: told True when they are sent again, and False when they are not any more; in the exporter's thread.
    """

    def __init__(self, exporter: SpanExporter, say: Callable[[bool], None]) -> None:
        self._exporter = exporter
        self._say = say
        self._works = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        result = self._exporter.export(spans)
        if self._works is not (works := result is SpanExportResult.SUCCESS):
            self._works = works
            self._say(works)
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is held; nothing is."""
        return self._exporter.force_flush(timeout_millis)


def _say() -> Callable[[bool], None]:
    loop = asyncio.get_running_loop()

    def write(works: bool) -> None:  # as it is called
        if works:
            log.info("traces_sent_again")
        else:
            log.warning("traces_unsent")

    def say(works: bool) -> None:  # as it is called
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(write, works)

    return say


def _resource() -> Resource:
    """What is known of this process, and before it what OpenTelemetry's variables say."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    known = Resource.create({SERVICE_NAME: NAME, SERVICE_VERSION: version(NAME), SERVICE_INSTANCE_ID: worker})
    return known.merge(OTELResourceDetector().detect())
