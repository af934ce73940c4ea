"""What OpenTelemetry raises, in a part that anybody may have made, is for the log, and ends no request."""

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, StatusCode, TraceFlags, Tracer

from aurelis.cache import CacheManager, EntryOptions, WriteBehind
from aurelis.cache._trouble import Incidents
from aurelis.cache.telemetry import _unheard, names
from aurelis.cache.telemetry._spans import Spans
from aurelis.cache.telemetry.otel import begin_reporting
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport
from tests.managers import configuration, eventually, eventually_blocking, is_settled, opened, own_counts, run_script
from tests.telemetry.test_collapsed import EMBEDDINGS, vectors

SECRET = "planted-secret"
PATIENT = 10.0


class Broken(Exception):
    """What a part of somebody's raises."""


class Processor(SpanProcessor):
    """Raises when a span begins, or when it ends."""

    def __init__(self, when: str) -> None:
        self.when = when

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if self.when == "begin":
            raise Broken(SECRET)

    def on_end(self, span: ReadableSpan) -> None:
        if self.when == "end":
            raise Broken(SECRET)


class BrokenSampler(Sampler):
    """Raises for each span."""

    def should_sample(self, *arguments: Any, **options: Any) -> Any:
        raise Broken(SECRET)

    def get_description(self) -> str:
        return "broken"


class BrokenSpan(NonRecordingSpan):
    """A span of another tracer than the SDK's, which raises whatever is asked of it."""

    def __init__(self) -> None:
        super().__init__(SpanContext(7, 7, is_remote=False, trace_flags=TraceFlags(1)))

    def is_recording(self) -> bool:
        return True

    def _raise(self, *arguments: Any, **options: Any) -> Any:
        raise Broken(SECRET)

    set_attribute = set_attributes = set_status = add_link = end = _raise


class BrokenTracers(trace.TracerProvider):
    """Makes such spans."""

    def get_tracer(self, *arguments: Any, **options: Any) -> Tracer:
        class Made(trace.NoOpTracer):
            def start_span(self, *arguments: Any, **options: Any) -> Span:
                return BrokenSpan()

        return Made()


def tracers(what: str) -> trace.TracerProvider:
    """Returns a provider, something of which is broken."""
    if what == "span":
        return BrokenTracers()
    provider = TracerProvider(BrokenSampler(), shutdown_on_exit=False) if what == "sampler" else TracerProvider()
    provider.add_span_processor(Processor(what))
    return provider


class BrokenReservoir:
    """Raises for whatever is measured."""

    def __init__(self, **options: Any) -> None:
        pass

    def offer(self, *arguments: Any) -> None:
        raise Broken(SECRET)

    def collect(self, *arguments: Any) -> list[Any]:
        return []


