"""How the public API is used and how it must not be: checked by mypy, never run.

A wrong line carries the code of the error that it must cause. Where it caused none, mypy would report that its
`type: ignore` is not used.
"""

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, assert_type

import httpx2
from openai import OpenAI

from aurelis.cache import (
    CacheAside,
    CacheConfig,
    CacheInvalidator,
    CacheKeyBuilder,
    CacheLayer,
    CacheManager,
    CacheMetrics,
    CacheMonitor,
    CacheStats,
    CacheWarmer,
    CompressedCache,
    DataStore,
    DeadLetter,
    DiskBackend,
    EntryOptions,
    FileCacheManager,
    MemoryBackend,
    ModelResponseCache,
    OpenAIEmbedder,
    RedisBackend,
    SimilarityCache,
    SimilarityReport,
    SimilarMatch,
    UnifiedCacheManager,
    WarmReport,
    WriteBehind,
    WriteThrough,
    cache_options,
    cached,
    cached_method,
    get_cache_manager,
    load_config,
    set_cache_manager,
)
from aurelis.cache.models import BilledCall
from aurelis.cache.testing import (
    Cassette,
    LayerContract,
    ManualClock,
    NewsroomContract,
    SearchableLayerContract,
    SharedMemory,
    SharedNode,
)
from aurelis.cache.typing import (
    CachedFunction,
    CachedSyncFunction,
    Clock,
    Embedder,
    Layer,
    Newsroom,
    SearchableLayer,
    SharedLayer,
)
from aurelis_httpx2 import CacheTransport, wrap
from aurelis_httpx2.cassettes import AsyncCassetteTransport, CassetteTransport


async def number() -> int:
    """A load."""
    return 1


async def wants_an_argument(key: str) -> int:
    """No load: nobody would give it the argument."""
    return len(key)


def synchronous() -> int:
    """No load either."""
    return 1


async def compressed(cache: CacheManager, unified: UnifiedCacheManager) -> None:
    """Values that are compressed in all layers."""
    compressed = CompressedCache(cache, 2048, method="zstd")
    assert_type(await compressed.get("k"), Any)
    assert_type(await compressed.set("k", object(), ttl=1, tags=["t"]), bool)
    assert_type(await compressed.get_or_compute("k", number), int)
    CompressedCache(unified, method="lz4")  # type: ignore[arg-type]
    CacheConfig(compression="brotli")  # type: ignore[arg-type]
    CacheConfig(encryption_key=["00ff", b"key"])
    CacheConfig(encryption_key=5)  # type: ignore[arg-type]
    await compressed.get_or_compute("k", synchronous)  # type: ignore[arg-type]


async def managers(cache: CacheManager, unified: UnifiedCacheManager) -> None:
    """The managers."""
    assert_type(await cache.get("k"), Any)
    assert_type(await cache.get("k", None), Any)
    assert_type(await cache.set("k", object(), ttl=timedelta(seconds=1)), bool)
    assert_type(await cache.get_many(["k"]), dict[str, Any])
    assert_type(await cache.set_many({"k": 1}, math.inf), bool)
    assert_type(await cache.get_or_compute("k", number), int)
    assert_type(await cache.delete("k"), bool)
    async with cache as same:
        assert_type(same, CacheManager)
    async with unified as other:
        assert_type(other, UnifiedCacheManager)
    assert_type(await unified.get_or_compute("c", "i", number, {"a": 1}, 60), int)
    assert_type(await unified.get_many("c", ["i"]), dict[str, Any])
    assert_type(get_cache_manager().manager, CacheManager)
    assert_type(set_cache_manager(cache), UnifiedCacheManager | None)
    set_cache_manager(None)
    assert_type(load_config("cache.toml", max_size=1), CacheConfig)
    assert_type(await CacheMonitor(unified).get_current_stats(), CacheMetrics)
    assert_type(CacheStats().metrics.hit_rate, float)
    assert_type(CacheStats(cache).detailed_stats, dict[str, CacheMetrics])
    CacheConfig(categories={"c": 1})  # type: ignore[dict-item]

    await cache.get(1)  # type: ignore[arg-type]
    await cache.get(b"k")  # type: ignore[arg-type]
    await cache.set("k", 1, ttl="60")  # type: ignore[arg-type]
    await cache.set_many([("k", 1)])  # type: ignore[arg-type]
    await cache.get_or_compute("k", synchronous)  # type: ignore[arg-type]
    await cache.get_or_compute("k", wants_an_argument)  # type: ignore[arg-type]
    await cache.get_or_compute("k", number())  # type: ignore[arg-type]
    await unified.get("c")  # type: ignore[call-arg]
    await unified.set("c", "i", 1, params=[1])  # type: ignore[arg-type]
    wrong: str = await cache.get_or_compute("k", number)  # type: ignore[arg-type]
    assert wrong


