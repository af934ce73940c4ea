"""What the reader of the metrics sees equals what happened, exactly."""

import asyncio
import contextlib
import gc
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, Sum

from aurelis.cache import CacheLayer, CacheManager, EntryOptions
from aurelis.cache.exceptions import CacheClosedError, RecursiveLoadError
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import (
    DISK_SAMPLE,
    SAMPLE_MASK,
    SIZE_SAMPLE,
    SIZE_SAMPLE_MEMORY,
    Telemetry,
    instrument,
)
from aurelis.cache.testing import Chaos, ChaosLayer, Faults, ManualClock, SharedMemory
from aurelis.cache.typing import Layer
from tests.broken_layers import Plain
from tests.managers import WITHIN, configuration, eventually, fresh_name, opened, own_counts, run_script
from tests.servers import ServerProcess
from tests.telemetry.collecting import Metrics

PATIENT = 10.0


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    """A reader of the metrics of this module's caches."""
    with own_counts():
        yield Metrics()


@pytest.fixture
async def cache() -> AsyncIterator[CacheManager]:
    """A cache in memory."""
    async with opened() as manager:
        yield manager


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[CacheManager]:
    """A cache over a Redis."""
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT)) as manager:
        yield manager


@pytest.fixture
async def neighbour(redis_url: str) -> AsyncIterator[CacheManager]:
    """Another one over the same Redis."""
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT)) as manager:
        yield manager


async def value() -> str:
    """A load."""
    return "value"


async def fails() -> None:
    """A load that raises."""
    raise LookupError("secret details")


def loads(metrics: Metrics, cache: CacheManager) -> float:
    """Returns the loads as documented: misses less coalesced requests."""
    name = cache.config.name
    return metrics.requests(name).get("miss", 0) - metrics.total(names.COALESCED, name)


# --- instruments


def test_every_metric_has_the_name_type_unit_and_description_of_the_names_module(metrics: Metrics) -> None:
    telemetry = Telemetry(fresh_name())
    for metric in names.METRICS:
        match metric.kind:
            case "counter" if metric is names.SAVED_TIME:
                telemetry.saved_seconds.n += 0.5
            case "counter":
                telemetry.table.cell(metric).n += 1
            case "gauge":
                telemetry.gauge(metric, telemetry, lambda _: 7)
            case _ if metric is names.DURATION:
                telemetry.duration(0.5, "get")
            case _ if metric is names.SIZE:
                telemetry.sizes(names.L1).note(5000)
            case _:
                telemetry.lag(0.5)
    found = metrics.all()
    assert set(found) == {metric.name for metric in names.METRICS}
    for metric in names.METRICS:
        reported = found[metric.name]
        assert (reported.unit, reported.description) == (metric.unit, metric.description)
        assert metric.name.startswith("aurelis.cache.")
        if metric.kind == "histogram":
            assert isinstance(reported.data, Histogram)
            assert {point.explicit_bounds for point in reported.data.data_points} == {metric.buckets}
        else:
            assert isinstance(reported.data, Sum)
            assert reported.data.is_monotonic == (metric.kind == "counter")
        assert reported.data.aggregation_temporality == AggregationTemporality.CUMULATIVE
    assert metrics.total(names.SAVED_TIME, telemetry.name) == 0.5


def test_the_scope_is_named_and_versioned(metrics: Metrics) -> None:
    Telemetry(fresh_name())
    (scope,) = [scope for scope in metrics.scopes() if scope.scope.name == names.SCOPE]
    assert scope.scope.name == "aurelis.cache"
    assert scope.scope.version
    assert scope.scope.schema_url == names.SCHEMA_URL


def test_reporting_to_one_provider_twice_reports_once(metrics: Metrics) -> None:
    instrument(metrics.provider)
    telemetry = Telemetry(fresh_name())
    telemetry.miss.n += 3
    assert metrics.requests(telemetry.name) == {"miss": 3}


def test_a_second_provider_sees_the_same(metrics: Metrics) -> None:
    telemetry = Telemetry(fresh_name())
    telemetry.miss.n += 3
    other = Metrics()
    assert other.requests(telemetry.name) == metrics.requests(telemetry.name) == {"miss": 3}
    other.provider.shutdown()


# --- requests, each counted once with its final result


async def test_hits_and_misses_of_each_operation(metrics: Metrics, cache: CacheManager) -> None:
    name = cache.config.name
    await cache.get("k")
    assert metrics.requests(name) == {"miss": 1}
    await cache.set("k", 1)
    await cache.delete("missing")
    await cache.clear()
    assert metrics.requests(name) == {"miss": 1}  # these are no requests
    await cache.set("k", 1)
    await cache.get("k")
    await cache.get_or_compute("k", value)
    assert metrics.requests(name) == {"miss": 1, "hit l1": 2}
    await cache.get_many(["k", "k", "l", "m"])
    assert metrics.requests(name) == {"miss": 3, "hit l1": 3}
    await cache.get_or_compute("l", value)
    await cache.get_or_compute("l", value)
    assert metrics.requests(name) == {"miss": 4, "hit l1": 4}
    assert metrics.values(names.LOOKUPS, name) == {
        ((names.LAYER, "l1"), (names.RESULT, "hit")): 4,
        ((names.LAYER, "l1"), (names.RESULT, "miss")): 4,
    }


