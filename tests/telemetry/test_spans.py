"""Spans around what leaves memory, attributes for what does not, and nothing of the user's in either."""

import asyncio
import contextlib
import gc
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from aurelis.cache import CacheManager, EntryOptions
from aurelis.cache.exchange import Recorder
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import begin_reporting
from aurelis.cache.testing import ManualClock
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport
from tests.managers import configuration, count, eventually, opened, own_counts, run_script
from tests.telemetry.collecting import Metrics, Spans, record_spans

PATIENT = 10.0
TRACER = trace.get_tracer("test")


@pytest.fixture(scope="module")
def recorder() -> Spans:
    """Records all spans of the process."""
    return record_spans()


@pytest.fixture
def spans(recorder: Spans) -> Spans:
    """The spans of this test."""
    recorder.clear()
    return recorder


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[CacheManager]:
    """A cache over a Redis."""
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT)) as manager:
        yield manager


async def value() -> str:
    """A load."""
    return "value"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Returns the attributes of a span, without the name of the cache, and without what is left of a long life."""
    found: dict[str, Any] = dict(span.attributes or {})
    found.pop(names.NAME, None)
    if 3590 < found.get(names.TTL, 0) <= 3600:
        del found[names.TTL]
    return found


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Returns whether a span hangs below another one."""
    assert span.context is not None
    assert parent.context is not None
    return (
        span.parent is not None
        and span.parent.span_id == parent.context.span_id
        and span.context.trace_id == parent.context.trace_id
    )


# --- hits in memory


async def test_a_hit_in_memory_makes_no_span_and_is_noted_on_the_current_one(spans: Spans) -> None:
    async with opened() as cache:
        await cache.set("k", 1)
        for hit, several in (
            (lambda: cache.get("k"), False),
            (lambda: cache.get_many(["k"]), True),
            (lambda: cache.get_or_compute("k", value), False),
        ):
            spans.clear()
            with TRACER.start_as_current_span("request"):
                await hit()
            (span,) = spans.ended()
            assert span.name == "request"
            told: dict[str, Any] = dict(span.attributes or {})
            if not several:
                assert 3590 < told.pop("aurelis.cache.ttl") <= 3600
            assert told == {
                "aurelis.cache.name": cache.config.name,
                "aurelis.cache.result": "hit",
                "aurelis.cache.layer": "l1",
            }


async def test_what_lives_for_ever_has_no_time_left_to_tell(spans: Spans) -> None:
    async with opened() as cache:
        await cache.set("k", 1, ttl=math.inf)
        with TRACER.start_as_current_span("request"):
            await cache.get("k")
            await cache.get_or_compute("k", value)
    (span,) = spans.ended()
    assert attributes(span) == {names.RESULT: "hit", names.LAYER: "l1"}


async def test_several_keys_are_a_hit_if_all_are_there(spans: Spans, shared: CacheManager) -> None:
    async with opened(configuration(redis_url=shared.config.redis_url, timeout=PATIENT)) as neighbour:
        await neighbour.set_many({"a": 1, "b": 2})
    for keys, expected in (
        (["a"], {names.RESULT: "hit", names.LAYER: "l2"}),
        (["a", "b"], {names.RESULT: "hit", names.LAYER: "l2"}),  # one of them by now from memory
        (["a", "b"], {names.RESULT: "hit", names.LAYER: "l1"}),
        (["a", "c"], {names.RESULT: "miss"}),
    ):
        spans.clear()
        with TRACER.start_as_current_span("request"):
            await shared.get_many(keys)
        first = spans.ended()[0]
        assert first.name == (f"get {shared.config.name}" if expected.get(names.LAYER) != "l1" else "request")
        assert attributes(first) == expected


