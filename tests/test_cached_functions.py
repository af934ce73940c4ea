"""What `cached` has beside the cache itself: tags, events, ignored parameters, and the functions beside a function."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurelis.cache import CacheManager, UnifiedCacheManager, cached, current_load
from aurelis.cache.exceptions import ConfigurationError, LayerError, RecursiveLoadError, UnkeyableError
from aurelis.cache.testing import Chaos, ChaosSharedLayer, SharedMemory
from tests.managers import configuration, eventually, opened, requests


@pytest.fixture
async def cache() -> AsyncIterator[CacheManager]:
    """A cache in memory."""
    async with opened() as manager:
        yield manager


class Source:
    """Something that changes and counts who asks."""

    def __init__(self) -> None:
        self.version = 1
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> str:
        self.asked += 1
        version = self.version
        await self.gate.wait()
        return f"version {version}"


# --- tags and events


async def test_results_have_the_tags_and_those_of_the_call(cache: CacheManager) -> None:
    source = Source()

    @cached(tags=["all"], cache=cache)
    async def page(number: int) -> str:
        current_load().add_tags(f"page:{number}")
        return await source.read()

    await page(1), await page(2)
    await cache.invalidate_tags("page:1")
    await page(1), await page(2)
    assert source.asked == 3
    await cache.invalidate_tags("all")
    await page(1), await page(2)
    assert source.asked == 5


async def test_after_one_of_its_events_a_result_is_not_used(cache: CacheManager) -> None:
    source = Source()

    @cached(invalidate_on=["prices", "articles"], cache=cache)
    async def page() -> str:
        return await source.read()

    for event, asked in (("prices", 2), ("other", 2), ("articles", 3)):
        await page()
        await cache.invalidate_tags(event)
        await page()
        assert source.asked == asked


@pytest.mark.parametrize("argument", ["tags", "invalidate_on"])
def test_one_name_in_place_of_several_is_refused(argument: str) -> None:
    wrong: Any = {argument: "event"}
    with pytest.raises(TypeError, match=rf"{argument} must be a sequence of str; write {argument}=\['event'\]"):
        cached(**wrong)


# --- ignored parameters


async def test_ignored_parameters_make_no_difference(cache: CacheManager) -> None:
    calls: list[tuple[object, int, object]] = []

    @cached(ignore=["session", "trace"], cache=cache)
    async def load(session: object, user: int, *, trace: object = None) -> int:
        calls.append((session, user, trace))
        return user

    sessions = object(), object()
    assert await load(sessions[0], 1) == 1
    assert await load(sessions[1], 1, trace=object()) == 1
    assert await load(user=1, session=2) == 1
    assert await load(sessions[0], 2) == 2
    assert [user for _, user, _ in calls] == [1, 2]
    assert await load.invalidate(object(), 1)
    assert await load(object(), 1) == 1
    assert len(calls) == 3


async def test_all_the_rest_can_be_ignored(cache: CacheManager) -> None:
    calls: list[object] = []

    @cached(ignore=["rest", "named"], cache=cache)
    async def load(user: int, *rest: object, **named: object) -> int:
        calls.append(user)
        return user

    @cached(ignore=["session"], cache=cache)
    async def sums(session: object, *numbers: int) -> int:
        return sum(numbers)

    assert [await load(1), await load(1, object()), await load(1, a=object()), await load(2, object())] == [1, 1, 1, 2]
    assert calls == [1, 2]
    assert await sums(object()) == 0
    with pytest.raises(TypeError):
        await sums()  # type: ignore[call-arg]  # an ignored argument must be there all the same
    assert [await sums(object(), 1, 2), await sums(object(), 1), await sums(object(), 1, 3)] == [3, 1, 4]


def test_an_ignored_parameter_must_be_there() -> None:
    async def load(session: object, user: int) -> int:
        return user

    with pytest.raises(ConfigurationError, match=r"ignore=\['sesion'\].*load has no such parameter; .* session, user"):
        cached(ignore=["sesion"])(load)
    with pytest.raises(ConfigurationError, match=r"write ignore=\['session'\]"):
        cached(ignore="session")
    with pytest.raises(ConfigurationError, match="key_func decides what counts"):
        cached(key_func=str, ignore=["session"])


async def test_what_cannot_be_keyed_is_named_where_it_is(cache: CacheManager) -> None:
    @cached(cache=cache)
    async def load(query: object, *, session: object = None) -> None: ...

    expected = r"from query\['a'\]\[1\] of type object: pass plain data .* ignore="
    with pytest.raises(UnkeyableError, match=expected):
        await load({"a": [1, object()]})
    with pytest.raises(UnkeyableError, match=expected):
        load.key_for({"a": [1, object()]})
    with pytest.raises(UnkeyableError, match=r"from session of type object"):
        await load.invalidate(1, session=object())


# --- keys


async def test_the_key_of_a_call_can_be_had(cache: CacheManager) -> None:
    @cached(cache=cache)
    async def load(user: int, lang: str = "de") -> str:
        return f"{user} {lang}"

    await load(7)
    key = load.key_for(user=7, lang="de")
    assert key == load.key_for(7)
    assert await cache.get(key) == "7 de"
    with pytest.raises(TypeError):
        load.key_for()  # type: ignore[call-arg]  # that is the point


async def test_all_results_of_a_function_can_be_invalidated(cache: CacheManager) -> None:
    source = Source()

    @cached(category="pages", cache=cache)
    async def page(number: int) -> str:
        return await source.read()

    await page(1), await page(2)
    await cache.invalidate_category("pages")
    await page(1), await page(2)
    assert source.asked == 4


# --- invalidating one call


async def test_the_result_of_one_call_can_be_invalidated(cache: CacheManager) -> None:
    source = Source()

    @cached(cache=cache)
    async def page(number: int) -> str:
        return await source.read()

    assert not await page.invalidate(1)
    await page(1), await page(2)
    assert await page.invalidate(number=1)
    await page(1), await page(2)
    assert source.asked == 3


async def test_a_key_function_decides_what_is_invalidated(cache: CacheManager) -> None:
    source = Source()

    @cached(key_func=lambda user, options: f"user:{user}", cache=cache)
    async def load(user: str, options: dict[str, Any]) -> str:
        return await source.read()

    await load("a", {})
    assert await load.invalidate("a", {"other": 1})
    assert await UnifiedCacheManager(cache).get("function", "user:a") is None


# --- calling anew


async def test_a_refreshed_result_takes_the_place_of_the_old_one(cache: CacheManager) -> None:
    source = Source()

    @cached(tags=["t"], cache=cache)
    async def page() -> str:
        return await source.read()

    assert await page() == "version 1"
    source.version = 2
    assert await page() == "version 1"
    assert await page.refresh() == "version 2"
    assert await page() == "version 2"
    assert source.asked == 2
    assert requests(cache) == {"miss": 2, "hit l1": 2, "loads": 2}
    await cache.invalidate_tags("t")
    await page()
    assert source.asked == 3


async def test_until_a_refresh_is_done_others_get_what_there_is(cache: CacheManager) -> None:
    source = Source()

    @cached(cache=cache)
    async def page() -> str:
        return await source.read()

    await page()
    source.version = 2
    source.gate.clear()
    refreshing = asyncio.create_task(page.refresh())
    await eventually(lambda: source.asked == 2)
    assert await page() == "version 1"
    source.gate.set()
    assert await refreshing == "version 2"


async def test_when_a_refresh_fails_what_there_is_stays(cache: CacheManager) -> None:
    fails = False

    @cached(cache=cache)
    async def page() -> str:
        if fails:
            raise LookupError("gone")
        return "there"

    await page()
    fails = True
    with pytest.raises(LookupError, match="gone"):
        await page.refresh()
    assert await page() == "there"


async def test_a_refresh_shares_no_call_that_began_before(cache: CacheManager) -> None:
    source = Source()

    @cached(cache=cache)
    async def page() -> str:
        return await source.read()

    source.gate.clear()
    before = asyncio.create_task(page())
    await eventually(lambda: source.asked == 1)
    source.version = 2
    refreshing = asyncio.create_task(page.refresh())
    await eventually(lambda: source.asked == 2)
    joined = asyncio.create_task(page())
    source.gate.set()
    assert await before == "version 1"
    assert await refreshing == await joined == "version 2"
    assert await page() == "version 2"
    assert source.asked == 2


async def test_an_invalidation_overtakes_a_refresh(cache: CacheManager) -> None:
    source = Source()

    @cached(tags=["t"], cache=cache)
    async def page() -> str:
        return await source.read()

    await page()
    source.gate.clear()
    refreshing = asyncio.create_task(page.refresh())
    await eventually(lambda: source.asked == 2)
    source.version = 2
    await cache.invalidate_tags("t")
    source.gate.set()
    assert await refreshing == "version 1"
    assert await page() == "version 2"


async def test_who_leaves_a_refresh_leaves_others_unharmed(cache: CacheManager) -> None:
    source = Source()

    @cached(cache=cache)
    async def page() -> str:
        return await source.read()

    source.gate.clear()
    refreshing = asyncio.create_task(page.refresh())
    await eventually(lambda: source.asked == 1)
    joined = asyncio.create_task(page())
    await asyncio.sleep(0)
    refreshing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refreshing
    source.gate.set()
    assert await joined == "version 1"
    assert source.asked == 1


async def test_refreshes_that_come_meanwhile_share_the_next_one(cache: CacheManager) -> None:
    """What runs already may be older than they want."""
    source = Source()

    @cached(cache=cache)
    async def page() -> str:
        return await source.read()

    source.gate.clear()
    first = asyncio.create_task(page.refresh())
    await eventually(lambda: source.asked == 1)
    source.version = 2
    others = [asyncio.create_task(page.refresh()) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert source.asked == 1
    source.gate.set()
    assert await first == "version 1"
    assert await asyncio.gather(*others) == ["version 2"] * 20
    assert source.asked == 2
    assert await page() == "version 2"
    assert requests(cache) == {"miss": 21, "hit l1": 1, "loads": 2}


async def test_a_refresh_that_fails_does_not_undo_another_one(cache: CacheManager) -> None:
    source = Source()

    @cached(cache=cache)
    async def page() -> str:
        text = await source.read()
        if text == "version 3":
            raise LookupError
        return text

    await page()
    source.version = 2
    source.gate.clear()
    good = asyncio.create_task(page.refresh())
    await eventually(lambda: source.asked == 2)
    source.version = 3
    bad = asyncio.create_task(page.refresh())
    await asyncio.sleep(0)
    source.gate.set()
    assert await good == "version 2"
    with pytest.raises(LookupError):
        await bad
    assert await page() == "version 2"


@pytest.mark.parametrize("shared", [False, True])
async def test_what_a_refresh_was_to_replace_does_not_come_back(shared: bool) -> None:
    """Something has overtaken the new result that had nothing to do with the old one."""
    source = Source()
    lower = [SharedMemory().node()] if shared else []
    async with CacheManager(configuration(timeout=10), lower=lower) as cache:

        @cached(cache=cache)
        async def page() -> str:
            version = source.version
            current_load().add_tags(f"version {version}")
            await source.read()
            return f"version {version}"

        await page()
        source.version = 2
        source.gate.clear()
        refreshing = asyncio.create_task(page.refresh())
        await eventually(lambda: source.asked == 2)
        await cache.invalidate_tags("version 2")
        assert await page() == "version 1"
        source.gate.set()
        assert await refreshing == "version 2"
        source.version = 3
        assert await page() == "version 3"


async def test_a_value_that_is_set_during_a_refresh_stays(cache: CacheManager) -> None:
    source = Source()

    @cached(cache=cache)
    async def page() -> str:
        return await source.read()

    await page()
    source.gate.clear()
    refreshing = asyncio.create_task(page.refresh())
    await eventually(lambda: source.asked == 2)
    await cache.set(page.key_for(), "set")
    source.gate.set()
    assert await refreshing == "version 1"
    assert await page() == "set"


async def test_a_function_that_refreshes_itself_is_an_error(cache: CacheManager) -> None:
    @cached(cache=cache)
    async def page() -> str:
        return await page.refresh()

    with pytest.raises(RecursiveLoadError):
        await page()
    with pytest.raises(RecursiveLoadError):
        await page.refresh()


async def test_a_refresh_reaches_the_memory_of_other_processes(redis_url: str) -> None:
    """What others hold in memory is not used any more once they have heard of it."""
    source = Source()
    config = configuration(redis_url=redis_url, timeout=10)
    async with opened(config) as one, opened(config) as two:
        pages = []
        for cache in (one, two):

            async def page() -> str:
                return await source.read()

            pages.append(cached(cache=cache)(page))
        assert [await page() for page in pages] == ["version 1"] * 2
        source.version = 2
        assert await pages[0].refresh() == "version 2"
        assert await pages[0]() == "version 2"
        for _ in range(2000):
            if (seen := await pages[1]()) == "version 2":
                break
            await asyncio.sleep(0.001)
        assert seen == "version 2"
        assert source.asked == 2


async def test_a_refresh_waits_for_another_process_that_loads(redis_url: str) -> None:
    """Otherwise the other one's older result could be stored over it."""
    source = Source()
    config = configuration(redis_url=redis_url, timeout=10)
    async with opened(config) as one, opened(config) as two:

        async def page() -> str:
            return await source.read()

        first, second = cached(cache=one)(page), cached(cache=two)(page)
        source.gate.clear()
        before = asyncio.create_task(first())
        await eventually(lambda: source.asked == 1)
        source.version = 2
        refreshing = asyncio.create_task(second.refresh())
        await asyncio.sleep(0.05)
        assert source.asked == 1
        source.gate.set()
        assert await before == "version 1"
        assert await refreshing == "version 2"
        assert await second() == "version 2"


@contextlib.asynccontextmanager
async def opened_with_chaos() -> AsyncIterator[tuple[CacheManager, Chaos]]:
    """A cache over a shared layer that can be made to fail."""
    chaos = Chaos()
    config = configuration(timeout=10, breaker_failures=1000)
    async with CacheManager(config, lower=[ChaosSharedLayer(SharedMemory().node(), chaos)]) as cache:
        yield cache, chaos


async def test_what_a_layer_has_not_heard_of_does_not_undo_a_refresh() -> None:
    """The layer still has the old value when it answers again."""
    source = Source()
    async with opened_with_chaos() as (cache, chaos):

        @cached(cache=cache)
        async def page() -> str:
            return await source.read()

        await page()
        source.version = 2
        chaos.cut()
        assert await page.refresh() == "version 2"
        assert await page() == "version 2"
        chaos.heal()
        cache._engine.stack.forget(page.key_for())
        assert await page() == "version 2"


async def test_invalidating_says_when_others_may_not_have_heard() -> None:
    async with opened_with_chaos() as (cache, chaos):

        @cached(cache=cache)
        async def page() -> int:
            return 1

        await page()
        chaos.cut()
        with pytest.raises(LayerError):
            await page.invalidate()
        chaos.heal()
