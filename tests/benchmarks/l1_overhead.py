"""How many bytes does memory take for an entry, besides its key and its value?

Counted by `tracemalloc` while entries are stored whose keys and values were there before, so what is counted is all
that the cache adds. For mutable values, which are kept packed, the packed bytes count as the value.

The number misleads about the size of a process: the allocator rounds up and fragments. Tables grow in steps, so a
number of entries just above a step has more overhead than one just below.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import msgpack
from cachetools import LRUCache
from rich.table import Table

from aurelis.cache import CacheConfig, CacheManager
from tests.benchmarks.harness import Bench, Target, module

_TTL = 3600.0
_FEW = 100_000
_MANY = 1_000_000
Fill = Callable[[list[str], list[Any]], Coroutine[Any, Any, tuple[object, int]]]
"""Stores values under keys; gives what must stay alive, and how many bytes of what it made are values."""


def run(bench: Bench) -> None:
    """Print the table."""
    table = Table(title="bytes per entry, key and value not counted", title_justify="left")
    table.add_column("subject")
    for column in ("entries", "bytes", "target"):
        table.add_column(column, justify="right")
    table.add_column("")
    sizes = [_FEW // 10] if bench.quick else [_FEW, _MANY] if bench.large else [_FEW]
    for count in sizes:
        targets = {"CacheManager.set": [Target(400, "bytes")], "CacheManager.set, mutable": [Target(400, "bytes")]}
        subjects: dict[str, tuple[Fill, Callable[[int], Any]]] = {
            "dict": (_dict, _immutable),
            "cachetools.LRUCache": (_cachetools, _immutable),
            "CacheManager.set": (_ours, _immutable),
            "CacheManager.set, mutable": (_ours, _mutable),
            "cashews": (_cashews, _immutable),
            "aiocache": (_aiocache, _immutable),
        }
        for name, (fill, make) in subjects.items():
            if count == _MANY and name in ("cashews", "aiocache"):  # they take many minutes
                continue
            try:
                overhead = measure(bench, fill, count, make)
            except ImportError as error:
                table.add_row(name, "", "", "", f"not installed ({error})", style="dim")
                continue
            wanted = targets.get(name, [])
            word = bench.judge(f"{count:,} entries", name, {"bytes": overhead}, wanted)
            table.add_row(name, f"{count:,}", f"{overhead:.0f}", ", ".join(map(str, wanted)), word)
    bench.console.print(table)


def measure(bench: Bench, fill: Fill, count: int, make: Callable[[int], Any]) -> float:
    """Bytes for each entry."""
    keys = [f"aurelis:user:{number}" for number in range(count)]
    values = [make(number) for number in range(count)]
    gc.collect()
    tracemalloc.start()
    try:
        cache, values_size = bench.wait(fill(keys, values))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del cache
    return (taken - values_size) / count


def _immutable(number: int) -> str:
    return f"value {number}"


def _mutable(number: int) -> dict[str, int]:
    return {"number": number}


async def _ours(keys: list[str], values: list[Any]) -> tuple[object, int]:
    manager = CacheManager(CacheConfig(max_size=len(keys), max_bytes=2**40))
    for key, value in zip(keys, values, strict=True):
        await manager.set(key, value, _TTL)
    assert await manager.get(keys[0]) == values[0]
    packed = 0
    if isinstance(values[0], dict):
        packed = sum(sys.getsizeof(msgpack.packb(value)) for value in values)
    return manager, packed


async def _dict(keys: list[str], values: list[Any]) -> tuple[object, int]:
    return dict(zip(keys, values, strict=True)), 0


async def _cachetools(keys: list[str], values: list[Any]) -> tuple[object, int]:
    cache: LRUCache[str, object] = LRUCache(len(keys))
    for key, value in zip(keys, values, strict=True):
        cache[key] = value
    return cache, 0


async def _cashews(keys: list[str], values: list[Any]) -> tuple[object, int]:
    cache = module("cashews").Cache()
    cache.setup("mem://", size=len(keys))
    for key, value in zip(keys, values, strict=True):
        await cache.set(key, value, expire=_TTL)
    return cache, 0


async def _aiocache(keys: list[str], values: list[Any]) -> tuple[object, int]:
    cache = module("aiocache").SimpleMemoryCache()
    for key, value in zip(keys, values, strict=True):
        await cache.set(key, value, ttl=_TTL)
    return cache, 0