async def test_misses_stale_values_and_failures_from_memory_are_told_as_well(spans: Spans) -> None:
    async def fail() -> None:
        raise KeyError

    clock = ManualClock()
    options = EntryOptions(ttl=10, stale_while_revalidate=60, negative_ttl=10)
    async with opened(clock=clock) as cache:
        await cache.get_or_compute("k", value, options=options)
        clock.advance(12)
        with contextlib.suppress(KeyError):
            await cache.get_or_compute("failing", fail, options=options)
        for request, expected in (
            (cache.get("missing"), {names.RESULT: "miss"}),
            (cache.get_many(["missing", "k"]), {names.RESULT: "miss"}),
            (
                cache.get_or_compute("k", value, options=options),
                {names.RESULT: "stale", names.LAYER: "l1", names.TTL: -2.0, names.STALE_REASON: "revalidate"},
            ),
            (
                cache.get_or_compute("failing", fail, options=options),
                {names.RESULT: "hit", names.LAYER: "negative"},
            ),
        ):
            with TRACER.start_as_current_span("request"), contextlib.suppress(KeyError):
                await request
            assert attributes(spans.named("request")[-1]) == expected


async def test_of_responses_the_age_is_told(spans: Spans) -> None:
    def origin(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"cache-control": "max-age=60", "age": "20"}, content=b"body")

    async with opened() as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            for _ in range(3):  # the last one by the shorter way of a request that was answered before
                with TRACER.start_as_current_span("request"):
                    await client.get("http://example.com/")
            with TRACER.start_as_current_span("request"):
                await client.get("http://example.com/", extensions={"aurelis": {"bypass": True}})
    first, *hits, bypassed = spans.named("request")
    assert attributes(first) == {}
    for hit in hits:
        told = attributes(hit)
        assert 39 < told.pop(names.TTL) <= 40
        assert told == {names.RESULT: "hit", names.LAYER: "l1", names.AGE: 20}
    assert attributes(bypassed) == {names.RESULT: "bypass", names.FWD: "bypass"}


async def test_without_a_current_span_a_hit_in_memory_leaves_no_trace(spans: Spans) -> None:
    async with opened() as cache:
        await cache.set("k", 1)
        await cache.get("k")
    assert spans.ended() == ()


async def test_a_span_that_does_not_record_is_left_alone(spans: Spans) -> None:
    async with opened() as cache:
        await cache.set("k", 1)
        unsampled = NonRecordingSpan(SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(0)))
        with trace.use_span(unsampled):
            assert await cache.get("k") == 1
    assert spans.ended() == ()


async def test_attributes_on_the_current_span_can_be_switched_off(spans: Spans) -> None:
    async with opened(configuration(span_attributes=False)) as cache:
        await cache.set("k", 1)
        with TRACER.start_as_current_span("request"):
            await cache.get("k")
    (span,) = spans.ended()
    assert dict(span.attributes or {}) == {}


async def test_on_request_a_request_that_bypasses_the_cache_has_one_as_well(spans: Spans) -> None:
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200))
    async with (
        opened(configuration(spans="all")) as cache,
        httpx2.AsyncClient(transport=AsyncCacheTransport(inner, cache=cache)) as client,
    ):
        with TRACER.start_as_current_span("request"):
            await client.get("http://example.com/", extensions={"aurelis": {"bypass": True}})
    get, request = spans.ended()
    assert is_child(get, request)
    assert attributes(get) == attributes(request) == {names.RESULT: "bypass", names.FWD: "bypass"}


@pytest.mark.parametrize("span_attributes", [True, False])
async def test_on_request_hits_in_memory_have_spans_of_their_own(spans: Spans, span_attributes: bool) -> None:
    async with opened(configuration(spans="all", span_attributes=span_attributes)) as cache:
        await cache.set("k", 1)
        with TRACER.start_as_current_span("request"):
            await cache.get("k")
        get, request = spans.ended()
        assert get.name == f"get {cache.config.name}"
        assert is_child(get, request)
        assert attributes(get) == {names.RESULT: "hit", names.LAYER: "l1"}
        assert (names.RESULT in attributes(request)) == span_attributes
        spans.clear()
        await cache.get("k")
        (alone,) = spans.ended()
        assert alone.parent is None


