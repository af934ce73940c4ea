"""Beginnings of programs that run in processes of their own, as global providers can be set once only."""

OWN_PROVIDERS = """
    import asyncio, os, sys
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from aurelis.cache import CacheConfig, CacheManager

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)

    def reported():
        data = reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return [metric for scope in scopes for metric in scope.metrics]

    def values(name, *wanted):
        points = [point for metric in reported() if metric.name == name for point in metric.data.data_points]
        return [
            point.count if hasattr(point, "count") else point.value
            for point in points
            if set(wanted) <= set(point.attributes.values())
        ]

    def spans(scope):
        return [span for span in exporter.get_finished_spans() if span.instrumentation_scope.name == scope]

    async def load():
        return 1

    async def use(cache):
        await cache.get_or_compute("k", load)
        await cache.get("k")
"""
"""Global providers in memory, what they have got, and one miss and one hit."""
