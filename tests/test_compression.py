"""`CompressedCache`: the reference's interface, values of every storable type, bounds, and one load for all."""

import asyncio
import dataclasses
import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache import (
    CacheConfig,
    CacheManager,
    CompressedCache,
    EntryOptions,
    UnifiedCacheManager,
    current_load,
    get_cache_manager,
    set_cache_manager,
)
from aurelis.cache.exceptions import ConfigurationError, UnstorableValueError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, count, opened, requests

LONG = {"text": "the same words " * 1000, "numbers": (1, 2.5, None)}


@dataclasses.dataclass
class Order:
    number: int
    lines: list[str]


def stored_bytes(found: Any) -> bytes:
    """Return the bytes of what the manager below holds."""
    mark, code, payload = found
    assert (mark, type(code)) == ("aurelis.cache:compressed", int)
    assert isinstance(payload, bytes)
    return payload


@pytest.mark.parametrize("method", ["gzip", "zstd"])
@pytest.mark.parametrize("value", [LONG, "short", None, b"", [1, {"a": {1, 2}}], Order(1, ["a" * 5000])], ids=repr)
async def test_a_value_comes_back_as_it_was(method: Any, value: object, redis_url: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"redis_url": redis_url, "cache_dir": tmp_path, "types": [Order], "timeout": 10}
    async with opened(configuration(**options)) as manager, opened(configuration(**options)) as other:
        cache = CompressedCache(manager, method=method)
        assert await cache.set("k", value, ttl=60)
        assert await cache.get("k", "default") == value
        assert await CompressedCache(other).get("k", "default") == value


async def test_what_is_not_there_is_the_default() -> None:
    async with opened() as manager:
        cache = CompressedCache(manager)
        assert await cache.get("k") is None
        assert await cache.get("k", 5) == 5
        await cache.set("k", 1, ttl=math.inf)
        assert await cache.delete("k")
        assert not await cache.delete("k")
        assert await cache.get("k") is None


async def test_it_takes_a_unified_manager_and_full_keys() -> None:
    async with UnifiedCacheManager(configuration()) as unified:
        cache = CompressedCache(unified, 100)
        key = unified.key_builder.build_key("report", "17")
        await cache.set(key, LONG, tags=["t"])
        assert await cache.get(key) == LONG
        assert await unified.get("report", "17") == await unified.manager.get(key)
        await unified.invalidate_tags("t")
        assert await cache.get(key) is None


async def test_without_a_manager_it_is_the_one_of_the_process_from_the_first_use_on() -> None:
    cache = CompressedCache()
    async with opened() as manager:
        set_cache_manager(manager)
        try:
            await cache.set("k", LONG)
            assert await CompressedCache(get_cache_manager()).get("k") == LONG
            assert requests(manager)["hit l1"] == 1
        finally:
            set_cache_manager(None)


async def test_it_is_compressed_in_memory_from_the_threshold_on() -> None:
    async with opened() as manager:
        cache = CompressedCache(manager, compression_threshold=1024)
        await cache.set("small", "a" * 1000)
        await cache.set("large", "a" * 1100)
        assert b"a" * 1000 in stored_bytes(await manager.get("small"))
        large = stored_bytes(await manager.get("large"))
        assert b"a" * 1100 in gzip.decompress(large)
        memory = manager._engine.stack.memory
        assert memory is not None
        assert memory.entries["large"].size < 500


async def test_each_reader_has_a_value_of_its_own() -> None:
    async with opened() as manager:
        cache = CompressedCache(manager)
        given = {"a": [1]}
        await cache.set("k", given)
        given["a"].append(2)
        (await cache.get("k"))["a"].append(3)
        assert await cache.get("k") == {"a": [1]}


async def test_what_was_stored_without_it_is_given_as_it_is() -> None:
    async with opened() as manager:
        await manager.set("k", LONG)
        assert await CompressedCache(manager).get("k") == LONG
        twin = ("aurelis.cache:compressed", 1, b"x")
        await CompressedCache(manager).set("twin", twin)
        assert await CompressedCache(manager).get("twin") == twin


async def test_what_unpacks_to_too_much_is_missing_and_counted() -> None:
    async with opened() as manager:
        await CompressedCache(manager).set("k", "a" * 100_000)
        bounded = CompressedCache(manager, max_bytes=50_000)
        assert await bounded.get("k", "default") == "default"
        assert count(manager, names.ERRORS, {names.LAYER: "compressed", names.ERROR_TYPE: "frame_too_large"}) == 1
        await bounded.set("k", "a" * 100_000)  # which it leaves as it is, and can read
        assert await bounded.get("k") == "a" * 100_000