@pytest.mark.parametrize("wanted", ["io", "all"])
async def test_what_a_load_finds_in_memory_is_not_told_by_the_span_of_the_load(spans: Spans, wanted: str) -> None:
    """That span is about what is loaded; whoever has a span of its own within the load is told."""
    options = {"spans": wanted, "span_keys": "hash", "secret": "secret"}
    async with opened(configuration(**options)) as outer, opened(configuration(**options)) as inner:
        await inner.set("k", 1)

        async def load() -> object:
            found = await inner.get("k")
            with TRACER.start_as_current_span("query"):
                return found if await inner.get("k") == found else None

        assert await outer.get_or_compute("page", load) == 1
        (fill,) = spans.named(f"fill {outer.config.name}")
        (get,) = spans.named(f"get {outer.config.name}")
        (query,) = spans.named("query")
    assert (fill.attributes or {})[names.NAME] == outer.config.name
    assert set(attributes(fill)) == {names.KEY_HASH}
    assert hashed(fill) == hashed(get) != hashed(query)
    assert (query.attributes or {})[names.NAME] == inner.config.name
    assert len(spans.named(f"get {inner.config.name}")) == (2 if wanted == "all" else 0)


# --- past memory


async def test_a_request_past_memory_has_a_span_with_its_result(spans: Spans, shared: CacheManager) -> None:
    name = shared.config.name
    async with opened(configuration(redis_url=shared.config.redis_url, timeout=PATIENT)) as neighbour:
        await neighbour.set_many({"a": 1, "b": 2})
    for request, expected in (
        (shared.get("missing"), {names.RESULT: "miss"}),
        (shared.get("a"), {names.RESULT: "hit", names.LAYER: "l2"}),
        (shared.get_or_compute("b", value), {names.RESULT: "hit", names.LAYER: "l2", names.COLLAPSED: False}),
    ):
        spans.clear()
        with TRACER.start_as_current_span("request"):
            await request
        get, parent = spans.ended()
        assert get.name == f"get {name}"
        assert (names.TTL in (get.attributes or {})) == (expected[names.RESULT] == "hit")
        assert get.kind is SpanKind.INTERNAL
        assert is_child(get, parent)
        assert attributes(get) == expected
        assert (get.attributes or {})[names.NAME] == name
        assert get.status.status_code is StatusCode.UNSET
        assert get.instrumentation_scope is not None
        assert get.instrumentation_scope.name == "aurelis.cache"


async def test_many_keys_have_one_span(spans: Spans, shared: CacheManager) -> None:
    await shared.get_many([f"k{number}" for number in range(50)])
    (get,) = spans.ended()
    assert get.name == f"get {shared.config.name}"


async def test_a_miss_in_memory_alone_has_no_span_because_it_waits_for_nothing(spans: Spans) -> None:
    async with opened() as cache:
        await cache.get("missing")
        await cache.get_many(["missing"])
    assert spans.ended() == ()


async def test_a_load_is_a_span_below_that_of_the_request(spans: Spans, shared: CacheManager) -> None:
    async def load() -> None:
        with TRACER.start_as_current_span("query"):
            await asyncio.sleep(0)

    with TRACER.start_as_current_span("request"):
        await shared.get_or_compute("k", load)
    query, fill, get, request = spans.ended()
    assert [span.name for span in (fill, get)] == [f"fill {shared.config.name}", f"get {shared.config.name}"]
    assert is_child(query, fill)
    assert is_child(fill, get)
    assert is_child(get, request)
    assert attributes(get) == {names.RESULT: "miss", names.COLLAPSED: False}
    assert attributes(fill) == {}


