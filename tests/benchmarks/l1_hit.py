"""What does `CacheManager.get` cost when memory has the value, and nobody can change it?

The baseline is the least that an asynchronous cache can do: a coroutine around `cachetools.LRUCache.get`.

The number misleads where the value is mutable (see `l1_mutable_hit`), where the current span is recording (two
attributes are then set on it, which costs more than the hit itself), and where the event loop has other things to do:
nothing here ever waits.
"""

from __future__ import annotations

from cachetools import LRUCache

from aurelis.cache import CacheConfig, CacheManager
from tests.benchmarks.harness import Bench, Subject, Target, always, module, peer

KEY = "aurelis:user:500"
VALUE = "a value that cannot be changed"
ENTRIES = 1000


def run(bench: Bench) -> None:
    """Print the table."""
    bench.compare(
        "CacheManager.get, hit in memory, immutable value",
        [
            baseline(),
            ours(bench, "CacheManager.get", CacheConfig()),
            ours(bench, "CacheManager.get, span_attributes=False", CacheConfig(span_attributes=False)),
            peer("cashews", lambda: cashews(bench)),
            peer("aiocache", lambda: aiocache(bench)),
        ],
        {
            "CacheManager.get": [Target(3.0)],
            "CacheManager.get, span_attributes=False": [Target(2.0)],
        },
        rounds=200,
        count=500,
    )


def baseline() -> Subject:
    """A coroutine around `cachetools`."""
    entries: LRUCache[str, object] = LRUCache(10_000)
    for number in range(ENTRIES):
        entries[f"aurelis:user:{number}"] = VALUE

    async def get(key: str) -> object:
        return entries.get(key)

    return Subject("cachetools.LRUCache.get", get, always(KEY))


def ours(bench: Bench, name: str, config: CacheConfig) -> Subject:
    """`CacheManager.get`."""
    manager = CacheManager(config)
    bench.wait(manager.set_many({f"aurelis:user:{number}": VALUE for number in range(ENTRIES)}))
    assert bench.wait(manager.get(KEY)) == VALUE
    return Subject(name, manager.get, always(KEY))


def aiocache(bench: Bench) -> Subject:
    """`SimpleMemoryCache`, as it comes."""
    cache = module("aiocache").SimpleMemoryCache()

    async def fill() -> None:
        for number in range(ENTRIES):
            await cache.set(f"aurelis:user:{number}", VALUE)

    bench.wait(fill())
    return Subject("aiocache", cache.get, always(KEY))


def cashews(bench: Bench) -> Subject:
    """The backend in memory, as it comes."""
    cache = module("cashews").Cache()
    cache.setup("mem://")

    async def fill() -> None:
        for number in range(ENTRIES):
            await cache.set(f"aurelis:user:{number}", VALUE)

    bench.wait(fill())
    return Subject("cashews", cache.get, always(KEY))
