"""Refreshes in the background are traces of their own, linked to the request that began them, and nothing leaks in."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import httpx2
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from aurelis.cache import CacheManager, EntryOptions, ModelResponseCache, SimilarityCache, WriteBehind
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport
from tests.managers import configuration, eventually, eventually_blocking, is_settled, opened, run_script
from tests.servers import ServerProcess
from tests.similarity.test_cache import ASKED, PARIS, REASKED, Answer, kept
from tests.telemetry.collecting import Spans, record_spans

PATIENT = 10.0
TRACER = trace.get_tracer("test")
USER: ContextVar[str] = ContextVar("user", default="nobody")
STALE = EntryOptions(ttl=10, stale_while_revalidate=1000)


@pytest.fixture(scope="module")
def recorder() -> Spans:
    """Records all spans of the process."""
    return record_spans()


@pytest.fixture
def spans(recorder: Spans) -> Spans:
    """The spans of this test."""
    recorder.clear()
    return recorder


@contextlib.contextmanager
def request_of(user: str) -> Iterator[trace.Span]:
    """A request, with all that belongs to it."""
    token = context.attach(baggage.set_baggage("user", user))
    name = USER.set(user)
    try:
        with TRACER.start_as_current_span("request") as span:
            yield span
    finally:
        USER.reset(name)
        context.detach(token)


class Origin:
    """What is loaded, and what each load has seen of its surroundings."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []
        self.fails = False

    async def load(self) -> int:
        with TRACER.start_as_current_span("query"):
            self.seen.append((USER.get(), baggage.get_baggage("user")))
            if self.fails:
                raise ConnectionError("secret")
            return len(self.seen)

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        with TRACER.start_as_current_span("query"):
            self.seen.append((USER.get(), baggage.get_baggage("user")))
            fields = {"cache-control": "max-age=10, stale-while-revalidate=1000"}
            return httpx2.Response(503 if self.fails else 200, headers=fields, content=b"body")


def of(span: ReadableSpan) -> SpanContext:
    """Returns the context of a span."""
    assert isinstance(span.context, SpanContext)
    return span.context


def check(spans: Spans, name: str, request: SpanContext | None, reason: str = "revalidate") -> ReadableSpan:
    """Checks the trace of the only refresh, which begins with it and links to the request; returns its first span."""
    (revalidate,) = spans.named(f"revalidate {name}")
    assert revalidate.parent is None
    assert [link.context for link in revalidate.links] == ([] if request is None else [request])
    assert request is None or of(revalidate).trace_id != request.trace_id
    told = dict(revalidate.attributes or {})
    assert told.pop(names.NAME) == name
    assert told.pop(names.REFRESH_REASON) == reason
    own = [span for span in spans.ended() if of(span).trace_id == of(revalidate).trace_id]
    for fill in spans.named(f"fill {name}")[-1:]:
        assert fill.parent == of(revalidate)
        assert fill in own
    assert spans.named("query")[-1].parent == of(spans.named(f"fill {name}")[-1])
    return revalidate


# --- values


