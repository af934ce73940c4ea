"""What a user says to the SDK holds for our metrics as for all others: views, exemplars, and that it is off."""

import json
from typing import Any

import pytest

from tests.managers import run_script
from tests.telemetry.integration.programs import OWN_PROVIDERS

VIEWS = """
    import asyncio, json
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import Histogram, MeterProvider, ObservableCounter
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import DropAggregation, ExplicitBucketHistogramAggregation, View
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
    from aurelis.cache import CacheConfig, CacheManager

    delta = {kind: AggregationTemporality.DELTA for kind in (Histogram, ObservableCounter)}
    readers = [InMemoryMetricReader(), InMemoryMetricReader(delta)]
    views = [
        View(instrument_name="aurelis.cache.requests", name="shop.requests", attribute_keys={"aurelis.cache.result"}),
        View(instrument_name="aurelis.cache.entry.count", attribute_keys=set()),
        View(instrument_name="aurelis.cache.usage", aggregation=DropAggregation()),
        View(instrument_name="aurelis.cache.lookups", aggregation=DropAggregation()),
        View(
            instrument_name="aurelis.cache.operation.duration",
            aggregation=ExplicitBucketHistogramAggregation([0.5, 1]),
            attribute_keys={"aurelis.cache.operation"},
        ),
        View(
            instrument_name="aurelis.cache.operation.duration",
            name="exponential",
            aggregation=ExponentialBucketHistogramAggregation(),
        ),
    ]
    metrics.set_meter_provider(MeterProvider(readers, views=views, shutdown_on_exit=False))
    caches = [CacheManager(CacheConfig(name=name)) for name in ("one", "two")]

    async def load():
        return 1

    async def use():
        for cache in caches:
            await cache.get_or_compute("k", load)
            await cache.get("k")
            await cache.get("k")
            await cache.get("nothing")

    def reported(reader):
        data = reader.get_metrics_data()
        return {
            metric.name: [
                [sorted(point.attributes.values()), getattr(point, "value", None) or getattr(point, "count", 0),
                 list(getattr(point, "explicit_bounds", ()))]
                for point in metric.data.data_points
            ]
            for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        }

    asyncio.run(use())
    first = [reported(reader) for reader in readers]
    asyncio.run(use())
    print(json.dumps([first, [reported(reader) for reader in readers]]))
"""


def counts(points: list[Any]) -> dict[str, float]:
    """Values by their attributes, without zeros."""
    return {" ".join(attributes): value for attributes, value, _ in points if value}


def test_views_rename_drop_filter_and_have_buckets_of_their_own() -> None:
    """Series that a filter makes one are added up, as totals and as differences."""
    (total, delta), (total_again, delta_again) = json.loads(run_script(VIEWS))
    for found in (total, delta, total_again, delta_again):
        assert not {"aurelis.cache.requests", "aurelis.cache.usage", "aurelis.cache.lookups"} & found.keys()
        assert "aurelis.cache.stores" in found
        assert counts(found["aurelis.cache.entry.count"]) == {"": 2}
    for found in (total, delta, total_again):  # in the end nothing was recorded that has a difference
        assert [bounds for _, _, bounds in found["aurelis.cache.operation.duration"]] == [[0.5, 1]]
    once = {"hit": 4, "miss": 4}
    assert counts(total["shop.requests"]) == counts(delta["shop.requests"]) == once
    # The second time everything but "nothing" is there.
    assert counts(total_again["shop.requests"]) == {"hit": 10, "miss": 6}
    assert counts(delta_again["shop.requests"]) == {"hit": 6, "miss": 2}
    assert counts(total_again["aurelis.cache.operation.duration"]) == {"fill": 2}
    assert sum(counts(total["exponential"]).values()) == 2


EXEMPLARS = (
    OWN_PROVIDERS
    + """
    cache = CacheManager(CacheConfig(name="exemplars"))
    asyncio.run(use(cache))

    async def within():
        with trace.get_tracer("app").start_as_current_span("request"):
            await cache.get_or_compute("other", load)

    asyncio.run(within())
    traces = {span.context.trace_id for span in exporter.get_finished_spans()}
    found = [
        (exemplar.value > 0, exemplar.trace_id in traces, exemplar.filtered_attributes)
        for metric in reported()
        for point in metric.data.data_points
        for exemplar in point.exemplars
        if metric.name == "aurelis.cache.operation.duration"
    ]
    assert all(item == (True, True, {}) for item in found), found
    print(bool(found))
"""
)


@pytest.mark.parametrize(("chosen", "expected"), [("", "True"), ("always_on", "True"), ("always_off", "False")])
def test_exemplars_are_those_of_the_filter(chosen: str, expected: str) -> None:
    """They lead to the trace, and carry nothing that is not a label already."""
    variables = {"OTEL_METRICS_EXEMPLAR_FILTER": chosen} if chosen else {}
    assert run_script(EXEMPLARS, within=30.0, **variables) == expected + "\n"


def test_what_is_not_sampled_has_no_exemplars() -> None:
    assert run_script(EXEMPLARS, OTEL_TRACES_SAMPLER="always_off") == "False\n"


def test_an_sdk_that_is_off_costs_nothing_but_itself() -> None:
    """The app goes on as ever; only whoever asks for figures is told why there are none."""
    printed = run_script(
        OWN_PROVIDERS
        + """
    from aurelis.cache import CacheStats
    from aurelis.cache.exceptions import ConfigurationError

    cache = CacheManager(CacheConfig(name="off"))
    asyncio.run(use(cache))
    print(reported(), spans("aurelis.cache"))
    try:
        CacheStats(cache)
    except ConfigurationError as error:
        print("OTEL_SDK_DISABLED" in str(error))
        """,
        OTEL_SDK_DISABLED="true",
    )
    assert printed == "[] []\nTrue\n"