@pytest.mark.parametrize("fails", [False, True])
async def test_a_load_in_a_thread_is_a_span_around_what_the_client_does(spans: Spans, fails: bool) -> None:
    def origin(request: httpx2.Request) -> httpx2.Response:
        with TRACER.start_as_current_span("network"):
            if fails:
                raise httpx2.ConnectError("a secret")
        return httpx2.Response(200, headers={"cache-control": "max-age=60"}, content=b"body")

    async with opened() as cache:
        client = httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache))
        with client, TRACER.start_as_current_span("request"):
            if fails:
                with pytest.raises(httpx2.ConnectError):
                    client.get("http://example.com/")
            else:
                with client.stream("GET", "http://example.com/") as response:
                    assert not spans.named(f"fill {cache.config.name}")  # the body is still to be read
                    response.read()
        (get,) = spans.named(f"get {cache.config.name}")
        (fill,) = spans.named(f"fill {cache.config.name}")
        (network,) = spans.named("network")
        (request,) = spans.named("request")
    assert is_child(get, request)
    assert is_child(fill, get)
    assert is_child(network, fill)
    assert attributes(fill) == ({"error.type": "ConnectError"} if fails else {})
    assert fill.status.status_code == (StatusCode.ERROR if fails else StatusCode.UNSET)
    assert fill.events == ()


