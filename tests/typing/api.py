"""How the public API is used and how it must not be: checked by mypy, never run.

A wrong line carries the code of the error that it must cause. Where it caused none, mypy would report that its
`type: ignore` is not used.
"""

import math
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, assert_type

from openai import OpenAI

from aurelis.cache import (
    CacheAside,
    CacheConfig,
    CacheKeyBuilder,
    CacheLayer,
    CacheManager,
    DataStore,
    DeadLetter,
    DiskBackend,
    MemoryBackend,
    RedisBackend,
    UnifiedCacheManager,
    WriteBehind,
    WriteThrough,
    cache_options,
    cached,
    get_cache_manager,
    set_cache_manager,
)
from aurelis.cache.testing import (
    LayerContract,
    ManualClock,
    NewsroomContract,
    SearchableLayerContract,
    SharedMemory,
    SharedNode,
)
from aurelis.cache.typing import Clock, Layer, Newsroom, SearchableLayer, SharedLayer
from aurelis_httpx2 import CacheTransport, wrap


async def number() -> int:
    """A load."""
    return 1


async def wants_an_argument(key: str) -> int:
    """No load: nobody would give it the argument."""
    return len(key)


def synchronous() -> int:
    """No load either."""
    return 1


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
    set_cache_manager(cache)
    set_cache_manager(None)

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

    @cached(key_func=lambda self, a: str(a))
    async def method(self, a: int) -> int:
        """Likewise."""
        return a


async def decorated(service: Service) -> None:
    """Calls of what was decorated."""
    assert_type(await plain(1), list[str])
    assert_type(await plain(1, b="b", c=1.5), list[str])
    assert_type(await configured(1), int)
    assert_type(await service.method(1), int)
    kept: Callable[[int], Coroutine[Any, Any, int]] = configured
    assert_type(await kept(1), int)

    await plain()  # type: ignore[call-arg]
    await plain("1")  # type: ignore[arg-type]
    await plain(1, "b", 1.5)  # type: ignore[call-arg]
    await plain(1, d=1)  # type: ignore[call-arg]
    await service.method("1")  # type: ignore[arg-type]
    cached(plain)  # type: ignore[arg-type]
    cached(60, cache={})  # type: ignore[arg-type]
    cached(60, None, "c", get_cache_manager())  # type: ignore[call-arg]
    cached()(synchronous)  # type: ignore[arg-type]


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
    CacheTransport(pacing=20.0, protocols={"https://gateway.example": None}, operations=["audio"])
    CacheTransport(pacing="slow")  # type: ignore[arg-type]
    CacheTransport(variant=2)  # type: ignore[call-arg]
    assert_type(wrap(client, ttl=60, partition_by_user=True), OpenAI)
    wrap(client, max_temprature=1.0)  # type: ignore[call-arg]
