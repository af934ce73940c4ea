"""`UnifiedCacheManager`: the same cache addressed by category, identifier and parameters; and that of the process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from aurelis.cache import (
    CacheConfig,
    CacheManager,
    EntryOptions,
    UnifiedCacheManager,
    get_cache_manager,
    set_cache_manager,
)
from aurelis.cache.exceptions import CacheClosedError, ConfigurationError, UnkeyableError
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


# --- invalidating


@pytest.fixture
async def filled(cache: UnifiedCacheManager) -> UnifiedCacheManager:
    """A cache with entries of three categories, each three times."""
    for category in ("user", "user2", "a:b*"):
        for identifier in ("1", "11", "1:*"):
            await cache.set(category, identifier, "plain")
            await cache.set(category, identifier, "page 1", params={"page": 1})
            await cache.set(category, identifier, "page 2", params={"page": 2})
    return cache


async def left(cache: UnifiedCacheManager) -> set[tuple[str, str]]:
    """What is still there; of each identifier everything or nothing."""
    found = set()
    for category in ("user", "user2", "a:b*"):
        for identifier in ("1", "11", "1:*"):
            values = [await cache.get(category, identifier, params) for params in (None, {"page": 1}, {"page": 2})]
            assert values in (["plain", "page 1", "page 2"], [None] * 3)
            if values[0]:
                found.add((category, identifier))
    return found


ALL = {(category, identifier) for category in ("user", "user2", "a:b*") for identifier in ("1", "11", "1:*")}
USER, SECOND, ODD = ({pair for pair in ALL if pair[0] == category} for category in ("user", "user2", "a:b*"))


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        ({"category": "user"}, USER),
        ({"category": "a:b*"}, ODD),
        ({"category": "nothing"}, set()),
        ({"category": "user", "identifier": "1"}, {("user", "1")}),
        ({"category": "user", "identifier": "1:*"}, {("user", "1:*")}),
        ({"category": "user", "identifier": "*"}, set()),
        ({"pattern": "user:1*"}, USER),
        ({"pattern": "user*:11"}, {("user", "11"), ("user2", "11")}),
        ({"pattern": "a%3Ab%2A:1%3A%2A"}, {("a:b*", "1:*")}),
        ({"category": "user", "pattern": "user:1"}, {("user", "1")}),
        ({"category": "user", "pattern": "user*:1"}, {("user", "1")}),
        ({"category": "user", "pattern": "*1"}, {("user", "1"), ("user", "11")}),
        ({"category": "user", "pattern": "user2:1"}, set()),
    ],
)
async def test_what_is_invalidated_is_gone_with_its_variants_and_nothing_else(
    filled: UnifiedCacheManager, arguments: dict[str, Any], gone: set[tuple[str, str]]
) -> None:
    await filled.invalidate(**arguments)
    assert await left(filled) == ALL - gone


async def test_the_arguments_have_the_order_of_the_interface(filled: UnifiedCacheManager) -> None:
    await filled.invalidate("user", "1")
    await filled.invalidate("user", None, "user:11")
    assert await left(filled) == ALL - {("user", "1"), ("user", "11")}


async def test_an_empty_identifier_is_one(cache: UnifiedCacheManager) -> None:
    """And not the whole category."""
    await cache.set("user", "", "nobody")
    await cache.set("user", "1", "somebody")
    await cache.invalidate("user", "")
    assert [await cache.get("user", ""), await cache.get("user", "1")] == [None, "somebody"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "name a category or a pattern"),
        ({"identifier": "1"}, "name a category"),
        ({"category": "user", "identifier": "1", "pattern": "user:*"}, "no identifier beside it"),
        ({"pattern": "user:*", "soft": True}, "never soft"),
        ({"pattern": "*"}, "begins with"),
        ({"pattern": ""}, "must not be empty"),
        ({"category": "user", "pattern": ""}, "must not be empty"),
    ],
    ids=repr,
)
async def test_what_says_too_little_or_too_much_is_refused(
    filled: UnifiedCacheManager, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        await filled.invalidate(**arguments)
    assert await left(filled) == ALL


async def test_what_is_no_text_is_refused(cache: UnifiedCacheManager) -> None:
    with pytest.raises(UnkeyableError, match="category"):
        await cache.invalidate(7)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(UnkeyableError, match="identifier"):
        await cache.invalidate("user", 7)  # type: ignore[arg-type]  # that is the point


async def test_a_soft_invalidation_leaves_stale_values(filled: UnifiedCacheManager) -> None:
    options = EntryOptions(stale_if_error=60)

    async def fails() -> str:
        raise LookupError

    await filled.invalidate("user", "1", soft=True)
    await filled.invalidate("user2", soft=True)
    assert await left(filled) == ALL - SECOND - {("user", "1")}
    for category, identifier, params in (("user", "1", None), ("user", "1", {"page": 1}), ("user2", "11", None)):
        stale = await filled.get_or_compute(category, identifier, fails, params, options=options)
        assert stale == ("page 1" if params else "plain")


async def test_an_invalidation_overtakes_a_load_of_each_variant(cache: UnifiedCacheManager) -> None:
    gate = asyncio.Event()

    async def load() -> str:
        await gate.wait()
        return "old"

    loads = [asyncio.create_task(cache.get_or_compute("user", "1", load, params)) for params in (None, {"page": 1})]
    await asyncio.sleep(0.01)
    await cache.invalidate("user", "1")
    gate.set()
    assert await asyncio.gather(*loads) == ["old"] * 2
    assert [await cache.get("user", "1"), await cache.get("user", "1", {"page": 1})] == [None, None]


async def test_an_invalidation_reaches_the_memory_of_other_processes(redis_url: str) -> None:
    config = configuration(redis_url=redis_url, timeout=10)
    async with UnifiedCacheManager(config) as one, UnifiedCacheManager(config) as two:
        forms: list[dict[str, Any]] = [
            {"category": "user", "identifier": "1"},
            {"category": "user"},
            {"pattern": "user:*"},
        ]
        for arguments in forms:
            for params in (None, {"page": 1}):
                await one.set("user", "1", "there", params=params)
                assert await two.get("user", "1", params) == "there"
            await one.invalidate(**arguments)
            for params in (None, {"page": 1}):
                assert await one.get("user", "1", params) is None
            for _ in range(5000):
                if await two.get("user", "1") is None and await two.get("user", "1", {"page": 1}) is None:
                    break
                await asyncio.sleep(0.001)
            else:
                pytest.fail("it is still there")


# --- options of categories


async def test_a_category_has_options_of_its_own() -> None:
    clock = ManualClock()
    async with CacheManager(configuration(ttl=5), clock=clock) as manager:
        cache = UnifiedCacheManager(manager, categories={"long": EntryOptions(ttl=100, stale_if_error=50)})
        loaded = "loaded"

        async def load() -> str:
            if loaded == "fails":
                raise LookupError
            return loaded

        for category in ("long", "short"):
            await cache.set(category, "set", 1)
            await cache.set_many(category, {"many": 1})
            await cache.get_or_compute(category, "computed", load)
            await cache.set(category, "own", 1, ttl=2)
        clock.advance(3)
        assert [await cache.get(category, "own") for category in ("long", "short")] == [None, None]
        clock.advance(96)
        names = ["set", "many", "computed"]
        assert len(await cache.get_many("long", names)) == 3
        assert await cache.get_many("short", names) == {}
        clock.advance(2)
        assert await cache.get_many("long", names) == {}
        loaded = "fails"
        assert await cache.get_or_compute("long", "computed", load) == "loaded"
        with pytest.raises(LookupError):
            await cache.get_or_compute("long", "computed", load, options=EntryOptions())


def test_options_of_a_category_must_be_such() -> None:
    with pytest.raises(ConfigurationError, match="categories maps names to EntryOptions, and has a dict"):
        UnifiedCacheManager(categories={"long": {"ttl": 100}})  # type: ignore[dict-item]  # that is the point
    with pytest.raises(ConfigurationError, match=r"categories must be a mapping .* not list"):
        UnifiedCacheManager(categories=["long"])  # type: ignore[arg-type]  # that is the point


async def test_the_configuration_may_have_them_and_an_argument_goes_before() -> None:
    config = configuration(categories={"a": EntryOptions(ttl=1), "b": EntryOptions(ttl=1)})
    clock = ManualClock()
    async with CacheManager(config, clock=clock) as manager:
        cache = UnifiedCacheManager(manager, categories={"b": EntryOptions(ttl=3)})
        for category in "abc":
            await cache.set(category, "k", 1)
        clock.advance(2)
        assert [await cache.get(category, "k") for category in "abc"] == [None, 1, 1]
        clock.advance(2)
        assert [await cache.get(category, "k") for category in "abc"] == [None, None, 1]
