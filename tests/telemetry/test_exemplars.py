"""Latencies carry exemplars: from a point of the histogram to the trace in which it was measured."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import SAMPLE_MASK, instrument
from aurelis_asgi import CacheMiddleware
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport
from tests.managers import configuration, eventually, opened, own_counts
from tests.telemetry.collecting import Spans, record_spans
from tests.telemetry.test_collapsed import EMBEDDINGS, vectors

PATIENT = 10.0
TRACER = trace.get_tracer("test")
URL = "http://example.com/"


@pytest.fixture(scope="module")
def recorder() -> Spans:
    """Records all spans of the process."""
    return record_spans()


@pytest.fixture
def spans(recorder: Spans) -> Spans:
    """The spans of this test."""
    recorder.clear()
    return recorder


@pytest.fixture(scope="module")
def reader() -> InMemoryMetricReader:
    """Reads metrics as the SDK does by itself: exemplars are those of sampled traces."""
    reader = InMemoryMetricReader()
    instrument(MeterProvider([reader], shutdown_on_exit=False))
    return reader


@pytest.fixture(autouse=True)
def own() -> Any:
    """The caches of this test alone are read."""
    with own_counts():
        yield


class Exemplars:
    """What has been measured since they were collected last: to collect them is to take them."""

    def __init__(self, reader: InMemoryMetricReader, cache: str) -> None:
        data = reader.get_metrics_data()
        assert data is not None
        self._points: list[Any] = [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == names.DURATION.name
            for point in metric.data.data_points
            if (point.attributes or {})[names.NAME] == cache
        ]

    def of(self, operation: str, layer: str | None = None) -> set[int]:
        """Returns the spans to which the durations of an operation lead."""
        points = [
            point
            for point in self._points
            if (point.attributes[names.OPERATION], point.attributes.get(names.LAYER)) == (operation, layer)
        ]
        assert sum(point.count for point in points)
        return {exemplar.span_id for point in points for exemplar in point.exemplars}

    def failures(self) -> list[object]:
        """Returns the errors that durations have."""
        return [point.attributes[names.ERROR_TYPE] for point in self._points if names.ERROR_TYPE in point.attributes]

    def traces(self) -> set[int]:
        """Returns the traces of all."""
        return {exemplar.trace_id for point in self._points for exemplar in point.exemplars}


def ids(spans: Sequence[ReadableSpan]) -> set[int]:
    """Returns the identifiers of spans."""
    return {span.context.span_id for span in spans if span.context is not None}


async def value() -> str:
    """A load."""
    return "value"


async def test_loads_and_reads_of_redis_lead_to_their_spans(
    spans: Spans, reader: InMemoryMetricReader, redis_url: str
) -> None:
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT)) as cache:
        name = cache.config.name
        with TRACER.start_as_current_span("request"):
            await cache.get_or_compute("k", value)
        (get,), (fill,) = spans.named(f"get {name}"), spans.named(f"fill {name}")
        found = Exemplars(reader, name)
        assert found.of("fill") == ids([fill])
        assert found.of("get", "l2") == ids([get])
        assert found.of("set", "l2") == ids([get]), "the result is kept after the load"
        assert fill.context is not None
        assert found.traces() == {fill.context.trace_id}


async def test_a_load_that_fails_does(spans: Spans, reader: InMemoryMetricReader) -> None:
    async def fail() -> None:
        raise KeyError

    async with opened() as cache:
        with pytest.raises(KeyError):
            await cache.get_or_compute("k", fail)
        assert Exemplars(reader, cache.config.name).of("fill") == ids(spans.named(f"fill {cache.config.name}"))


async def test_a_hit_in_memory_that_is_timed_leads_to_the_span_of_its_caller(
    spans: Spans, reader: InMemoryMetricReader
) -> None:
    async with opened() as cache:
        await cache.set("k", 1)
        for _ in range(SAMPLE_MASK + 1):
            with TRACER.start_as_current_span("request"):
                await cache.get("k")
        (found,) = Exemplars(reader, cache.config.name).of("get", "l1")
        assert found in ids(spans.named("request"))


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("body", [None, "a", ["a", "b"]], ids=["page", "item", "items"])
def test_loads_of_clients_do(
    spans: Spans, reader: InMemoryMetricReader, body: object, blocking: bool, redis_url: str
) -> None:
    def origin(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return vectors(request)
        return httpx2.Response(200, headers={"cache-control": "max-age=60"}, content=b"body")

    async def ask(cache: CacheManager) -> None:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            await (client.get(URL) if body is None else client.post(EMBEDDINGS, json={"model": "m", "input": body}))

    cache = CacheManager(configuration(redis_url=redis_url, timeout=PATIENT))
    name = cache.config.name
    if blocking:
        with httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache)) as client:
            client.get(URL) if body is None else client.post(EMBEDDINGS, json={"model": "m", "input": body})
    else:
        asyncio.run(ask(cache))
    found = Exemplars(reader, name)
    gets, fills = ids(spans.named(f"get {name}")), ids(spans.named(f"fill {name}"))
    assert found.of("fill") == fills
    for operation in ("get", "set"):
        led = found.of(operation, "l2")
        assert led
        assert led <= gets | fills
    asyncio.run(cache.aclose())


@pytest.mark.parametrize("fails", [False, True])
async def test_what_an_app_does_after_its_response_is_no_part_of_its_load(
    spans: Spans, reader: InMemoryMetricReader, fails: bool
) -> None:
    """Background tasks are. Their errors are for whoever runs the app, and no load has failed."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        with TRACER.start_as_current_span("template"):
            await send({"type": "http.response.body", "body": b"body"})
        with TRACER.start_as_current_span("background"):
            await go_on.wait()
        if fails:
            raise KeyError

    async with opened() as cache:
        name = cache.config.name
        transport = httpx2.ASGITransport(CacheMiddleware(app, cache=cache), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://example.com") as client:
            asking = asyncio.create_task(client.get("/"))
            await eventually(lambda: spans.named(f"get {name}") and spans.named("template"))
            early = Exemplars(reader, name)
            assert early.of("fill")
            assert not spans.named(f"fill {name}")
            go_on.set()
            assert (await asking).headers["cache-status"].endswith("stored")
            await eventually(lambda: spans.named(f"fill {name}"))
            assert "hit" in (await client.get("/")).headers["cache-status"]
        (fill,) = spans.named(f"fill {name}")
        assert early.of("fill") == ids([fill])
        assert fill.status.status_code is StatusCode.UNSET
        assert not early.failures()
        assert not Exemplars(reader, name).failures()
        assert spans.named("background")[0].parent == fill.context


async def test_outside_of_sampled_traces_there_are_none(reader: InMemoryMetricReader) -> None:
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0)))
    async with opened() as cache:
        with trace.use_span(unsampled):
            await cache.get_or_compute("k", value)
        assert Exemplars(reader, cache.config.name).of("fill") == set()
