"""Traces of a whole process: what it imports, and how it ends when its collector works, is down or does not answer."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.waiting import PATIENCE_SECONDS, Stopwatch

# Enqueues two jobs, runs a worker until the queue is empty, and prints the OpenTelemetry modules that were imported.
RUN = """
import asyncio, json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)

if "missing" in sys.argv:
    sys.meta_path.insert(0, Missing())
if "application" in sys.argv:
    from opentelemetry import trace

from producers import Producer
from tests.integration.running import user
from worker import app
from worker.settings import Settings

async def enqueue():
    async with Producer() as producer:
        await producer.enqueue(user("lovelace"))
        await producer.enqueue_many([user("hopper")])

asyncio.run(enqueue())
app.run(Settings.load(), burst=True)
loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry")
print(json.dumps({"event": "loaded", "modules": loaded}))
"""

"""For a whole process: what is meant to hang would do so for longer."""


class Collector(HTTPServer):
    """Accepts spans as a collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.requests: list[ExportTraceServiceRequest] = []


class _Take(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name that the base class has
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def run(redis_url: str, database_url: str, *options: str, **variables: str) -> list[dict[str, Any]]:
    """Run the script and return the lines that it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ended = subprocess.run(
        [sys.executable, "-c", RUN, *options],
        env=environ | {"REDIS_URL": redis_url, "DATABASE_URL": database_url} | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    lines: list[dict[str, Any]] = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(events(lines, "job_done")) == 2
    return lines


def events(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == name]


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ((), {}),
        (("missing",), {}),
        ((), {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}),
        ((), {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}),
    ],
)
def test_opentelemetry_is_not_imported_when_traces_are_not_requested(
    redis_url: str, database_url: str, options: tuple[str, ...], variables: dict[str, str]
) -> None:
    lines = run(redis_url, database_url, *options, **variables)

    assert events(lines, "loaded")[0]["modules"] == []
    assert [line for line in lines if "trac" in line["event"]] == []


def test_an_application_that_imports_only_the_api_traces_nothing(redis_url: str, database_url: str) -> None:
    lines = run(redis_url, database_url, "application")

    assert "opentelemetry.sdk" not in events(lines, "loaded")[0]["modules"]
    assert [line for line in lines if "trac" in line["event"] or "trace_id" in line] == []


@pytest.mark.parametrize(
    ("options", "variables", "reason"),
    [
        (
            ("missing",),
            {"OTEL_TRACES_EXPORTER": "otlp"},
            "OpenTelemetry is not installed: pip install 'userpost-worker[otel]'",
        ),
        (
            (),
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER must be otlp or none; use opentelemetry-instrument for other exporters",
        ),
        (
            (),
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf; use opentelemetry-instrument for other protocols",
        ),
    ],
)
def test_unavailable_tracing_is_logged_once_and_jobs_run(
    redis_url: str, database_url: str, options: tuple[str, ...], variables: dict[str, str], reason: str
) -> None:
    lines = run(redis_url, database_url, *options, **variables)

    (off,) = events(lines, "tracing_off")
    assert (off["requested_by"], off["reason"]) == ("OTEL_TRACES_EXPORTER", reason)


def test_a_collector_receives_all_spans_with_the_service_name(
    redis_url: str, database_url: str, collector: Collector
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    lines = run(redis_url, database_url, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)

    resources = [resource for request in collector.requests for resource in request.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    known = {item.key: item.value.string_value for item in resources[0].resource.attributes}
    assert sorted(span.name for span in spans if span.name.startswith("process")) == ["process create_user"] * 2
    assert len([span for span in spans if span.name == "COMMIT"]) == 2
    assert known["service.name"] == "userpost-worker"
    assert known["service.instance.id"].startswith(socket.gethostname() + ":")
    assert {line["trace_id"] for line in events(lines, "job_done")} == {span.trace_id.hex() for span in spans}
    assert events(lines, "traces_unsent") == []


def test_the_environment_overrides_the_service_name(redis_url: str, database_url: str, collector: Collector) -> None:
    run(
        redis_url,
        database_url,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
        OTEL_RESOURCE_ATTRIBUTES="service.name=accounts,deployment.environment.name=staging",
    )

    attributes = collector.requests[0].resource_spans[0].resource.attributes
    known = {item.key: item.value.string_value for item in attributes}
    assert (known["service.name"], known["deployment.environment.name"]) == ("accounts", "staging")


def test_a_collector_that_is_down_is_logged_once_and_does_not_delay_the_end(redis_url: str, database_url: str) -> None:
    with silent() as port:
        pass  # the port is closed again
    watch = Stopwatch()
    lines = run(
        redis_url, database_url, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", OTEL_BSP_SCHEDULE_DELAY="10"
    )

    assert watch.seconds() < 15
    assert [line["event"] for line in lines].count("traces_unsent") <= 1
    assert [line for line in lines if "opentelemetry" in json.dumps(line) and line["event"] != "loaded"] == []
    assert events(lines, "worker_stopped")


def test_a_collector_that_does_not_answer_delays_the_end_for_a_bounded_time(redis_url: str, database_url: str) -> None:
    with silent() as port:
        lines = run(redis_url, database_url, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")

    assert len(events(lines, "last_traces_unsent")) == 1
    assert events(lines, "traces_unsent") == []
    assert events(lines, "worker_stopped")
