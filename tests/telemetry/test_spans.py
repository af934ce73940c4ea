"""Spans around what leaves memory, attributes for what does not, and nothing of the user's in either."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from aurelis.cache import CacheManager, EntryOptions
from aurelis.cache.telemetry import names
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