async def test_hits_in_redis_are_hits_of_that_layer(
    metrics: Metrics, shared: CacheManager, neighbour: CacheManager
) -> None:
    name = shared.config.name
    await neighbour.set_many({"a": 1, "b": 2, "c": [3]})
    await shared.get("a")
    await shared.get_or_compute("b", value)
    await shared.get_many(["a", "b", "c", "d"])
    assert metrics.requests(name) == {"hit l2": 3, "hit l1": 2, "miss": 1}
    lookups = metrics.values(names.LOOKUPS, name)
    assert lookups == {
        ((names.LAYER, "l1"), (names.RESULT, "hit")): 2,
        ((names.LAYER, "l1"), (names.RESULT, "miss")): 4,
        ((names.LAYER, "l2"), (names.RESULT, "hit")): 3,
        ((names.LAYER, "l2"), (names.RESULT, "miss")): 1,
    }


async def test_those_who_wait_for_a_load_are_misses_and_coalesced(metrics: Metrics, cache: CacheManager) -> None:
    name = cache.config.name
    go = asyncio.Event()

    async def load() -> int:
        await go.wait()
        return 1

    tasks = [asyncio.create_task(cache.get_or_compute("k", load)) for _ in range(10)]
    await eventually(lambda: metrics.total(names.WAITING, name) == 9)
    go.set()
    await asyncio.gather(*tasks)
    assert metrics.requests(name) == {"miss": 10}
    assert metrics.total(names.COALESCED, name) == 9
    assert metrics.total(names.WAITING, name) == 0


async def test_those_who_wait_for_what_is_found_in_redis_are_hits(
    metrics: Metrics, shared: CacheManager, neighbour: CacheManager
) -> None:
    await neighbour.set("k", 1)
    values: list[object] = await asyncio.gather(*(shared.get_or_compute("k", value) for _ in range(10)))
    assert values == [1] * 10
    assert metrics.requests(shared.config.name) == {"hit l2": 10}
    assert metrics.total(names.COALESCED, shared.config.name) == 0


