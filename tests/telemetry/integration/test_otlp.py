"""What a backend of OTLP adds up is what has happened, be it sent as totals or as differences."""

import json

import pytest

from tests.managers import run_script
from tests.telemetry.integration.collector import Collector

# Caches come and go, memory is full, many ask at once, in threads and event loops, while exports go on.
PROGRAM = """
    import asyncio, gc, json, random, threading, time
    from collections import Counter
    from opentelemetry import metrics
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from aurelis.cache import CacheConfig, CacheManager, EntryOptions

    provider = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    metrics.set_meter_provider(provider)
    truth, lock = Counter(), threading.Lock()

    def note(what, count=1):
        with lock:
            truth[what] += count

    async def load(fails):
        await asyncio.sleep(0)
        note("loads")
        if fails:
            raise ValueError("no")
        return "value"

    async def one(cache, draw):
        key = f"k{draw.randrange(40)}"
        what = draw.random()
        if what < 0.5:
            note("requests")
            await cache.get(key)
        elif what < 0.9:
            note("requests")
            try:
                await cache.get_or_compute(key, lambda: load(what > 0.85))
            except ValueError:
                pass
        elif what < 0.95:
            note("deletes")
            await cache.delete(key)
        else:
            await cache.set(key, "other")

    async def many(cache, seed):
        draw = random.Random(seed)
        for _ in range(15):
            await asyncio.gather(*(one(cache, draw) for _ in range(20)))
            await asyncio.sleep(0.003)

    def work(seed):
        cache = CacheManager(CacheConfig(name=f"c{seed % 2}", max_size=25))
        asyncio.run(many(cache, seed))

    kept = CacheManager(CacheConfig(name="kept", max_size=10))
    asyncio.run(many(kept, 0))
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    time.sleep(0.15)
    asyncio.run(kept.clear())
    asyncio.run(kept.set("left", "value"))
    provider.shutdown()
    print(json.dumps(truth))
"""


@pytest.mark.parametrize("temporality", ["cumulative", "delta", "lowmemory"])
def test_the_sums_are_what_has_happened(temporality: str, collector: Collector) -> None:
    truth = json.loads(run_script(PROGRAM, within=30.0, **collector.environment(temporality, 0.03)))
    received = collector.received()
    assert len(received.of("aurelis.cache.entry.count", name="kept")[0].exported) > 3
    assert received.sum("aurelis.cache.requests") == truth["requests"]
    misses = received.sum("aurelis.cache.requests", result="miss")
    # A `get` that finds nothing loads nothing.
    loads = received.sum("aurelis.cache.operation.duration", operation="fill")
    assert loads == truth["loads"] <= misses - received.sum("aurelis.cache.coalesced")
    assert received.sum("aurelis.cache.invalidations", scope="key") == truth["deletes"]
    assert received.sum("aurelis.cache.evictions") > 0
    assert received.sum("aurelis.cache.coalesced") > 0
    observed = received.of("aurelis.cache.requests")
    # Low memory: differences only where the SDK needs no memory for them, which is for what is recorded directly.
    assert {series.delta for series in observed} == {temporality == "delta"}
    assert {series.delta for series in received.of("aurelis.cache.operation.duration")} == {temporality != "cumulative"}
    for series in [*observed, *received.of("aurelis.cache.stores"), *received.of("aurelis.cache.evictions")]:
        assert series.monotonic
        assert min(series.exported) >= 0
        assert series.delta or series.exported == sorted(series.exported)
    # Levels are levels, and no differences.
    (entries,) = received.of("aurelis.cache.entry.count", name="kept")
    assert not entries.delta
    assert not entries.monotonic
    assert (max(entries.exported), entries.value) == (10, 1)
    (limit,) = received.of("aurelis.cache.limit", name="kept")
    assert set(limit.exported) == {64 * 2**20}
    (usage,) = received.of("aurelis.cache.usage", name="kept")
    assert 0 < usage.value < max(usage.exported)
