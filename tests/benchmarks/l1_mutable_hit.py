"""What does `CacheManager.get` cost when memory has the value, and it is one that callers could change?

Each reader gets a copy of its own, unpacked from the stored bytes. The baseline is a coroutine that finds those bytes
with `cachetools.LRUCache.get` and unpacks them with `msgpack`.

The number misleads where values have another size or shape: with 1 kB most of the time is msgpack's. It is no
comparison with caches that hand out the stored object itself, after which a caller's change is everybody's; they are
listed to show what the copy costs.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgpack
from cachetools import LRUCache

from aurelis.cache import CacheConfig, CacheManager
from tests.benchmarks import l1_hit
from tests.benchmarks.harness import Bench, Subject, Target, always, module, peer

KEY = "aurelis:user:500"
RECORD = {
    "id": 500,
    "name": "Ada Example",
    "email": "ada@example.org",
    "active": True,
    "score": 98.5,
    "tags": ["admin", "editor", "reviewer", "owner"],
    "address": {"street": "1 Long Example Street", "city": "Exampleton", "country": "GB", "zip": "EX1 2AB"},
    "orders": [
        {"id": number, "sku": f"SKU-{number:06d}", "quantity": number % 5, "price": number * 1.25, "note": None}
        for number in range(16)
    ],
}
"""About 1 kB when packed."""


def run(bench: Bench) -> None:
    """Print the table."""
    bench.compare(
        f"CacheManager.get, hit in memory, mutable value of {len(msgpack.packb(RECORD))} bytes",
        [
            baseline(),
            ours(bench, "CacheManager.get", RECORD),
            ours(bench, "CacheManager.get, with a datetime", {**RECORD, "seen": datetime(2026, 1, 2, tzinfo=UTC)}),
            peer("cashews, shares the object", lambda: cashews(bench)),
            peer("aiocache, shares the object", lambda: aiocache(bench)),
        ],
        {"CacheManager.get": [Target(1.5)]},
        rounds=200,
        count=200,
    )


def baseline() -> Subject:
    """A coroutine around `cachetools` and `msgpack`."""
    entries: LRUCache[str, bytes] = LRUCache(10_000)
    for number in range(l1_hit.ENTRIES):
        entries[f"aurelis:user:{number}"] = msgpack.packb(RECORD)
    unpackb = msgpack.unpackb

    async def get(key: str) -> object:
        return unpackb(entries.get(key))

    return Subject("LRUCache.get and unpackb", get, always(KEY))


def ours(bench: Bench, name: str, value: object) -> Subject:
    """`CacheManager.get`."""
    manager = CacheManager(CacheConfig())
    bench.wait(manager.set_many({f"aurelis:user:{number}": value for number in range(l1_hit.ENTRIES)}))
    found = bench.wait(manager.get(KEY))
    assert found == value
    assert found is not value
    return Subject(name, manager.get, always(KEY))


def aiocache(bench: Bench) -> Subject:
    """`SimpleMemoryCache`, as it comes."""
    cache = module("aiocache").SimpleMemoryCache()
    bench.wait(cache.set(KEY, RECORD))
    return Subject("aiocache, shares the object", cache.get, always(KEY))


def cashews(bench: Bench) -> Subject:
    """The backend in memory, as it comes."""
    cache = module("cashews").Cache()
    cache.setup("mem://")
    bench.wait(cache.set(KEY, RECORD))
    return Subject("cashews, shares the object", cache.get, always(KEY))
