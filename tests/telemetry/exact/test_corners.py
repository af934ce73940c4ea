"""Counts where few look: callers that leave at odd moments, values of which some are kept, and what goes unasked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from aurelis.cache import CacheManager, cache_options, cached
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock, SharedMemory
from aurelis.cache.typing import Entry
from aurelis_asgi import CacheMiddleware
from aurelis_httpx2 import AsyncCacheTransport, CacheTransport
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import ask
from tests.broken_layers import Plain
from tests.managers import WITHIN, configuration, count, eventually, is_settled, opened, requests, series
from tests.models.wire import ANTHROPIC


def stores(manager: CacheManager) -> dict[str, int]:
    """Returns the decisions whether to keep something, by result."""
    return {dict(key)[names.STORE_RESULT]: int(number) for key, number in series(manager, names.STORES).items()}


def lookups(manager: CacheManager, layer: str = names.L1) -> dict[str, int]:
    """Returns the lookups in a layer by result."""
    return {
        found[names.RESULT]: int(number)
        for key, number in series(manager, names.LOOKUPS).items()
        if (found := dict(key))[names.LAYER] == layer
    }


def evicted(manager: CacheManager, reason: str) -> int:
    """Returns how many entries have left memory for this reason."""
    return int(count(manager, names.EVICTIONS, {names.LAYER: names.L1, names.REASON: reason}))


# --- callers who leave


class Hanging(Plain):
    """A layer that gives no answer."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.asked = threading.Event()

    async def lookup(self, key: str) -> Entry | None:
        """Waits."""
        self.asked.set()
        await asyncio.Event().wait()
        return None


def test_a_thread_that_waits_for_a_layer_when_the_cache_is_closed_is_counted() -> None:
    layer = Hanging()
    manager = CacheManager(configuration(timeout=60), lower=[layer])
    transport = CacheTransport(httpx2.MockTransport(lambda request: httpx2.Response(200)), cache=manager)
    raised: list[BaseException] = []

    def call() -> None:
        with httpx2.Client(transport=transport) as client:
            try:
                client.get("http://origin.example/")
            except BaseException as error:  # noqa: BLE001  # whatever it is: what counts is that it is over
                raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert layer.asked.wait(WITHIN)
    asyncio.run(manager.aclose(0.1))
    thread.join(WITHIN)
    assert len(raised) == 1
    assert requests(manager) == {"miss": 1}, "and no load"
    assert lookups(manager)[names.MISS] == 1


async def test_who_waits_for_what_is_read_on_and_leaves_is_counted() -> None:
    gate = asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        for chunk in ANTHROPIC.chunks[:-1]:
            yield chunk
        await gate.wait()
        yield ANTHROPIC.chunks[-1]

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": ANTHROPIC.content_type}, content=stream())

    path, body = ANTHROPIC.call(stream=True)
    async with opened() as manager:
        transport = AsyncCacheTransport(httpx2.MockTransport(answer), cache=manager, linger=30)
        async with httpx2.AsyncClient(transport=transport, base_url="http://origin.example") as client:
            async with client.stream("POST", path, json=body) as response:
                chunks = response.aiter_bytes()
                for _ in ANTHROPIC.chunks[:-1]:
                    await anext(chunks)
            second = asyncio.create_task(client.post(path, json=body))
            await asyncio.sleep(0.01)
            assert requests(manager) == {"miss": 1, "loads": 1}
            second.cancel()
            await asyncio.wait([second])
            gate.set()
        await eventually(lambda: is_settled(manager))
        assert requests(manager) == {"miss": 2, "loads": 1}


# --- what is kept of several


@pytest.mark.parametrize("below", [False, True], ids=["memory alone", "a layer below"])
async def test_of_values_that_are_set_together_each_is_counted_by_what_became_of_it(below: bool) -> None:
    lower = [Plain(ManualClock())] if below else []
    async with CacheManager(configuration(max_bytes=1000), lower=lower) as manager:
        assert not await manager.set_many({"a": 1, "large": "x" * 2000, "b": 2})
        large = "beyond_memory" if below else "too_large"
        assert stores(manager) == {"stored": 2, large: 1}
        await manager.set_many({"large": "x" * 2000, "larger": "x" * 3000})
        assert stores(manager) == {"stored": 2, large: 3}


