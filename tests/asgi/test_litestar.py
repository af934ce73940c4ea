"""An app of another framework than Starlette: Litestar, which has a router, responses and exceptions of its own."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from litestar import Litestar, MediaType, Response, get, post
from litestar.config.compression import CompressionConfig
from litestar.exceptions import NotFoundException
from litestar.middleware import DefineMiddleware
from litestar.params import FromPath
from litestar.response import ServerSentEvent, Stream
from starlette.types import ASGIApp

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from tests.asgi.sockets import connected, fetch, served
from tests.asgi.visits import ask

FRESH = {"cache-control": "max-age=60"}
RULES = [CacheRule("/items/*", ttl=60, tags=["items"])]


class Shop:
    """The app, and how often its routes were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gate = asyncio.Event()

        @get("/items/{item:int}")
        async def read(item: FromPath[int]) -> dict[str, int]:
            self.calls.append(f"item {item}")
            if item == 404:
                raise NotFoundException("no such item")
            if item == 500:
                raise RuntimeError("out of order")
            return {"item": item}

        @post("/items/{item:int}")
        async def change(item: FromPath[int]) -> dict[str, int]:
            self.calls.append(f"change {item}")
            return {"item": item}

        @get("/stream")
        async def stream() -> Stream:
            self.calls.append("stream")

            async def body() -> AsyncIterator[str]:
                yield "one"
                await self.gate.wait()
                yield "two"

            return Stream(body(), headers=FRESH, media_type=MediaType.TEXT)

        @get("/events")
        async def events() -> ServerSentEvent:
            self.calls.append("events")

            async def body() -> AsyncIterator[str]:
                yield "one"
                await self.gate.wait()
                yield "two"

            return ServerSentEvent(body())

        @get("/large")
        async def large() -> Response[str]:
            self.calls.append("large")
            return Response("x" * 5000, headers=FRESH, media_type=MediaType.TEXT)

        self.routes = [read, change, stream, events, large]


@pytest.fixture
def shop() -> Shop:
    """The app's routes."""
    return Shop()


def cached(shop: Shop, manager: CacheManager, *, inside: bool) -> ASGIApp:
    """The cache around the app, or among its own middleware."""
    # `cast`: Litestar has types of its own for the same messages.
    if not inside:
        return CacheMiddleware(cast("ASGIApp", Litestar(shop.routes, logging_config=None)), cache=manager, rules=RULES)
    own = DefineMiddleware(cast("Any", CacheMiddleware), cache=manager, rules=RULES)
    return cast("ASGIApp", Litestar(shop.routes, middleware=[own], logging_config=None))


either = pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])


@either
async def test_hits_and_changes(manager: CacheManager, clock: ManualClock, shop: Shop, inside: bool) -> None:
    app = cached(shop, manager, inside=inside)
    for expected in ("fwd=uri-miss; fwd-status=200; ttl=60; stored", "hit; ttl=60"):
        visit = await ask(app, "/items/7")
        assert (visit.status, visit.body, visit.cache_status) == (200, b'{"item":7}', f"default; {expected}")
        assert visit.field("content-type") == "application/json"
    if not inside:  # its router knows no HEAD, and comes first
        assert (await ask(app, "/items/7", "HEAD")).cache_status == "default; hit; ttl=60"
    assert (await ask(app, "/items/7", "POST")).status == 201
    await ask(app, "/items/7")
    await manager.invalidate_tags("items")
    await ask(app, "/items/7")
    clock.advance(61)
    await ask(app, "/items/7")
    assert shop.calls == ["item 7", "change 7", "item 7", "item 7", "item 7"]


@either
async def test_errors(manager: CacheManager, shop: Shop, inside: bool) -> None:
    """What it makes of exceptions are responses: what is missing is kept for a moment, failures never."""
    app = cached(shop, manager, inside=inside)
    for _ in range(2):
        assert (await ask(app, "/items/404")).status == 404
        assert (await ask(app, "/items/500")).status == 500
        assert (await ask(app, "/items/word")).status == 404
    assert shop.calls == ["item 404", "item 500", "item 500"]
    assert (await ask(app, "/nothing")).status == 404


@either
async def test_a_stream_is_live_and_shared_and_kept(manager: CacheManager, shop: Shop, inside: bool) -> None:
    async with served(cached(shop, manager, inside=inside)) as port:
        async with connected(port) as one, connected(port) as other:
            for client in (one, other):
                await client.send("/stream")
                await client.read_head()
                assert await client.read_chunk() == b"one"
            shop.gate.set()
            for client in (one, other):
                assert [await client.read_chunk() for _ in range(2)] == [b"two", b""]
        hit = await fetch(port, "/stream")
    assert (hit.body, hit.cache_status, shop.calls) == (b"onetwo", "default; hit; ttl=60", ["stream"])


@either
async def test_events_pass_live_to_each(manager: CacheManager, shop: Shop, inside: bool) -> None:
    async with (
        served(cached(shop, manager, inside=inside)) as port,
        connected(port) as one,
        connected(port) as other,
    ):
        for client in (one, other):
            await client.send("/events")
            _, head = await client.read_head()
            assert head["cache-status"] == "default; fwd=uri-miss; fwd-status=200"
            assert b"data: one" in await client.read_chunk()
        shop.gate.set()
        for client in (one, other):
            assert b"data: two" in await client.read_chunk()
    assert shop.calls == ["events", "events"]


async def test_nobody_gets_a_packed_response_who_cannot_read_it(manager: CacheManager, shop: Shop) -> None:
    """Its compression, inside of the cache, says `Vary` on the responses alone that it has packed."""
    inner = Litestar(shop.routes, logging_config=None, compression_config=CompressionConfig(backend="gzip"))
    app = CacheMiddleware(cast("ASGIApp", inner), cache=manager)
    packed = [await ask(app, "/large", "GET", {"accept-encoding": "gzip"}) for _ in range(2)]
    assert [gzip.decompress(visit.body) for visit in packed] == [b"x" * 5000] * 2
    for fields in ({}, {}, {"accept-encoding": "gzip"}):
        plain = await ask(app, "/large", "GET", fields)
        assert (plain.body, plain.field("content-encoding")) == (b"x" * 5000, None)
    assert shop.calls == ["large", "large"]