class Half(httpx2.SyncByteStream):
    """A body of two chunks."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"one"
        yield b"two"


@pytest.mark.parametrize("reads", [False, True], ids=["unread", "half-read"])
@pytest.mark.parametrize("cycle", [False, True], ids=["alone", "cycle"])
def test_a_load_in_a_thread_whose_response_is_dropped_ends_once(
    spans: Spans, caplog: pytest.LogCaptureFixture, reads: bool, cycle: bool
) -> None:
    """A garbage collector, which must not wait for anything, notices it; the next span, or the end, tells it."""
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"cache-control": "max-age=60"}, stream=Half()))
    cache = CacheManager(configuration())

    def drop(client: httpx2.Client, path: str) -> None:
        response: Any = client.send(client.build_request("GET", f"http://example.com/{path}"), stream=True)
        if reads:
            chunks = response.iter_bytes()
            assert next(chunks) == b"one"
            response.chunks = chunks if cycle else None
        if cycle:
            response.itself = response

    with httpx2.Client(transport=CacheTransport(inner, cache=cache)) as client:
        for path in ("first", "second"):
            drop(client, path)
            gc.collect()
        assert len(spans.named(f"fill {cache.config.name}")) in (1, 2)
        asyncio.run(cache.aclose())
    fills = spans.named(f"fill {cache.config.name}")
    assert [attributes(fill) for fill in fills] == [{"error.type": "ConnectionAbortedError"}] * 2
    first, second = spans.named(f"get {cache.config.name}")
    assert is_child(fills[0], first)
    assert is_child(fills[1], second)
    told = [(get.end_time, fill.end_time) for fill, get in zip(fills, (first, second), strict=True)]
    instants = [instant or 0 for pair in told for instant in pair]
    assert instants == sorted(instants), "each has ended when it was dropped"
    assert second.start_time is not None
    assert instants[0] <= instants[1] <= second.start_time
    assert instants[-1] <= time.time_ns()
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


@pytest.mark.parametrize(("wish", "error"), [("no-store", ""), ("max-age=60", ""), ("max-age=60", "KeyboardInterrupt")])
def test_how_a_load_in_a_thread_has_ended_is_told(spans: Spans, wish: str, error: str) -> None:
    def origin(request: httpx2.Request) -> httpx2.Response:
        if error:
            raise KeyboardInterrupt
        return httpx2.Response(200, headers={"cache-control": wish}, content=b"body")

    cache = CacheManager(configuration())
    client = httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache))
    with client, pytest.raises(KeyboardInterrupt) if error else contextlib.nullcontext():
        client.get("http://example.com/")
    (fill,) = spans.named(f"fill {cache.config.name}")
    assert attributes(fill) == ({"error.type": error} if error else {})
    (get,) = spans.named(f"get {cache.config.name}")
    assert attributes(get) == {names.RESULT: "miss", names.FWD: "uri-miss", names.COLLAPSED: False}
    asyncio.run(cache.aclose())


@pytest.mark.parametrize("within", ["publish", "take", "fail"])
def test_a_load_in_a_thread_that_is_interrupted_at_its_end_ends_once(
    spans: Spans, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    async def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    def origin(request: httpx2.Request) -> httpx2.Response:
        if within == "fail":
            raise httpx2.ConnectError("")
        # What is not kept is over with its head.
        wish = "no-store" if within == "take" else "max-age=60"
        return httpx2.Response(200, headers={"cache-control": wish}, content=b"body")

    cache = CacheManager(configuration())
    if within == "publish":
        monkeypatch.setattr(cache._engine.stack, "publish", interrupt)
    else:
        monkeypatch.setattr(Recorder, "release", interrupt)
    client = httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache))
    with client, pytest.raises(KeyboardInterrupt):
        client.get("http://example.com/")
    (fill,) = spans.named(f"fill {cache.config.name}")
    assert attributes(fill) == {"error.type": "ConnectError" if within == "fail" else "ConnectionAbortedError"}
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    asyncio.run(cache.aclose())


async def test_who_waits_for_the_load_of_another_says_so_and_links_to_it(spans: Spans) -> None:
    async with opened() as cache:
        go = asyncio.Event()

        async def load() -> None:
            await go.wait()

        tasks = [asyncio.create_task(cache.get_or_compute("k", load)) for _ in range(3)]
        await eventually(lambda: count(cache, names.WAITING) == 2)
        go.set()
        await asyncio.gather(*tasks)
        (fill,) = spans.named(f"fill {cache.config.name}")
        gets = spans.named(f"get {cache.config.name}")
        assert sorted(bool(attributes(get)[names.COLLAPSED]) for get in gets) == [False, True, True]
        for get in gets:
            linked = [link.context.span_id for link in get.links]
            assert fill.context is not None
            assert linked == ([fill.context.span_id] if attributes(get)[names.COLLAPSED] else [])


async def test_spans_can_be_switched_off(spans: Spans, redis_url: str) -> None:
    async with opened(configuration(redis_url=redis_url, spans="none", timeout=PATIENT)) as cache:
        with TRACER.start_as_current_span("request"):
            await cache.get("missing")
            await cache.get_or_compute("k", value)
            await cache.get("k")
    (request,) = spans.ended()
    assert attributes(request) == {names.RESULT: "hit", names.LAYER: "l1"}


async def test_below_a_parent_that_is_not_sampled_there_are_no_spans(spans: Spans, shared: CacheManager) -> None:
    unsampled = NonRecordingSpan(SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(0)))
    with trace.use_span(unsampled):
        await shared.get("missing")
        await shared.get_or_compute("k", value)
    assert spans.ended() == ()


@pytest.mark.parametrize("wanted", ["io", "all"])
async def test_where_telemetry_is_suppressed_there_are_none(spans: Spans, redis_url: str, wanted: str) -> None:
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT, spans=wanted)) as cache:
        with TRACER.start_as_current_span("request") as request, suppress_instrumentation():
            await cache.get_or_compute("k", value)
            await cache.get("k")
            await cache.get("missing")
    assert [span.name for span in spans.ended()] == ["request"]
    assert request.is_recording() is False
    assert not attributes(spans.ended()[0])


def test_an_exporter_may_use_the_cache() -> None:
    """The SDK suppresses what an export would have exported next."""
    cache, seen = CacheManager(configuration(spans="all")), []

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            for span in spans:
                seen.append(span.name)
                asyncio.run(cache.get_or_compute(span.name, value))
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Exporter()))
    undo = begin_reporting(None, provider)
    try:
        provider.get_tracer("test").start_span("request").end()
    finally:
        undo()
    assert seen == ["request"]
    asyncio.run(cache.aclose())


async def test_below_a_remote_parent_that_is_sampled_there_are(spans: Spans, shared: CacheManager) -> None:
    sampled = NonRecordingSpan(SpanContext(7, 9, is_remote=True, trace_flags=TraceFlags(1)))
    with trace.use_span(sampled):
        await shared.get("missing")
    (get,) = spans.ended()
    assert get.parent is not None
    assert get.parent.span_id == 9


# --- failures


async def test_a_load_that_fails_is_marked_with_the_type_of_its_error_and_nothing_of_its_text(spans: Spans) -> None:
    class QuotaExceededError(Exception):
        pass

    async def load() -> None:
        raise QuotaExceededError("secret details")

    async with opened() as cache:
        with contextlib.suppress(QuotaExceededError):
            await cache.get_or_compute("k", load)
        fill, get = spans.ended()
        for span in (fill, get):
            assert attributes(span)[names.ERROR_TYPE].endswith("QuotaExceededError")
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description is None
            assert span.events == ()
            assert "secret" not in span.to_json()


async def test_a_cancelled_request_is_marked_as_such(spans: Spans) -> None:
    async with opened() as cache:
        begun = asyncio.Event()

        async def load() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(cache.get_or_compute("k", load))
        await begun.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await eventually(lambda: len(spans.ended()) == 2)
        assert {attributes(span)[names.ERROR_TYPE] for span in spans.ended()} == {"CancelledError"}


async def test_a_layer_that_fails_does_not_mark_the_request_which_has_not_failed(spans: Spans) -> None:
    async with opened(configuration(redis_url="redis://127.0.0.1:1/0", timeout=0.2)) as cache:
        assert await cache.get("k") is None
    (get,) = spans.ended()
    assert get.status.status_code is StatusCode.UNSET
    assert attributes(get) == {names.RESULT: "miss"}


async def test_no_key_or_value_is_in_any_span(spans: Spans, redis_url: str) -> None:
    secret = "hunter2"

    async def load() -> dict[str, str]:
        return {secret: secret}

    async with opened(configuration(redis_url=redis_url, namespace=secret, spans="all", timeout=PATIENT)) as cache:
        with TRACER.start_as_current_span("request"):
            await cache.set(secret, secret)
            await cache.get(secret)
            await cache.get(f"{secret}:2")
            await cache.get_many([secret, f"{secret}:3"])
            await cache.get_or_compute(f"{secret}:4", load)
            await cache.delete(secret)
    assert len(spans.ended()) > 4
    assert not [span for span in spans.ended() if secret in span.to_json()]


def test_a_tracer_provider_that_is_set_late_gets_spans() -> None:
    printed = run_script(
        """
        import asyncio
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from aurelis.cache import CacheConfig, CacheManager

        async def value() -> int:
            return 1

        cache = CacheManager(CacheConfig(name="late"))
        asyncio.run(cache.get_or_compute("early", value))
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        asyncio.run(cache.get_or_compute("late", value))
        print([span.name for span in exporter.get_finished_spans()])
        """
    )
    assert printed == "['fill late', 'get late']\n"


@pytest.mark.parametrize("value", ["a", ["a", "b"]], ids=["one", "several"])
async def test_what_is_refused_or_given_again_is_no_miss(shared: CacheManager, spans: Spans, value: object) -> None:
    inner = httpx2.MockTransport(lambda request: httpx2.Response(503, json={"error": {"message": "busy"}}))
    transport = AsyncCacheTransport(inner, cache=shared, negative_ttl=30)
    body = {"model": "m", "input": value}
    async with httpx2.AsyncClient(transport=transport, base_url="http://model.example/v1/") as client:
        for wish in ("only-if-cached", "", ""):
            await client.post("embeddings", json=body, headers={"x-cache-control": wish})
    given = [attributes(span) for span in spans.named(f"get {shared.config.name}")]
    assert [found.get(names.RESULT) for found in given] == ["bypass", "miss", "hit"]
    assert given[-1][names.LAYER] == "negative"


# --- keys


def hashed(span: ReadableSpan) -> object:
    """Returns what stands for the key in a span."""
    return (span.attributes or {}).get(names.KEY_HASH)


async def test_the_hash_of_a_key_is_the_same_in_all_processes_and_no_other_hash(spans: Spans) -> None:
    config = configuration(secret="secret", span_keys="hash", spans="all")
    async with opened(config) as cache:
        await cache.set("key", 1)
        await cache.get("key")
    (get,) = spans.named(f"get {config.name}")
    assert hashed(get) == "25abfb9ed5f3c22aa52683f04f46b6aa"
    assert hashed(get) != blake2b(b"key", key=config.hash_key(), digest_size=16).hexdigest(), "as credentials have them"


async def test_keys_are_hashes_and_only_on_request(spans: Spans, redis_url: str) -> None:
    clock = ManualClock()
    options = EntryOptions(ttl=10, stale_while_revalidate=100)
    of_key: dict[str, set[object]] = {}
    for secret, wanted in (("one", "hash"), ("two", "hash"), ("one", "none")):
        config = configuration(
            redis_url=redis_url, timeout=PATIENT, secret=secret, span_keys=wanted, spans="all", namespace=f"{secret}"
        )
        spans.clear()
        async with opened(config, clock=clock) as cache:
            for key in ("hunter2", "other"):
                await cache.delete(key)
                with TRACER.start_as_current_span("request"):
                    await cache.get(key)
                    await cache.get_or_compute(key, value, options=options)
                    await cache.get(key)
                    clock.advance(20)
                    await cache.get_or_compute(key, value, options=options)
                await eventually(lambda: len(spans.named(f"revalidate {cache.config.name}")) == 1)
                made = list(spans.ended())
                assert {span.name.split()[0] for span in made} == {"request", "get", "fill", "revalidate"}
                of_key.setdefault(f"{secret} {wanted} {key}", set()).update(map(hashed, made))
                assert not [span for span in made if key in span.to_json()]
                spans.clear()
            with TRACER.start_as_current_span("request"):
                await cache.get_many(["hunter2", "other"])
            assert {hashed(span) for span in spans.ended()} == {None}, "of several keys there is none"
    found = {name: next(iter(hashes)) for name, hashes in of_key.items()}
    assert all(len(hashes) == 1 for hashes in of_key.values())
    assert [found[f"one none {key}"] for key in ("hunter2", "other")] == [None, None]
    four = [found[f"{secret} hash {key}"] for secret in ("one", "two") for key in ("hunter2", "other")]
    assert len(set(four)) == 4
    assert all(isinstance(each, str) and len(each) == 32 and int(each, 16) for each in four)


async def test_of_responses_the_hash_is_that_of_their_full_key(spans: Spans) -> None:
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"cache-control": "max-age=60"}))
    async with opened(configuration(secret="s", span_keys="hash")) as cache:
        async with httpx2.AsyncClient(transport=AsyncCacheTransport(inner, cache=cache)) as client:
            for _ in range(2):
                with TRACER.start_as_current_span("request"):
                    await client.get("http://example.com/hunter2")
        (fill,) = spans.named(f"fill {cache.config.name}")
        (get,) = spans.named(f"get {cache.config.name}")
        _, hit = spans.named("request")
        assert hashed(fill) == hashed(get) == hashed(hit)
        assert isinstance(hashed(hit), str)
        assert hashed(hit) == cache._engine.telemetry.spans.named(next(iter(cache._engine._entries)))[names.KEY_HASH]


def test_hashes_of_keys_are_in_no_metric() -> None:
    with own_counts():
        metrics = Metrics()

        async def use() -> None:
            async with opened(configuration(secret="s", span_keys="hash")) as cache:
                await cache.get_or_compute("k", value)
                await cache.get("k")

        asyncio.run(use())
        used = {
            attribute
            for metric in metrics.all().values()
            for point in metric.data.data_points
            for attribute in point.attributes
        }
    assert names.RESULT in used
    assert names.KEY_HASH not in used
