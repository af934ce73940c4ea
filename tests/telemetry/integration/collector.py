"""A backend that takes OTLP over HTTP, and reads it as any backend does: by series of one process each."""

import gzip
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Labels = frozenset[tuple[str, Any]]
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


@dataclass
class Series:
    """What was said of one series of one process.

    Attributes:
        value: of a counter all that was counted, of a gauge the last level, of a histogram the number of records.
        total: of a histogram the sum of its records.
        exported: each value as it was sent.
        delta: whether what is sent are differences.
        monotonic: whether it says of itself that it never falls.
        exemplars: trace and span to which what was recorded leads.
    """

    value: float = 0
    total: float = 0
    exported: list[float] = field(default_factory=list)
    delta: bool = False
    monotonic: bool = False
    exemplars: set[tuple[bytes, bytes]] = field(default_factory=set)


@dataclass
class Received:
    """All that was sent, decoded."""

    series: dict[tuple[str, str, str, Labels], Series] = field(default_factory=dict)
    spans: list[tuple[str, str, Span]] = field(default_factory=list)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)

    def processes(self, metric: str) -> set[str]:
        """Returns `service.instance.id` of each that has sent the metric."""
        return {instance for instance, _, name, _ in self.series if name == metric}

    def of(self, metric: str, instance: str | None = None, **labels: Any) -> list[Series]:
        """Returns the series of a metric that have these attributes; the last part of their names is enough."""
        return [
            series
            for (process, _, name, attributes), series in self.series.items()
            if name == metric and instance in (None, process) and labels.items() <= _short(attributes).items()
        ]

    def sum(self, metric: str, instance: str | None = None, **labels: Any) -> float:
        """Returns the sum over these series."""
        return sum(each.value for each in self.of(metric, instance, **labels))

    def names(self) -> list[tuple[str, str]]:
        """Returns scope and name of each metric."""
        return sorted({(scope, name) for _, scope, name, _ in self.series})

    def take_metrics(self, body: bytes) -> None:
        """Takes one export of metrics."""
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            instance = self._resource(resource.resource.attributes)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    data = getattr(metric, str(kind))
                    for point in data.data_points:
                        key = (instance, scope.scope.name, metric.name, frozenset(_plain(point.attributes).items()))
                        series = self.series.setdefault(key, Series())
                        _add(series, str(kind), data, point)

    def take_spans(self, body: bytes) -> None:
        """Takes one export of spans."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            instance = self._resource(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [(instance, scope.scope.name, span) for span in scope.spans]

    def _resource(self, attributes: Iterable[KeyValue]) -> str:
        plain = _plain(attributes)
        instance = str(plain.get("service.instance.id", ""))
        self.resources[instance] = plain
        return instance


def _add(series: Series, kind: str, data: Any, point: Any) -> None:  # `Any`: points of whatever kind
    if kind == "histogram":
        value, total = point.count, point.sum
        series.exemplars |= {(exemplar.trace_id, exemplar.span_id) for exemplar in point.exemplars}
    else:
        value, total = (point.as_int if point.WhichOneof("value") == "as_int" else point.as_double), 0.0
    series.exported.append(value)
    series.delta = kind != "gauge" and data.aggregation_temporality == _DELTA
    series.monotonic = kind == "sum" and data.is_monotonic
    if series.delta:
        series.value += value
        series.total += total
    else:
        series.value, series.total = value, total


def _plain(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in attributes}


def _short(attributes: Labels) -> Mapping[str, Any]:
    return {name.rpartition(".")[2]: value for name, value in attributes}


class Collector(ThreadingHTTPServer):
    """The server; what it has received can be read at any time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._bodies: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        """Of the endpoint."""
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, temporality: str = "cumulative", interval: float = 0.1) -> dict[str, str]:
        """Variables that have an SDK send here, so often in seconds; nothing is left to what the tests run in."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
            "OTEL_METRIC_EXPORT_INTERVAL": str(int(interval * 1000)),
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "NO_PROXY": "127.0.0.1",
        }

    def received(self) -> Received:
        """Returns what has come until now."""
        received = Received()
        for path, body in list(self._bodies):
            if path == "/v1/metrics":
                received.take_metrics(body)
            elif path == "/v1/traces":
                received.take_spans(body)
        return received

    def take(self, path: str, body: bytes) -> None:
        """Keeps what was sent."""
        self._bodies.append((path, body))


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.take(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in the standard library
        """Log nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    """Runs a collector in a thread."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
