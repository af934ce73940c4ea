"""`CacheMonitor`, `CacheStats` and `CacheMetrics`: what OpenTelemetry reports, and nothing else."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from aurelis.cache import (
    CacheManager,
    CacheMetrics,
    CacheMonitor,
    CacheStats,
    EntryOptions,
    UnifiedCacheManager,
    set_cache_manager,
)
from aurelis.cache import monitor as monitoring
from aurelis.cache.exceptions import LayerError
from aurelis.cache.telemetry import names, otel
from aurelis.cache.telemetry.otel import SAMPLE_MASK
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, opened, own_counts, run_script, series
from tests.servers import ServerProcess
from tests.telemetry.collecting import Metrics


@pytest.fixture(autouse=True)
def its_own_counts() -> Iterator[None]:
    """What other tests have counted is not read again and again."""
    with own_counts():
        yield


@pytest.fixture
async def cache() -> AsyncIterator[CacheManager]:
    """A cache in memory."""
    async with opened() as manager:
        yield manager


async def value() -> str:
    """A load."""
    return "loaded"


async def test_the_figures_are_those_of_the_cache(cache: CacheManager) -> None:
    monitor = CacheMonitor(cache)
    assert await monitor.get_current_stats() == CacheMetrics()
    await cache.set("a", "x" * 100)
    await cache.get_or_compute("b", value)
    for _ in range(3):
        await cache.get("a")
    await cache.get("c")
    assert await cache.delete("a")
    assert not await cache.delete("none")
    await cache.delete("b", soft=True)
    found = await monitor.get_current_stats()
    assert (found.hits, found.misses, found.total_requests, found.hit_rate) == (3, 2, 5, 0.6)
    assert (found.writes, found.deletes, found.errors) == (2, 3, 0)
    assert found.cache_size == 1
    assert found.memory_usage == cache._engine.stack.memory.entries.currsize  # type: ignore[union-attr]  # it has memory
    assert found.memory_usage > 0


async def test_they_are_what_any_other_reader_sees(cache: CacheManager) -> None:
    stats, other = CacheStats(cache), Metrics()
    for number in range(3 * (SAMPLE_MASK + 1)):
        await cache.set(str(number), number)
        await cache.get(str(number % 3))
        await cache.get(f"{number} is not there")
    found, name = stats.metrics, cache.config.name
    assert other.requests(name) == {"hit l1": found.hits, "miss": found.misses}
    assert other.total(names.REQUESTS, name) == found.total_requests
    assert other.total(names.STORES, name) == found.writes
    assert other.total(names.ENTRIES, name) == found.cache_size
    ((_, point),) = other.points(names.DURATION, name)
    assert found.average_response_time == pytest.approx(point.sum / point.count)
    assert point.count == 3


async def test_stale_answers_are_hits_and_what_went_to_the_origin_is_not() -> None:
    clock = ManualClock()
    async with opened(clock=clock) as cache:
        stats = CacheStats(cache)
        options = EntryOptions(ttl=1, stale_while_revalidate=60)
        await cache.get_or_compute("k", value, options=options)
        clock.advance(2)
        await cache.get_or_compute("k", value, options=options)
        cache._engine.telemetry.request(names.REVALIDATED).n += 1
        cache._engine.telemetry.bypass.n += 1
        found = stats.metrics
        assert (found.hits, found.misses, found.total_requests) == (1, 3, 4)


async def test_each_layer_has_figures_of_its_own(own_redis: ServerProcess) -> None:
    async with opened(configuration(redis_url=own_redis.url, timeout=5)) as cache:
        stats = CacheStats(cache)
        await cache.set("k", "v")
        await cache.get("k")
        cache._engine.stack.forget("k")
        await cache.get("k")
        await cache.get("none")
        layers = stats.detailed_stats
        assert (layers["l1"].hits, layers["l1"].misses, layers["l1"].cache_size) == (1, 2, 1)
        assert (layers["l2"].hits, layers["l2"].misses, layers["l2"].hit_rate) == (1, 1, 0.5)
        assert layers["l2"].average_response_time > 0
        assert stats.metrics.average_response_time == pytest.approx(
            layers["l2"].average_response_time
        )  # none in memory was sampled
        own_redis.stop()
        await cache.get("other")
        assert stats.metrics.errors >= 1
        assert stats.detailed_stats["l2"].errors == stats.metrics.errors
        own_redis.start()


def test_the_mean_of_a_cache_weighs_its_layers_by_their_hits() -> None:
    telemetry = otel.Telemetry(configuration().name)
    otel.read(telemetry.name)
    telemetry.hit_l1.n = 30
    telemetry.lookup(names.L2, names.HIT).n = 10
    telemetry.lookup(names.L3, names.HIT).n = 5  # of which no duration is known
    telemetry.duration(1.0, "get", names.L1)
    telemetry.duration(4.0, "get", names.L2)
    telemetry.duration(6.0, "get", names.L2, "timeout")
    telemetry.duration(100.0, "set", names.L2)
    telemetry.duration(100.0, "fill")
    assert monitoring._overall(otel.read(telemetry.name)).average_response_time == (30 * 1.0 + 10 * 5.0) / 40


async def test_a_report_is_plain_values_of_one_moment(cache: CacheManager) -> None:
    monitor = CacheMonitor(cache)
    await cache.set("k", 1)
    for _ in range(9):
        await cache.get("k")
    await cache.get("none")
    report = monitor.get_performance_report()
    assert json.loads(json.dumps(report, indent=2)) == report
    assert set(report) == {"overall_metrics", "backend_metrics", "performance_summary"}
    fields = {each.name for each in dataclasses.fields(CacheMetrics)}
    assert set(report["overall_metrics"]) == set(report["backend_metrics"]["l1"]) == fields
    assert report["performance_summary"] == {
        "hit_rate_percentage": 90.0,
        "total_requests": 10,
        "cache_efficiency": "Good",
    }
    assert report == monitor.stats.get_performance_report()
    await cache.get("none")
    await cache.get("none")
    assert monitor.get_performance_report()["performance_summary"]["cache_efficiency"] == "Needs Improvement"


async def test_what_is_recorded_is_added_to_what_the_cache_counts(cache: CacheManager) -> None:
    stats, other = CacheStats(cache), Metrics()
    await cache.set("k", 1)
    await cache.get("k")
    await stats.record_hit()
    await stats.record_hit("l1")
    await stats.record_hit("l2")
    await stats.record_miss()
    await stats.record_miss("l1")
    await stats.record_write()
    await stats.record_delete()
    await stats.record_error("l2")
    found = stats.metrics
    assert (found.hits, found.misses, found.writes, found.deletes, found.errors) == (4, 2, 2, 1, 1)
    layers = stats.detailed_stats
    assert {layer: (each.hits, each.misses, each.errors) for layer, each in layers.items()} == {
        "default": (1, 1, 0),
        "l1": (2, 1, 0),
        "l2": (1, 0, 1),
    }
    assert other.requests(cache.config.name) == {"hit default": 1, "hit l1": 2, "hit l2": 1, "miss": 2}
    assert sum(series(cache, names.INVALIDATIONS).values()) == 1


@pytest.mark.parametrize("backend", ["", None, 5])
async def test_what_is_no_name_of_a_layer_is_refused(cache: CacheManager, backend: object) -> None:
    stats = CacheStats(cache)
    for record in (stats.record_hit, stats.record_miss, stats.record_error):
        with pytest.raises(TypeError, match="backend must be the name of a layer"):
            await record(backend)  # type: ignore[arg-type]  # that is the point
    assert stats.metrics == CacheMetrics()


async def test_other_caches_are_neither_read_nor_burdened(cache: CacheManager) -> None:
    async with opened() as other:
        stats = CacheStats(cache)
        await other.set("k", 1)
        await other.get("k")
        assert stats.metrics == CacheMetrics()
        inner = otel._PROVIDERS._inner
        assert inner is not None
        assert inner[0].only is not None
        assert other.config.name not in inner[0].only
        data = inner[1].get_metrics_data()
        shown = {
            point.attributes[names.NAME]
            for scope in data.resource_metrics[0].scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
        assert other.config.name not in shown
        assert cache.config.name in shown


async def test_many_monitors_are_one_reader_that_counts_nothing_twice(cache: CacheManager) -> None:
    many = [CacheStats(cache) for _ in range(50)]
    sets = len(otel._PROVIDERS.sets)
    await cache.get("none")
    assert [stats.metrics.misses for stats in many] == [1] * 50
    assert len(otel._PROVIDERS.sets) == sets


async def test_threads_may_read_at_once(cache: CacheManager) -> None:
    stats = CacheStats(cache)
    await cache.get("none")
    found = await asyncio.gather(*(asyncio.to_thread(lambda: stats.metrics.misses) for _ in range(20)))
    assert found == [1] * 20


async def test_a_unified_manager_is_taken_as_well_and_so_is_that_of_the_process() -> None:
    before = set_cache_manager(None)
    try:
        async with UnifiedCacheManager(configuration()) as unified:
            given = CacheStats(unified)
            set_cache_manager(unified)
            process = CacheStats()
            await unified.get("a", "b")
            assert given.metrics.misses == process.metrics.misses == 1
        async with UnifiedCacheManager(configuration()) as another:
            set_cache_manager(another)
            assert process.metrics.misses == 0
            assert given.metrics.misses == 1
    finally:
        set_cache_manager(before)


def test_what_is_no_manager_is_refused() -> None:
    with pytest.raises(TypeError, match="cache must be a CacheManager"):
        CacheMonitor("redis://127.0.0.1")  # type: ignore[arg-type]  # that is the point


async def test_deletes_count_calls_whether_they_succeed_or_not(own_redis: ServerProcess) -> None:
    async with opened(configuration(redis_url=own_redis.url, timeout=5)) as cache:
        stats = CacheStats(cache)
        await cache.delete("k")
        own_redis.stop()
        with pytest.raises(LayerError):
            await cache.delete("k")
        with pytest.raises(TypeError):
            await cache.delete(5)  # type: ignore[arg-type]  # that is the point
        assert stats.metrics.deletes == 2
        own_redis.start()


def test_a_child_process_begins_anew() -> None:
    run_script(
        """
        import asyncio, os
        from aurelis.cache import CacheConfig, CacheManager, CacheStats
        from aurelis.cache.telemetry import otel

        async def use(cache, reads):
            await cache.set("k", 1)
            for _ in range(reads):
                await cache.get("k")

        cache = CacheManager(CacheConfig(name="forked"))
        stats = CacheStats(cache)
        asyncio.run(use(cache, 200))
        assert stats.metrics.hits == 200 and stats.metrics.average_response_time > 0
        child = os.fork()
        if child == 0:
            try:
                assert stats.metrics.hits == 0, stats.metrics
                assert stats.metrics.average_response_time == 0, stats.metrics
                asyncio.run(use(cache, 100))
                assert stats.metrics.hits == 100, stats.metrics
                assert len(otel._PROVIDERS.sets) == 2
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert stats.metrics.hits == 200
        """
    )


def test_a_provider_of_the_app_sees_the_same() -> None:
    run_script(
        """
        import asyncio
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from aurelis.cache import CacheConfig, CacheManager, CacheStats

        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
        cache = CacheManager(CacheConfig(name="both"))
        stats = CacheStats(cache)

        async def use():
            await cache.set("k", 1)
            for _ in range(128):
                await cache.get("k")

        asyncio.run(use())
        found = {
            metric.name: metric.data.data_points
            for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        }
        assert sum(point.value for point in found["aurelis.cache.requests"]) == stats.metrics.total_requests == 128
        (point,) = found["aurelis.cache.operation.duration"]
        assert abs(point.sum / point.count - stats.metrics.average_response_time) < 1e-9
        """
    )


def test_without_the_sdk_the_error_names_the_extra() -> None:
    run_script(
        """
        import importlib.abc, sys

        class Missing(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.startswith("opentelemetry.sdk"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())

        from aurelis.cache import CacheManager, CacheMetrics, CacheMonitor, CacheStats
        from aurelis.cache.exceptions import MissingExtraError

        assert CacheMetrics().hits == 0
        for kind in (CacheMonitor, CacheStats):
            try:
                kind(CacheManager())
            except MissingExtraError as error:
                assert error.extra == "otel" and 'pip install "aurelis-cache[otel]"' in str(error), error
            else:
                raise AssertionError("it was found")
        """
    )


def test_an_sdk_that_is_switched_off_is_an_error_and_no_row_of_zeros() -> None:
    run_script(
        """
        from aurelis.cache import CacheManager, CacheMonitor
        from aurelis.cache.exceptions import ConfigurationError

        try:
            CacheMonitor(CacheManager())
        except ConfigurationError as error:
            assert "OTEL_SDK_DISABLED" in str(error)
        else:
            raise AssertionError("it shows zeros")
        """,
        OTEL_SDK_DISABLED="true",
    )
