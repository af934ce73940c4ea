"""Cache aside: computed once, kept, and asked for by arguments of the function."""

import asyncio

import pytest

from aurelis.cache import CacheAside, CacheManager, UnifiedCacheManager, set_cache_manager
from aurelis.cache.exceptions import RecursiveLoadError
from tests.managers import configuration, opened, requests


async def test_arguments_after_the_ttl_are_the_functions() -> None:
    async with opened() as cache:
        calls: list[tuple[tuple[object, ...], dict[str, object]]] = []

        async def compute(*args: object, **kwargs: object) -> int:
            calls.append((args, kwargs))
            return len(calls)

        aside = CacheAside(cache)
        assert await aside.get_or_compute("k", compute, 60, 1, "two", three=3) == 1
        assert await aside.get_or_compute("k", compute, 60, "other") == 1
        assert await aside.get_or_compute("l", compute, ttl=60) == 2
        assert await aside.get_or_compute(key="m", compute_func=compute, four=4) == 3
        assert calls == [((1, "two"), {"three": 3}), ((), {}), ((), {"four": 4})]
        assert await cache.get("k") == 1


async def test_none_is_kept_and_errors_are_not() -> None:
    async with opened() as cache:
        aside, calls = CacheAside(cache), 0

        async def nothing() -> object:
            nonlocal calls
            calls += 1
            return None

        async def fails() -> int:
            nonlocal calls
            calls += 1
            raise LookupError("no such row")

        assert [await aside.get_or_compute("k", nothing) for _ in range(3)] == [None] * 3
        assert calls == 1
        for _ in range(2):
            with pytest.raises(LookupError, match="no such row"):
                await aside.get_or_compute("l", fails)
        assert calls == 3


async def test_one_computes_for_all_who_ask_meanwhile() -> None:
    async with opened() as cache:
        aside, calls = CacheAside(cache), 0

        async def compute(number: int) -> int:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.01)
            return number

        assert await asyncio.gather(*(aside.get_or_compute("k", compute, None, 7) for _ in range(50))) == [7] * 50
        assert calls == 1
        assert requests(cache) == {"miss": 50, "loads": 1}


async def test_what_the_manager_refuses_is_refused() -> None:
    async with opened() as cache:
        aside = CacheAside(cache)

        async def itself() -> object:
            return await aside.get_or_compute("k", itself)

        with pytest.raises(RecursiveLoadError):
            await aside.get_or_compute("k", itself)
        with pytest.raises(ValueError, match="ttl"):
            await aside.get_or_compute("k", itself, -1)
    with pytest.raises(TypeError, match="CacheManager"):
        CacheAside("redis://localhost")  # type: ignore[arg-type]


async def test_either_manager_or_that_of_the_process() -> None:
    async def seven() -> int:
        return 7

    unified = UnifiedCacheManager(configuration())
    key = unified.key_builder.build_key("number", "7")
    assert await CacheAside(unified).get_or_compute(key, seven) == 7
    assert await unified.get("number", "7") == 7
    manager = CacheManager(configuration())
    set_cache_manager(manager)
    try:
        aside = CacheAside()
        assert await aside.get_or_compute("k", seven) == 7
        assert aside.cache is manager
        assert await manager.get("k") == 7
    finally:
        set_cache_manager(None)
        await manager.aclose()
        await unified.aclose()
