"""Decides whether jobs are traced: by OpenTelemetry's own variables, or because a provider exists already."""

import os
import sys
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from worker.observability.tracing.wrappers import Tracing

log = structlog.get_logger("worker")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
PACKAGES = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def start(*, names: Collection[str], queue: str) -> "Tracing | None":
    """Set up tracing; None, with nothing imported, if it is not requested.

    Call it in the running event loop after logs are configured: the log gives the reason when tracing is unavailable.

    Args:
        names: the known job names; others do not appear in traces.
        queue: the name of the queue.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if provider_exists():
        from worker.observability.tracing.wrappers import Tracing  # noqa: PLC0415  # imports OpenTelemetry

        log.info("tracing_on", requested_by="an existing provider")
        return Tracing(None, names=names, queue=queue)
    if (variable := requested_by(os.environ)) is None:
        return None
    if (reason := unsupported_reason(os.environ)) is not None:
        log.warning("tracing_off", requested_by=variable, reason=reason)
        return None
    from worker.observability.tracing.export import Export  # noqa: PLC0415  # likewise
    from worker.observability.tracing.wrappers import Tracing  # noqa: PLC0415

    log.info("tracing_on", requested_by=variable)
    return Tracing(Export(), names=names, queue=queue)


def provider_exists() -> bool:
    """Whether this process has a tracer provider, as under `opentelemetry-instrument`."""
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def requested_by(environ: Mapping[str, str]) -> str | None:
    """The variable that requests traces, if one does.

    >>> requested_by({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    'OTEL_EXPORTER_OTLP_ENDPOINT'
    >>> requested_by({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter:
        return None if exporter == "none" else "OTEL_TRACES_EXPORTER"
    return next((name for name in ENDPOINTS if environ.get(name, "").strip()), None)


def unsupported_reason(environ: Mapping[str, str]) -> str | None:
    """Why the requested kind of traces is unavailable; None when it is available.

    >>> unsupported_reason({"OTEL_TRACES_EXPORTER": "zipkin"})
    'OTEL_TRACES_EXPORTER must be otlp or none; use opentelemetry-instrument for other exporters'
    """
    if environ.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp"):
        return "OTEL_TRACES_EXPORTER must be otlp or none; use opentelemetry-instrument for other exporters"
    for name in PROTOCOLS:
        if environ.get(name, "").strip() not in ("", PROTOCOL):
            return f"{name} must be {PROTOCOL}; use opentelemetry-instrument for other protocols"
    for package in PACKAGES:
        try:
            found = find_spec(package)
        except ModuleNotFoundError:  # the parent package is not installed
            found = None
        if found is None:
            return "OpenTelemetry is not installed: pip install 'userpost-worker[otel]'"
    return None
