"""An unreachable collector is reported once, and once again when it is back."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from worker.observability.tracing.export import ReportingExporter


class Scripted(SpanExporter):
    """An exporter with given results."""

    def __init__(self, *works: bool) -> None:
        self._works = iter(works)

    def export(self, _spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if next(self._works) else SpanExportResult.FAILURE


def test_an_exporter_reports_only_changes() -> None:
    reported: list[bool] = []
    results = [True, True, False, False, False, True, True, False]
    exporter = ReportingExporter(Scripted(*results), reported.append)

    returned = [exporter.export([]) is SpanExportResult.SUCCESS for _ in results]

    assert returned == results
    assert reported == [False, True, False]
