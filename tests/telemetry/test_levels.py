"""Levels: what is so now, of all caches of one name together, and of none that is gone."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from aurelis.cache import CacheConfig, CacheLayer, CacheManager, FileCacheManager, SimilarityCache, WriteBehind
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import _PROVIDERS, instrument
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, ManualClock, SharedMemory
from tests.managers import configuration, count, eventually, fresh_name, opened, own_counts, run_script, series
from tests.similarity.test_cache import ASKED, Failing, kept
from tests.strategies.stores import Table
from tests.telemetry.collecting import Metrics

PAUSE = 60.0
PATIENT = 10.0


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    """A reader of the metrics of this module's caches."""
    with own_counts():
        yield Metrics()


def breakers(manager: CacheManager | str) -> dict[str, int]:
    """Returns how many breakers of caches of this name are in which state; states that none is in are left out."""
    found: dict[str, int] = {}
    for attributes, value in series(manager, names.BREAKERS).items():
        state = dict(attributes)[names.BREAKER_STATE]
        found[state] = found.get(state, 0) + int(value)
    return {state: number for state, number in found.items() if number}


class Failed:
    """A cache over a shared layer that fails, and works when it is told."""

    def __init__(self, name: str = "") -> None:
        self.clock = ManualClock()
        self.chaos = Chaos(Faults(fail=1.0, refuse=1.0))
        lower = [ChaosSharedLayer(SharedMemory(self.clock).node(self.clock), self.chaos)]
        self.config = configuration(
            **({"name": name} if name else {}), breaker_failures=1, breaker_pause=PAUSE, heartbeat=1000.0
        )
        self.manager = CacheManager(self.config, clock=self.clock, lower=lower)


# --- breakers


async def test_the_state_of_a_breaker_is_a_level_in_each_of_its_states() -> None:
    failed = Failed()
    manager, gate = failed.manager, asyncio.Event()
    assert breakers(manager) == {"closed": 1}
    await manager.get("k")
    assert breakers(manager) == {"open": 1}
    failed.clock.advance(PAUSE * 2)
    assert breakers(manager) == {"open": 1}, "until somebody asks"
    failed.chaos.faults = Faults()
    guard = manager._engine.stack.lower[0]

    async def probe() -> None:
        await gate.wait()

    probing = asyncio.create_task(guard.call("get", probe, None))
    await eventually(lambda: breakers(manager) != {"open": 1})
    assert breakers(manager) == {"half_open": 1}
    gate.set()
    await probing
    assert breakers(manager) == {"closed": 1}
    await manager.aclose()
    assert breakers(manager) == {}, "of one that is closed nothing is asked any more"


async def test_a_cache_that_is_garbage_leaves_no_breaker_open(metrics: Metrics) -> None:
    name = fresh_name()
    for turn in (1, 2):
        failed = Failed(name)
        await failed.manager.get("k")
        assert breakers(name) == {"open": 1}
        del failed
        gc.collect()
        assert metrics.points(names.BREAKERS, name) == []
        assert count(name, names.BREAKER, {names.BREAKER_STATE: "open"}) == turn


async def test_breakers_of_caches_of_one_name_add_up() -> None:
    one = Failed()
    other = Failed(one.config.name)
    await one.manager.get("k")
    assert breakers(one.manager) == {"open": 1, "closed": 1}
    await other.manager.get("k")
    assert breakers(one.manager) == {"open": 2}
    await one.manager.aclose()
    await other.manager.aclose()


def test_a_child_says_what_is_so_in_it() -> None:
    printed = run_script(
        """
        import asyncio, os
        from aurelis.cache import CacheConfig, CacheManager
        from aurelis.cache.telemetry import names
        from aurelis.cache.telemetry._cells import REGISTRY

        options = dict(redis_url="redis://127.0.0.1:1", breaker_failures=1, breaker_pause=60.0)
        cache = CacheManager(CacheConfig(name="forked", **options))

        def show(who):
            print(who, *(dict(key)[names.BREAKER_STATE] for key, n in REGISTRY.levels(names.BREAKERS).items() if n))

        asyncio.run(cache.get("a"))
        print(end="", flush=True)
        child = os.fork()
        if child == 0:
            show("child")
            os._exit(print(end="", flush=True) or 0)
        os.waitpid(child, 0)
        show("parent")
        """
    )
    assert printed.splitlines() == ["child closed", "parent open"]


