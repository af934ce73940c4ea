"""What OpenTelemetry reports: metrics through the SDK's reader, spans through its exporter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.metrics import Histogram, MeterProvider, ObservableCounter, ObservableUpDownCounter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import instrument

Attributes = Mapping[str, Any]

_INSTRUMENTS: tuple[type, ...] = (Histogram, ObservableCounter, ObservableUpDownCounter)


def reader_of_all() -> InMemoryMetricReader:
    """A reader for a process in which each test has a cache of its own name: the SDK keeps fewer series apart."""
    return InMemoryMetricReader(cardinality_limits=dict.fromkeys(_INSTRUMENTS, 1_000_000))


class Metrics:
    """A meter provider of the tests' own beside the global one."""

    def __init__(self) -> None:
        self.reader = reader_of_all()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        instrument(self.provider)

    def scopes(self) -> list[Any]:  # the SDK's records of one collection
        """Returns what each instrumentation scope reports."""
        data = self.reader.get_metrics_data()
        return [] if data is None else [scope for resource in data.resource_metrics for scope in resource.scope_metrics]

    def all(self) -> dict[str, Any]:
        """Returns our metrics by name, as the SDK reports them."""
        found = {}
        for scope in self.scopes():
            if scope.scope.name == names.SCOPE:
                for metric in scope.metrics:
                    assert metric.name not in found, "two streams of one name"
                    found[metric.name] = metric
        return found

    def points(self, metric: names.Metric, cache: str) -> list[tuple[dict[str, Any], Any]]:
        """Returns attributes, without the cache's name, and data point of each series of one cache."""
        found = self.all().get(metric.name)
        return [
            ({key: value for key, value in point.attributes.items() if key != names.NAME}, point)
            for point in (found.data.data_points if found is not None else ())
            if point.attributes[names.NAME] == cache
        ]

    def values(self, metric: names.Metric, cache: str) -> dict[tuple[tuple[str, Any], ...], float]:
        """Returns the value of each series of one cache that is not zero."""
        points = self.points(metric, cache)
        return {tuple(sorted(attributes.items())): point.value for attributes, point in points if point.value}

    def requests(self, cache: str) -> dict[str, float]:
        """Returns the requests of one cache by result, and by layer where there is one."""
        found: dict[str, float] = {}
        for attributes, value in self.values(names.REQUESTS, cache).items():
            described = dict(attributes)
            key = " ".join(str(described[each]) for each in (names.RESULT, names.LAYER) if each in described)
            found[key] = found.get(key, 0) + value
        return found

    def total(self, metric: names.Metric, cache: str) -> float:
        """Returns the sum over all series of one cache."""
        return sum(self.values(metric, cache).values())


@dataclass(frozen=True)
class Spans:
    """The spans that have ended since the last `clear`."""

    exporter: InMemorySpanExporter

    def ended(self) -> Sequence[ReadableSpan]:
        """Returns them in the order in which they ended."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Returns those of one name."""
        return [span for span in self.ended() if span.name == name]

    def clear(self) -> None:
        """Forgets them."""
        self.exporter.clear()


def record_spans() -> Spans:
    """Has every span of the process recorded. The global provider can be set only once, so that of others is used."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(exporter)