class Rows:
    """A data store."""

    async def get(self, key: str) -> int | None:
        """A row."""
        return len(key)

    async def set(self, key: str, value: Any) -> None:
        """Keeps a row."""


class Reads:
    """No data store: nothing can be written."""

    async def get(self, key: str) -> int | None:
        """A row."""
        return len(key)


async def strategies(cache: CacheManager, unified: UnifiedCacheManager) -> None:
    """The strategies."""
    store: DataStore = Rows()
    aside = CacheAside(unified)
    assert_type(await aside.get_or_compute("k", wants_an_argument, 60, "x"), int)
    assert_type(await CacheAside().get_or_compute("k", number, ttl=timedelta(seconds=1)), int)
    through = WriteThrough(cache, Rows())
    assert_type(through.data_store, Rows)
    assert_type(await through.get("k"), Any)
    assert_type(await through.set("k", 1, ttl=60), bool)
    async with WriteBehind(unified, store, name="n", flush_interval=timedelta(seconds=1), journal="/tmp") as behind:
        assert_type(behind, WriteBehind[DataStore])
        assert_type(await behind.set("k", 1), bool)
        assert_type(await behind.flush(), bool)
        assert_type(await behind.dead_letters(), list[DeadLetter])
        assert_type(await behind.replay_dead_letters(["k"]), int)
        assert_type(await behind.aclose(1.5), bool)

    await aside.get_or_compute("k", synchronous)  # type: ignore[arg-type]
    WriteThrough(cache, Reads())  # type: ignore[type-var]
    WriteBehind(None, store)  # type: ignore[arg-type]
    WriteBehind(cache, store, "n")  # type: ignore[call-arg]
    await through.set(1, "k")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Answer:
    """An answer of a model."""

    status: str


async def answer() -> Answer:
    """A load."""
    return Answer("success")


async def generate(model_type: str, prompt: str) -> Answer:
    """Asks a model."""
    return Answer("success")


async def load_user(user_id: str) -> dict[str, str]:
    """Loads a user."""
    return {"id": user_id}


async def models(cache: CacheManager, unified: UnifiedCacheManager) -> None:
    """Answers of models."""
    answers = ModelResponseCache(cache, namespace=lambda: None)
    ModelResponseCache(unified, namespace="a")
    assert_type(await answers.get_response("m", "p", {"temperature": 0}), Any)
    assert_type(await answers.cache_response("m", "p", None, Answer("success"), 60, tags=["a"]), bool)
    assert_type(await answers.get_or_compute("m", "p", None, answer), Answer)

    warmer = CacheWarmer(cache, generate, load_user, progress=lambda done, total: None)
    assert_type(await warmer.warm_model_responses(["p"], ["m"], timedelta(hours=1)), WarmReport)
    await warmer.warm_model_responses(["p"])  # type: ignore[call-arg]
    CacheWarmer(cache, load_user)  # type: ignore[arg-type]
    CacheWarmer(cache, generate, None, 4)  # type: ignore[call-arg]

    await answers.cache_response("m", "p", None, {"status": "success"})  # type: ignore[arg-type]
    await answers.get_or_compute("m", "p", None, number)  # type: ignore[type-var]
    await answers.get_response("m", "p", [1])  # type: ignore[arg-type]


def judge(known: Answer, own: Answer) -> bool:
    """Says whether one answer would have done for the other."""
    return known == own


async def similar_prompts(cache: CacheManager, embedder: Embedder, client: httpx2.AsyncClient) -> None:
    """Answers to similar prompts."""
    similar = SimilarityCache(cache, 0.9, mode="shadow", embedder=embedder, judge=judge)
    assert_type(await similar.find_similar_response("p", "m"), Any)
    assert_type(await similar.find_match("p", "m", {"temperature": 0}, provider="x"), SimilarMatch | None)
    assert_type(await similar.get_or_compute("m", "p", None, answer), Answer)
    assert_type(similar.report(), SimilarityReport)
    async with SimilarityCache(embedder=OpenAIEmbedder(client, "e"), index="usearch") as inside:
        assert_type(inside, SimilarityCache)

    SimilarityCache(cache, mode="semantic")  # type: ignore[arg-type]
    SimilarityCache(cache, embedder=judge)  # type: ignore[arg-type]
    SimilarityCache(cache, 0.9, "shadow")  # type: ignore[call-arg]
    await similar.get_or_compute("m", "p", None, number)  # type: ignore[type-var]


@cached()
async def plain(a: int, b: str = "", *, c: float = 0.0) -> list[str]:
    """A decorated function keeps its signature."""
    return [b] * a


@cached(ttl=timedelta(minutes=1), key_func=str, category="c", cache=get_cache_manager())
async def configured(a: int) -> int:
    """Likewise."""
    return a


