"""Nearly all that a cache can do, so that it reports nearly all that it can report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from aurelis.cache import (
    CacheLayer,
    CacheManager,
    CacheStats,
    CompressedCache,
    EntryOptions,
    FileCacheManager,
    ModelResponseCache,
    SimilarityCache,
)
from aurelis.cache._loading import current_load
from aurelis.cache.exceptions import LayerError
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import SAMPLE_MASK
from aurelis.cache.testing import ManualClock
from aurelis_asgi import CacheMiddleware, CacheRule
from aurelis_httpx import AsyncCacheTransport
from tests.asgi.origin import Call, Origin
from tests.asgi.visits import ask
from tests.managers import WITHIN, configuration, count, eventually, fresh_name, opened, series
from tests.models.examples import chat, completion, dump
from tests.servers import ServerProcess
from tests.similarity.test_cache import ASKED, PARIS, REASKED, ROME, Answer, Failing, kept
from tests.strategies.stores import Table, on_disk

PATIENT = 10.0
Timed = Callable[[CacheManager], Iterable[Mapping[str, str]]]


class Unknown:
    """A type that no layer can keep."""


async def value() -> str:
    """A load."""
    return "value"


async def fails() -> str:
    """A load that fails."""
    raise LookupError("not there")


async def whole_run(
    folder: Path, redis_url: str, own_redis: ServerProcess, look: Callable[[], object], timed: Timed
) -> None:
    """Does it all, one part after the other.

    Args:
        look: called whenever there is something to be seen that ends.
        timed: the attributes of the durations of a cache.
    """
    await _values()
    await _stale_values()
    await _layers(folder, redis_url, look)
    await _two_processes(redis_url, timed)
    await _outage(own_redis, look)
    await _disk_alone(folder)
    await _responses()
    await _calls_of_models()
    await _items(folder, redis_url)
    await _write_behind(folder, look)
    await _similar_prompts(look)
    await _files(folder, look)
    await _compressed()


async def _values() -> None:
    clock = ManualClock()
    async with opened(configuration(max_size=3, max_bytes=20_000), clock=clock) as cache:
        await cache.get("missing")
        for number in range(5):
            await cache.set(f"k{number}", number, ttl=10)
        for _ in range(SAMPLE_MASK + 1):
            await cache.get("k4")
        clock.advance(10)
        for number in range(12):
            await cache.set("k", number)
        await cache.set("large", "x" * 50_000)

        async def skipped() -> str:
            current_load().skip()
            return "value"

        async def overtaken() -> str:
            await cache.delete("overtaken")
            return "value"

        async def unstorable() -> Unknown:
            return Unknown()

        await cache.get_or_compute("skipped", skipped)
        await cache.get_or_compute("overtaken", overtaken)
        await cache.get_or_compute("none", value, ttl=0)
        await cache.get_or_compute("unknown", unstorable)
        for _ in range(2):
            with contextlib.suppress(LookupError):
                await cache.get_or_compute("fails", fails, options=EntryOptions(negative_ttl=60))
        await cache.set("k", 1, tags=["t"])
        await cache.delete("k", soft=True)
        await cache.invalidate_tags("t", soft=True)
        await cache.invalidate_tags("t")
        await cache.get("k")
        await cache.set("k", 1)
        await cache.delete("k")
        await cache.invalidate_pattern("a:b*")
        await cache.clear()
        go = asyncio.Event()

        async def slow() -> str:
            await go.wait()
            return "value"

        callers = [asyncio.create_task(cache.get_or_compute("slow", slow)) for _ in range(3)]
        await eventually(lambda: count(cache, names.WAITING) == 2)
        go.set()
        await asyncio.gather(*callers)


async def _stale_values() -> None:
    clock = ManualClock()
    async with opened(clock=clock) as cache:
        window = EntryOptions(stale_while_revalidate=100)
        await cache.get_or_compute("behind", value, ttl=10, options=window)
        clock.advance(11)
        await cache.get_or_compute("behind", value, ttl=10, options=window)
        early = EntryOptions(early_refresh=0.5)
        await cache.get_or_compute("early", value, ttl=10, options=early)
        clock.advance(6)
        await cache.get_or_compute("early", value, ttl=10, options=early)
        for_errors = EntryOptions(stale_if_error=100)
        await cache.get_or_compute("error", value, ttl=10, options=for_errors)
        clock.advance(11)
        await cache.get_or_compute("error", fails, ttl=10, options=for_errors)
        impatient = EntryOptions(stale_if_error=100, soft_timeout=0.01)
        await cache.get_or_compute("slow", value, ttl=10, options=impatient)
        clock.advance(11)
        go = asyncio.Event()

        async def slow() -> str:
            await go.wait()
            return "value"

        await cache.get_or_compute("slow", slow, ttl=10, options=impatient)
        go.set()


async def _layers(folder: Path, redis_url: str, look: Callable[[], object]) -> None:
    config = configuration(redis_url=redis_url, cache_dir=folder / "below", timeout=PATIENT, max_bytes=20_000)
    async with opened(config) as cache, opened(configuration(**_again(config))) as other:
        await cache.set("k", 1, tags=["t"])
        await cache.get("k")
        await other.get("k")
        await cache.set("large", "x" * 50_000)
        await cache.get("missing")
        await cache.set("a:b", 1)
        await cache.invalidate_pattern("a:*")
        look()
        await cache.delete("k")


def _again(config: Any) -> dict[str, Any]:
    return {"redis_url": config.redis_url, "timeout": PATIENT, "namespace": config.namespace}


async def _two_processes(redis_url: str, timed: Timed) -> None:
    options = {"redis_url": redis_url, "timeout": PATIENT, "namespace": fresh_name(), "heartbeat": 0.1, "lease": 0.3}
    async with opened(configuration(**options)) as one, opened(configuration(**options)) as other:
        await one.set("k", 1, tags=["t"])
        await other.get("k")
        await one.get("k")
        await other.delete("k")
        await other.invalidate_tags("t")
        await other.invalidate_tags("t", soft=True)
        await other.clear()
        await eventually(lambda: count(one, names.INVALIDATIONS, {names.INVALIDATION_SCOPE: "everything"}))
        await eventually(lambda: count(one, names.MESSAGES, {names.KIND: "beat", names.DIRECTION: "received"}))
        # One loads what the other would be glad to have: it gets the stale value meanwhile.
        waiting = EntryOptions(stale_if_error=100)
        await one.get_or_compute("slow", value, ttl=0.05, options=waiting)
        await other.get("slow")
        await asyncio.sleep(0.1)
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            begun.set()
            await go.wait()
            return "value"

        loading = asyncio.create_task(one.get_or_compute("slow", slow, ttl=10, options=waiting))
        await begun.wait()
        await other.get_or_compute("slow", value, ttl=10, options=waiting)
        renewed = {names.OPERATION: "renew"}
        await eventually(lambda: any(renewed.items() <= dict(found).items() for found in timed(one)))
        go.set()
        await loading

        async def skipped() -> str:
            current_load().skip()
            return "value"

        await one.get_or_compute("skipped", skipped)
        layer: Any = one._engine.stack.layer
        deadline = time.monotonic() + WITHIN
        while not count(one, names.GAPS, {names.GAP_REASON: "hole"}):
            assert time.monotonic() < deadline
            # The number of a change of which nobody tells. Whoever connects anew just then learns it with that.
            await layer._tick(layer._link())
            await asyncio.sleep(0.3)


async def _outage(own_redis: ServerProcess, look: Callable[[], object]) -> None:
    config = configuration(redis_url=own_redis.url, breaker_failures=2, breaker_pause=0.2, timeout=0.5, heartbeat=0.2)
    async with opened(config) as cache:
        await cache.set("k", 1)
        own_redis.pause()
        for number in range(4):
            await cache.get(f"m{number}")
        look()
        await asyncio.sleep(0.3)  # the pause of the breaker
        gate = asyncio.Event()
        probing = asyncio.create_task(cache._engine.stack.lower[0].call("get", gate.wait, None))
        await eventually(lambda: count(cache, names.BREAKERS, {names.BREAKER_STATE: "half_open"}))
        look()
        gate.set()
        with contextlib.suppress(LayerError):  # another one probes
            await probing
        await cache.set("k", 2)
        own_redis.resume()
        await eventually(lambda: _told(cache) >= {"stored"})
        own_redis.stop()
        for attempt in (cache.delete("l"), cache.invalidate_tags("t")):
            with contextlib.suppress(Exception):
                await attempt
        own_redis.start()
        await eventually(lambda: _told(cache) >= {"stored", "removed", "invalidated"})
        await eventually(lambda: count(cache, names.GAPS, {names.GAP_REASON: "connection"}))


def _told(cache: CacheManager) -> set[str]:
    return {dict(attributes)[names.RECOVERY_RESULT] for attributes in series(cache, names.RECOVERED)}


async def _disk_alone(folder: Path) -> None:
    layers = [CacheLayer("disk", "disk", ttl=3600, max_size=5)]
    clock = ManualClock()
    async with opened(configuration(cache_dir=folder / "alone", layers=layers, timeout=PATIENT), clock=clock) as cache:
        for number in range(8):
            await cache.set(f"k{number}", number, ttl=10)
        await cache.get("k7")
        await cache.delete("k7")
        clock.advance(11)
        await cache.set("k", 1)
        await cache.clear()
    (folder / "no folder").touch()
    async with opened(configuration(cache_dir=folder / "no folder", layers=layers, timeout=PATIENT)) as cache:
        for number in range(6):
            await cache.set(f"k{number}", number)


def _responding(**fields: str) -> Callable[[Call], Any]:
    async def answer(call: Call) -> None:
        await call.answer("body", 200, **fields)

    return answer


LONG_AGO = "Sat, 01 Jan 2000 00:00:00 GMT"
REFUSED: dict[str, dict[str, str]] = {
    "/no_store": {"cache_control": "no-store"},
    "/private": {"cache_control": "private"},
    "/no_cache": {"cache_control": "no-cache"},
    "/not_fresh": {},
    "/set_cookie": {"set_cookie": "a=b", "cache_control": "max-age=60"},
    "/vary": {"vary": "*", "cache_control": "max-age=60"},
    "/invalid_field": {"x_a": "b\r\nc", "cache_control": "max-age=60"},
    "/large": {"cache_control": "max-age=60", "content_length": "9000000"},
    "/tags": {"cache_control": "max-age=60", "surrogate_key": " ".join(map(str, range(5000)))},
}
"""Responses that are not kept, by what is said of it."""


async def _responses() -> None:
    clock, is_down = ManualClock(), asyncio.Event()

    async def app(call: Call) -> None:
        path = call.path
        if path in REFUSED:
            await call.answer("body", 200, **REFUSED[path])
        elif path == "/status":
            await call.answer("body", 299, cache_control="max-age=60, must-understand")
        elif path == "/heuristic":
            await call.answer("body", last_modified=LONG_AGO)
        elif path == "/ruled":
            await call.answer("body", set_cookie="a=b")
        elif path == "/etag" and call.field("if-none-match"):
            await call.answer("", 304, etag='"1"', cache_control="max-age=10")
        elif path == "/short":
            await call.start(200, cache_control="max-age=60", content_length="10")
            await call.chunk(b"five!", more=False)
        elif path == "/events":
            await call.answer("data: 1\n\n", content_type="text/event-stream", last_modified=LONG_AGO)
        elif path == "/down":
            status = 503 if is_down.is_set() else 200
            await call.answer("body", status, cache_control="max-age=10, stale-if-error=100")
        else:
            windows = "max-age=10, stale-while-revalidate=100"
            await call.answer("body", 200, cache_control=windows if path == "/swr" else "max-age=10", etag='"1"')

    async with opened(clock=clock) as manager:
        middleware = CacheMiddleware(Origin(app), cache=manager, rules=[CacheRule("/ruled", ttl=60)])
        for path in (*REFUSED, "/status", "/events", "/etag", "/swr", "/down", "/plain"):
            await ask(middleware, path)
            await ask(middleware, path)
        with contextlib.suppress(Exception):
            await ask(middleware, "/short")
        await ask(middleware, "/authorized", "GET", {"authorization": "Basic x"})
        await ask(middleware, "/with_cookie", "GET", {"cookie": "a=b"})
        await ask(middleware, "/asked", "GET", {"cache-control": "no-store"})
        await ask(middleware, "/plain", "HEAD")
        await ask(middleware, "/nothing", "GET", {"cache-control": "only-if-cached"})
        await ask(middleware, "/heuristic", "GET", {"cookie": "a=b"})
        await ask(middleware, "/ruled")
        clock.advance(11)
        is_down.set()
        for path in ("/etag", "/swr", "/down"):
            await ask(middleware, path)
        await ask(middleware, "/plain", "GET", {"cache-control": "max-stale=1000"})
        await ask(middleware, "/plain", "POST")


async def _calls_of_models() -> None:
    replies: dict[str, tuple[object, str]] = {
        "plain": (completion(), "application/json"),
        "no_usage": ({key: found for key, found in completion().items() if key != "usage"}, "application/json"),
        "length": (_finished("length"), "application/json"),
        "filtered": (_finished("content_filter"), "application/json"),
        "incomplete": (_finished("else"), "application/json"),
        "no_choices": (completion(choices=[]), "application/json"),
        "error": ({"error": {"message": "busy"}}, "application/json"),
        "media_type": ("text", "text/plain"),
        "truncated": (completion(), "application/json"),
        "content_encoding": (completion(), "application/json"),
        "malformed": ("{", "application/json"),
    }

    def answer(request: httpx.Request) -> httpx.Response:
        model = json.loads(request.content)["model"]
        document, kind = replies[model]
        body = document.encode() if isinstance(document, str) else dump(document)
        headers = {"content-type": kind}
        if model == "truncated":
            headers["content-length"] = str(len(body) + 5)
        if model == "content_encoding":
            headers["content-encoding"] = "unheard-of"
        return httpx.Response(200, headers=headers, content=body)

    def cost(call: Any) -> float | None:
        return 0.5 if call.model == "plain" else None

    async with opened() as manager:
        transport = AsyncCacheTransport(httpx.MockTransport(answer), cache=manager, cost=cost)
        async with httpx.AsyncClient(transport=transport) as client:
            for model in replies:
                for _ in range(2):
                    await client.post("https://api.openai.com/v1/chat/completions", json=chat(model=model))


def _finished(reason: str) -> dict[str, object]:
    message = {"role": "assistant", "content": "Hello"}
    return completion(choices=[{"index": 0, "message": message, "finish_reason": reason}])


async def _items(folder: Path, redis_url: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["input"]
        data = [{"object": "embedding", "index": at, "embedding": [0.1, 0.2]} for at, _ in enumerate(texts)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return httpx.Response(200, json={"object": "list", "data": data, "model": "small", "usage": usage})

    async def embed(manager: CacheManager, *calls: list[str]) -> None:
        transport = AsyncCacheTransport(httpx.MockTransport(answer), cache=manager, ttl=10, stale_while_revalidate=100)
        async with httpx.AsyncClient(transport=transport) as client:
            for texts in calls:
                body = {"model": "small", "input": texts}
                await client.post("https://api.openai.com/v1/embeddings", json=body)

    clock = ManualClock()
    async with opened(clock=clock) as manager:
        await embed(manager, ["a", "b"], ["a", "b"], ["a", "c", "c"])
        await embed(manager, [str(number) for number in range(2050)])
        clock.advance(11)
        await embed(manager, ["a", "b"])
    options = {"redis_url": redis_url, "timeout": PATIENT, "namespace": fresh_name()}
    async with opened(configuration(**options)) as one, opened(configuration(**options)) as other:
        await embed(one, ["a", "b"])
        await embed(other, ["a", "b"])
    layers = [CacheLayer("disk", "disk", ttl=3600)]
    async with opened(configuration(cache_dir=folder / "items", layers=layers, timeout=PATIENT)) as manager:
        await embed(manager, ["a", "b"], ["a", "b"])


async def _write_behind(folder: Path, look: Callable[[], object]) -> None:
    store = Table()
    async with on_disk(folder).behind(store, max_attempts=2) as behind:
        behind._draining.first_delay = 0.01
        for number in range(3):
            await behind.set("k", number)
        store.refuses.add("bad")
        await behind.set("bad", 1)
        await behind.flush()
        await eventually(lambda: count(behind.cache, names.DEAD_LETTERS) == 1)
        look()
        await behind.dead_letters()
        with contextlib.suppress(ConnectionError):
            await behind.get("bad")
        store.refuses.clear()
        await behind.replay_dead_letters()
        await behind.flush()


async def _similar_prompts(look: Callable[[], object]) -> None:
    async def paris() -> Answer:
        return PARIS

    async def rome() -> Answer:
        return ROME

    async def confused(known: object, own: object) -> bool:
        raise KeyError("secret")

    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager:
        answers = ModelResponseCache(manager)
        async with SimilarityCache(manager) as similar:
            await answers.cache_response("m", ASKED, {}, PARIS)
            for prompt in (REASKED, "What was the capital of France?", "Something else", "x" * 100_000):
                await similar.find_similar_response(prompt, "m")
            look()
        async with SimilarityCache(manager, max_bytes=20_000) as similar:
            for number in range(100):
                await answers.cache_response("m", f"What is {number * 1234567}?", {}, PARIS)
                await similar.find_similar_response(f"what is {number * 1234567}", "m")
        embedder = Failing(ConnectionError())
        async with SimilarityCache(manager, embedder=embedder) as similar:
            for _ in range(4):
                await similar.find_similar_response("Something else", "n")
            look()
            clock.advance(11)
            embedder.gives = [[1.0, 0.0]]
            await similar.find_similar_response("Something else", "n")
    for load, judge in ((paris, None), (rome, None), (paris, confused)):
        async with opened(kept()) as manager, SimilarityCache(manager, mode="shadow", judge=judge) as similar:
            await ModelResponseCache(manager).cache_response("m", ASKED, {}, PARIS)
            await similar.get_or_compute("m", REASKED, {}, load)
            await similar.settle()
    async with (
        opened(kept()) as manager,
        SimilarityCache(manager, mode="verified", chance=lambda: 0.999999, error_rate=0.5) as similar,
    ):
        answers = ModelResponseCache(manager)
        await answers.cache_response("m", ASKED, {}, PARIS)
        await similar.find_similar_response("please " + ASKED, "m")
        await answers.cache_response("m", "please " + ASKED, {}, PARIS)
        await similar.settle()


async def _files(folder: Path, look: Callable[[], object]) -> None:
    files = FileCacheManager(folder / "copies", max_size=2, max_bytes=1000, name=fresh_name())
    keys = []
    for number in range(4):
        source = folder / f"file{number}"
        source.write_bytes(b"%d" % number * 100)
        keys.append(await files.cache_file(source))
    (folder / "large").write_bytes(b"x" * 2000)
    await files.cache_file(folder / "large")
    await files.get_cached_file(keys[-1])
    await files.get_cached_file("files:" + "0" * 64)
    copy = await files.get_cached_file(keys[-1])
    assert copy is not None
    copy.chmod(0o600)
    copy.write_bytes(b"damaged")
    await files.get_cached_file(keys[-1])
    look()
    await files.remove_cached_file(keys[-2])
    broken = FileCacheManager(folder / "large" / "no directory", name=fresh_name())
    await broken.cache_file(folder / "file1")
    look()


async def _compressed() -> None:
    async with opened() as cache:
        compressed = CompressedCache(cache)
        await compressed.set("k", "x" * 10_000)
        await CompressedCache(cache, max_bytes=5_000).get("k")
        await CacheStats(cache).record_error("l2")
