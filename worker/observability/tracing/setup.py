"""Whether jobs are traced: as OpenTelemetry's own variables say, or an application that has set it up already."""

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
PARTS = ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def start(*, names: Collection[str], queue: str) -> "Tracing | None":
    """What traces jobs, ready to; None when nobody asks for it, and then nothing was imported.

    Call it within the running loop, when logs are configured: why there are no traces is told there.

    Args:
        names: the jobs that are known here; others are not named.
        queue: the queue's name.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if set_up_already():
        from worker.observability.tracing.wrappers import Tracing  # noqa: PLC0415  # it loads OpenTelemetry

        log.info("tracing_on", by="the provider that was set up before")
        return Tracing(None, names=names, queue=queue)
    if (variable := asked_by(os.environ)) is None:
        return None
    if (reason := unable(os.environ)) is not None:
        log.warning("tracing_off", asked_by=variable, because=reason)
        return None
    from worker.observability.tracing.export import Export  # noqa: PLC0415  # likewise
    from worker.observability.tracing.wrappers import Tracing  # noqa: PLC0415

    log.info("tracing_on", by=variable)
    return Tracing(Export(), names=names, queue=queue)


def set_up_already() -> bool:
    """Whether there is a provider in this process, as `opentelemetry-instrument` makes one."""
    trace = sys.modules.get("opentelemetry.trace")
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def asked_by(environ: Mapping[str, str]) -> str | None:
    """The variable that asks for traces, if one does.

    >>> asked_by({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    'OTEL_EXPORTER_OTLP_ENDPOINT'
    >>> asked_by({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter:
        return None if exporter == "none" else "OTEL_TRACES_EXPORTER"
    return next((name for name in ENDPOINTS if environ.get(name, "").strip()), None)


def unable(environ: Mapping[str, str]) -> str | None:
    """Why traces cannot be had in the way that they are asked for, if they cannot.

    >>> unable({"OTEL_TRACES_EXPORTER": "zipkin"})
    'OTEL_TRACES_EXPORTER may be otlp or none; for others run it under opentelemetry-instrument'
    """
    if environ.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp"):
        return "OTEL_TRACES_EXPORTER may be otlp or none; for others run it under opentelemetry-instrument"
    for name in PROTOCOLS:
        if environ.get(name, "").strip() not in ("", PROTOCOL):
            return f"{name} may be {PROTOCOL}; for others run it under opentelemetry-instrument"
    for part in PARTS:
        try:
            found = find_spec(part)
        except ModuleNotFoundError:  # what it is a part of is missing
            found = None
        if found is None:
            return "OpenTelemetry is not installed: pip install 'userpost-worker[otel]'"
    return None