class Service:
    """Methods keep theirs, too."""

    @cached_method(key_func=lambda self, a: str(a))
    async def method(self, a: int) -> int:
        """Likewise."""
        return a

    @cached_method(identity="name", tags=["t"], invalidate_on=["e"], ignore=["b"])
    def blocking(self, a: int, b: object = None) -> str:
        """Likewise."""
        return str(a)

    @cached_method()
    @classmethod
    async def of_class(cls, a: int) -> bytes:
        """Likewise."""
        return bytes(a)

    @staticmethod
    @cached()
    def static(a: int) -> float:
        """Likewise."""
        return float(a)


@cached(invalidate_on=["e"])
def ordinary(a: int) -> dict[str, int]:
    """One that is no coroutine function."""
    return {"a": a}


async def decorated(service: Service) -> None:
    """Calls of what was decorated."""
    assert_type(await plain(1), list[str])
    assert_type(await plain(1, b="b", c=1.5), list[str])
    assert_type(await configured(1), int)
    assert_type(await service.method(1), int)
    assert_type(await plain.refresh(1, c=1.5), list[str])
    assert_type(await plain.invalidate(1), bool)
    assert_type(plain.key_for(1), str)
    assert_type(ordinary(1), dict[str, int])
    assert_type(ordinary.refresh(1), dict[str, int])
    assert_type(ordinary.invalidate(a=1), bool)
    assert_type(await service.method.refresh(1), int)
    assert_type(await Service.method(service, 1), int)
    assert_type(service.blocking(1), str)
    assert_type(service.blocking.invalidate(1, b=2), bool)
    assert_type(await Service.of_class(1), bytes)
    assert_type(await service.of_class.refresh(1), bytes)
    assert_type(Service.static(1), float)
    assert_type(service.static.key_for(1), str)
    declared: CachedFunction[[int], int] = configured
    bound: CachedSyncFunction[[int], dict[str, int]] = ordinary
    assert_type(declared.key_for(1), str)
    assert_type(bound(1), dict[str, int])
    kept: Callable[[int], Coroutine[Any, Any, int]] = configured
    assert_type(await kept(1), int)

    await plain()  # type: ignore[call-arg]
    await plain("1")  # type: ignore[arg-type]
    await plain(1, "b", 1.5)  # type: ignore[call-arg]
    await plain(1, d=1)  # type: ignore[call-arg]
    await service.method("1")  # type: ignore[arg-type]
    cached(plain)  # type: ignore[arg-type]
    cached(60, cache={})  # type: ignore[arg-type]
    cached(60, None, "c", get_cache_manager())  # type: ignore[call-arg, arg-type]
    await plain.refresh("1")  # type: ignore[arg-type]
    plain.key_for()  # type: ignore[call-arg]
    await ordinary(1)  # type: ignore[misc]
    ordinary.refresh("1")  # type: ignore[arg-type]
    await service.method.invalidate("1")  # type: ignore[arg-type]
    service.blocking.refresh()  # type: ignore[call-arg]
    await Service.of_class("1")  # type: ignore[arg-type]
    cached(identity="name")  # type: ignore[call-arg]
    cached_method(identity=1)  # type: ignore[arg-type]


async def invalidations(unified: UnifiedCacheManager) -> None:
    """What is out of date."""
    assert_type(await unified.invalidate("c", "i"), None)
    assert_type(await unified.invalidate(pattern="c:*"), None)
    invalidator = CacheInvalidator(unified)
    assert_type(invalidator.register_invalidation_rule("e", ["category:c"]), None)
    assert_type(await invalidator.invalidate_on_event("e", {"id": 1}), None)
    assert_type(invalidator.invalidation_rules, dict[str, list[str]])
    UnifiedCacheManager(categories={"c": EntryOptions(ttl=1)})

    await unified.invalidate(1)  # type: ignore[arg-type]
    invalidator.register_invalidation_rule("e", [1])  # type: ignore[list-item]
    await invalidator.invalidate_on_event("e", 1)  # type: ignore[arg-type]
    CacheInvalidator({})  # type: ignore[arg-type]
    UnifiedCacheManager(categories={"c": 1})  # type: ignore[dict-item]


def size_of(path: Path) -> int:
    """What is made of a file, without waiting."""
    return len(path.name)


async def words_of(path: Path) -> list[str]:
    """The same, with waiting."""
    return [path.name]


