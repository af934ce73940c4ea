"""`delete(soft=True)`: what was stored is stale, here and in other processes, and nothing older comes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from aurelis.cache import CacheConfig, CacheManager, EntryOptions, UnifiedCacheManager
from aurelis.cache.exceptions import LayerError
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, ManualClock, SharedMemory
from tests.managers import WITHIN, eventually

OPTIONS = EntryOptions(ttl=60, stale_if_error=30)
Make = Callable[[], CacheManager]


async def failing() -> str:
    """A load that fails."""
    raise ConnectionError("the origin has failed")


@pytest.fixture(params=["memory", "shared", "cluster", "redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """A function that makes managers which share what they keep, if their kind can."""
    clock = ManualClock()
    shared = SharedMemory(clock, cluster=request.param == "cluster")
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with AsyncExitStack() as stack:
        made: list[CacheManager] = []

        def make() -> CacheManager:
            if request.param == "memory":
                manager = made[0] if made else CacheManager(CacheConfig(), clock=clock)
            elif url is not None:
                manager = CacheManager(CacheConfig(redis_url=url))
            else:
                manager = CacheManager(CacheConfig(), clock=clock, lower=[shared.node()])
            if manager not in made:
                made.append(manager)
            return manager

        yield make
        for manager in made:
            stack.push_async_callback(manager.aclose)


def value(text: str) -> Callable[[], Awaitable[str]]:
    """A load that gives this."""

    async def load() -> str:
        return text

    return load


async def test_what_was_stored_is_stale(make: Make) -> None:
    one, two = make(), make()
    assert await one.get_or_compute("key", value("old"), options=OPTIONS) == "old"
    assert await two.get("key") == "old"
    assert await one.delete("key", soft=True)
    assert await one.get("key") is None
    await eventually(lambda: two._engine.read_memory("key") != "old")
    assert await two.get("key") is None
    for manager in (one, two):
        assert await manager.get_or_compute("key", failing, options=OPTIONS) == "old"


async def test_what_is_loaded_next_takes_its_place(make: Make) -> None:
    one, two = make(), make()
    await one.get_or_compute("key", value("old"), options=OPTIONS)
    await one.delete("key", soft=True)
    assert await two.get_or_compute("key", value("new"), options=OPTIONS) == "new"
    assert await one.get("key") == "new"
    assert await two.get("key") == "new"


async def test_nothing_is_made_stale_where_nothing_is(make: Make) -> None:
    manager = make()
    assert await manager.delete("key", soft=True) is False
    await manager.set("key", 1)
    await manager.delete("key")
    assert await manager.delete("key", soft=True) is False
    assert await manager.get("key") is None


async def test_a_load_under_way_is_not_kept(make: Make) -> None:
    one, two = make(), make()
    for manager in {one, two}:
        entered, gate = asyncio.Event(), asyncio.Event()

        async def load(entered: asyncio.Event = entered, gate: asyncio.Event = gate) -> str:
            entered.set()
            await gate.wait()
            return "older"

        task = asyncio.create_task(manager.get_or_compute("key", load, options=OPTIONS))
        await entered.wait()
        await one.delete("key", soft=True)
        gate.set()
        assert await task == "older"
        assert await one.get("key") is None
        assert await two.get("key") is None


async def test_what_was_taken_for_good_does_not_come_back(make: Make) -> None:
    """The number of changes under which it was loaded stays with it."""
    one, two = make(), make()
    await one.set("key", "old", tags=["tag"])
    await asyncio.gather(one.delete("key", soft=True), two.invalidate_tags("tag"))

    async def until_gone(manager: CacheManager) -> None:
        while True:
            await manager.get_or_compute("key", failing, options=EntryOptions(ttl=60, stale_if_error=30))
            await asyncio.sleep(0.01)

    for manager in (one, two):
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(until_gone(manager), WITHIN)  # until word of it has arrived


async def test_the_face_by_category_has_it_too(make: Make) -> None:
    cache = UnifiedCacheManager(make())
    await cache.set("user", "1", "Ada", params={"a": 1})
    assert await cache.delete("user", "1", {"a": 1}, soft=True)
    assert await cache.get("user", "1", {"a": 1}) is None


@pytest.mark.parametrize("change", ["set", "delete"])
async def test_whatever_changes_the_key_meanwhile_counts(change: str) -> None:
    """1. the old value is read, 2. another process changes the key, 3. the old value is not put back."""
    clock = ManualClock()
    shared = SharedMemory(clock)
    node = shared.node()
    one, two = (CacheManager(CacheConfig(), clock=clock, lower=[each]) for each in (node, shared.node()))
    async with one, two:
        await one.set("key", "old")
        lookup = node.lookup

        async def overtaken(key: str) -> object:
            found = await lookup(key)
            node.lookup = lookup  # type: ignore[method-assign]
            await (two.set("key", "new") if change == "set" else two.delete("key"))
            return found

        node.lookup = overtaken  # type: ignore[method-assign, assignment]
        await one.delete("key", soft=True)
        for manager in (two, one):
            assert await manager.get("key") in (None, "new")
            assert await manager.get_or_compute("key", value("new"), options=OPTIONS) == "new"
            assert await manager.get("key") == "new"


async def test_what_another_process_loads_is_forgotten() -> None:
    clock = ManualClock()
    shared = SharedMemory(clock)
    one, two = (CacheManager(CacheConfig(), clock=clock, lower=[shared.node()]) for _ in range(2))
    async with one, two:
        entered, gate = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            entered.set()
            await gate.wait()
            return "older"

        task = asyncio.create_task(two.get_or_compute("key", load))
        await entered.wait()
        await one.delete("key", soft=True)
        gate.set()
        assert await task == "older"
        assert await one.get("key") is None
        assert await one.get_or_compute("key", value("new"), options=OPTIONS) == "new"
        assert await one.get("key") == "new"


@pytest.mark.parametrize(
    "faults", [Faults(fail=1.0), Faults(fail_after=1.0), Faults(hang=1.0)], ids=["fail", "after", "hang"]
)
async def test_a_shared_layer_that_fails_is_an_error_and_nothing_old_is_used(faults: Faults) -> None:
    shared, chaos = SharedMemory(), Chaos()
    async with CacheManager(CacheConfig(timeout=0.2), lower=[ChaosSharedLayer(shared.node(), chaos)]) as cache:
        await cache.set("key", "old")
        chaos.faults = faults
        with pytest.raises(LayerError):
            await cache.delete("key", soft=True)
        assert await cache.get("key") is None
        chaos.heal()
        assert await cache.get("key") is None  # not even when the layer can be asked again, which has the value


@pytest.mark.parametrize("steps", range(1, 14))
async def test_cancelled_at_any_step_it_leaves_nothing_fresh(steps: int) -> None:
    shared = SharedMemory()
    async with CacheManager(lower=[shared.node()]) as one, CacheManager(lower=[shared.node()]) as two:
        await one.set("key", "old")
        task = asyncio.create_task(one.delete("key", soft=True))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        was_cancelled = (await asyncio.gather(task, return_exceptions=True))[0] is not True
        found = await two.get("key"), await one.get("key")
        assert found == (None, None) if not was_cancelled else found in [(None, None), ("old", "old")]
        await one.delete("key", soft=True)
        assert (await two.get("key"), await one.get("key")) == (None, None)