async def test_failed_recursive_and_refused_requests_are_counted_too(metrics: Metrics, cache: CacheManager) -> None:
    async def recursive() -> object:
        return await cache.get_or_compute("k", recursive)

    outcomes = await asyncio.gather(*(cache.get_or_compute("l", fails) for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {LookupError}
    assert (metrics.requests(cache.config.name), loads(metrics, cache)) == ({"miss": 5}, 1)
    with pytest.raises(RecursiveLoadError):
        await cache.get_or_compute("k", recursive)
    assert (metrics.requests(cache.config.name), loads(metrics, cache)) == ({"miss": 7}, 2)


@pytest.mark.parametrize("moment", range(8))
@pytest.mark.parametrize("operation", ["get", "get_many", "get_or_compute"])
async def test_a_request_cancelled_at_any_moment_is_counted_once(
    metrics: Metrics, shared: CacheManager, operation: str, moment: int
) -> None:
    begun = 0

    async def load() -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    attempt: Any = {
        "get": lambda: shared.get("k"),
        "get_many": lambda: shared.get_many(["k"]),
        "get_or_compute": lambda: shared.get_or_compute("k", load),
    }[operation]
    task = asyncio.create_task(attempt())
    await asyncio.sleep(0)  # it begins; cancelled before, it would never have asked
    for _ in range(moment * 3):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await eventually(lambda: not shared._engine.flights._tasks)
    assert metrics.requests(shared.config.name) == {"miss": 1}
    if operation == "get_or_compute":
        assert loads(metrics, shared) == begun


async def test_requests_to_a_closed_cache_are_none(metrics: Metrics) -> None:
    manager = CacheManager(configuration())
    await manager.aclose()
    with pytest.raises(CacheClosedError):
        await manager.get("k")
    assert metrics.requests(manager.config.name) == {}


OPERATION = st.tuples(
    st.sampled_from(["get", "get_many", "compute", "compute", "fail", "nested", "set", "delete", "clear"]),
    st.integers(0, 3),
    st.integers(0, 4),
    st.sampled_from([None, None, None, 0, 1, 3, 6]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATION, max_size=25), st.booleans())
async def test_whatever_happens_at_once_the_requests_add_up_to_the_calls_and_the_loads_to_the_loads(
    redis_url: str, metrics: Metrics, operations: list[tuple[str, int, int, int | None]], layered: bool
) -> None:
    """Of each operation: what, which key, how long a load takes, and when its caller is cancelled, if it is."""
    calls = begun = plain_misses = 0
    options = {"redis_url": redis_url, "timeout": PATIENT} if layered else {}
    # One name for all examples: the SDK reports no more than 2 000 series.
    config = configuration(name="test-any-order", namespace=fresh_name(), **options)
    requests_before = sum(metrics.requests(config.name).values())
    async with opened(config) as cache:
        loads_before = loads(metrics, cache)

        def loader(steps: int, then: Callable[[], Awaitable[object]] | None = None) -> Callable[[], Awaitable[object]]:
            async def load() -> object:
                nonlocal begun
                begun += 1
                for _ in range(steps):
                    await asyncio.sleep(0)
                return [steps] if then is None else await then()

            return load

        async def compute(key: str, load: Callable[[], Awaitable[object]]) -> object:
            nonlocal calls
            calls += 1
            return await cache.get_or_compute(key, load)

        async def act(operation: str, number: int, steps: int) -> None:
            nonlocal calls, plain_misses
            key, other = f"k{number}", f"k{(number + 1) % 4}"
            match operation:
                case "get":
                    calls += 1
                    plain_misses += 1  # taken back when there is a hit
                    found = await cache.get(key, operation)
                    plain_misses -= found is not operation
                case "get_many":
                    calls += 2
                    plain_misses += 2
                    values = await cache.get_many([key, other])
                    plain_misses -= len(values)
                case "compute":
                    await compute(key, loader(steps))
                case "fail":
                    with contextlib.suppress(LookupError):
                        await compute(key, loader(steps, fails))
                case "nested":
                    with contextlib.suppress(RecursiveLoadError):
                        await compute(key, loader(steps, lambda: compute(other, loader(steps))))
                case "set":
                    await cache.set(key, [number])
                case "delete":
                    await cache.delete(key)
                case _:
                    await cache.clear()

        async def limited(operation: str, number: int, steps: int, patience: int | None) -> None:
            task = asyncio.create_task(act(operation, number, steps))
            if patience is not None and operation != "get_many":  # of which a part may have been found
                for _ in range(patience + 1):
                    await asyncio.sleep(0)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, LookupError, RecursiveLoadError):
                await task

        async with asyncio.timeout(WITHIN):
            await asyncio.gather(*(limited(*operation) for operation in operations))
        await eventually(lambda: not cache._engine.flights._tasks)
        assert sum(metrics.requests(config.name).values()) - requests_before == calls
        assert loads(metrics, cache) - loads_before - plain_misses == begun


def test_counts_from_many_threads_are_exact(metrics: Metrics) -> None:
    manager = CacheManager(configuration())
    asyncio.run(manager.set("k", 1))

    def work() -> None:
        async def main() -> None:
            for _ in range(3000):
                await manager.get("k")
                await manager.get("missing")

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert metrics.requests(manager.config.name) == {"hit l1": 12_000, "miss": 12_000}
    asyncio.run(manager.aclose())


# --- the other counts


async def test_what_becomes_of_values_is_counted(metrics: Metrics, cache: CacheManager) -> None:
    class Session:
        pass

    async def session() -> Session:
        return Session()

    async def overtaken() -> int:
        await cache.delete("fenced")
        return 1

    await cache.set("a", 1)
    await cache.set_many({"b": 1, "c": 2})
    await cache.get_or_compute("d", value)
    await cache.get_or_compute("e", value, ttl=0)
    await cache.get_or_compute("f", session)
    await cache.get_or_compute("fenced", overtaken)
    stores = metrics.values(names.STORES, cache.config.name)
    assert stores == {
        ((names.STORE_RESULT, "stored"),): 4,
        ((names.STORE_RESULT, "ttl"),): 1,
        ((names.STORE_RESULT, "unstorable"),): 1,
        ((names.STORE_RESULT, "fenced"),): 1,
    }


async def test_what_is_named_to_be_put_out_of_date_is_counted_once_whatever_there_was(
    metrics: Metrics, cache: CacheManager
) -> None:
    name = cache.config.name
    await cache.set_many({"a:1": 1, "a:2": 2, "b:1": 3}, tags=["t"])
    await cache.delete("a:1")
    await cache.delete("missing")
    await cache.delete("a:2", soft=True)
    assert invalidations(metrics, name) == {"key hard local": 2, "key soft local": 1}
    await cache.invalidate_tags("t", "u")
    await cache.invalidate_tags("v", soft=True)
    await cache.invalidate_category("c")
    await cache.invalidate_pattern("a:*")
    await cache.clear()
    await cache.set("k", 1, ttl=0)  # which is none, though the key is gone
    assert invalidations(metrics, name) == {
        "key hard local": 2,
        "key soft local": 1,
        "tag hard local": 3,
        "tag soft local": 1,
        "pattern hard local": 1,
        "everything hard local": 1,
    }


def invalidations(metrics: Metrics, name: str) -> dict[str, float]:
    """Returns what was named, by scope, mode and source."""
    keys = (names.INVALIDATION_SCOPE, names.INVALIDATION_MODE, names.INVALIDATION_SOURCE)
    found = metrics.values(names.INVALIDATIONS, name)
    return {" ".join(dict(attributes)[key] for key in keys): value for attributes, value in found.items()}


async def test_word_of_another_process_is_counted_where_it_comes(metrics: Metrics, redis_url: str) -> None:
    options = {"redis_url": redis_url, "timeout": PATIENT, "namespace": fresh_name()}
    async with opened(configuration(**options)) as one, opened(configuration(**options)) as other:
        await one.get("k")  # it listens
        await other.set("k", 1, tags=["t"])
        await eventually(lambda: invalidations(metrics, one.config.name))  # so that what is read now stays
        await one.get("k")
        await other.delete("k")
        await other.invalidate_tags("t", "u")
        await other.invalidate_tags("t", soft=True)
        await other.set_many({other.key_builder.build_key("a", str(number)): number for number in range(2)})
        await other.invalidate_pattern("a:*")
        await other.clear()
        expected = {
            "key hard remote": 1 + 1 + 2 + 2,  # those that were set, removed, set, and found by a pattern
            "tag hard remote": 2,
            "tag soft remote": 1,
            "everything hard remote": 1,
        }
        await eventually(lambda: "everything hard remote" in invalidations(metrics, one.config.name))
        assert invalidations(metrics, one.config.name) == expected
        evictions = metrics.values(names.EVICTIONS, one.config.name)
        assert {dict(key)[names.REASON]: value for key, value in evictions.items()} == {"invalidated": 1}


async def test_messages_are_counted_by_who_has_sent_them_and_a_start_is_no_gap(
    metrics: Metrics, redis_url: str
) -> None:
    options = {"redis_url": redis_url, "timeout": PATIENT, "namespace": fresh_name()}

    def messages(cache: CacheManager) -> dict[str, float]:
        found = metrics.values(names.MESSAGES, cache.config.name)
        each = {f"{dict(key)[names.DIRECTION]} {dict(key)[names.KIND]}": number for key, number in found.items()}
        return {message: number for message, number in each.items() if "beat" not in message}

    async with opened(configuration(**options)) as one, opened(configuration(**options)) as other:
        await one.get("k")  # they listen
        await other.get("k")
        await other.set("k", 1, tags=["t"])
        await other.set_many({"k": 1, "l": 1})
        await other.invalidate_tags("t", "u")
        await other.invalidate_tags("t", soft=True)
        kinds = {"keys": 2, "tags": 1, "soft": 1}
        await eventually(lambda: messages(one) == {f"received {kind}": number for kind, number in kinds.items()})
        await eventually(lambda: messages(other) == {f"sent {kind}": number for kind, number in kinds.items()})
        assert metrics.values(names.GAPS, one.config.name) == metrics.values(names.GAPS, other.config.name) == {}


async def test_the_end_of_a_connection_and_the_next_one_are_gaps_of_their_own(
    metrics: Metrics, own_redis: ServerProcess
) -> None:
    async with opened(configuration(redis_url=own_redis.url, timeout=PATIENT, heartbeat=0.2)) as cache:

        def gaps() -> dict[str, float]:
            found = metrics.values(names.GAPS, cache.config.name)
            return {dict(key)[names.GAP_REASON]: number for key, number in found.items()}

        await cache.get("k")
        own_redis.stop()
        await eventually(lambda: gaps() == {"connection": 1})
        own_redis.start()
        await eventually(lambda: gaps() == {"connection": 1, "subscription": 1})


async def test_entries_that_go_on_request_are_counted_where_they_are(
    metrics: Metrics, redis_url: str, tmp_path: Path
) -> None:
    config = configuration(redis_url=redis_url, cache_dir=tmp_path, timeout=PATIENT)
    async with opened(config) as cache:

        def gone() -> dict[str, float]:
            found = metrics.values(names.EVICTIONS, config.name)
            assert {dict(key)[names.REASON] for key in found} <= {"invalidated"}
            return {dict(key)[names.LAYER]: value for key, value in found.items()}

        keys = [cache.key_builder.build_key(*key) for key in ("a1", "a2", "b1", "b2", "b3")]
        await cache.set_many(dict.fromkeys(keys, 1), tags=["t"])
        assert gone() == {}
        await cache.delete(keys[0])
        await cache.delete("missing")
        assert gone() == {"l1": 1, "l2": 1, "l3": 1}
        await cache.invalidate_pattern("a:*")
        assert gone() == {"l1": 2, "l2": 2, "l3": 2}
        await cache.invalidate_tags("t")
        assert gone() == {"l1": 2, "l2": 2, "l3": 2}
        await cache.get(keys[2])  # which finds out
        assert gone() == {"l1": 3, "l2": 2, "l3": 2}
        await cache.clear()
        assert gone() == {"l1": 5, "l2": 2, "l3": 2}


async def test_stale_answers_are_counted_by_reason_and_add_up(metrics: Metrics) -> None:
    async def broken() -> str:
        raise LookupError("not there")

    clock = ManualClock()
    async with opened(clock=clock) as cache:
        name = cache.config.name
        window = EntryOptions(stale_while_revalidate=100, stale_if_error=100, throttle=5)
        await cache.get_or_compute("k", value, ttl=10, options=window)
        clock.advance(11)
        assert await cache.get_or_compute("k", broken, ttl=10, options=window) == "value"  # and behind it, it fails
        await eventually(lambda: not cache._engine.flights._tasks)
        assert await cache.get_or_compute("k", broken, ttl=10, options=window) == "value"  # a moment ago it has failed
        strict = EntryOptions(stale_if_error=100)
        clock.advance(6)
        assert await cache.get_or_compute("k", broken, ttl=10, options=strict) == "value"
        go = asyncio.Event()

        async def slow() -> str:
            await go.wait()
            return "new"

        impatient = EntryOptions(stale_if_error=100, soft_timeout=0.01)
        clock.advance(40)
        assert await cache.get_or_compute("k", slow, ttl=10, options=impatient) == "value"
        go.set()
        await eventually(lambda: not cache._engine.flights._tasks)
        stale = {
            dict(attributes)[names.STALE_REASON]: number
            for attributes, number in metrics.values(names.REQUESTS, name).items()
            if dict(attributes)[names.RESULT] == "stale"
        }
        assert stale == {"revalidate": 1, "error": 2, "timeout": 1}
        assert metrics.requests(name) == {"miss": 1, "stale": 4}
        refreshes = metrics.values(names.REFRESHES, name)
        assert {dict(key)[names.REFRESH_REASON]: number for key, number in refreshes.items()} == {
            "revalidate": 1,
            "error": 1,
            "timeout": 1,
        }


async def test_what_is_too_large_for_one_layer_or_for_all_is_told_apart(metrics: Metrics, redis_url: str) -> None:
    large = "x" * 50_000
    async with opened(configuration(max_bytes=20_000)) as alone:
        assert not await alone.set("k", large)
        assert metrics.values(names.STORES, alone.config.name) == {((names.STORE_RESULT, "too_large"),): 1}
    options = {"redis_url": redis_url, "timeout": PATIENT, "max_bytes": 20_000}
    async with opened(configuration(**options)) as cache:
        assert not await cache.set("k", large)
        assert metrics.values(names.STORES, cache.config.name) == {((names.STORE_RESULT, "beyond_memory"),): 1}
        assert await cache.get("k") == large


async def test_sizes_are_recorded_of_the_first_store_and_then_of_some(metrics: Metrics, shared: CacheManager) -> None:
    name = shared.config.name

    def sizes() -> dict[str, int]:
        return {attributes[names.LAYER]: point.count for attributes, point in metrics.points(names.SIZE, name)}

    await shared.set("k", "x" * 1000)
    assert sizes() == {"l1": 1, "l2": 1}
    for _, point in metrics.points(names.SIZE, name):
        assert 1000 <= point.sum < 1200
    for number in range(SIZE_SAMPLE_MEMORY - 1):
        await shared.set(f"k{number}", number)
    assert sizes() == {"l1": 1, "l2": 1 + (SIZE_SAMPLE_MEMORY - 1) // SIZE_SAMPLE}
    await shared.set("l", 1)
    assert sizes()["l1"] == 2


async def test_what_is_rare_begins_with_zero(metrics: Metrics, shared: CacheManager) -> None:
    name = shared.config.name
    for metric, attribute, values in (
        (names.REQUESTS, names.STALE_REASON, names.STALE_REASONS),
        (names.REFRESHES, names.REFRESH_REASON, names.REFRESH_REASONS),
        (names.STORES, names.STORE_RESULT, names.STORE_RESULTS),
        (names.GAPS, names.GAP_REASON, names.GAP_REASONS),
        (names.BREAKER, names.BREAKER_STATE, names.BREAKER_STATES),
        (names.RECOVERED, names.RECOVERY_RESULT, names.RECOVERY_RESULTS),
    ):
        found = {attributes.get(attribute): point.value for attributes, point in metrics.points(metric, name)}
        assert {key: found.get(key) for key in values} == dict.fromkeys(values, 0), metric.name


async def test_a_sign_of_life_that_comes_back_is_timed(metrics: Metrics, redis_url: str) -> None:
    options = {"redis_url": redis_url, "timeout": PATIENT, "heartbeat": 0.05}
    async with opened(configuration(**options)) as cache:
        await cache.get("k")
        await eventually(lambda: lags(metrics, cache.config.name) >= 3)
        ((attributes, point),) = metrics.points(names.LAG, cache.config.name)
        assert attributes == {}
        assert 0 < point.sum / point.count < PATIENT


def lags(metrics: Metrics, name: str) -> int:
    """Returns how many were recorded."""
    return sum(point.count for _, point in metrics.points(names.LAG, name))


async def test_evictions_entries_and_bytes_are_those_of_memory(metrics: Metrics) -> None:
    clock = ManualClock()
    async with opened(configuration(max_size=5, max_bytes=10**6), clock=clock) as cache:
        name = cache.config.name
        for number in range(8):
            await cache.set(str(number), number, ttl=10)
        assert metrics.values(names.ENTRIES, name) == {((names.LAYER, "l1"),): 5}
        assert metrics.values(names.LIMIT, name) == {((names.LAYER, "l1"),): 10**6}
        assert 0 < metrics.total(names.USAGE, name) < 1000
        evictions = {dict(key)[names.REASON]: n for key, n in metrics.values(names.EVICTIONS, name).items()}
        assert evictions == {"capacity": 3}
        clock.advance(10)
        for number in range(20):
            await cache.set("7", number)
        evictions = {dict(key)[names.REASON]: n for key, n in metrics.values(names.EVICTIONS, name).items()}
        assert evictions == {"capacity": 3, "expired": 4}
        assert metrics.total(names.ENTRIES, name) == 1


async def test_failures_of_a_layer_are_counted_by_kind_and_changes_of_its_breaker_by_state(
    metrics: Metrics, own_redis: ServerProcess
) -> None:
    config = configuration(redis_url=own_redis.url, breaker_failures=2, breaker_pause=2.0, timeout=0.2)
    async with opened(config) as cache:
        own_redis.stop()
        await cache.get("a")
        await cache.set("a", 1)
        await cache.get("b")
        errors = {
            (dict(key)[names.LAYER], dict(key)[names.OPERATION]): number
            for key, number in metrics.values(names.ERRORS, config.name).items()
        }
        assert errors == {("l2", "get"): 1, ("l2", "tags"): 1}
        states = {dict(key)[names.BREAKER_STATE]: n for key, n in metrics.values(names.BREAKER, config.name).items()}
        assert states == {"open": 1}
        results = {dict(key)[names.RESULT]: n for key, n in metrics.values(names.LOOKUPS, config.name).items()}
        assert results == {"miss": 2, "error": 1, "skipped": 1}
        own_redis.start()
        await eventually(lambda: cache_is_used(cache))
        while not await cache.set("a", 1):
            await asyncio.sleep(0.01)
        states = {dict(key)[names.BREAKER_STATE]: n for key, n in metrics.values(names.BREAKER, config.name).items()}
        assert states["closed"] == 1


@pytest.mark.parametrize("below", [False, True])
async def test_each_key_that_a_layer_cannot_be_asked_for_is_counted(metrics: Metrics, *, below: bool) -> None:
    clock, chaos = ManualClock(), Chaos(Faults(fail=1.0))
    layer = ChaosLayer(Plain(clock), chaos)
    shared = SharedMemory(clock)
    lower: list[Layer] = [shared.node(), layer] if below else [layer]
    config = configuration(breaker_failures=3, breaker_pause=60)
    async with CacheManager(config, clock=clock, lower=lower) as cache:

        def lookups() -> dict[str, float]:
            found = metrics.values(names.LOOKUPS, config.name)
            return {
                dict(key)[names.RESULT]: number for key, number in found.items() if dict(key)[names.LAYER] == "plain"
            }

        await cache.get_many(["a", "b", "c"])
        await cache.get("a")
        assert lookups() == {"error": 4}
        await cache.get_many(["a", "b"])
        await cache.get_many(["a", "b"])
        await cache.get("a")
        assert lookups() == {"error": 6, "skipped": 3}
        errors = metrics.values(names.ERRORS, config.name)
        wanted = {names.LAYER: "plain", names.OPERATION: "get", names.ERROR_TYPE: "ConnectionError"}
        assert errors == {tuple(sorted(wanted.items())): 3}
        chaos.heal()
        clock.advance(90)
        await cache.get_many(["a", "b"])
        await cache.get("a")
        assert lookups() == {"error": 6, "skipped": 3, "miss": 3}
        assert metrics.requests(config.name) == {"miss": 3 + 1 + 2 + 2 + 1 + 2 + 1}
        await cache.set_many({"a": 1, "b": 2})
        memory = cache._engine.stack.memory
        assert memory is not None
        await memory.remove_all()
        shared.lose_entries("a", "b")
        assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        assert lookups() == {"error": 6, "skipped": 3, "miss": 4, "hit": 2}
        assert metrics.requests(config.name) == {"miss": 13, "hit plain": 2}


def cache_is_used(cache: CacheManager) -> bool:
    """Returns true: the loop that follows asks until Redis answers."""
    return not cache._engine.closed


async def test_durations_are_recorded_for_io_and_for_a_sample_of_hits_in_memory(
    metrics: Metrics, shared: CacheManager
) -> None:
    name = shared.config.name
    await shared.set("k", 1)
    for _ in range(10 * (SAMPLE_MASK + 1)):
        await shared.get("k")
    await shared.get("missing")
    await shared.get_or_compute("l", value)
    with contextlib.suppress(LookupError):
        await shared.get_or_compute("m", fails)
    counts = {
        tuple(attributes.get(key) for key in (names.OPERATION, names.LAYER, names.ERROR_TYPE)): point.count
        for attributes, point in metrics.points(names.DURATION, name)
    }
    assert counts == {
        ("get", "l1", None): 10,
        ("get", "l2", None): 3,
        ("set", "l2", None): 2,
        ("acquire", "l2", None): 2,
        ("release", "l2", None): 1,
        ("tags", "l2", None): 1,
        ("fill", None, None): 1,
        ("fill", None, "LookupError"): 1,
    }
    for attributes, point in metrics.points(names.DURATION, name):
        assert 0 < point.sum < PATIENT, attributes


async def test_one_in_eight_reads_of_a_disk_is_timed_the_first_among_them(metrics: Metrics, tmp_path: Path) -> None:
    layers = [CacheLayer("disk", "disk", ttl=3600)]
    async with opened(configuration(cache_dir=tmp_path, layers=layers, timeout=PATIENT)) as manager:
        name = manager.config.name

        def timed(operation: str) -> int:
            wanted = {names.OPERATION: operation, names.LAYER: names.L3}
            return sum(
                point.count for found, point in metrics.points(names.DURATION, name) if wanted.items() <= found.items()
            )

        await manager.set("k", 1)
        await manager.get("k")
        assert timed("get") == 1
        for _ in range(2 * DISK_SAMPLE):
            await manager.get("k")
            await manager.get_many(["k"])
        assert timed("get") == 5
        for _ in range(10):
            await manager.set("k", 1)
        assert timed("set") == 11
        assert metrics.requests(name) == {"hit l3": 1 + 4 * DISK_SAMPLE}


# --- caches come and go


async def test_two_caches_of_one_name_are_one_series(metrics: Metrics) -> None:
    name = fresh_name()
    async with opened(configuration(name=name)) as first, opened(configuration(name=name)) as second:
        for cache in (first, second):
            await cache.set("k", 1)
            await cache.get("k")
        assert metrics.requests(name) == {"hit l1": 2}
        assert len(metrics.points(names.ENTRIES, name)) == 1
        assert metrics.total(names.ENTRIES, name) == 2


async def test_a_cache_that_is_garbage_keeps_its_counts_and_loses_its_gauges(metrics: Metrics) -> None:
    config = configuration()
    for turn in range(1, 4):
        manager = CacheManager(config)
        await manager.set("k", 1)
        await manager.get("k")
        assert metrics.total(names.ENTRIES, config.name) == 1
        del manager
        gc.collect()
        assert metrics.requests(config.name) == {"hit l1": turn}
        assert metrics.points(names.ENTRIES, config.name) == []
        assert metrics.total(names.STORES, config.name) == turn


async def test_a_cache_that_is_closed_holds_nothing_though_somebody_holds_it(metrics: Metrics, tmp_path: Path) -> None:
    layers = [CacheLayer("memory", "memory", ttl=60), CacheLayer("disk", "disk", ttl=3600)]
    config = configuration(cache_dir=tmp_path, layers=layers, timeout=PATIENT)
    closed = []
    for turn in range(1, 4):
        async with opened(config) as manager:
            await manager.set("k", "x" * 100)
            for metric in (names.ENTRIES, names.USAGE, names.LIMIT):
                found = {dict(key)[names.LAYER]: level for key, level in metrics.values(metric, config.name).items()}
                assert found.keys() == {"l1", "l3"}
                if metric is names.ENTRIES:
                    assert found == {"l1": 1, "l3": 1}
                elif metric is names.LIMIT:
                    assert found == {"l1": config.max_bytes, "l3": config.disk_max_bytes}
                else:
                    assert min(found.values()) > 100
        closed.append(manager)
        for metric in (names.ENTRIES, names.USAGE, names.LIMIT):
            assert metrics.points(metric, config.name) == []
        assert metrics.total(names.STORES, config.name) == turn


async def test_reporting_keeps_no_cache_alive(metrics: Metrics) -> None:
    import weakref

    manager = CacheManager(configuration())
    await manager.get_or_compute("k", value)
    watched = weakref.ref(manager._engine)
    metrics.all()
    del manager
    gc.collect()
    assert watched() is None


async def test_the_number_of_series_does_not_grow_with_keys_values_or_callers(
    metrics: Metrics, shared: CacheManager
) -> None:
    chance = random.Random(1)

    async def use(number: int) -> None:
        await shared.set(f"user:{number}", {"name": chance.random()})
        await shared.get(f"user:{number}")
        await shared.get(f"missing:{number}")
        await shared.get_or_compute(f"computed:{number}", value)
        await shared.delete(f"user:{number}")

    await use(-1)
    before = sum(map(len, shared._engine.telemetry.table.cells.values()))
    for number in range(100):
        await use(number)
    # A first message or sign of life may have come meanwhile, of each kind one series; of keys there are hundreds.
    assert sum(map(len, shared._engine.telemetry.table.cells.values())) < before + 10


async def test_no_key_value_or_text_of_an_error_is_in_any_attribute(
    metrics: Metrics, redis_url: str, own_redis: ServerProcess
) -> None:
    secret = "hunter2-secret"

    class hunter2Session:  # noqa: N801
        pass

    async def load() -> object:
        return {secret: secret}

    async def fails_loudly() -> None:
        raise ValueError(secret)

    async with opened(configuration(redis_url=own_redis.url, timeout=0.1, namespace=secret)) as cache:
        await cache.set(secret, secret)
        await cache.get_many([secret, f"{secret}:2"])
        await cache.get_or_compute(f"{secret}:3", load)
        with contextlib.suppress(ValueError):
            await cache.get_or_compute(f"{secret}:4", fails_loudly)
        own_redis.stop()
        await cache.get(f"{secret}:5")
        shown = [
            f"{key}={item}"
            for metric in names.METRICS
            for attributes, _ in metrics.points(metric, cache.config.name)
            for key, item in attributes.items()
        ]
    assert shown
    assert not [text for text in shown if secret in text]


# --- providers and processes

OWN_PROVIDER = """
    import asyncio, json, os, sys
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from aurelis.cache import CacheConfig, CacheManager
    from aurelis.cache.telemetry.otel import instrument

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)

    def report():
        data = reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    assert metric.name not in found, "two streams of one name: " + metric.name
                    points = found[metric.name] = {}
                    for point in metric.data.data_points:
                        key = " ".join(str(point.attributes[name]) for name in sorted(point.attributes))
                        if "stale" not in key:
                            points[key] = getattr(point, "value", None) or getattr(point, "count", 0)
        return found
"""


def test_a_provider_that_is_set_late_sees_what_was_counted_before() -> None:
    printed = run_script(
        OWN_PROVIDER
        + """
    cache = CacheManager(CacheConfig(name="late"))

    async def use() -> None:
        await cache.set("k", 1)
        await cache.get("k")
        await cache.get("missing")

    asyncio.run(use())
    metrics.set_meter_provider(provider)
    asyncio.run(use())
    instrument(provider)
    found = report()
    print(found["aurelis.cache.requests"], found["aurelis.cache.entry.count"])
        """
    )
    assert printed == "{'late miss': 2, 'l1 late hit': 2, 'late bypass': 0} {'l1 late': 1}\n"


def test_a_provider_that_is_the_global_one_already_is_not_reported_to_twice() -> None:
    printed = run_script(
        OWN_PROVIDER
        + """
    metrics.set_meter_provider(provider)
    instrument(provider)
    cache = CacheManager(CacheConfig(name="one"))
    instrument(provider)
    asyncio.run(cache.get("missing"))
    print(sum(report()["aurelis.cache.requests"].values()))
        """
    )
    assert printed == "1\n"


def test_a_forked_child_counts_from_zero_and_keeps_its_gauges() -> None:
    """What the parent counted the parent reports; what memory holds the child holds, too."""
    printed = run_script(
        OWN_PROVIDER
        + """
    instrument(provider)
    cache = CacheManager(CacheConfig(name="forked"))

    async def use(times: int) -> None:
        await cache.set("k", 1)
        for _ in range(times):
            await cache.get("k")

    def show(who: str) -> None:
        found = report()
        requests = sum(found["aurelis.cache.requests"].values())
        print(who, requests, *found["aurelis.cache.entry.count"].values(), flush=True)

    asyncio.run(use(5))
    gone = CacheManager(CacheConfig(name="gone"))
    asyncio.run(gone.get("missing"))
    del gone
    child = os.fork()
    if child == 0:
        show("child")
        asyncio.run(use(2))
        show("child")
        os._exit(0)
    os.waitpid(child, 0)
    asyncio.run(use(1))
    show("parent")
        """
    )
    assert printed.splitlines() == ["child 0 1", "child 2 1", "parent 7 1"]


def test_a_child_forked_while_a_breaker_is_open_says_what_is_so_in_it() -> None:
    """The state is read from the counts of its changes: one more into `open` than into `half_open` while it is open."""
    printed = run_script(
        OWN_PROVIDER
        + """
    instrument(provider)
    options = dict(redis_url="redis://127.0.0.1:1", breaker_failures=2, breaker_pause=60.0)
    cache = CacheManager(CacheConfig(name="forked", **options))

    async def ask(*keys: str) -> None:
        for key in keys:
            await cache.get(key)

    def show(who: str) -> None:
        changes = report()["aurelis.cache.breaker.changes"]
        states = ("open", "half_open", "closed")
        print(who, *(count for state in states for key, count in changes.items() if state in key.split()), flush=True)

    asyncio.run(ask("a", "b", "c"))
    child = os.fork()
    if child == 0:
        show("child")
        asyncio.run(ask("a", "b", "c"))
        show("child")
        os._exit(0)
    os.waitpid(child, 0)
    show("parent")
        """
    )
    assert printed.splitlines() == ["child 0 0 0", "child 1 0 0", "parent 1 0 0"]


def test_without_an_sdk_nothing_is_reported_and_nothing_fails() -> None:
    printed = run_script(
        """
        import asyncio, sys
        from aurelis.cache import CacheConfig, CacheManager

        async def value() -> int:
            return 1

        async def main() -> None:
            async with CacheManager(CacheConfig()) as cache:
                for _ in range(200):
                    await cache.get_or_compute("k", value)

        asyncio.run(main())
        print([name for name in sys.modules if name.startswith("opentelemetry.sdk")])
        """
    )
    assert printed == "[]\n"