async def copies(files: FileCacheManager, path: Path) -> None:
    """Copies of files, and what is made of them."""
    key = await files.cache_file(path, "reports")
    assert_type(key, str)
    assert_type(await files.get_cached_file(key), Path | None)
    assert_type(await files.open_cached_file(key), BinaryIO | None)
    assert_type(await files.remove_cached_file(key), bool)
    assert_type(await files.cache_result(path, "c", size_of, ttl=60, tags=["t"]), int)
    assert_type(await files.cache_result("a", "c", words_of, params={"a": 1}), list[str])
    assert_type(await files.cache_result("a", "c", number), int)
    FileCacheManager("./file_cache", max_size=10, max_bytes=2**20)

    await files.cache_file(b"a")  # type: ignore[arg-type]
    await files.get_cached_file(path)  # type: ignore[arg-type]
    await files.cache_result(path, "c", wants_an_argument)  # type: ignore[arg-type]
    FileCacheManager("./file_cache", 10)  # type: ignore[call-arg]


def configurations() -> None:
    """Options."""
    layer = CacheLayer("L1", "memory", ttl=60, max_size=10, priority=1)
    config = CacheConfig(layers=[layer], ttl=timedelta(hours=1), types=[ManualClock])
    CacheManager(config, clock=ManualClock())
    layers: list[Layer] = [MemoryBackend(), RedisBackend(config), DiskBackend("./cache", 1000)]
    assert layers
    assert_type(CacheKeyBuilder().build_key("c", "i", {"a": 1}), str)

    CacheConfig("redis://127.0.0.1")  # type: ignore[call-arg]
    CacheConfig(ttl="60")  # type: ignore[arg-type]
    CacheConfig(types=[1])  # type: ignore[list-item]
    CacheConfig(unknown=1)  # type: ignore[call-arg]
    CacheManager("redis://127.0.0.1")  # type: ignore[arg-type]
    CacheConfig(cache_dir=b"cache")  # type: ignore[arg-type]
    DiskBackend(config)  # type: ignore[arg-type]
    MemoryBackend(10, 60, 1000)  # type: ignore[call-arg]
    config.ttl = 1  # type: ignore[misc]


class OwnLayers(NewsroomContract, SearchableLayerContract):
    """Tests of a layer of one's own, which may inherit several contracts in any order."""

    async def make_layers(self, count: int, clock: Clock) -> list[SharedNode]:
        """Says of what type they are."""
        shared = SharedMemory(clock)
        return [shared.node() for _ in range(count)]


class OtherOrder(SearchableLayerContract, NewsroomContract):
    """Likewise."""


class Synchronous(LayerContract):
    """A layer is made in an event loop."""

    def make_layer(self, clock: Clock) -> Layer:  # type: ignore[override]
        """No coroutine."""
        return MemoryBackend(clock=clock)


async def contracts(node: SharedNode, redis: RedisBackend, disk: DiskBackend) -> None:
    """What they are about."""
    assert_type(OwnLayers().test_numbers_only_grow(), None)
    shared: list[SharedLayer] = [node, redis, disk]
    searchable: list[SearchableLayer] = [node, redis, disk]
    newsrooms: list[Newsroom] = [node, redis, disk]
    CacheManager(lower=[*shared, node, MemoryBackend()])
    assert searchable
    assert newsrooms

    CacheManager(lower=[object()])  # type: ignore[list-item]
    CacheManager(lower=searchable)  # type: ignore[arg-type]


def model_calls(client: OpenAI) -> None:
    """Options of calls and of transports for them."""
    with cache_options(ttl=timedelta(minutes=1), namespace="a", refresh=True, tags=["a"]):
        pass
    with cache_options(ttl="1"):  # type: ignore[arg-type]
        pass
    with cache_options(no_store=True):  # type: ignore[call-arg]
        pass
    CacheTransport(max_temperature=0.3, variants=2, pacing="recorded", namespace=lambda: None, keep=["length"])
    CacheTransport(stale_if_error=timedelta(hours=1), stale_while_revalidate=60, throttle=5.0, negative_ttl=5)
    CacheTransport(pacing=20.0, protocols={"https://gateway.example": None}, operations=["audio"])
    CacheTransport(cost="genai-prices")
    CacheTransport(cost=price)
    CacheTransport(cost="list")  # type: ignore[arg-type]
    CacheTransport(cost=number)  # type: ignore[arg-type]
    CacheTransport(pacing="slow")  # type: ignore[arg-type]
    CacheTransport(variant=2)  # type: ignore[call-arg]
    assert_type(wrap(client, ttl=60, partition_by_user=True), OpenAI)
    wrap(client, max_temprature=1.0)  # type: ignore[call-arg]


def price(call: BilledCall) -> float | None:
    """US dollars."""
    return None if call.usage.output_tokens is None else call.usage.output_tokens * 1e-6


def cassettes(cassette: Cassette) -> None:
    """Recordings for tests."""
    CacheTransport(CassetteTransport(cassette))
    AsyncCassetteTransport(Cassette("cassettes", "auto", scrub=["a+"]))

    Cassette("cassettes", "once")  # type: ignore[arg-type]
    CassetteTransport("cassettes")  # type: ignore[arg-type]
