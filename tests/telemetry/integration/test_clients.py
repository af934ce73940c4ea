"""OpenTelemetry's instrumentations of httpx and httpx2: one span and one duration for each call that is really made."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.trace import SpanKind

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock
from tests.client.stack import KINDS, Stack, closing
from tests.client.upstream import Gate, Reply, Upstream
from tests.managers import eventually, is_settled
from tests.telemetry.integration.seen import Seen

FRESH = [("cache-control", "max-age=60, stale-while-revalidate=60"), ("etag", '"a"')]
INSTRUMENTORS: dict[str, Any] = {"httpx": HTTPXClientInstrumentor, "httpx2": HTTPX2ClientInstrumentor}
DURATIONS = ("http.client.duration", "http.client.request.duration")


@pytest.fixture(params=KINDS)
async def stack(request: pytest.FixtureRequest, manager: CacheManager) -> AsyncIterator[Stack]:
    """Each library, with and without an event loop."""
    async with closing(Stack(request.param, manager)) as stack:
        yield stack


@pytest.fixture
def instrumented(stack: Stack, seen: Seen) -> Iterator[Stack]:
    """The stack, whose library is instrumented as by `opentelemetry-instrument`."""
    instrumentor = INSTRUMENTORS[stack.library_name]()
    instrumentor.instrument(tracer_provider=seen.tracers, meter_provider=seen.meters)
    yield stack
    instrumentor.uninstrument()


def durations(seen: Seen) -> int:
    """Calls that the metrics of clients tell of."""
    metrics = seen.metrics()
    assert len([name for name in DURATIONS if name in metrics]) <= 1
    return sum(point.count for name in DURATIONS for point in metrics.get(name, []))


async def test_a_hit_is_no_call_and_a_miss_is_one_within_our_span(
    instrumented: Stack, seen: Seen, upstream: Upstream, clock: ManualClock, manager: CacheManager
) -> None:
    """Misses, hits, confirmations, refreshes in the background, and what the cache has nothing to do with."""
    upstream.answer = lambda asked: Reply(304 if "if-none-match" in asked.headers else 200, FRESH, [b"body"])
    name = manager.config.name

    async def calls(request: Any, words: str) -> None:
        answer = await request
        assert words in answer.cache_status, answer.cache_status
        await eventually(lambda: is_settled(manager))
        made = seen.spans(SpanKind.CLIENT)
        assert [seen.lineage(span) for span in made] == ([] if words == "hit" else [[f"fill {name}", f"get {name}"]])
        seen.exporter.clear()

    await calls(instrumented.get(f"{upstream.url}/a"), "fwd=uri-miss")
    await calls(instrumented.get(f"{upstream.url}/a"), "hit")
    await calls(instrumented.get(f"{upstream.url}/a", headers={"cache-control": "no-cache"}), "fwd=request")
    clock.advance(70)
    assert "hit; ttl=-10" in (await instrumented.get(f"{upstream.url}/a")).cache_status
    await eventually(lambda: is_settled(manager))
    (refresh,) = seen.spans(SpanKind.CLIENT)
    assert seen.lineage(refresh)[0].endswith(f" {name}")
    seen.exporter.clear()
    await instrumented.send("POST", f"{upstream.url}/a")
    assert len(seen.take(SpanKind.CLIENT)) == 1
    assert durations(seen) == upstream.calls == 4


async def test_those_who_share_a_load_share_its_span(
    instrumented: Stack, seen: Seen, upstream: Upstream, manager: CacheManager
) -> None:
    gate = Gate()
    upstream.answer = lambda asked: Reply(200, FRESH, [gate, b"body"])
    crowd = [asyncio.create_task(instrumented.get(f"{upstream.url}/a")) for _ in range(5)]
    await eventually(lambda: upstream.calls == 1 and manager._engine.flights.waiting >= 4)
    gate.open()
    answers = await asyncio.gather(*crowd)
    assert sum("collapsed" in answer.cache_status for answer in answers) == 4
    (call,) = seen.spans(SpanKind.CLIENT)
    assert seen.lineage(call) == [f"fill {manager.config.name}", f"get {manager.config.name}"]
    assert durations(seen) == 1


async def test_a_call_of_a_model_that_is_streamed(instrumented: Stack, seen: Seen, upstream: Upstream) -> None:
    sdk = instrumented.sdk(upstream.url)
    first = await instrumented.ask(sdk, stream=True)
    again = await instrumented.ask(sdk, stream=True)
    assert first == again
    assert len(seen.take(SpanKind.CLIENT)) == durations(seen) == upstream.calls == 1


@pytest.mark.parametrize("wrapped_last", [True, False])
async def test_of_a_single_client_the_order_says_whether_hits_are_calls(
    stack: Stack, seen: Seen, upstream: Upstream, wrapped_last: bool
) -> None:
    """`instrument_client` measures whatever the client stands on when it is called: the network, or the cache."""
    upstream.answer = lambda asked: Reply(200, FRESH, [b"body"])
    client = stack.keep(stack.maker(transport=stack.network(), timeout=10))
    instrument = INSTRUMENTORS[stack.library_name].instrument_client
    if wrapped_last:
        instrument(client, tracer_provider=seen.tracers, meter_provider=seen.meters)
    stack.package.wrap(client, cache=stack.manager)
    if not wrapped_last:
        instrument(client, tracer_provider=seen.tracers, meter_provider=seen.meters)
    for _ in range(3):
        await stack.get(f"{upstream.url}/a", client=client)
    calls = seen.spans(SpanKind.CLIENT)
    assert upstream.calls == 1
    assert len(calls) == durations(seen) == (1 if wrapped_last else 3)
    name = stack.manager.config.name
    if wrapped_last:
        assert seen.lineage(calls[0]) == [f"fill {name}", f"get {name}"]
    else:
        (fill,) = [span for span in seen.spans() if span.name == f"fill {name}"]
        assert seen.lineage(fill) == [f"get {name}", calls[0].name]
