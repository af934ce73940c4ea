"""Memory, a shared layer and a disk: what lies on the disk counts only if the shared layer says so."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache import CacheConfig, CacheKeyBuilder, CacheLayer, CacheManager, EntryOptions
from aurelis.cache._tags import own
from aurelis.cache.exceptions import ConfigurationError, LayerError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, ManualClock, SharedMemory
from tests.managers import configuration, count, eventually, requests
from tests.servers import ServerProcess, redis_command


@dataclass
class World:
    """Machines, each with a disk, that share a memory.

    Attributes:
        faults: of the shared memory, for each manager.
    """

    folder: Path
    clock: ManualClock = field(default_factory=ManualClock)
    managers: list[CacheManager] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shared = SharedMemory(self.clock)
        self.chaos: dict[CacheManager, Chaos] = {}

    def manager(self, machine: str, **options: Any) -> CacheManager:
        """Makes a process of a machine."""
        chaos = Chaos()
        config = configuration(cache_dir=self.folder / machine, breaker_failures=1000, timeout=10, **options)
        manager = CacheManager(config, clock=self.clock, lower=[ChaosSharedLayer(self.shared.node(), chaos)])
        self.managers.append(manager)
        self.chaos[manager] = chaos
        return manager

    def evict(self, *keys: str) -> None:
        """The shared memory forgets entries for want of room."""
        self.shared.lose_entries(*keys)

    def silence(self, manager: CacheManager) -> None:
        """The shared memory does not answer any more."""
        self.chaos[manager].faults = Faults(fail=1.0)

    def answer(self, manager: CacheManager) -> None:
        """It does again."""
        self.chaos[manager].faults = Faults()


async def forget(*managers: CacheManager) -> None:
    """What the processes have in memory goes, as if they had been started again."""
    for manager in managers:
        memory = manager._engine.stack.memory
        assert memory is not None
        await memory.remove_all()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world without processes."""
    world = World(tmp_path)
    yield world
    for manager in world.managers:
        await manager.aclose()


async def load(value: object) -> Any:
    """A loader gives this."""
    return value


async def loaded(manager: CacheManager, key: str, value: object, **options: Any) -> object:
    """Has the value loaded if there is none."""
    return await manager.get_or_compute(key, lambda: load(value), **options)


def kept(world: World) -> set[str]:
    """Returns the keys in the shared memory."""
    return set(world.shared.keys())


# --- what is found


async def test_what_the_shared_layer_has_lost_the_disk_still_has(world: World) -> None:
    cache = world.manager("a")
    assert await loaded(cache, "loaded", [1], tags=["t"])
    assert await cache.set("set", [2], tags=["t"])
    await cache.set("other", 0)  # the number of changes goes on
    world.evict("loaded", "set")
    await forget(cache)
    assert await cache.get("loaded") == [1]
    assert await cache.get("set") == [2]
    assert requests(cache)["hit l3"] == 2
    assert await cache.get("loaded") == [1]
    assert requests(cache)["hit l1"] == 1


async def test_the_shared_layer_is_asked_first(world: World) -> None:
    cache = world.manager("a")
    await cache.set("k", 1)
    await forget(cache)
    assert await cache.get("k") == 1
    assert requests(cache) == {"hit l2": 1}


async def test_what_is_fresh_goes_up_into_the_shared_layer_again(world: World) -> None:
    cache, other = world.manager("a"), world.manager("b")
    await loaded(cache, "k", [1], ttl=100, tags=["t"])
    world.evict("k")
    await forget(cache)
    world.clock.advance(60)
    assert await cache.get("k") == [1]
    assert kept(world) == {"k"}
    assert world.shared.leases() == []
    world.clock.advance(30)
    assert await other.get("k") == [1]
    await other.invalidate_tags("t")
    await asyncio.sleep(0.01)
    assert await cache.get("k") is None
    world.clock.advance(10)
    assert await other.get("k") is None


