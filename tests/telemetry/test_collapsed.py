"""Who shares a load says so and links to it; what a load does is part of the trace of the one who leads it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from aurelis.cache import CacheManager, CacheWarmer, EntryOptions, cached
from aurelis.cache.exceptions import LoadTimeoutError
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport
from tests.managers import configuration, count, eventually, eventually_blocking, opened, run_script
from tests.telemetry.collecting import Spans, record_spans

PATIENT = 10.0
TRACER = trace.get_tracer("test")
URL = "http://example.com/"
EMBEDDINGS = "http://model.example/v1/embeddings"


@pytest.fixture(scope="module")
def recorder() -> Spans:
    """Records all spans of the process."""
    return record_spans()


@pytest.fixture
def spans(recorder: Spans) -> Spans:
    """The spans of this test."""
    recorder.clear()
    return recorder


def span_id(span: ReadableSpan) -> int:
    """Returns the identifier of a span."""
    assert span.context is not None
    identifier: int = span.context.span_id
    return identifier


def parent_of(span: ReadableSpan) -> int:
    """Returns the identifier of what a span hangs below."""
    assert span.parent is not None
    return span.parent.span_id


def check(spans: Spans, name: str, followers: int = 1) -> None:
    """Checks that there was one load, below the request of its leader, to which each of the others links."""
    (fill,) = spans.named(f"fill {name}")
    gets = spans.named(f"get {name}")
    (leader,) = [get for get in gets if span_id(get) == parent_of(fill)]
    others = [get for get in gets if get is not leader]
    assert len(others) == followers
    assert not leader.links
    assert not (leader.attributes or {}).get(names.COLLAPSED)
    for other in others:
        assert (other.attributes or {})[names.COLLAPSED] is True
        assert [link.context.span_id for link in other.links] == [span_id(fill)]
        assert other.context is not None
        assert leader.context is not None
        assert other.context.trace_id != leader.context.trace_id
    assert [parent_of(query) for query in spans.named("query")] == [span_id(fill)]


class Slow(httpx2.AsyncByteStream):
    """A body whose end waits for a word."""

    def __init__(self, go_on: asyncio.Event) -> None:
        self._go_on = go_on

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"begin"
        await self._go_on.wait()
        yield b"end"


async def test_who_shares_a_stream_links_to_its_load(spans: Spans) -> None:
    go_on = asyncio.Event()

    async def origin(request: httpx2.Request) -> httpx2.Response:
        with TRACER.start_as_current_span("query"):
            return httpx2.Response(200, headers={"cache-control": "max-age=60"}, stream=Slow(go_on))

    async with opened() as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:

            async def ask() -> bytes:
                with TRACER.start_as_current_span("request"):
                    return (await client.get(URL)).content

            asking = [asyncio.create_task(ask()) for _ in range(3)]
            await eventually(lambda: count(cache, names.COALESCED) == 2)
            go_on.set()
            assert await asyncio.gather(*asking) == [b"beginend"] * 3
        check(spans, cache.config.name, 2)


def test_who_shares_the_load_of_a_thread_links_to_it(spans: Spans) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def origin(request: httpx2.Request) -> httpx2.Response:
        with TRACER.start_as_current_span("query"):
            begun.set()
            assert go_on.wait(PATIENT)
            return httpx2.Response(200, headers={"cache-control": "max-age=60"}, content=b"body")

    cache = CacheManager(configuration())
    with httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache)) as client:
        threads = [threading.Thread(target=client.get, args=(URL,)) for _ in range(2)]
        threads[0].start()
        assert begun.wait(PATIENT)
        threads[1].start()
        eventually_blocking(lambda: count(cache, names.WAITING) == 1)
        go_on.set()
        for thread in threads:
            thread.join(PATIENT)
    check(spans, cache.config.name)
    asyncio.run(cache.aclose())


async def test_who_shares_a_response_of_the_app_links_to_its_load(spans: Spans) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with TRACER.start_as_current_span("query"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begin", "more_body": True})
            await go_on.wait()
            await send({"type": "http.response.body", "body": b"end"})

    async with opened() as cache:
        transport = httpx2.ASGITransport(CacheMiddleware(app, cache=cache, rules=[CacheRule("/*", ttl=60)]))
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
            asking = [asyncio.create_task(client.get("/")) for _ in range(2)]
            await eventually(lambda: count(cache, names.COALESCED) == 1)
            go_on.set()
            await asyncio.gather(*asking)
        check(spans, cache.config.name)


def vectors(request: httpx2.Request) -> httpx2.Response:
    """Answers as a model that makes embeddings does."""
    asked = httpx2.Response(200, content=request.content).json()["input"]
    data = [{"object": "embedding", "index": index, "embedding": [0.1]} for index, _ in enumerate(asked)]
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    return httpx2.Response(200, json={"object": "list", "data": data, "model": "m", "usage": usage})


async def test_who_shares_items_links_to_their_load_once(spans: Spans) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def origin(request: httpx2.Request) -> httpx2.Response:
        with TRACER.start_as_current_span("query"):
            begun.set()
            await go_on.wait()
            return vectors(request)

    async with opened() as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            first = asyncio.create_task(client.post(EMBEDDINGS, json={"model": "m", "input": ["a", "b", "c"]}))
            await begun.wait()
            second = asyncio.create_task(client.post(EMBEDDINGS, json={"model": "m", "input": ["b", "c"]}))
            await eventually(lambda: count(cache, names.WAITING) == 2)
            go_on.set()
            await asyncio.gather(first, second)
        check(spans, cache.config.name)


def test_who_shares_items_of_a_thread_links_to_their_load(spans: Spans) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def origin(request: httpx2.Request) -> httpx2.Response:
        with TRACER.start_as_current_span("query"):
            begun.set()
            assert go_on.wait(PATIENT)
            return vectors(request)

    cache = CacheManager(configuration())
    with httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache)) as client:

        def ask(*texts: str) -> None:
            client.post(EMBEDDINGS, json={"model": "m", "input": texts})

        first = threading.Thread(target=ask, args=("a", "b", "c"))
        first.start()
        assert begun.wait(PATIENT)
        second = threading.Thread(target=ask, args=("b", "c"))
        second.start()
        eventually_blocking(lambda: count(cache, names.WAITING) == 2)
        go_on.set()
        first.join(PATIENT)
        second.join(PATIENT)
    check(spans, cache.config.name)
    asyncio.run(cache.aclose())


async def test_who_waits_for_another_process_says_so_and_has_nothing_to_link_to(
    spans: Spans, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        begun.set()
        await go_on.wait()
        return "value"

    async def never() -> str:
        raise AssertionError("the other process loads it")

    config = configuration(redis_url=redis_url, timeout=PATIENT)
    async with opened(config) as first, opened(configuration(redis_url=redis_url, timeout=PATIENT)) as second:
        asked, acquire = [], second._engine.acquire

        async def acquiring(*arguments: Any, **options: Any) -> Any:
            asked.append(1)
            return await acquire(*arguments, **options)

        monkeypatch.setattr(second._engine, "acquire", acquiring)
        leading = asyncio.create_task(first.get_or_compute("k", load))
        await begun.wait()
        waiting = asyncio.create_task(second.get_or_compute("k", never))
        await eventually(lambda: len(asked) > 1)
        go_on.set()
        assert tuple(await asyncio.gather(leading, waiting)) == ("value", "value")
        (get,) = spans.named(f"get {second.config.name}")
    told = get.attributes or {}
    assert (told[names.RESULT], told[names.LAYER], told[names.COLLAPSED]) == ("hit", "l2", True)
    assert not get.links
    assert not spans.named(f"fill {second.config.name}")


def check_failed(spans: Spans, name: str, error: str) -> None:
    """Checks that of two requests the one that has shared the failed load of the other one says so and links to it."""
    (fill,) = spans.named(f"fill {name}")
    gets = spans.named(f"get {name}")
    (leader,) = [get for get in gets if span_id(get) == parent_of(fill)]
    (follower,) = [get for get in gets if get is not leader]
    for get in gets:
        assert (get.attributes or {})[names.ERROR_TYPE] == error
    assert not leader.links
    assert not (leader.attributes or {}).get(names.COLLAPSED)
    assert (follower.attributes or {})[names.COLLAPSED] is True
    assert [link.context.span_id for link in follower.links] == [span_id(fill)]


async def test_who_shares_a_load_that_fails_links_to_it_as_well(spans: Spans) -> None:
    go_on = asyncio.Event()

    async def load() -> None:
        await go_on.wait()
        raise ConnectionError

    async with opened() as cache:
        asking = [asyncio.create_task(cache.get_or_compute("k", load)) for _ in range(2)]
        await eventually(lambda: count(cache, names.WAITING) == 1)
        go_on.set()
        await asyncio.gather(*asking, return_exceptions=True)
        check_failed(spans, cache.config.name, "ConnectionError")


async def test_who_shares_a_call_that_fails_links_to_it_as_well(spans: Spans) -> None:
    go_on = asyncio.Event()

    async def origin(request: httpx2.Request) -> httpx2.Response:
        await go_on.wait()
        raise httpx2.ConnectError("")

    async with opened() as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            asking = [asyncio.create_task(client.get(URL)) for _ in range(2)]
            await eventually(lambda: count(cache, names.WAITING) == 1)
            go_on.set()
            await asyncio.gather(*asking, return_exceptions=True)
        check_failed(spans, cache.config.name, "ConnectError")


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
async def test_who_does_not_wait_to_the_end_links_to_the_load_as_well(spans: Spans, several: bool) -> None:
    go_on = asyncio.Event()

    async def origin(request: httpx2.Request) -> httpx2.Response:
        await go_on.wait()
        return vectors(request)

    body = {"model": "m", "input": ["a", "b"] if several else ["a"]}
    async with opened() as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)
        async with httpx2.AsyncClient(transport=transport, timeout=PATIENT) as client:
            leading = asyncio.create_task(client.post(EMBEDDINGS, json=body))
            await eventually(lambda: cache._engine.flights._tasks)
            with pytest.raises(httpx2.ReadTimeout):
                await client.post(EMBEDDINGS, json=body, timeout=0.05)
            left = asyncio.create_task(client.post(EMBEDDINGS, json=body))
            await eventually(lambda: count(cache, names.WAITING) >= 1)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            go_on.set()
            await leading
        (fill,) = spans.named(f"fill {cache.config.name}")
        late, cancelled, leader = spans.named(f"get {cache.config.name}")
    assert not leader.links
    for get in (late, cancelled):
        assert (get.attributes or {})[names.COLLAPSED] is True
        assert [link.context.span_id for link in get.links] == [span_id(fill)]


async def test_who_has_waited_too_long_for_a_value_links_to_its_load(spans: Spans) -> None:
    go_on = asyncio.Event()

    async def load() -> None:
        await go_on.wait()

    async with opened() as cache:
        leading = asyncio.create_task(cache.get_or_compute("k", load))
        await eventually(lambda: cache._engine.flights._tasks)
        with pytest.raises(LoadTimeoutError):
            await cache.get_or_compute("k", load, options=EntryOptions(hard_timeout=0.02))
        go_on.set()
        await leading
        (fill,) = spans.named(f"fill {cache.config.name}")
        late, _ = spans.named(f"get {cache.config.name}")
    assert (late.attributes or {})[names.COLLAPSED] is True
    assert [link.context.span_id for link in late.links] == [span_id(fill)]


@pytest.mark.parametrize("confirms", [False, True], ids=["stale", "revalidated"])
async def test_who_shares_what_stands_in_for_a_response_links_to_the_load_as_well(spans: Spans, confirms: bool) -> None:
    clock, go_on = ManualClock(), asyncio.Event()
    fields = {"cache-control": "max-age=10, stale-if-error=1000", "etag": '"1"'}

    async def origin(request: httpx2.Request) -> httpx2.Response:
        if "if-none-match" not in request.headers:
            return httpx2.Response(200, headers=fields, content=b"body")
        await go_on.wait()
        return httpx2.Response(304 if confirms else 503, headers=fields)

    async with opened(clock=clock) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            await client.get(URL)
            clock.advance(12)
            spans.clear()
            asking = [asyncio.create_task(client.get(URL)) for _ in range(2)]
            await eventually(lambda: count(cache, names.WAITING) == 1)
            go_on.set()
            assert [answer.content for answer in await asyncio.gather(*asking)] == [b"body"] * 2
        (fill,) = spans.named(f"fill {cache.config.name}")
        gets = spans.named(f"get {cache.config.name}")
    (leader,) = [get for get in gets if span_id(get) == parent_of(fill)]
    (follower,) = [get for get in gets if get is not leader]
    for get, collapsed in ((leader, False), (follower, True)):
        told = get.attributes or {}
        assert told[names.RESULT] == ("revalidated" if confirms else "stale")
        assert told.get(names.STALE_REASON) == (None if confirms else "error")
        assert told[names.COLLAPSED] is collapsed
        assert [link.context.span_id for link in get.links] == ([span_id(fill)] if collapsed else [])


async def test_no_link_is_made_to_what_is_not_recorded(spans: Spans) -> None:
    go_on = asyncio.Event()

    async def load() -> None:
        await go_on.wait()

    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0)))
    async with opened() as cache:
        with trace.use_span(unsampled):
            leading = asyncio.create_task(cache.get_or_compute("k", load))
        await eventually(lambda: cache._engine.flights._flights)
        with TRACER.start_as_current_span("request"):
            following = asyncio.create_task(cache.get_or_compute("k", load))
        await eventually(lambda: count(cache, names.WAITING) == 1)
        go_on.set()
        await asyncio.gather(leading, following)
        (get,) = spans.named(f"get {cache.config.name}")
    assert (get.attributes or {})[names.COLLAPSED] is True
    assert not get.links


# --- what the load does


def below(spans: Spans, name: str) -> None:
    """Checks that the user's own span in the load is below it, and all of it in the trace of the request."""
    (query,) = spans.named("query")
    (fill,) = spans.named(f"fill {name}")
    (get,) = spans.named(f"get {name}")
    (request,) = spans.named("request")
    assert [parent_of(span) for span in (query, fill, get)] == [span_id(fill), span_id(get), span_id(request)]