NEWER = [(code, zlib.compress(b"\xc0", wbits=31)) for code in (0x12, 0x1F, 0x91)]
"""What could be unpacked, and was written by something that is not known."""


@pytest.mark.parametrize(
    ("code", "payload"),
    [(0x11, b"garbage"), (1, b"\xc1"), (0x71, b""), (5, b"\xc0"), ("1", b""), (1, "text"), *NEWER],
    ids=repr,
)
async def test_what_cannot_be_unpacked_is_missing_and_loaded_anew(code: object, payload: object) -> None:
    async with opened() as manager:
        await manager.set("k", ("aurelis.cache:compressed", code, payload))
        cache = CompressedCache(manager)
        assert await cache.get("k", "default") == "default"

        async def compute() -> str:
            return "loaded"

        assert await cache.get_or_compute("k", compute) == "loaded"
        assert await cache.get("k") == "loaded"
        assert count(manager, names.ERRORS, {names.LAYER: "compressed"}) == 2


async def test_a_class_that_has_changed_is_loaded_anew() -> None:
    async with opened(configuration(types=[Order])) as manager:
        await CompressedCache(manager).set("k", Order(1, []))
        found = await manager.get("k")
    async with opened() as without:
        await without.set("k", found)
        assert await CompressedCache(without).get("k") is None


async def test_somebody_who_keeps_storing_garbage_does_not_keep_a_value_away() -> None:
    async with opened() as manager:
        cache = CompressedCache(manager)

        async def compute() -> str:
            await manager.set("k", ("aurelis.cache:compressed", 0x11, b"garbage"))
            return "loaded"

        await manager.set("k", ("aurelis.cache:compressed", 0x11, b"garbage"))
        assert await cache.get_or_compute("k", compute) == "loaded"


async def test_one_tag_is_no_sequence_of_tags() -> None:
    async def compute() -> str:
        raise AssertionError("it is not called")

    async with opened() as manager:
        cache = CompressedCache(manager)
        with pytest.raises(TypeError, match="tags"):
            await cache.set("k", 1, tags="ab")
        with pytest.raises(TypeError, match="tags"):
            await cache.get_or_compute("k", compute, tags="ab")


async def test_one_caller_loads_for_all() -> None:
    loads = 0

    async def compute() -> dict[str, Any]:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.01)
        return dict(LONG)

    async with opened() as manager:
        cache = CompressedCache(manager)
        answers = await asyncio.gather(*(cache.get_or_compute("k", compute, ttl=60, tags=iter("t")) for _ in range(50)))
        assert answers == [LONG] * 50
        assert loads == 1
        assert len({id(answer) for answer in answers}) == 50
        assert len(stored_bytes(await manager.get("k"))) < 1000
        await manager.invalidate_tags("t")
        assert await cache.get("k") is None


async def test_a_load_sees_the_stale_value_as_it_was_stored() -> None:
    clock = ManualClock()
    seen: list[object] = []

    async def compute() -> object:
        load = current_load()
        seen.append((load.has_stale, load.stale))
        return load.not_modified() if load.has_stale else LONG

    async with opened(configuration(), clock=clock) as manager:
        cache = CompressedCache(manager)
        options = EntryOptions(stale_if_error=60)
        for _ in range(3):
            assert await cache.get_or_compute("k", compute, 10, options=options) == LONG
            clock.advance(11)
        assert seen == [(False, None), (True, LONG), (True, LONG)]


async def test_a_value_that_cannot_be_stored_is_returned_and_set_refuses_it(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as manager:
        cache = CompressedCache(manager)
        thing = object()

        async def compute() -> object:
            return thing

        assert await cache.get_or_compute("k", compute) is thing
        assert "a loaded value is not cached: cannot store value of type object" in caplog.text
        with pytest.raises(UnstorableValueError, match="type object"):
            await cache.set("k", thing)


async def test_the_error_of_a_load_passes_through() -> None:
    async with opened() as manager:

        async def compute() -> object:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await CompressedCache(manager).get_or_compute("k", compute)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression_threshold": 0}, "compression_threshold must be a whole number of 1 or more"),
        ({"max_bytes": 0}, "max_bytes must be a whole number of 1 or more"),
        ({"method": "lz4"}, "method must be 'gzip' or 'zstd', not 'lz4'"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CompressedCache(CacheManager(CacheConfig()), **options)


def test_what_is_no_manager_is_refused() -> None:
    with pytest.raises(TypeError, match="CacheManager"):
        CompressedCache(CacheConfig())  # type: ignore[arg-type]  # that is the point