async def test_what_is_stale_does_not(world: World) -> None:
    cache = world.manager("a")
    options = EntryOptions(stale_if_error=1000)
    await loaded(cache, "k", 1, ttl=10, options=options)
    world.evict("k")
    await forget(cache)
    world.clock.advance(20)

    async def fail() -> int:
        raise OSError

    assert await cache.get_or_compute("k", fail, ttl=10, options=options) == 1
    assert kept(world) == set()


async def test_what_was_made_stale_does_not(world: World) -> None:
    cache = world.manager("a")
    options = EntryOptions(stale_if_error=1000)
    await loaded(cache, "k", 1, ttl=100, tags=["t"], options=options)
    await cache.invalidate_tags("t", soft=True)
    world.evict("k")
    await forget(cache)

    async def fail() -> int:
        raise OSError

    assert await cache.get_or_compute("k", fail, ttl=100, options=options) == 1
    assert kept(world) == set()


async def test_what_is_changed_while_it_goes_up_is_not_put_there(world: World) -> None:
    cache, other = world.manager("a"), world.manager("b")
    await loaded(cache, "k", "old")
    world.evict("k")
    await forget(cache)
    shared: Any = cache._engine.stack.shared
    publish = shared.layer.publish

    async def after_a_change(*arguments: Any, **options: Any) -> bool:
        await other.set("k", "new")
        stored: bool = await publish(*arguments, **options)
        assert not stored
        return stored

    shared.layer.publish = after_a_change
    await cache.get("k")
    del shared.layer.publish
    await forget(cache, other)
    assert await cache.get("k") == await other.get("k") == "new"


async def test_many_are_found_together(world: World) -> None:
    cache = world.manager("a")
    keys = [f"{number}" for number in range(20)]
    await cache.set_many({key: [1] for key in keys})
    world.evict(*keys[:10])
    await forget(cache)
    assert await cache.get_many([*keys, "missing"]) == {key: [1] for key in keys}
    results = requests(cache)
    assert (results["hit l2"], results["hit l3"]) == (10, 10)
    await cache.delete("3")
    assert "3" not in await cache.get_many(keys)


# --- what is gone

KEY = CacheKeyBuilder().build_key("things", "k")

Change = Callable[[CacheManager], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "set": lambda cache: cache.set(KEY, "new"),
    "delete": lambda cache: cache.delete(KEY),
    "a tag": lambda cache: cache.invalidate_tags("t"),
    "everything": lambda cache: cache.clear(),
    "a pattern": lambda cache: cache.invalidate_pattern("*", everything=True),
}