async def test_what_a_cached_function_does_is_part_of_the_callers_trace(spans: Spans) -> None:
    async with opened() as cache:

        @cached(cache=cache)
        async def page(number: int) -> int:
            with TRACER.start_as_current_span("query"):
                return number

        with TRACER.start_as_current_span("request"):
            assert await page(1) == 1
        below(spans, cache.config.name)


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
def test_so_is_what_a_cached_function_does_in_a_thread(spans: Spans, redis_url: str, shared: bool) -> None:
    cache = CacheManager(configuration(redis_url=redis_url if shared else None, timeout=PATIENT))

    @cached(cache=cache)
    def page(number: int) -> int:
        with TRACER.start_as_current_span("query"):
            return number

    with TRACER.start_as_current_span("request"):
        assert page(1) == 1
    below(spans, cache.config.name)
    asyncio.run(cache.aclose())


async def test_so_is_what_is_warmed(spans: Spans) -> None:
    async def generate(model_type: str, prompt: str) -> str:
        with TRACER.start_as_current_span("query"):
            return "answer"

    async with opened() as cache:
        with TRACER.start_as_current_span("request"):
            await CacheWarmer(cache, generate=generate).warm_model_responses(["hello"], models=["m"])
        below(spans, cache.config.name)


# --- nothing is made where nothing records


