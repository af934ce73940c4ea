"""`UnifiedCacheManager`: the same cache addressed by category, identifier and parameters; and that of the process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aurelis.cache import CacheConfig, CacheManager, UnifiedCacheManager, get_cache_manager, set_cache_manager
from aurelis.cache.exceptions import CacheClosedError, UnkeyableError
from aurelis.cache.manager import manager_of
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, requests

Gone = object()


@pytest.fixture
async def cache() -> AsyncIterator[UnifiedCacheManager]:
    """A cache in memory."""
    async with UnifiedCacheManager(configuration()) as unified:
        yield unified


@pytest.fixture
def process() -> Iterator[None]:
    """Leaves the process's manager as it was."""
    set_cache_manager(None)
    yield
    set_cache_manager(None)


async def value() -> str:
    """A load."""
    return "loaded"


async def test_what_was_set_is_got_until_it_is_deleted(cache: UnifiedCacheManager) -> None:
    assert await cache.get("user", "17") is None
    assert await cache.get("user", "17", default=Gone) is Gone
    assert await cache.set("user", "17", None)
    assert await cache.get("user", "17", default=Gone) is None
    assert await cache.delete("user", "17")
    assert not await cache.delete("user", "17")
    assert await cache.get("user", "17", default=Gone) is Gone


async def test_category_identifier_and_parameters_tell_values_apart(cache: UnifiedCacheManager) -> None:
    places: list[tuple[str, str, dict[str, object] | None]] = [
        ("a", "b", None),
        ("a", "b", {"page": 1}),
        ("a", "b", {"page": 1.0}),
        ("a", "b", {"page": True}),
        ("a", "b", {"page": "1"}),
        ("a", "b:page", None),
        ("a:b", "", None),
        ("b", "a", None),
        ("a", "*", None),
    ]
    for number, (category, identifier, params) in enumerate(places):
        await cache.set(category, identifier, number, params=params)
    for number, (category, identifier, params) in enumerate(places):
        assert await cache.get(category, identifier, params) == number
        loaded: object = await cache.get_or_compute(category, identifier, value, params)
        assert loaded == number
    await cache.delete("a", "*")
    assert await cache.get("a", "b") == 0


async def test_no_parameters_and_empty_ones_are_the_same(cache: UnifiedCacheManager) -> None:
    await cache.set("a", "b", 1)
    assert await cache.get("a", "b", {}) == 1


async def test_it_stands_on_a_manager_and_shares_its_entries() -> None:
    async with CacheManager(configuration()) as manager:
        cache = UnifiedCacheManager(manager)
        assert cache.manager is manager
        await cache.set("user", "1:2", "v", params={"a": 1})
        key = cache.key_builder.build_key("user", "1:2", {"a": 1})
        assert await manager.get(key) == "v"
        await manager.clear()
        assert await cache.get("user", "1:2", {"a": 1}) is None


async def test_many_are_addressed_by_identifier(cache: UnifiedCacheManager) -> None:
    assert await cache.set_many("user", {"a": 1, "b:c": None}, params={"lang": "de"})
    assert await cache.get_many("user", ["b:c", "missing", "a"], params={"lang": "de"}) == {"b:c": None, "a": 1}
    assert await cache.get_many("user", ["a"]) == {}


async def test_a_ttl_is_obeyed_everywhere() -> None:
    clock = ManualClock()
    async with CacheManager(configuration(), clock=clock) as manager:
        cache = UnifiedCacheManager(manager)
        await cache.set("c", "set", 1, ttl=10)
        await cache.set_many("c", {"many": 1}, 10)
        await cache.get_or_compute("c", "computed", value, ttl=10)
        assert len(await cache.get_many("c", ["set", "many", "computed"])) == 3
        clock.advance(10)
        assert await cache.get_many("c", ["set", "many", "computed"]) == {}


async def test_loads_are_shared(cache: UnifiedCacheManager) -> None:
    assert (
        await asyncio.gather(*(cache.get_or_compute("c", "i", value, {"p": 1}) for _ in range(10))) == ["loaded"] * 10
    )
    assert requests(cache.manager) == {"miss": 10, "loads": 1}


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ((1, "i"), "category"),
        (("c", None), "identifier"),
        (("c", "i", {"x": object()}), "params"),
        (("c", "i", 7), "params"),
    ],
    ids=["category", "identifier", "parameter", "parameters"],
)
async def test_what_cannot_be_a_key_is_refused_and_named(
    cache: UnifiedCacheManager, arguments: tuple[Any, ...], place: str
) -> None:
    with pytest.raises(UnkeyableError, match=place):
        await cache.get(*arguments)


async def test_clear_and_close_reach_the_manager_below() -> None:
    cache = UnifiedCacheManager(configuration())
    await cache.set("c", "i", 1)
    await cache.clear()
    assert await cache.get("c", "i") is None
    await cache.aclose()
    with pytest.raises(CacheClosedError):
        await cache.manager.get("k")


async def test_it_closes_only_the_manager_that_it_made() -> None:
    async with CacheManager(configuration()) as manager:
        async with UnifiedCacheManager(manager) as cache:
            await cache.set("c", "i", 1)
        assert await cache.get("c", "i") == 1


@pytest.mark.usefixtures("process")
async def test_the_process_has_one_manager_made_on_first_use() -> None:
    first = get_cache_manager()
    assert get_cache_manager() is first
    assert first.manager.config == CacheConfig()
    assert manager_of(None) is first.manager
    await first.aclose()


@pytest.mark.usefixtures("process")
async def test_after_it_was_closed_the_process_gets_a_new_one() -> None:
    first = get_cache_manager()
    await first.aclose()
    second = get_cache_manager()
    assert second is not first
    await second.set("c", "i", 1)
    await second.aclose()


@pytest.mark.usefixtures("process")
async def test_the_manager_of_the_process_can_be_chosen() -> None:
    async with CacheManager(configuration()) as manager:
        set_cache_manager(manager)
        assert get_cache_manager().manager is manager
        unified = UnifiedCacheManager(manager)
        set_cache_manager(unified)
        assert get_cache_manager() is unified


async def test_whatever_takes_a_cache_takes_either_kind_and_nothing_else(cache: UnifiedCacheManager) -> None:
    assert manager_of(cache) is cache.manager
    assert manager_of(cache.manager) is cache.manager
    with pytest.raises(TypeError, match="cache must be a CacheManager or a UnifiedCacheManager, not dict"):
        manager_of({})  # type: ignore[arg-type]  # that is the point