@pytest.mark.parametrize("how", ["loaded", "set"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_on_another_machine_holds_for_the_disk(world: World, change: Change, how: str) -> None:
    cache, other = world.manager("a"), world.manager("b")
    if how == "set":
        await cache.set(KEY, "old", tags=["t"])
    else:
        await loaded(cache, KEY, "old", tags=["t"])
    await cache.set("other", 1)
    await change(other)
    world.evict(KEY)
    await forget(cache)
    assert await cache.get(KEY) is None
    assert await loaded(cache, KEY, "newer") == "newer"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_while_nobody_was_there_holds_for_the_disk(world: World, change: Change) -> None:
    cache = world.manager("a")
    await loaded(cache, KEY, "old", tags=["t"])
    await cache.aclose()
    other = world.manager("b")
    await change(other)
    world.evict(KEY)
    assert await world.manager("a").get(KEY) is None


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_while_it_loads_holds_for_the_disk(world: World, change: Change) -> None:
    cache, other = world.manager("a"), world.manager("b")

    async def slow() -> str:
        await change(other)
        return "old"

    await cache.get_or_compute(KEY, slow, tags=["t"])
    world.evict(KEY)
    await forget(cache)
    assert await cache.get(KEY) is None


@pytest.mark.parametrize("lost", ["tags", "everything"])
async def test_records_that_are_lost_make_a_miss(world: World, lost: str) -> None:
    cache = world.manager("a")
    await loaded(cache, KEY, 1)
    await cache.set("other", 1)
    world.evict(KEY)
    if lost == "tags":
        world.shared.lose_tags(own(KEY))
    else:
        world.clock.advance(1)
        world.shared.lose_everything()
        await eventually(lambda: not cache._engine.stack.generations.in_step)
    await forget(cache)
    assert await cache.get(KEY) is None


async def test_a_process_of_the_same_machine_without_a_disk_is_heeded(world: World) -> None:
    cache = world.manager("a")
    await loaded(cache, KEY, "old")
    async with CacheManager(configuration(), clock=world.clock, lower=[world.shared.node()]) as without:
        await without.delete(KEY)
    await forget(cache)
    assert await cache.get(KEY) is None


# --- while the shared layer is silent


async def test_what_was_stored_a_short_while_ago_is_served_while_the_shared_layer_is_silent(world: World) -> None:
    cache = world.manager("a", l1_ttl=300)
    await loaded(cache, KEY, [1], ttl=1000)
    await forget(cache)
    world.silence(cache)
    assert await cache.get(KEY) == [1]
    assert await cache.get_many([KEY]) == {KEY: [1]}
    world.clock.advance(299)
    assert await cache.get(KEY) == [1]
    world.clock.advance(2)
    assert await cache.get(KEY) is None
    assert await cache.get_many([KEY]) == {}
    world.answer(cache)
    assert await cache.get(KEY) == [1]


async def test_what_this_process_knows_to_be_gone_is_not_served_meanwhile(world: World) -> None:
    cache = world.manager("a")
    await loaded(cache, KEY, 1, tags=["t"])
    await loaded(cache, "l", 1)
    await forget(cache)
    world.silence(cache)
    with pytest.raises(LayerError):
        await cache.invalidate_tags("t")
    assert await cache.get(KEY) is None
    with pytest.raises(LayerError):
        await cache.delete("l")
    assert await cache.get("l") is None


async def test_memory_is_of_use_though_the_disk_has_nothing(world: World) -> None:
    cache = world.manager("a")
    await cache.set(KEY, 1)
    await cache._engine.stack.lower[-1].layer.remove_all()
    cache._engine.stack.generations.lost_step()
    world.silence(cache)
    assert await cache.get(KEY) == 1
    assert await cache.get_many([KEY]) == {KEY: 1}


async def test_what_was_loaded_meanwhile_counts_if_nothing_was_changed(world: World) -> None:
    cache, other = world.manager("a"), world.manager("b")
    await loaded(cache, KEY, "first")
    await cache.get(KEY)
    await cache.delete(KEY)
    world.silence(cache)
    assert await loaded(cache, KEY, "second") == "second"
    await forget(cache)
    assert await cache.get(KEY) == "second"
    world.answer(cache)
    await forget(cache)
    assert await cache.get(KEY) == "second"
    await other.delete(KEY)
    world.evict(KEY)
    await forget(cache)
    assert await cache.get(KEY) is None


# --- when the disk fails


async def test_a_disk_that_fails_harms_no_request(world: World, tmp_path: Path) -> None:
    (tmp_path / "a").touch()  # a file in place of the folder
    cache = world.manager("a")
    assert not await cache.set(KEY, 1)  # not in every layer
    assert await cache.get(KEY) == 1
    await forget(cache)
    assert await cache.get(KEY) == 1
    assert await cache.get("missing") is None
    assert await loaded(cache, "l", 2) == 2
    assert await cache.delete(KEY)  # the shared layer says that it is gone, so the disk need not
    await cache.clear()
    assert count(cache, names.ERRORS, {names.LAYER: "l3"}) > 0


# --- with Redis


async def test_memory_redis_and_disk(tmp_path: Path, redis_url: str, shared_redis: ServerProcess) -> None:
    def make(machine: str) -> CacheManager:
        return CacheManager(configuration(redis_url=redis_url, cache_dir=tmp_path / machine, timeout=10))

    keys = [CacheKeyBuilder().build_key("things", f"{number}") for number in range(6)]

    def evict() -> None:
        for key in keys:
            redis_command(shared_redis.port, f"DEL aurelis:e:{{{key}}}")

    async with make("a") as cache, make("b") as other:
        assert [guard.name for guard in cache._engine.stack.lower] == ["l2", "l3"]
        for number in range(5):
            await loaded(cache, keys[number], [number], tags=["t"] if number == 3 else [])
        await cache.set(keys[5], [5])
        await cache.set("other", 0)
        await other.delete(keys[0])
        await other.set(keys[1], "new")
        await other.invalidate_tags("t")
        evict()
        await forget(cache, other)
        assert [await cache.get(key) for key in keys] == [None, None, [2], None, [4], [5]]
        assert requests(cache)["hit l3"] == 3
        assert [await other.get(key) for key in keys] == [None, "new", [2], None, [4], [5]]  # from Redis again
        assert requests(other)["hit l2"] == 3
        await cache.invalidate_pattern("things:*")
        await forget(cache, other)
        for each in (cache, other):
            assert [await each.get(key) for key in keys] == [None] * 6


async def test_what_was_stored_under_another_redis_is_not_seen(tmp_path: Path, redis_url: str) -> None:
    for database, found in (("0", None), ("1", None), ("0", 1)):
        url = f"{redis_url.rpartition('/')[0]}/{database}"
        config = configuration(redis_url=url, cache_dir=tmp_path, timeout=10, layers=[
            CacheLayer("L2", "redis", 3600, priority=2), CacheLayer("L3", "disk", 3600, priority=1)
        ])  # fmt: skip
        async with CacheManager(config) as cache:
            before = await cache.get(KEY)
            assert before == found
            await loaded(cache, KEY, 1)
    async with CacheManager(configuration(cache_dir=tmp_path, timeout=10)) as alone:
        assert await alone.get(KEY) is None


# --- memory and disk


@dataclass
class Machine:
    """Processes with one disk and nothing else."""

    folder: Path
    managers: list[CacheManager] = field(default_factory=list)

    def manager(self, **options: Any) -> CacheManager:
        """Makes a process."""
        manager = CacheManager(configuration(cache_dir=self.folder, timeout=10, **options))
        self.managers.append(manager)
        return manager


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """A machine without processes."""
    machine = Machine(tmp_path)
    yield machine
    for manager in machine.managers:
        await manager.aclose()


async def test_values_outlive_the_process(machine: Machine) -> None:
    async with machine.manager() as cache:
        await cache.set(KEY, {"a": [1]}, ttl=100, tags=["t"])
        await loaded(cache, "l", (1, 2))
    cache = machine.manager()
    assert await cache.get(KEY) == {"a": [1]}
    assert await loaded(cache, "l", "not this") == (1, 2)
    assert requests(cache) == {"hit l3": 2}
    await cache.invalidate_tags("t")
    await cache.aclose()
    cache = machine.manager()
    assert await cache.get(KEY) is None
    assert await cache.get("l") == (1, 2)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_reaches_the_memory_of_other_processes(machine: Machine, change: Change) -> None:
    one, other = machine.manager(), machine.manager()
    await one.set(KEY, "old", tags=["t"])
    assert await other.get(KEY) == "old"
    assert await other.get(KEY) == "old"
    await change(one)
    wanted = "new" if change is CHANGES["set"] else None
    deadline = asyncio.get_running_loop().time() + 5
    while await other.get(KEY) != wanted:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    assert await one.get(KEY) == wanted


async def test_one_process_loads_for_all(machine: Machine) -> None:
    managers = [machine.manager() for _ in range(3)]
    loads = []

    async def slow() -> str:
        loads.append(1)
        await asyncio.sleep(0.2)
        return "value"

    calls = [cache.get_or_compute(KEY, slow) for cache in managers for _ in range(50)]
    assert set(await asyncio.gather(*calls)) == {"value"}
    assert len(loads) == 1


async def test_a_load_that_a_change_has_overtaken_is_not_stored(machine: Machine) -> None:
    one, other = machine.manager(), machine.manager()

    async def slow() -> str:
        await other.delete(KEY)
        return "old"

    assert await one.get_or_compute(KEY, slow) == "old"
    assert await other.get(KEY) is None
    assert await one.get(KEY) is None


async def test_what_the_disk_could_not_be_told_is_told_later(machine: Machine) -> None:
    cache, other = machine.manager(), machine.manager()
    await cache.set(KEY, "old", tags=["t"])
    assert await other.get(KEY) == "old"
    disk: Any = cache._engine.stack.lower[0].layer
    write = disk.database.write

    def fail(work: object) -> Any:
        raise OSError("the disk is gone")

    disk.database.write = fail
    with pytest.raises(LayerError):
        await cache.invalidate_tags("t")
    assert await cache.get(KEY) is None
    disk.database.write = write
    deadline = asyncio.get_running_loop().time() + 10
    while await other.get(KEY) is not None:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def test_what_telemetry_says_of_the_disk(machine: Machine) -> None:
    cache = machine.manager(disk_max_size=3, disk_max_bytes=10_000_000)
    for number in range(5):
        await cache.set(f"{number}", number)
    await forget(cache)
    assert await cache.get("4") == 4
    assert await cache.get("missing") is None
    layer = {names.LAYER: "l3"}
    assert count(cache, names.LOOKUPS, {**layer, names.RESULT: "hit"}) == 1
    assert count(cache, names.LOOKUPS, {**layer, names.RESULT: "miss"}) == 1
    assert count(cache, names.ENTRIES, layer) == 3
    assert 300 < count(cache, names.USAGE, layer) < 3000
    assert count(cache, names.LIMIT, layer) == 10_000_000
    assert count(cache, names.EVICTIONS, {**layer, names.REASON: "capacity"}) == 2


async def test_closing_leaves_no_thread(machine: Machine) -> None:
    before = set(threading.enumerate())
    async with machine.manager() as cache:
        await cache.set(KEY, 1)
        await cache.get("missing")
    left = set(threading.enumerate()) - before
    assert [thread.name for thread in left if thread.name.startswith("aurelis")] == []


# --- configuration


def layers(*backends: str) -> Sequence[CacheLayer]:
    """Returns layers in this order."""
    return [CacheLayer(backend, backend, 60, priority=-number) for number, backend in enumerate(backends)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_dir": ""}, "path of a folder"),
        ({"cache_dir": 5}, "cache_dir must be a str or a path"),
        ({"cache_dir": b"cache"}, "cache_dir must be a str or a path"),
        ({"cache_dir": "a\0b"}, "path of a folder"),
        ({"layers": layers("disk")}, "needs cache_dir="),
        ({"cache_dir": "c", "layers": layers("memory")}, "no disk layer"),
        ({"cache_dir": "c", "layers": layers("disk", "redis"), "redis_url": "redis://h"}, "lowest priority"),
        ({"cache_dir": "c", "copy": False}, "memory alone"),
        ({"disk_max_size": 0}, "disk_max_size"),
        ({"disk_max_bytes": 1.5}, "disk_max_bytes"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        CacheConfig(**options)


def test_the_layers_follow_from_the_options() -> None:
    def backends(config: CacheConfig) -> list[str]:
        return [layer.backend for layer in config.effective_layers()]

    assert backends(CacheConfig(cache_dir="c")) == ["memory", "disk"]
    assert backends(CacheConfig(cache_dir=Path("c"), redis_url="redis://h")) == ["memory", "redis", "disk"]
    alone = CacheConfig(cache_dir="c", layers=layers("disk"))
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        manager = CacheManager(alone)
        assert [guard.name for guard in manager._engine.stack.lower] == ["l3"]
        loop.run_until_complete(manager.aclose())