class Counting:
    """A tracer that counts what it is asked for."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self.started = 0

    def start_span(self, *arguments: Any, **options: Any) -> trace.Span:
        self.started += 1
        made: trace.Span = self._tracer.start_span(*arguments, **options)
        return made


@contextlib.contextmanager
def counted(telemetry: Telemetry) -> Iterator[Callable[[], int]]:
    """Inside, spans are counted that a cache asks for, whether they record or not."""
    tracer = Counting(telemetry.spans._tracer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telemetry.spans, "_tracer", tracer)
        yield lambda: tracer.started


async def exercise(cache: CacheManager) -> None:
    """All that makes spans: a load, a hit in Redis, several keys, a stale value, and a response."""
    options = EntryOptions(ttl=0.01, stale_while_revalidate=1000)
    loads = 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        return "value"

    await cache.get("missing")
    await cache.get_many(["missing", "also"])
    await cache.get_or_compute("k", load, options=options)
    await asyncio.sleep(0.02)
    await cache.get_or_compute("k", load, options=options)
    await eventually(lambda: loads == 2)
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"cache-control": "max-age=60"}))
    async with httpx2.AsyncClient(transport=AsyncCacheTransport(inner, cache=cache)) as client:
        await client.get(URL)
        await client.get(URL)


@pytest.mark.parametrize(("wanted", "makes"), [("none", False), ("io", True), ("all", True)])
async def test_where_spans_are_not_wanted_none_is_made(spans: Spans, redis_url: str, wanted: str, makes: bool) -> None:
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT, spans=wanted)) as cache:
        with counted(cache._engine.telemetry) as started, TRACER.start_as_current_span("request"):
            await exercise(cache)
    assert bool(started()) == makes


async def test_below_a_parent_that_is_not_sampled_only_the_refresh_asks_the_sampler(redis_url: str) -> None:
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0)))
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT, spans="all")) as cache:
        with counted(cache._engine.telemetry) as started:
            with trace.use_span(unsampled):
                await exercise(cache)
            await eventually(lambda: not cache._engine.flights._tasks)
    assert started() == 2, "the refresh and its load, which are a trace of their own"


def test_without_an_sdk_no_span_is_made(redis_url: str) -> None:
    printed = run_script(
        """
        import asyncio, sys
        from opentelemetry import trace
        from aurelis.cache import CacheConfig, CacheManager
        from tests.telemetry.test_collapsed import counted, exercise

        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

        async def main():
            async with CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10, spans="all")) as cache:
                with counted(cache._engine.telemetry) as started:
                    await exercise(cache)
                print(started())

        asyncio.run(main())
        """,
        redis_url,
    )
    assert printed == "0\n"
