"""A forked child reports what it does itself, and what its memory holds: nothing is reported twice."""

import pytest

from aurelis.cache.telemetry.otel import SAMPLE_MASK
from tests.managers import run_script
from tests.telemetry.integration.collector import Collector

EACH = SAMPLE_MASK + 1
"""Hits in memory of which the duration of one is recorded."""

USE = """
    import asyncio, multiprocessing, os, sys, threading, time
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from aurelis.cache import CacheConfig, CacheManager
    from aurelis.cache.telemetry.otel import SAMPLE_MASK

    EACH = SAMPLE_MASK + 1

    async def value():
        return 1

    async def some(cache, hits):
        await cache.set("k", 1)
        for _ in range(hits):
            await cache.get("k")
        await cache.get_or_compute(f"{os.getpid()} {time.monotonic()}", value)

    def use(hits):
        asyncio.run(some(cache, hits))
"""

EXPORTING = (
    USE
    + """
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    begun, how = sys.argv[1:]
    provider = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    if begun == "early":
        metrics.set_meter_provider(provider)
    cache = CacheManager(CacheConfig(name="forked"))
    use(5 * EACH)
    if begun == "late":
        metrics.set_meter_provider(provider)
    provider.force_flush()
    use(EACH)  # not exported yet

    def child():
        use(EACH)
        time.sleep(0.5)  # the thread that exports runs again
        use(2 * EACH)
        provider.shutdown()

    if how == "fork":
        number = os.fork()
        if number == 0:
            child()
            os._exit(0)
        assert os.waitpid(number, 0)[1] == 0
    else:
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
    use(EACH)
    provider.shutdown()
    """
)


@pytest.mark.parametrize(
    ("begun", "how", "temporality"), [("early", "fork", "delta"), ("late", "multiprocessing", "cumulative")]
)
def test_parent_and_child_add_up_to_what_has_happened(
    begun: str, how: str, temporality: str, collector: Collector
) -> None:
    run_script(EXPORTING, begun, how, within=30.0, **collector.environment(temporality, 0.2))
    received = collector.received()
    requests = "aurelis.cache.requests"
    hits = {process: received.sum(requests, process, result="hit") for process in received.processes(requests)}
    assert sorted(hits.values()) == [3 * EACH, 7 * EACH]
    parent, child = sorted(hits, key=lambda process: -hits[process])
    assert received.sum(requests, parent, result="miss") == 3
    assert received.sum(requests, child, result="miss") == 2
    # Each load is recorded, and one in so many hits in memory, once there is a provider.
    durations, before = "aurelis.cache.operation.duration", (1, 5) if begun == "late" else (0, 0)
    assert received.sum(durations, parent, operation="fill") == 3 - before[0]
    assert received.sum(durations, child, operation="fill") == 2
    assert received.sum(durations, parent, operation="get") == 7 - before[1]
    assert received.sum(durations, child, operation="get") == 3
    # The child has the parent's entries and two of its own.
    assert received.sum("aurelis.cache.entry.count", parent) == 1 + 3
    assert received.sum("aurelis.cache.entry.count", child) == 1 + 2 + 2
    for series in received.of(requests):
        assert series.monotonic
        assert series.delta == (temporality == "delta")
        assert min(series.exported) >= 0
        assert series.delta or series.exported == sorted(series.exported)
    assert not any(series.delta for series in received.of("aurelis.cache.entry.count"))


def test_a_child_of_a_child_begins_anew_in_prometheus() -> None:
    """Each process is scraped by itself, as a gunicorn worker with a port of its own is."""
    printed = run_script(
        USE
        + """
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import REGISTRY, generate_latest

    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()], shutdown_on_exit=False))
    cache = CacheManager(CacheConfig(name="forked"))

    def show(who):
        wanted = {
            "aurelis_cache_requests_total": 'aurelis_cache_result="hit"',
            "aurelis_cache_entry_count": "",
            "aurelis_cache_operation_duration_seconds_count": 'aurelis_cache_operation="fill"',
        }
        lines = [line.rsplit(" ", 1) for line in generate_latest(REGISTRY).decode().splitlines()]
        found = [
            sum(float(value) for series, value in lines if series.startswith(name + "{") and label in series)
            for name, label in wanted.items()
        ]
        print(who, *(int(each) for each in found), flush=True)

    use(10)
    show("parent")
    if (child := os.fork()) == 0:
        show("child")
        use(3)
        show("child")
        if (grandchild := os.fork()) == 0:
            show("grandchild")
            use(2)
            show("grandchild")
            os._exit(0)
        os.waitpid(grandchild, 0)
        use(4)
        show("child")
        os._exit(0)
    os.waitpid(child, 0)
    use(1)
    show("parent")
        """
    )
    # Hits, entries and durations of loads.
    assert printed.splitlines() == [
        "parent 10 2 1",
        "child 0 2 0",
        "child 3 3 1",
        "grandchild 0 3 0",
        "grandchild 2 4 1",
        "child 7 4 2",
        "parent 11 3 2",
    ]


def test_an_sdk_that_is_built_otherwise_keeps_a_child_from_nothing() -> None:
    """What else a child has to make anew comes behind telemetry, or before it: the order is any."""
    run_script(
        USE
        + """
    from opentelemetry.sdk.metrics._internal import measurement_consumer
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from aurelis.cache._forking import renew_in_children

    class Storage(measurement_consumer.MetricReaderStorage):
        def __setattr__(self, name, value):
            if hasattr(self, name):
                raise AttributeError("cannot be set")
            super().__setattr__(name, value)

    class Subject:
        renewed = False
        def after_fork(self):
            self.renewed = True

    measurement_consumer.MetricReaderStorage = Storage
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    cache = CacheManager(CacheConfig(name="forked"))
    subjects = [Subject() for _ in range(100)]
    for subject in subjects:
        renew_in_children(subject)
    use(EACH)
    number = os.fork()
    if number == 0:
        use(EACH)
        os._exit(0 if all(subject.renewed for subject in subjects) else 1)
    assert os.waitpid(number, 0)[1] == 0
    """
    )


def test_a_fork_while_the_sdk_is_busy_leaves_a_child_that_goes_on() -> None:
    """A thread of the parent holds the lock under which the SDK makes series, and is not in the child to release it."""
    printed = run_script(
        USE
        + """
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    cache = CacheManager(CacheConfig(name="forked"))
    use(3)
    (storage,) = provider._measurement_consumer._reader_storages.values()
    inside, go_on = threading.Event(), threading.Event()

    def hold():
        with storage._lock:
            inside.set()
            go_on.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    if (child := os.fork()) == 0:
        use(EACH)
        os._exit(0)
    deadline = time.monotonic() + 10
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            print("the child hangs", flush=True)
        time.sleep(0.02)
    go_on.set()
    thread.join()
        """
    )
    assert printed == ""
