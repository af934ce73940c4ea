"""What the library says in the log belongs to the trace on whose behalf it says so, and tells nothing secret."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan
from redis.asyncio import Redis

from aurelis.cache import (
    CacheManager,
    DiskBackend,
    EntryOptions,
    FileCacheManager,
    ModelResponseCache,
    SimilarityCache,
    WriteBehind,
)
from aurelis.cache._trouble import Incidents, Trouble
from aurelis.cache.exceptions import LayerError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport
from tests.managers import configuration, count, eventually, eventually_blocking, opened
from tests.servers import ServerProcess
from tests.similarity.test_cache import ASKED, PARIS, REASKED, Answer, kept
from tests.telemetry.collecting import Spans, record_spans

PATIENT = 10.0
SECRET = "hunter2"
TRACER = trace.get_tracer("test")
URL = f"http://example.com/{SECRET}?token={SECRET}"
STALE = EntryOptions(ttl=10, stale_while_revalidate=100, stale_if_error=1000)


@pytest.fixture(scope="module")
def recorder() -> Spans:
    """Records all spans of the process."""
    return record_spans()


@pytest.fixture
def spans(recorder: Spans) -> Spans:
    """The spans of this test."""
    recorder.clear()
    return recorder


class Log:
    """What OpenTelemetry has been told of the log."""

    def __init__(self) -> None:
        self.exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # it says nothing of types
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        self.handler = LoggingHandler(logger_provider=provider)

    def with_text(self, text: str) -> list[ReadableLogRecord]:
        """Returns the records that say this, among others."""
        return [record for record in self.exporter.get_finished_logs() if text in str(record.log_record.body)]


@pytest.fixture
def log() -> Iterator[Log]:
    """The log of the library during this test, in which there must be no secret."""
    log, logger = Log(), logging.getLogger("aurelis.cache")
    logger.addHandler(log.handler)
    try:
        yield log
    finally:
        logger.removeHandler(log.handler)
    for record in log.exporter.get_finished_logs():
        assert SECRET not in record.to_json()


def is_of(record: ReadableLogRecord, span: ReadableSpan) -> bool:
    """Returns whether a record was written while a span was current."""
    assert span.context is not None
    found = record.log_record
    return (found.trace_id, found.span_id) == (span.context.trace_id, span.context.span_id)


async def fail() -> str:
    raise ConnectionError(SECRET)


async def value() -> str:
    return "value"


# --- on behalf of a request


async def test_a_layer_that_fails_is_told_of_in_the_span_of_the_request(spans: Spans, log: Log) -> None:
    async with opened(configuration(redis_url="redis://127.0.0.1:1/0", timeout=0.2)) as cache:
        with TRACER.start_as_current_span("request"):
            await cache.get(SECRET)
    (get,) = spans.named(f"get {cache.config.name}")
    (told,) = log.with_text("the layer l2 fails")
    assert is_of(told, get)


def test_so_it_is_for_a_client_that_blocks(spans: Spans, log: Log) -> None:
    """What waits for Redis runs in another thread."""
    cache = CacheManager(configuration(redis_url="redis://127.0.0.1:1/0", timeout=0.2))
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"cache-control": "max-age=60"}))
    with httpx2.Client(transport=CacheTransport(inner, cache=cache)) as client, TRACER.start_as_current_span("request"):
        client.get(URL, headers={"authorization": SECRET})
    (get,) = spans.named(f"get {cache.config.name}")
    (told,) = log.with_text("the layer l2 fails")
    assert is_of(told, get)
    asyncio.run(cache.aclose())


async def test_what_stands_in_for_a_failed_load_is_told_of(spans: Spans, log: Log) -> None:
    clock = ManualClock()
    async with opened(clock=clock) as cache:
        await cache.get_or_compute(SECRET, value, options=STALE)
        clock.advance(500)
        with TRACER.start_as_current_span("request"):
            assert await cache.get_or_compute(SECRET, fail, options=STALE) == "value"
        (told,) = log.with_text("a load failed, and what is stale stands in (ConnectionError)")
        assert is_of(told, spans.named(f"get {cache.config.name}")[-1])


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("raises", [False, True])
def test_so_it_is_of_a_response(spans: Spans, log: Log, blocking: bool, raises: bool) -> None:
    clock, failing = ManualClock(), False

    def origin(request: httpx2.Request) -> httpx2.Response:
        if failing and raises:
            raise httpx2.ConnectError(SECRET)
        fields = {"cache-control": "max-age=10, stale-if-error=1000"}
        return httpx2.Response(503 if failing else 200, headers=fields, content=SECRET.encode())

    async def ask() -> None:
        async with httpx2.AsyncClient(transport=AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)) as one:
            with TRACER.start_as_current_span("request"):
                assert (await one.get(URL)).status_code == 200

    def ask_blocking() -> None:
        client = httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache))
        with client as one, TRACER.start_as_current_span("request"):
            assert one.get(URL).status_code == 200

    cache = CacheManager(configuration(), clock=clock)
    ask_blocking() if blocking else asyncio.run(ask())
    clock.advance(20)
    failing = True
    ask_blocking() if blocking else asyncio.run(ask())
    (told,) = log.with_text(f"what is stale stands in ({'ConnectError' if raises else 'status 503'})")
    within = f"fill {cache.config.name}" if blocking or not raises else f"get {cache.config.name}"
    assert is_of(told, spans.named(within)[-1])
    asyncio.run(cache.aclose())


async def test_what_a_caller_hears_of_is_not_told_of(log: Log) -> None:
    def origin(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError(SECRET)

    async with opened() as cache:
        with pytest.raises(ConnectionError):
            await cache.get_or_compute(SECRET, fail)
        async with httpx2.AsyncClient(transport=AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)) as one:
            with pytest.raises(httpx2.ConnectError):
                await one.get(URL)
            with pytest.raises(httpx2.ConnectError):
                await one.post("http://model.example/v1/embeddings", json={"model": "m", "input": ["a", "b"]})
        client = httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache))
        with client, pytest.raises(httpx2.ConnectError):
            client.get(URL)
    assert not log.exporter.get_finished_logs()


async def test_a_value_that_cannot_be_stored_is_told_of(spans: Spans, log: Log) -> None:
    async def load() -> object:
        return object()

    async with opened() as cache:
        with TRACER.start_as_current_span("request"):
            await cache.get_or_compute(SECRET, load)
        (told,) = log.with_text("a loaded value is not cached")
        assert is_of(told, spans.named(f"get {cache.config.name}")[-1])


async def test_damaged_entries_are_told_of_once(spans: Spans, log: Log, redis_url: str) -> None:
    keys = [f"{SECRET}:{number}" for number in range(5)]
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT)) as first:
        await first.set_many(dict.fromkeys(keys, SECRET))
    async with Redis.from_url(redis_url) as redis:
        for name in await redis.keys("*hunter2*"):
            await redis.set(name, b"damaged", px=60_000)
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT)) as cache:
        with TRACER.start_as_current_span("request"):
            for key in keys:
                assert await cache.get(key) is None
        (told,) = log.with_text("something failed, and is done without (l2, get: frame_")
        assert is_of(told, spans.named(f"get {cache.config.name}")[0])
        assert count(cache, names.ERRORS) == 5


def test_a_damaged_file_is_told_of_by_the_thread_that_opens_it(spans: Spans, log: Log, tmp_path: Path) -> None:
    async def use() -> None:
        disk = DiskBackend(tmp_path, timeout=PATIENT)
        await disk.set("k", 1)
        await disk.aclose()

    asyncio.run(use())
    (path,) = tmp_path.glob("*.sqlite3")
    path.write_bytes(b"no database" * 1000)
    with TRACER.start_as_current_span("request"):
        asyncio.run(use())
    (told,) = log.with_text("cannot be used")
    assert is_of(told, spans.named("request")[0])


def test_so_it_is_of_a_copy_of_a_file(spans: Spans, log: Log, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    files = FileCacheManager(tmp_path / "files")
    key = asyncio.run(files.cache_file(source))
    path = asyncio.run(files.get_cached_file(key))
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    with TRACER.start_as_current_span("request"):
        assert asyncio.run(files.open_cached_file(key)) is None
    (told,) = log.with_text("a kept file was damaged")
    assert is_of(told, spans.named("request")[0])


# --- in the background


async def test_a_refresh_that_fails_is_told_of_in_its_own_span(spans: Spans, log: Log) -> None:
    clock = ManualClock()
    options = EntryOptions(ttl=10, stale_while_revalidate=100)
    async with opened(clock=clock) as cache:
        await cache.get_or_compute(SECRET, value, options=options)
        clock.advance(20)
        for _ in range(3):
            with TRACER.start_as_current_span("request"):
                await cache.get_or_compute(SECRET, fail, options=options)
            await eventually(lambda: not cache._engine.flights._tasks)
    revalidate = spans.named(f"revalidate {cache.config.name}")[0]
    told = log.with_text("(ConnectionError)")
    assert len(told) == 1
    assert is_of(told[0], revalidate)


@pytest.mark.parametrize("blocking", [False, True])
def test_so_it_is_of_responses(spans: Spans, log: Log, blocking: bool) -> None:
    clock, failing = ManualClock(), False

    def origin(request: httpx2.Request) -> httpx2.Response:
        if failing:
            raise httpx2.ConnectError(SECRET)
        return httpx2.Response(200, headers={"cache-control": "max-age=10, stale-while-revalidate=100"})

    async def ask() -> None:
        async with httpx2.AsyncClient(transport=AsyncCacheTransport(httpx2.MockTransport(origin), cache=cache)) as one:
            await one.get(URL)
            await eventually(lambda: not cache._engine.flights._tasks)

    cache = CacheManager(configuration(), clock=clock)
    name = cache.config.name
    with httpx2.Client(transport=CacheTransport(httpx2.MockTransport(origin), cache=cache)) as client:
        client.get(URL)
        clock.advance(20)
        failing = True
        client.get(URL) if blocking else asyncio.run(ask())
        eventually_blocking(lambda: spans.named(f"revalidate {name}"))
    (told,) = log.with_text("(ConnectError)")
    (revalidate,) = spans.named(f"revalidate {name}")
    assert is_of(told, spans.named(f"fill {name}")[-1] if blocking else revalidate)
    asyncio.run(cache.aclose())


async def test_so_it_is_of_an_app_behind_the_middleware(spans: Spans, log: Log) -> None:
    clock, failing = ManualClock(), False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if failing:
            raise RuntimeError(SECRET)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"body"})

    rule = CacheRule("/*", ttl=10, stale_while_revalidate=1000)
    async with opened(clock=clock) as cache:
        transport = httpx2.ASGITransport(CacheMiddleware(app, cache=cache, rules=[rule]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://example.com") as client:
            await client.get(f"/{SECRET}")
            clock.advance(20)
            failing = True
            await client.get(f"/{SECRET}")
            await eventually(lambda: spans.named(f"revalidate {cache.config.name}"))
    (told,) = log.with_text("(RuntimeError)")
    assert is_of(told, spans.named(f"revalidate {cache.config.name}")[0])


async def test_a_data_store_that_fails_is_told_of_in_the_span_of_the_batch(
    spans: Spans, log: Log, tmp_path: Path
) -> None:
    class Table:
        async def get(self, key: str) -> object:
            return None

        async def set(self, key: str, value: object) -> None:
            raise ConnectionError(SECRET)

    async with opened() as cache:
        behind = WriteBehind(cache, Table(), batch_size=1, max_attempts=1, journal=tmp_path)
        async with behind:
            with TRACER.start_as_current_span("request"):
                await behind.set(SECRET, SECRET)
            assert await behind.flush(PATIENT)
    (write,) = spans.named(f"write {cache.config.name}")
    (failing,) = log.with_text("the data store of a write-behind fails (ConnectionError)")
    (dead,) = log.with_text("1 writes are dead letters now (ConnectionError)")
    assert is_of(failing, write)
    assert is_of(dead, write)


async def test_a_judge_that_fails_is_told_of_in_the_span_of_the_comparison(spans: Spans, log: Log) -> None:
    def judge(known: Answer, own: Answer) -> bool:
        raise ValueError(SECRET)

    async def ask() -> Answer:
        return PARIS

    async with opened(kept()) as cache, SimilarityCache(cache, mode="shadow", judge=judge) as similar:
        await ModelResponseCache(cache).cache_response("m", ASKED, {}, PARIS)
        with TRACER.start_as_current_span("request"):
            await similar.get_or_compute("m", REASKED, {}, ask)
        await similar.settle()
        (compare,) = spans.named(f"compare {cache.config.name}")
    (told,) = log.with_text("(similarity, judge: ValueError)")
    assert is_of(told, compare)


async def test_what_listens_for_ever_is_part_of_no_request(spans: Spans, log: Log, own_redis: ServerProcess) -> None:
    """Although a request has begun it."""
    config = configuration(redis_url=own_redis.url, timeout=PATIENT, heartbeat=0.2)
    async with opened(config) as cache:
        with TRACER.start_as_current_span("request"):
            await cache.get("k")
        own_redis.stop()
        await eventually(lambda: log.with_text("listening for changes"))
    for told in log.with_text("listening for changes"):
        assert told.log_record.trace_id == 0


async def test_so_it_is_of_what_listens_to_the_disk_in_a_thread(spans: Spans, log: Log, tmp_path: Path) -> None:
    config = configuration(cache_dir=tmp_path, timeout=PATIENT, heartbeat=0.2)
    cache = CacheManager(config)
    seen: list[trace.SpanContext] = []
    newsroom: Any = cache._engine.listening and cache._engine.listening._newsroom
    beat = newsroom.beat

    async def beating() -> None:
        seen.append(trace.get_current_span().get_span_context())
        await beat()

    newsroom.beat = beating
    with TRACER.start_as_current_span("request"):
        await cache.get("k")
    await eventually(lambda: seen)
    assert not seen[0].is_valid
    await cache.aclose()


# --- how often


def test_an_incident_is_told_once_a_minute_with_how_often_it_came(caplog: pytest.LogCaptureFixture) -> None:
    incidents = Incidents("something failed")
    for second in range(150):
        incidents.met("ValueError", float(second))
        incidents.met("KeyError", float(second))
    told = [record.getMessage() for record in caplog.records if "ValueError" in record.getMessage()]
    assert told == [
        "something failed (ValueError)",
        "something failed (ValueError), also 59 times before that were not told",
        "something failed (ValueError), also 59 times before that were not told",
    ]
    assert len(caplog.records) == 6


def test_causes_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    incidents = Incidents("something failed")
    for number in range(1000):
        incidents.met(f"Error{number}", 0.0)
    assert len(incidents._told) <= 101
    assert len(caplog.records) == 101
    incidents.met("Error0", 59.0)
    assert len(caplog.records) == 101
    incidents.met("Error5000", 61.0)
    assert caplog.records[-1].getMessage() == "something failed (Error5000)"
    assert len(incidents._told) <= 101


def test_causes_that_come_round_and_round_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    incidents = Incidents("something failed")
    for second in range(50):
        for number in range(150):
            incidents.met(f"Error{number}", float(second))
    assert len(caplog.records) == 101
    assert sum("(others)" in record.getMessage() for record in caplog.records) == 1


def test_so_are_those_of_what_fails_for_some_time(caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble("it", "never mind")
    for second in range(50):
        for number in range(150):
            trouble.met(f"Error{number}", float(second))
    assert len(caplog.records) == 101
    assert len(trouble._told) == 101
    trouble.over(50.0)
    trouble.met("Error149", 51.0)
    assert caplog.records[-1].getMessage() == "it works again"
    trouble.over(200.0)
    assert not trouble._told
    trouble.met("Error149", 201.0)
    assert caplog.records[-1].getMessage() == "it fails (Error149): never mind"


MADE = type(f"no such user: {SECRET}", (Exception,), {})
"""A type that was made at run time, and is called what must not be told."""


async def test_nor_is_that_of_what_a_data_store_raises(spans: Spans, log: Log, tmp_path: Path) -> None:
    class Table:
        async def get(self, key: str) -> object:
            return None

        async def set(self, key: str, value: object) -> None:
            raise MADE

    async with opened() as cache:
        behind = WriteBehind(cache, Table(), batch_size=1, max_attempts=1, journal=tmp_path)
        async with behind:
            await behind.set("k", 1)
            assert await behind.flush(PATIENT)
        assert count(cache, names.ERRORS, {names.ERROR_TYPE: "_OTHER"}) == 1
    (write,) = spans.named(f"write {cache.config.name}")
    assert (write.attributes or {})[names.ERROR_TYPE] == "_OTHER"
    assert log.with_text("the data store of a write-behind fails (_OTHER)")
    assert log.with_text("1 writes are dead letters now (_OTHER)")


async def test_nor_is_that_of_what_a_journal_raises(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Table:
        async def get(self, key: str) -> object:
            return None

        async def set(self, key: str, value: object) -> None:
            raise AssertionError("nothing is accepted")

    async def fail(*arguments: Any) -> None:
        raise MADE

    async with opened() as cache, WriteBehind(cache, Table(), journal=tmp_path) as behind:
        with monkeypatch.context() as patch:
            patch.setattr(behind._journal, "append", fail)
            with pytest.raises(LayerError):
                await behind.set("k", 1)
    assert log.with_text("(_OTHER)")


async def test_nor_is_that_of_what_listening_raises(log: Log, own_redis: ServerProcess) -> None:
    async with opened(configuration(redis_url=own_redis.url, timeout=PATIENT, heartbeat=0.2)) as cache:
        newsroom: Any = cache._engine.listening and cache._engine.listening._newsroom

        async def news() -> AsyncIterator[None]:
            if newsroom is not None:
                raise MADE
            yield

        newsroom.news = news
        await cache.get("k")
        await eventually(lambda: log.with_text("listening for changes of other processes fails (_OTHER)"))


async def test_a_type_that_was_made_at_run_time_may_have_any_name_and_is_not_told(spans: Spans, log: Log) -> None:
    made = type(f"no such user: {SECRET}", (Exception,), {})

    async def load() -> str:
        raise made

    clock = ManualClock()
    async with opened(clock=clock) as cache:
        await cache.get_or_compute("k", value, options=STALE)
        clock.advance(500)
        await cache.get_or_compute("k", load, options=STALE)
        (fill,) = spans.named(f"fill {cache.config.name}")[1:]
    assert (fill.attributes or {})[names.ERROR_TYPE] == "_OTHER"
    assert log.with_text("what is stale stands in (_OTHER)")