async def test_a_refresh_of_a_value_is_a_trace_of_its_own(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()
    async with opened(clock=clock) as cache:
        await cache.get_or_compute("k", origin.load, options=STALE)
        clock.advance(12)
        with request_of("ada") as request:
            assert await cache.get_or_compute("k", origin.load, options=STALE) == 1
        await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
        revalidate = check(spans, cache.config.name, request.get_span_context())
        assert revalidate.status.status_code is StatusCode.UNSET
    assert origin.seen[-1] == ("nobody", None)


async def test_an_early_refresh_says_so(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()
    options = EntryOptions(ttl=100, early_refresh=0.1)
    async with opened(clock=clock) as cache:
        await cache.get_or_compute("k", origin.load, options=options)
        clock.advance(99)
        with request_of("ada") as request:
            await cache.get_or_compute("k", origin.load, options=options)
        await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
        check(spans, cache.config.name, request.get_span_context(), "early")


async def test_what_is_found_stale_below_is_refreshed_apart_as_well(spans: Spans, redis_url: str) -> None:
    """The load begins within the request, and goes on behind it."""
    options, origin = EntryOptions(ttl=0.05, stale_while_revalidate=1000), Origin()
    shared = {"redis_url": redis_url, "timeout": PATIENT}
    async with opened(configuration(**shared)) as first:
        await first.get_or_compute("k", origin.load, options=options)
        await asyncio.sleep(0.1)
    async with opened(configuration(**shared)) as cache:
        name = cache.config.name
        with request_of("ada"):
            assert await cache.get_or_compute("k", origin.load, options=options) == 1
        await eventually(lambda: spans.named(f"revalidate {name}"))
        (get,) = spans.named(f"get {name}")
        assert (get.attributes or {})[names.RESULT] == "stale"
        check(spans, name, of(get))
    assert origin.seen[-1][1] is None, "baggage is for the request's own trace"


async def test_a_refresh_that_fails_says_so_and_nothing_of_the_error(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()
    async with opened(clock=clock) as cache:
        await cache.get_or_compute("k", origin.load, options=STALE)
        clock.advance(12)
        origin.fails = True
        await cache.get_or_compute("k", origin.load, options=STALE)
        await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
        revalidate = check(spans, cache.config.name, None)
        assert revalidate.status.status_code is StatusCode.ERROR
        assert (revalidate.attributes or {})[names.ERROR_TYPE] == "ConnectionError"
        assert "secret" not in revalidate.to_json()


async def test_whether_a_refresh_is_sampled_does_not_follow_from_the_request(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()
    unsampled = SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(0))
    async with opened(clock=clock) as cache:
        await cache.get_or_compute("k", origin.load, options=STALE)
        clock.advance(12)
        with trace.use_span(NonRecordingSpan(unsampled)):
            await cache.get_or_compute("k", origin.load, options=STALE)
        await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
        check(spans, cache.config.name, unsampled)


@pytest.mark.parametrize("from_below", [False, True])
async def test_without_spans_nothing_leaks_either(spans: Spans, redis_url: str, from_below: bool) -> None:
    options, origin = EntryOptions(ttl=0.05, stale_while_revalidate=1000), Origin()
    shared = {"redis_url": redis_url, "timeout": PATIENT, "spans": "none"}
    async with opened(configuration(**shared)) as first, opened(configuration(**shared)) as second:
        await first.get_or_compute("k", origin.load, options=options)
        await asyncio.sleep(0.1)
        with request_of("ada"):
            await (second if from_below else first).get_or_compute("k", origin.load, options=options)
        await eventually(lambda: len(spans.named("query")) == 2)
    assert spans.named("query")[-1].parent is None
    assert origin.seen[-1][1] is None
    assert not [span for span in spans.ended() if span.name.startswith(("revalidate", "get", "fill"))]


# --- responses


async def test_a_refresh_of_a_response_in_a_client_is_a_trace_of_its_own(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()
    async with opened(clock=clock) as cache:
        transport = AsyncCacheTransport(httpx2.MockTransport(origin.respond), cache=cache)
        async with httpx2.AsyncClient(transport=transport) as client:
            await client.get("http://example.com/")
            clock.advance(12)
            with request_of("ada") as request:
                await client.get("http://example.com/")
            await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
    check(spans, cache.config.name, request.get_span_context())
    assert origin.seen[-1] == ("nobody", None)


def test_so_it_is_in_a_client_that_blocks(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()
    cache = CacheManager(configuration(), clock=clock)
    with httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin.respond), cache=cache)) as client:
        client.get("http://example.com/")
        clock.advance(12)
        with request_of("ada") as request:
            client.get("http://example.com/")
        eventually_blocking(lambda: spans.named(f"revalidate {cache.config.name}"))
    check(spans, cache.config.name, request.get_span_context())
    assert origin.seen[-1] == ("nobody", None)
    asyncio.run(cache.aclose())


@pytest.mark.parametrize("blocking", [False, True])
def test_a_refresh_says_that_it_failed_also_where_what_is_stored_stands_in(spans: Spans, blocking: bool) -> None:
    clock, failing = ManualClock(), False

    def origin(request: httpx2.Request) -> httpx2.Response:
        if failing:
            raise httpx2.ConnectError("secret")
        fields = {"cache-control": "max-age=10, stale-while-revalidate=1000, stale-if-error=1000"}
        return httpx2.Response(200, headers=fields, content=b"body")

    async def ask() -> None:
        async with httpx2.AsyncClient(transport=AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)) as one:
            await one.get("http://example.com/")
            await eventually(lambda: not cache._engine.flights._tasks)

    cache = CacheManager(configuration(), clock=clock)
    with httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache)) as client:
        client.get("http://example.com/")
        clock.advance(12)
        failing = True
        client.get("http://example.com/") if blocking else asyncio.run(ask())
        eventually_blocking(lambda: spans.named(f"revalidate {cache.config.name}"))
    (revalidate,) = spans.named(f"revalidate {cache.config.name}")
    assert revalidate.status.status_code is StatusCode.ERROR
    assert (revalidate.attributes or {})[names.ERROR_TYPE] == "ConnectError"
    asyncio.run(cache.aclose())