async def test_an_embedder_that_is_left_alone_has_one_too() -> None:
    clock = ManualClock()
    async with opened(kept(), clock=clock) as manager:
        embedder = Failing(ConnectionError())
        async with SimilarityCache(manager, embedder=embedder) as similar:
            assert breakers(manager) == {"closed": 1}
            for _ in range(3):
                assert await similar.find_similar_response(ASKED, "m") is None
            assert breakers(manager) == {"open": 1}
            clock.advance(11)
            embedder.gives = [[1.0, 0.0]]
            await similar.find_similar_response(ASKED, "m")
            assert breakers(manager) == {"closed": 1}


async def test_what_a_closed_cache_could_not_tell_waits_no_more() -> None:
    failed = Failed()
    await failed.manager.set("k", 1)
    assert count(failed.manager, names.PENDING) == 1
    await failed.manager.aclose()
    assert series(failed.manager, names.PENDING) == {}


# --- what several caches share


async def test_two_caches_of_one_name_on_one_folder_tell_of_its_disk_once(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    name, disk = fresh_name(), {names.LAYER: names.L3}
    layers = [CacheLayer("disk", "disk", ttl=3600)]

    def config(folder: str) -> CacheConfig:
        return configuration(name=name, cache_dir=tmp_path / folder, layers=layers, timeout=PATIENT)

    async with opened(config("folder")) as one, opened(config("link")) as same, opened(config("other")) as other:
        for number in range(3):
            await one.set(f"k{number}", "x" * 100)
        await same.set("k", "x" * 100)
        await one.set("k", "x" * 100)
        await other.set("k", "x" * 100)
        assert count(name, names.ENTRIES, disk) == 4 + 1
        assert count(name, names.LIMIT, disk) == 2 * one.config.disk_max_bytes
        held = [cache._engine.stack.lower[0].layer.database.bytes for cache in (one, other)]  # type: ignore[attr-defined]
        assert count(name, names.USAGE, disk) == sum(held)


async def test_so_do_two_file_caches(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    one, other = (FileCacheManager(tmp_path / "copies", name=fresh_name()) for _ in range(2))
    name = one._telemetry.name
    same = FileCacheManager(tmp_path / "copies", name=name)
    await one.cache_file(tmp_path / "file")
    for cache in (name, other._telemetry.name):
        assert (count(cache, names.ENTRIES), count(cache, names.USAGE)) == (1, 100)
    assert count(name, names.LIMIT) == same._store.max_bytes


@pytest.mark.parametrize("medium", ["folder", "redis"])
async def test_so_do_two_write_behinds_on_one_journal(tmp_path: Path, redis_url: str, medium: str) -> None:
    table = Table()
    table.open.clear()  # nothing comes to the store meanwhile, whoever brings it
    options: Any = {"journal": tmp_path if medium == "folder" else redis_url, "flush_interval": 3600}
    async with opened(configuration(namespace=fresh_name())) as cache:
        one, other = (WriteBehind(cache, table, **options) for _ in range(2))
        apart = WriteBehind(cache, table, name="apart", **options)
        async with one, other, apart:
            for number in range(3):
                await one.set(f"k{number}", number)
            await apart.set("k", 1)
            for behind in (one, other, apart):
                assert not await behind.flush(0), "but it has looked into the journal"
            waiting = {dict(key)[names.JOURNAL]: level for key, level in series(cache, names.WRITES_WAITING).items()}
            assert waiting == {"default": 3, "apart": 1}
            table.open.set()


# --- providers


async def value() -> int:
    """A load."""
    return 1


async def test_what_nobody_can_collect_is_kept_by_nobody() -> None:
    sets = len(_PROVIDERS.sets)
    readers = []
    for _ in range(5):
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader], shutdown_on_exit=False)
        instrument(provider)
        readers.append(weakref.ref(reader))
        del provider, reader
    gc.collect()
    last = Metrics()
    assert len(_PROVIDERS.sets) <= sets + 1
    gc.collect()
    assert [reader for reader in readers if reader() is not None] == []
    async with opened() as cache:
        await cache.get_or_compute("k", value)
        assert [point.count for _, point in last.points(names.DURATION, cache.config.name)] == [1]


async def test_a_reader_that_outlives_its_provider_is_told_everything() -> None:
    reader = InMemoryMetricReader()
    instrument(MeterProvider([reader], shutdown_on_exit=False))
    gc.collect()
    async with opened() as cache:
        await cache.get_or_compute("k", value)
        data = reader.get_metrics_data()
        assert data is not None
        found = {
            metric.name
            for metric in data.resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
            if (point.attributes or {})[names.NAME] == cache.config.name
        }
        assert {names.REQUESTS.name, names.DURATION.name, names.SIZE.name} <= found
