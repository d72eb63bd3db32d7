"""Is a collector that is away told of once, and once when it is back?"""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from worker.observability.tracing.export import Told


class Scripted(SpanExporter):
    """An exporter whose results are known."""

    def __init__(self, *works: bool) -> None:
        self._works = iter(works)

    def export(self, _spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if next(self._works) else SpanExportResult.FAILURE


def test_only_changes_are_told() -> None:
    said: list[bool] = []
    results = [True, True, False, False, False, True, True, False]
    exporter = Told(Scripted(*results), said.append)

    returned = [exporter.export([]) is SpanExportResult.SUCCESS for _ in results]

    assert returned == results
    assert said == [False, True, False]