async def test_so_it_is_behind_the_middleware(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await origin.load()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"body"})

    rule = CacheRule("/*", ttl=10, stale_while_revalidate=1000)
    async with opened(clock=clock) as cache:
        transport = httpx2.ASGITransport(CacheMiddleware(app, cache=cache, rules=[rule]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://example.com") as client:
            await client.get("/")
            clock.advance(12)
            with request_of("ada") as request:
                await client.get("/")
            await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
    check(spans, cache.config.name, request.get_span_context())
    assert origin.seen[-1] == ("nobody", None)


class Session:
    """Something large that belongs to a request."""


SESSION: ContextVar[Session | None] = ContextVar("session", default=None)


class Slow:
    """An origin that answers once, and then not before it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = asyncio.Event()

    async def load(self) -> int:
        self.asked += 1
        if self.asked > 1:
            await self.go_on.wait()
        return self.asked

    async def respond(self, request: httpx2.Request) -> httpx2.Response:
        await self.load()
        if request.method == "POST":
            return embeddings(Origin())(request)
        fields = {"cache-control": "max-age=10, stale-while-revalidate=1000"}
        return httpx2.Response(200, headers=fields, content=b"body")

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.load()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"body"})


@pytest.mark.parametrize("kind", ["value", "page", "item", "items", "middleware"])
async def test_what_a_request_leaves_behind_is_let_go_of_while_it_is_refreshed(spans: Spans, kind: str) -> None:
    """Not in the task alone: whatever asyncio is to call back has a context as well."""
    clock, origin = ManualClock(), Slow()
    rule = CacheRule("/*", ttl=10, stale_while_revalidate=1000)
    async with opened(clock=clock) as cache:
        inner = httpx2.MockTransport(origin.respond)
        transports: dict[str, httpx2.AsyncBaseTransport] = {
            "middleware": httpx2.ASGITransport(CacheMiddleware(origin.app, cache=cache, rules=[rule]))
        }
        transport = AsyncCacheTransport(inner, cache=cache, ttl=10, stale_while_revalidate=1000)
        async with httpx2.AsyncClient(
            transport=transports.get(kind, transport), base_url="http://example.com"
        ) as client:

            async def ask() -> None:
                if kind == "value":
                    await cache.get_or_compute("k", origin.load, options=STALE)
                elif kind.startswith("item"):
                    await client.post(EMBEDDINGS, json={"model": "m", "input": "a" if kind == "item" else ["a", "b"]})
                else:
                    await client.get("/")

            async def request() -> weakref.ref[Session]:
                session = Session()
                SESSION.set(session)
                with TRACER.start_as_current_span("request"):
                    await ask()
                return weakref.ref(session)

            await ask()
            clock.advance(12)
            session = await asyncio.create_task(request())
            await eventually(lambda: origin.asked == 2)
            for _ in range(3):  # the loop lets go of what it has called back
                await asyncio.sleep(0)
            gc.collect()
            assert session() is None
            origin.go_on.set()
            await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))


async def test_so_it_is_when_a_load_that_had_a_lease_has_ended(redis_url: str) -> None:
    """The timer by which the lease would have been renewed is in the loop until its time comes."""

    async def request() -> weakref.ref[Session]:
        session = Session()
        SESSION.set(session)
        await cache.get_or_compute("k", Origin().load)
        return weakref.ref(session)

    async with opened(configuration(redis_url=redis_url, timeout=PATIENT, lease=300)) as cache:
        await cache.get("warm")  # a connection keeps the context in which it is opened
        session = await asyncio.create_task(request())
        await eventually(lambda: is_settled(cache))
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        assert session() is None


def embeddings(origin: Origin) -> Callable[[httpx2.Request], httpx2.Response]:
    """Returns a model that makes embeddings."""

    def respond(request: httpx2.Request) -> httpx2.Response:
        with TRACER.start_as_current_span("query"):
            origin.seen.append((USER.get(), baggage.get_baggage("user")))
            if origin.fails:
                raise httpx2.ConnectError("secret")
            asked = httpx2.Response(200, content=request.content).json()["input"]
            data = [
                {"object": "embedding", "index": index, "embedding": [0.1]}
                for index, _ in enumerate([asked] if isinstance(asked, str) else asked)
            ]
            usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
            return httpx2.Response(200, json={"object": "list", "data": data, "model": "m", "usage": usage})

    return respond


EMBEDDINGS = "http://model.example/v1/embeddings"


@pytest.mark.parametrize("fails", [False, True])
async def test_items_are_refreshed_together_in_one_trace(spans: Spans, fails: bool) -> None:
    clock, origin = ManualClock(), Origin()
    async with opened(clock=clock) as cache:
        inner = httpx2.MockTransport(embeddings(origin))
        transport = AsyncCacheTransport(inner, cache=cache, ttl=10, stale_while_revalidate=1000)
        async with httpx2.AsyncClient(transport=transport) as client:
            body = {"model": "m", "input": ["a", "b"]}
            await client.post(EMBEDDINGS, json=body)
            clock.advance(12)
            origin.fails = fails
            with request_of("ada") as request:
                await client.post(EMBEDDINGS, json=body)
            await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
    revalidate = check(spans, cache.config.name, request.get_span_context())
    assert revalidate.status.status_code is (StatusCode.ERROR if fails else StatusCode.UNSET)
    assert origin.seen[-1] == ("nobody", None)


def test_items_are_refreshed_in_one_trace_by_a_client_that_blocks(spans: Spans) -> None:
    clock, origin = ManualClock(), Origin()
    cache = CacheManager(configuration(), clock=clock)
    inner = httpx2.MockTransport(embeddings(origin))
    transport = CacheTransport(inner, cache=cache, ttl=10, stale_while_revalidate=1000)
    with httpx2.Client(transport=transport) as client:
        body = {"model": "m", "input": ["a", "b"]}
        client.post(EMBEDDINGS, json=body)
        clock.advance(12)
        with request_of("ada") as request:
            client.post(EMBEDDINGS, json=body)
        eventually_blocking(lambda: spans.named(f"revalidate {cache.config.name}"))
    check(spans, cache.config.name, request.get_span_context())
    assert origin.seen[-1] == ("nobody", None)
    asyncio.run(cache.aclose())


# --- other work in the background


def test_what_its_event_loop_has_dropped_ends_without_a_word_of_opentelemetry(tmp_path: Any) -> None:
    """Such a task ends wherever the garbage collector comes, and its context is not there."""
    printed = run_script(
        """
        import asyncio, gc, io, logging, sys
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from aurelis.cache import CacheConfig, CacheManager, WriteBehind

        class Table:
            async def get(self, key):
                await asyncio.Event().wait()

            async def set(self, key, value):
                begun.set()
                await asyncio.Event().wait()

        async def main():
            cache = CacheManager(CacheConfig())
            behind = WriteBehind(cache, Table(), batch_size=1, journal=sys.argv[1])
            await behind.set("a", 1)
            await begun.wait()
            tasks.append(asyncio.ensure_future(cache.get_or_compute("k", load)))
            await asyncio.sleep(0.1)

        async def load():
            await asyncio.Event().wait()

        log = io.StringIO()
        logging.basicConfig(stream=log)
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
        loop = asyncio.new_event_loop()
        begun, tasks = asyncio.Event(), []
        loop.run_until_complete(main())
        loop.close()
        del loop
        tasks.clear()
        gc.collect()
        print("destroyed" in log.getvalue(), "opentelemetry" in log.getvalue())
        """,
        str(tmp_path),
        PYTHONWARNINGS="ignore",
    )
    assert printed == "True False\n"


class Table:
    """A data store that fails as long as it is told to."""

    def __init__(self) -> None:
        self.rows: dict[str, object] = {}
        self.fails = False

    async def get(self, key: str) -> object:
        return self.rows.get(key)

    async def set(self, key: str, value: object) -> None:
        with TRACER.start_as_current_span("insert"):
            if self.fails:
                raise ConnectionError("secret")
            self.rows[key] = value


async def test_what_is_written_behind_is_a_trace_for_each_batch(spans: Spans, tmp_path: Any) -> None:
    table = Table()
    async with opened(configuration(cache_dir=None)) as cache:
        behind = WriteBehind(cache, table, name="orders", batch_size=2, flush_interval=0.05, journal=tmp_path)
        async with behind:
            with request_of("ada"):
                await behind.set("a", 1)
                await behind.set("b", 2)
            assert await behind.flush(PATIENT)
            table.fails = True
            await behind.set("c", 3)
            await eventually(lambda: any(not span.status.is_ok for span in spans.named(f"write {cache.config.name}")))
            table.fails = False
            assert await behind.flush(PATIENT)
    writes = spans.named(f"write {cache.config.name}")
    assert all(write.parent is None and not write.links for write in writes)
    first = writes[0].attributes or {}
    failed = next(write for write in writes if not write.status.is_ok).attributes or {}
    assert first[names.JOURNAL] == "orders"
    assert sum(int(str((write.attributes or {})[names.WRITES])) for write in writes if write.status.is_ok) == 3
    assert failed[names.ERROR_TYPE] == "ConnectionError"
    inserts = spans.named("insert")
    assert {insert.parent.span_id for insert in inserts if insert.parent} == {of(write).span_id for write in writes}


async def test_what_redis_is_told_later_is_told_in_traces_of_their_own(spans: Spans, own_redis: ServerProcess) -> None:
    config = configuration(redis_url=own_redis.url, timeout=0.3, breaker_pause=0.1)
    async with opened(config) as cache:
        await cache.set("k", 1)
        own_redis.stop()
        with request_of("ada"), contextlib.suppress(Exception):
            await cache.delete("k")
        await eventually(lambda: spans.named(f"recover {config.name}"))
        own_redis.start()
        await eventually(lambda: not cache._engine.stack.recovery or not cache._engine.stack.recovery.pending)
        await eventually(lambda: spans.named(f"recover {config.name}")[-1].status.is_ok)
    first, *others = spans.named(f"recover {config.name}")
    assert all(span.parent is None for span in (first, *others))
    assert first.status.status_code is StatusCode.ERROR
    assert "Error" in str((first.attributes or {})[names.ERROR_TYPE])


async def test_a_comparison_of_answers_is_a_trace_of_its_own(spans: Spans) -> None:
    def judge(known: Answer, own: Answer) -> bool:
        with TRACER.start_as_current_span("judge"):
            return True

    async def ask() -> Answer:
        return PARIS

    async with opened(kept()) as cache, SimilarityCache(cache, mode="shadow", judge=judge) as similar:
        await ModelResponseCache(cache).cache_response("m", ASKED, {}, PARIS)
        with request_of("ada"):
            await similar.get_or_compute("m", REASKED, {}, ask)
        await similar.settle()
        (compare,) = spans.named(f"compare {cache.config.name}")
    (request,) = spans.named("request")
    assert compare.parent is None
    assert [of(span).trace_id for span in spans.named(f"get {cache.config.name}")] == [of(request).trace_id]
    assert [link.context.trace_id for link in compare.links] == [of(request).trace_id]
    (judged,) = spans.named("judge")
    assert judged.parent == of(compare)
