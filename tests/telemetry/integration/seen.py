"""Everything that telemetry says in a test: of the cache, and of the instrumentations around it."""

from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.telemetry.collecting import reader_of_all


@dataclass
class Seen:
    """Providers of the test's own, and what they got."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=reader_of_all)

    def __post_init__(self) -> None:
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def spans(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return [span for span in self.exporter.get_finished_spans() if kind in (None, span.kind)]

    def take(self, kind: SpanKind | None = None) -> list[ReadableSpan]:
        """The same; then they are forgotten."""
        spans = self.spans(kind)
        self.exporter.clear()
        return spans

    def lineage(self, span: ReadableSpan) -> list[str]:
        """Names of the spans around a span, from the inside to the outside."""
        known = {each.context.span_id: each for each in self.spans() if each.context is not None}
        found = []
        while span.parent is not None and span.parent.span_id in known:
            span = known[span.parent.span_id]
            found.append(span.name)
        return found

    def points(self, metric: str) -> list[Any]:
        """The data points of a metric, whichever scope it is of."""
        return self.metrics().get(metric, [])

    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each metric."""
        data = self.reader.get_metrics_data()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found

    def recorded(self, metric: str) -> int:
        """How often a histogram was recorded to."""
        return sum(point.count for point in self.points(metric))