@pytest.fixture(params=["begin", "end", "sampler", "span", "reservoir"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Something of OpenTelemetry is."""
    monkeypatch.setattr(_unheard, "_INCIDENTS", Incidents("OpenTelemetry failed"))
    with own_counts():
        if request.param == "reservoir":
            view = View(
                instrument_name=names.DURATION.name,
                aggregation=ExplicitBucketHistogramAggregation(),
                exemplar_reservoir_factory=lambda _: BrokenReservoir,  # type: ignore[arg-type, return-value]  # all that is asked of it
            )
            readers, always = [InMemoryMetricReader()], AlwaysOnExemplarFilter()
            meters = MeterProvider(readers, exemplar_filter=always, views=[view], shutdown_on_exit=False)
            undo = begin_reporting(meters, None)
        else:
            undo = begin_reporting(None, tracers(request.param))
        try:
            yield
        finally:
            undo()


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[pytest.LogCaptureFixture]:
    """The log, in which there is nothing but the type."""
    yield caplog
    assert not [record for record in caplog.get_records("call") if SECRET in record.getMessage()]
    if "broken" in request.fixturenames:
        lines = [record.getMessage() for record in caplog.get_records("call") if "OpenTelemetry" in record.getMessage()]
        assert lines == ["OpenTelemetry failed (Broken)"], "once a minute"


async def value() -> str:
    """A load."""
    return "value"


async def fail() -> str:
    """A load that fails."""
    raise KeyError("own")


def page(request: httpx2.Request) -> httpx2.Response:
    """A response that is soon stale."""
    fields = {"cache-control": "max-age=10, stale-while-revalidate=1000"}
    return httpx2.Response(200, headers=fields, content=b"body")


async def test_values_are_found_and_loaded(broken: None, redis_url: str) -> None:
    options = EntryOptions(ttl=10, stale_while_revalidate=1000)
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT, spans="all")) as cache:
        assert await cache.get("k") is None
        assert await cache.get_or_compute("k", value) == "value"
        assert await cache.get("k") == "value"
        assert await cache.get_many(["k", "other"]) == {"k": "value"}
        with trace.use_span(BrokenSpan()):
            assert await cache.get("k") == "value"
        with pytest.raises(KeyError, match="own"):
            await cache.get_or_compute("bad", fail)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            begun.set()
            await go_on.wait()
            return "slow"

        crowd = [asyncio.create_task(cache.get_or_compute("slow", slow)) for _ in range(3)]
        await begun.wait()
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(*crowd) == ["slow"] * 3
    clock = ManualClock()
    async with opened(clock=clock) as cache:
        await cache.get_or_compute("k", value, options=options)
        clock.advance(20)
        assert await cache.get_or_compute("k", value, options=options) == "value"
        await eventually(lambda: is_settled(cache))
        assert await cache.get_or_compute("k", fail, options=options) == "value"


async def test_responses_are(broken: None) -> None:
    clock = ManualClock()
    async with opened(configuration(spans="all"), clock=clock) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(page), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            for words in ("fwd=uri-miss", "hit", "hit"):
                assert words in (await client.get("http://example.com/")).headers["cache-status"]
            clock.advance(20)
            assert "hit" in (await client.get("http://example.com/")).headers["cache-status"]
            await eventually(lambda: is_settled(cache))
            assert "hit; ttl=10" in (await client.get("http://example.com/")).headers["cache-status"]
        models = AsyncCacheTransport(httpx2.MockTransport(vectors), cache=cache)
        async with httpx2.AsyncClient(transport=models) as client:
            for items in (["a", "b"], ["b", "c"]):
                answer = await client.post(EMBEDDINGS, json={"model": "m", "input": items})
                assert len(answer.json()["data"]) == 2

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"body"})

        rule = CacheRule("/*", ttl=10)
        asgi = httpx2.ASGITransport(CacheMiddleware(app, cache=cache, rules=[rule]))
        async with httpx2.AsyncClient(transport=asgi, base_url="http://example.com") as client:
            for words in ("fwd=uri-miss", "hit"):
                assert words in (await client.get("/page")).headers["cache-status"]


def test_responses_are_in_threads(broken: None) -> None:
    clock = ManualClock()
    cache = CacheManager(configuration(spans="all"), clock=clock)
    with httpx2.Client(transport=CacheTransport(httpx2.MockTransport(page), cache=cache)) as client:
        for words in ("fwd=uri-miss", "hit"):
            assert words in client.get("http://example.com/").headers["cache-status"]
        with client.stream("GET", "http://example.com/left"):
            pass
        clock.advance(20)
        assert "hit" in client.get("http://example.com/").headers["cache-status"]
        eventually_blocking(lambda: is_settled(cache))
        assert "hit; ttl=10" in client.get("http://example.com/").headers["cache-status"]
    asyncio.run(cache.aclose())


async def test_what_is_written_behind_is_written(broken: None, tmp_path: Path) -> None:
    rows: dict[str, object] = {}

    class Table:
        async def get(self, key: str) -> object:
            return rows.get(key)

        async def set(self, key: str, value: object) -> None:
            rows[key] = value

    async with opened() as cache, WriteBehind(cache, Table(), flush_interval=0.05, journal=tmp_path) as behind:
        await behind.set("a", 1)
        assert await behind.flush(PATIENT)
    assert rows == {"a": 1}


# --- providers that cannot be made, and handlers of the log


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"])
def test_a_provider_that_the_environment_names_and_nobody_has_is_looked_for_once(variable: str) -> None:
    printed = run_script(
        """
        import asyncio, logging, sys
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from aurelis.cache import CacheManager
        from aurelis.cache.telemetry.otel import instrument

        async def load():
            return 1

        async def main():
            for _ in range(2):
                async with CacheManager() as cache:
                    for number in range(5):
                        print(await cache.get_or_compute(f"k{number}", load), end=" ")

        logging.basicConfig(stream=sys.stdout, format="%(message)s|")
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        instrument(provider)
        asyncio.run(main())
        print("reported", reader.get_metrics_data() is not None)
        """,
        within=30.0,
        **{variable: "typo"},
    )
    assert printed.count("1 ") == 10
    assert "reported True" in printed
    assert printed.count("OpenTelemetry failed") == 1
    assert printed.count("Failed to load configured provider") == 1


def test_a_provider_that_is_set_after_all_is_used() -> None:
    printed = run_script(
        """
        import asyncio
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from aurelis.cache import CacheConfig, CacheManager

        async def load():
            return 1

        async def main():
            async with CacheManager(CacheConfig(name="late")) as cache:
                await cache.get_or_compute("early", load)
                exporter, tracers = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
                tracers.add_span_processor(SimpleSpanProcessor(exporter))
                trace.set_tracer_provider(tracers)
                await cache.get_or_compute("late", load)
            print([span.name for span in exporter.get_finished_spans()])

        asyncio.run(main())
        """,
        OTEL_PYTHON_TRACER_PROVIDER="typo",
    )
    assert printed == "['fill late', 'get late']\n"


def test_providers_that_the_environment_names_are_used() -> None:
    printed = run_script(
        """
        import asyncio
        from opentelemetry import metrics, trace
        from aurelis.cache import CacheConfig, CacheManager

        async def load():
            return trace.get_current_span().name

        async def main():
            async with CacheManager(CacheConfig(name="named")) as cache:
                print(await cache.get_or_compute("k", load), type(metrics.get_meter_provider()).__module__)

        asyncio.run(main())
        """,
        OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider",
        OTEL_PYTHON_METER_PROVIDER="sdk_meter_provider",
    )
    assert printed == "fill named opentelemetry.sdk.metrics._internal\n"


async def test_a_handler_of_the_log_that_raises_ends_no_request() -> None:
    """OpenTelemetry's own does, where a processor of its records does."""

    class Handler(logging.Handler):
        met = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.met += 1
            raise Broken(SECRET)

    handler, logger = Handler(), logging.getLogger("aurelis.cache")
    logger.addHandler(handler)
    try:
        async with opened(configuration(redis_url="redis://127.0.0.1:1/0", timeout=0.2)) as cache:
            assert await cache.get("k") is None
            assert await cache.get_or_compute("k", value) == "value"
            unstorable = object()

            async def make() -> object:
                return unstorable

            assert await cache.get_or_compute("odd", make) is unstorable
    finally:
        logger.removeHandler(handler)
    assert handler.met >= 2


# --- the garbage collector


def test_what_its_event_loop_has_dropped_ends_later_and_takes_no_lock() -> None:
    """The garbage collector may come while this thread holds the lock of a span processor, or of a histogram."""
    held, waited = threading.Lock(), []

    class Processor(SimpleSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            if not held.acquire(blocking=False):
                waited.append(span.name)
                return
            held.release()
            super().on_end(span)

    async def begin() -> None:
        cache = CacheManager(configuration(name="dropped"))
        tasks.append(asyncio.ensure_future(cache.get_or_compute("k", asyncio.Event().wait)))
        await asyncio.sleep(0.05)

    def ended() -> list[ReadableSpan]:
        return [span for span in exporter.get_finished_spans() if span.name.endswith(" dropped")]

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Processor(exporter))
    undo, tasks = begin_reporting(None, provider), list[Any]()
    try:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
        del loop
        with held, _silent():
            tasks.clear()
            gc.collect()
        assert not waited
        assert not ended()
        asyncio.run(CacheManager(configuration()).aclose())
    finally:
        undo()
    assert sorted(span.name for span in ended()) == ["fill dropped", "get dropped"]
    for span in ended():
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})[names.ERROR_TYPE] == "GeneratorExit"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what asyncio says of tasks that are dropped."""
    logger = logging.getLogger("asyncio")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def test_a_lost_span_is_ended_once_also_if_that_raises() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Processor("end"))
    spans = Spans("lost", provider.get_tracer("test"), "io", attributes=True)
    span = provider.get_tracer("test").start_span("dropped")
    spans.lose(span, "ConnectionAbortedError")
    spans.end_lost()
    spans.end_lost()
    assert not span.is_recording()
