"""Keys by pattern: what is meant, what is not, and that it is gone everywhere."""

import asyncio
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache import CacheConfig, CacheKeyBuilder, CacheManager, UnifiedCacheManager
from aurelis.cache._keys import escape
from aurelis.cache._patterns import matcher
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.layers._names import Names
from tests.managers import configuration, opened

PATIENT = 10.0
"""Seconds, on a machine that has other work."""

KEYS = CacheKeyBuilder("shop")
text = st.text(st.characters(codec=None), max_size=8)


def meant(pattern: str, category: str, identifier: str, **options: Any) -> bool:
    """Returns whether a pattern names a key."""
    return matcher(pattern, "shop:", everything=True)(KEYS.build_key(category, identifier, **options))


@given(text, text)
def test_a_pattern_without_a_star_names_one_thing_in_all_its_variants(category: str, identifier: str) -> None:
    pattern = f"{escape(category)}:{escape(identifier)}"
    assert meant(pattern, category, identifier)
    assert meant(pattern, category, identifier, params={"page": 1})
    assert meant(pattern, category, identifier, version="v2")
    assert not meant(pattern, category, identifier + "x")
    assert not meant(pattern, category + "x", identifier)
    assert not matcher(pattern, "shop:", everything=True)(CacheKeyBuilder("shop2").build_key(category, identifier))


@given(text, text, st.integers(0, 8))
def test_a_star_is_any_text_and_nothing_else_is_special(category: str, identifier: str, cut: int) -> None:
    whole = f"{escape(category)}:{escape(identifier)}"
    assert meant(whole[:cut] + "*", category, identifier)
    assert meant("*" + whole[cut:], category, identifier)
    assert not meant(whole[:cut] + "?" + whole[cut + 1 :], category, identifier)
    assert not meant("[" + whole + "]*", category, identifier)


@pytest.mark.parametrize(("pattern", "says"), [("", "clear"), ("*", "everything=True"), ("*:17", "everything=True")])
def test_a_pattern_that_says_too_little_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        matcher(pattern, "shop:", everything=False)


async def test_the_refusal_advises_what_there_is() -> None:
    """`invalidate` has no `everything`, so its error must not say so."""
    async with UnifiedCacheManager() as cache:
        await cache.set("user", "17", "Ada")
        with pytest.raises(ConfigurationError, match=r"name a category, or use invalidate_pattern\("):
            await cache.invalidate(pattern="*")
        await cache.invalidate("user", pattern="*")
        assert await cache.get("user", "17") is None
        await cache.set("user", "17", "Ada")
        assert await cache.invalidate_pattern("*", everything=True) == 1


@given(st.one_of(text, st.builds(KEYS.build_key, text, text, st.sampled_from([None, {"page": 1}]))))
def test_a_key_can_be_read_from_the_name_of_its_entry(key: str) -> None:
    names = Names("shop")
    assert names.key(names.entry(key)) == key


@pytest.fixture(params=["memory", "redis"])
def config(request: pytest.FixtureRequest) -> CacheConfig:
    """Memory alone, and with Redis."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    return configuration(redis_url=url, timeout=PATIENT)


async def fill(cache: CacheManager) -> UnifiedCacheManager:
    """Stores things of two categories, with variants and glob characters."""
    unified = UnifiedCacheManager(cache)
    for number in range(20):
        await unified.set("user", f"a{number}", number)
        await unified.set("user", f"a{number}", number, params={"page": 1})
        await unified.set("post", f"a{number}", number)
    await unified.set("user", "a*", "star")
    await cache.set("user:a1", "a key of another shape")
    return unified


async def test_what_is_meant_is_gone_and_counted_and_the_rest_stays(config: CacheConfig) -> None:
    async with opened(config) as cache:
        unified = await fill(cache)
        seen: list[tuple[int, int]] = []
        assert await unified.invalidate_pattern("user:a1*", progress=lambda *state: seen.append(state)) == 22
        assert await unified.get("user", "a1") is None
        assert await unified.get("user", "a17", {"page": 1}) is None
        assert await unified.get("user", "a2") == 2
        assert await unified.get("user", "a2", {"page": 1}) == 2
        assert await unified.get("post", "a1") == 1
        assert await cache.get("user:a1") == "a key of another shape"
        assert seen == sorted(seen)
        if config.redis_url:
            assert seen[-1][1] == 22
        assert await unified.invalidate_pattern("user:a%2A") == 1
        assert await unified.get("user", "a*") is None
        assert await unified.get("user", "a3") == 3
        assert await unified.invalidate_pattern("*", everything=True) == 38


async def test_other_processes_forget_it_too_and_neighbours_keep_theirs(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        raw.set("shop:e:{shop:v1:user:a1}x", "of a neighbour")
        raw.set("user:a1", "of a neighbour")
        async with (
            opened(configuration(redis_url=redis_url, namespace="shop")) as one,
            opened(configuration(redis_url=redis_url, namespace="shop")) as two,
        ):
            unified = await fill(one)
            other = UnifiedCacheManager(two)
            assert await other.get("user", "a1") == 1
            await unified.invalidate_pattern("user:a*")
            async with asyncio.timeout(10):
                while await other.get("user", "a1") is not None:
                    await asyncio.sleep(0.001)
        assert raw.get("shop:e:{shop:v1:user:a1}x") == b"of a neighbour"
        assert raw.get("user:a1") == b"of a neighbour"


async def test_a_load_under_way_is_not_stored(config: CacheConfig) -> None:
    async with opened(config) as cache:
        unified = UnifiedCacheManager(cache)
        loading, go = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            loading.set()
            await go.wait()
            return "old"

        early = asyncio.create_task(unified.get_or_compute("user", "17", load))
        await loading.wait()
        await unified.invalidate_pattern("user:*")
        go.set()
        assert await early == "old"
        assert await unified.get("user", "17") is None