async def test_so_is_each_item_of_an_answer() -> None:
    """And what the answers have in common, which is kept as well, is none of them."""

    def embed(request: httpx2.Request) -> httpx2.Response:
        texts = json.loads(request.content)["input"]
        data = [
            {"object": "embedding", "index": place, "embedding": [0.5] * (5000 if text == "large" else 1)}
            for place, text in enumerate(texts)
        ]
        return httpx2.Response(200, json={"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1}})

    async with CacheManager(configuration(max_bytes=4000)) as manager:
        transport = AsyncCacheTransport(httpx2.MockTransport(embed), cache=manager)
        async with httpx2.AsyncClient(transport=transport, base_url="http://origin.example") as client:
            await client.post("/v1/embeddings", json={"model": "m", "input": ["a", "large", "b"]})
        assert stores(manager) == {"stored": 2, "too_large": 1}


# --- lookups in memory


async def test_each_request_for_a_response_looks_into_memory_once() -> None:
    async def page(call: Call) -> None:
        await call.answer("page", cache_control="max-age=60")

    shared = SharedMemory()
    async with CacheManager(configuration(heartbeat=1000.0), lower=[shared.node()]) as other:
        await ask(CacheMiddleware(Origin(page), cache=other), "/elsewhere")
        await ask(CacheMiddleware(Origin(page), cache=other), "/there")
    async with CacheManager(configuration(heartbeat=1000.0), lower=[shared.node()]) as manager:
        app = CacheMiddleware(Origin(page), cache=manager)
        only = {"cache-control": "only-if-cached"}
        await ask(app, "/a", "HEAD")
        await ask(app, "/a", "GET", only)
        assert requests(manager) == {"miss": 1, "bypass": 1, "loads": 1}
        assert lookups(manager) == {"miss": 2}
        await ask(app, "/elsewhere", "HEAD")
        await ask(app, "/there", "GET", only)
        assert requests(manager) == {"miss": 1, "bypass": 1, "hit l2": 2, "loads": 1}
        assert lookups(manager) == {"miss": 4}
        await ask(app, "/there", "GET", only)
        await ask(app, "/a")
        assert lookups(manager) == {"miss": 5, "hit": 1}
        await ask(app, "/a", "GET", {"cache-control": "no-store"})
        assert lookups(manager) == {"miss": 6, "hit": 1}, "what is there is not wanted"
        await ask(app, "/a", "GET", {"content-length": "1"})
        assert lookups(manager) == {"miss": 6, "hit": 1}, "it must not be looked for"


@pytest.mark.parametrize("blocking", [False, True], ids=["loop", "thread"])
async def test_each_call_for_several_items_looks_into_memory_once(blocking: bool) -> None:
    def embed(request: httpx2.Request) -> httpx2.Response:
        texts = json.loads(request.content)["input"]
        data = [{"object": "embedding", "index": place, "embedding": [0.5]} for place in range(len(texts))]
        return httpx2.Response(200, json={"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1}})

    clock = ManualClock()
    async with CacheManager(configuration(), clock=clock) as manager:
        options: dict[str, Any] = {"cache": manager, "ttl": 10, "stale_while_revalidate": 100}
        network = httpx2.MockTransport(embed)

        async def call(*texts: str, **wish: Any) -> None:
            body = {"model": "m", "input": texts}
            with cache_options(**wish):
                if blocking:
                    with httpx2.Client(transport=CacheTransport(network, **options)) as client:
                        await asyncio.to_thread(client.post, "http://origin.example/v1/embeddings", json=body)
                else:
                    async with httpx2.AsyncClient(transport=AsyncCacheTransport(network, **options)) as client:
                        await client.post("http://origin.example/v1/embeddings", json=body)

        await call("a", "b", only_if_cached=True)
        assert lookups(manager) == {"miss": 1}
        await call("a", "b")
        assert lookups(manager) == {"miss": 2}
        await call("b", "a")
        assert lookups(manager) == {"miss": 2, "hit": 1}
        await call("b", "c")
        assert lookups(manager) == {"miss": 3, "hit": 1}
        clock.advance(11)
        await call("b", "a")
        assert lookups(manager) == {"miss": 3, "hit": 1, "stale": 1}
        assert requests(manager) == {"bypass": 1, "miss": 2, "hit l1": 1, "stale": 1, "loads": 2}
        await eventually(lambda: is_settled(manager))


# --- what goes from memory


async def test_what_a_refresh_was_to_replace_is_counted_when_it_goes() -> None:
    async with opened() as manager:

        @cached(ttl=60, tags=["t"], cache=manager)
        async def value() -> int:
            await manager.invalidate_tags("t")
            return 1

        await manager.set(value.key_for(), 0, tags=["t"])
        await value.refresh()
        assert count(manager, names.ENTRIES) == 0
        assert evicted(manager, "invalidated") == 1


# --- in the background


@pytest.mark.parametrize("ends", ["confirmed", "refused", "raised"])
@pytest.mark.parametrize("blocking", [False, True], ids=["loop", "thread"])
async def test_a_refresh_in_the_background_is_nobodys_request(blocking: bool, ends: str) -> None:
    """Also if what is stored is its answer, since the origin has confirmed it or has failed."""
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("if-none-match", ""))
        fields = {"etag": '"1"', "cache-control": "max-age=10, stale-while-revalidate=60, stale-if-error=60"}
        match ends if len(asked) == 2 else "":
            case "confirmed":
                return httpx2.Response(304, headers=fields)
            case "refused":
                return httpx2.Response(503)
            case "raised":
                raise httpx2.ConnectError("broken")
        return httpx2.Response(200, headers=fields, text="page")

    clock = ManualClock()
    async with CacheManager(configuration(), clock=clock) as manager:
        network = httpx2.MockTransport(answer)
        if blocking:
            client = httpx2.Client(transport=CacheTransport(network, cache=manager))
        else:
            connected = httpx2.AsyncClient(transport=AsyncCacheTransport(network, cache=manager))

        async def get() -> None:
            url = "http://origin.example/"
            await (asyncio.to_thread(client.get, url) if blocking else connected.get(url))

        await get()
        clock.advance(11)
        await get()
        await eventually(lambda: len(asked) == 2 and is_settled(manager))
        assert asked == ["", '"1"']
        assert requests(manager) == {"miss": 1, "stale": 1, "loads": 1}
        assert count(manager, names.REFRESHES) == 1
        assert count(manager, names.SAVED_IO) == len("page"), "by the one answer that was not asked for"
        await get()
        assert sum(requests(manager).values()) - 1 == 3
