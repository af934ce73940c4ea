"""One worker of the demo: the cached app under uvicorn, and an internal port with metrics beside it."""

from __future__ import annotations

import os
import socket
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from .app import make_app
from .faults import Switch
from .internal import serve_internal
from .lifeline import receive
from .origin import Origin
from .server import serve
from .settings import WorkerSettings

_OTLP: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_OTLP_METRICS: Final = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_OTLP_TRACES: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def main() -> None:
    """Run one worker on the sockets that the parent opened, until SIGTERM."""
    settings = receive(WorkerSettings, temporary="temporary")
    registry = CollectorRegistry()
    meter_provider, tracer_provider = _providers(registry)
    metrics.set_meter_provider(meter_provider)
    if tracer_provider is not None:
        trace.set_tracer_provider(tracer_provider)
    origin, faults = Origin(), Switch()
    app = make_app(settings, origin, faults)
    internal = socket.socket(fileno=settings.internal_fd)
    serve(
        app,
        socket.socket(fileno=settings.web_fd),
        on_started=lambda: serve_internal(internal, registry, origin, faults),
    )
    meter_provider.shutdown()
    if tracer_provider is not None:
        tracer_provider.shutdown()


def _providers(registry: CollectorRegistry) -> tuple[MeterProvider, TracerProvider | None]:
    """Metrics for Prometheus always; metrics and traces over OTLP where the environment names an endpoint."""
    environment = OTELResourceDetector().detect()
    resource = Resource.create({SERVICE_NAME: "aurelis-cache-demo", **environment.attributes})
    readers: list[MetricReader] = [PrometheusMetricReader(registry=registry)]
    if os.environ.get(_OTLP) or os.environ.get(_OTLP_METRICS):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    tracer_provider = None
    if os.environ.get(_OTLP) or os.environ.get(_OTLP_TRACES):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        tracer_provider = TracerProvider(resource=resource)
        tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return MeterProvider(metric_readers=readers, resource=resource), tracer_provider


if __name__ == "__main__":
    main()
