"""Reading what workers report: the Prometheus text format, added up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.telemetry import names
from aurelis_cli.demo.metrics import CacheView, merged, parse, quantile, select, series, total, view

WORKER = """\
# HELP aurelis_cache_requests_total Requests.
# TYPE aurelis_cache_requests_total counter
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="hit",aurelis_cache_layer="l1"} 70.0
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="hit",aurelis_cache_layer="l2"} 8.0
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="stale",aurelis_cache_layer="l1"} 2.0
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="miss",aurelis_cache_layer=""} 19.0
aurelis_cache_requests_total{aurelis_cache_name="web",aurelis_cache_result="bypass"} 1.0
aurelis_cache_requests_total{aurelis_cache_name="models",aurelis_cache_result="miss"} 5.0
# TYPE aurelis_cache_coalesced_total counter
aurelis_cache_coalesced_total{aurelis_cache_name="web"} 4.0
# TYPE aurelis_cache_refreshes_total counter
aurelis_cache_refreshes_total{aurelis_cache_name="models",aurelis_cache_refresh_reason="items"} 2.0
# TYPE aurelis_cache_items_total counter
aurelis_cache_items_total{aurelis_cache_name="models",aurelis_cache_result="hit",aurelis_cache_layer="l1"} 27.0
aurelis_cache_items_total{aurelis_cache_name="models",aurelis_cache_result="miss"} 3.0
# TYPE aurelis_cache_saved_tokens_total counter
aurelis_cache_saved_tokens_total{aurelis_cache_name="models",aurelis_cache_token_type="input"} 11.0
aurelis_cache_saved_tokens_total{aurelis_cache_name="models",aurelis_cache_token_type="output"} 31.0
# TYPE aurelis_cache_entry_count gauge
aurelis_cache_entry_count{aurelis_cache_name="web",aurelis_cache_layer="l1"} 15.0
aurelis_cache_entry_count{aurelis_cache_name="web",aurelis_cache_layer="l3"} 40.0
# TYPE aurelis_cache_operation_duration_seconds histogram
aurelis_cache_operation_duration_seconds_bucket{aurelis_cache_name="web",aurelis_cache_operation="fill",le="0.1"} 0.0
aurelis_cache_operation_duration_seconds_bucket{aurelis_cache_name="web",aurelis_cache_operation="fill",le="0.5"} 8.0
aurelis_cache_operation_duration_seconds_bucket{aurelis_cache_name="web",aurelis_cache_operation="fill",le="+Inf"} 10.0
aurelis_cache_operation_duration_seconds_bucket{aurelis_cache_name="web",aurelis_cache_operation="get",aurelis_cache_layer="l1",le="0.001"} 3.0
aurelis_cache_operation_duration_seconds_bucket{aurelis_cache_name="web",aurelis_cache_operation="get",aurelis_cache_layer="l1",le="+Inf"} 3.0
"""  # noqa: E501  # the format has one sample in a line


def test_a_view_holds_the_requests_of_its_cache_by_result_and_its_hits_by_layer() -> None:
    web = view(parse(WORKER), "web")
    assert web.results == {"hit": 78, "stale": 2, "miss": 19, "bypass": 1}
    assert web.hits == {"l1": 72, "l2": 8}
    assert web.requests == 100
    assert web.entries == 15


def test_loads_are_misses_and_bypasses_without_those_who_waited_for_another() -> None:
    web = view(parse(WORKER), "web")
    assert web.loads == 16
    assert web.avoided == 84
    assert web.loads + web.avoided == web.requests


def test_refreshes_are_loads_too_and_items_are_no_requests() -> None:
    models = view(parse(WORKER), "models")
    assert models.requests == 5
    assert models.loads == 7
    assert models.items == {"hit": 27, "miss": 3}


def test_ratios_are_shares_of_all_requests() -> None:
    web = view(parse(WORKER), "web")
    assert web.hit_ratio() == 0.8
    assert web.hit_ratio("l2") == 0.08
    assert math.isnan(view({}, "web").hit_ratio())


def test_tokens_of_all_kinds_count_as_saved() -> None:
    assert view(parse(WORKER), "models").tokens_saved == 42


def test_durations_are_kept_apart_by_operation_and_layer() -> None:
    web = view(parse(WORKER), "web")
    assert web.load_seconds == {0.1: 0, 0.5: 8, math.inf: 10}
    assert web.hit_seconds["l1"] == {0.001: 3, math.inf: 3}
    assert web.hit_seconds["l2"] == {}


def test_workers_add_up() -> None:
    one, both = parse(WORKER), merged([parse(WORKER), parse(WORKER)])
    assert view(both, "web").requests == 2 * view(one, "web").requests
    assert view(both, "web").load_seconds[math.inf] == 20


def test_an_unknown_cache_has_reported_nothing() -> None:
    nothing = view(parse(WORKER), "other")
    assert nothing == CacheView(hit_seconds={"l1": {}, "l2": {}})
    assert (nothing.requests, nothing.loads, nothing.avoided) == (0, 0, 0)


def test_an_empty_label_is_an_absent_one() -> None:
    snapshot = parse(WORKER)
    name = series(names.REQUESTS)
    assert total(snapshot, name, aurelis_cache_name="web", aurelis_cache_layer="") == 20
    assert all("aurelis_cache_layer" not in labels for labels, _ in select(snapshot, name, aurelis_cache_result="miss"))


def test_text_in_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="metric name"):
        parse("<html>\n")


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (names.REQUESTS, "aurelis_cache_requests_total"),
        (names.DURATION, "aurelis_cache_operation_duration_seconds"),
        (names.SAVED_TIME, "aurelis_cache_saved_time_seconds_total"),
        (names.ENTRIES, "aurelis_cache_entry_count"),
        (names.USAGE, "aurelis_cache_usage_bytes"),
    ],
    ids=lambda value: value.name if isinstance(value, names.Metric) else "",
)
def test_names_follow_prometheus(metric: names.Metric, expected: str) -> None:
    assert series(metric) == expected


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {0.1: 0.0, 0.5: 8.0, math.inf: 10.0}, 0.1 + 0.4 * 5 / 8),
        (0.95, {0.1: 0.0, 0.5: 8.0, math.inf: 10.0}, 0.5),
        (0.5, {1.0: 4.0, math.inf: 4.0}, 0.5),
        (1.0, {1.0: 4.0, 2.0: 4.0, math.inf: 4.0}, 1.0),
    ],
    ids=["inside", "beyond the last bound", "first bucket", "all in one"],
)
def test_quantiles_are_interpolated_as_prometheus_does(q: float, buckets: dict[float, float], expected: float) -> None:
    assert quantile(q, buckets) == pytest.approx(expected)


def test_a_quantile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(quantile(0.5, {}))
    assert math.isnan(quantile(0.5, {0.1: 0.0, math.inf: 0.0}))


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=8),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_quantiles_rise_and_stay_within_the_bounds(counts: list[int], first: float, second: float) -> None:
    cumulative = [sum(counts[: index + 1]) for index in range(len(counts))]
    buckets = {float(index + 1): float(count) for index, count in enumerate(cumulative)}
    buckets[math.inf] = float(cumulative[-1])
    low, high = sorted((first, second))
    if cumulative[-1]:
        assert 0 <= quantile(low, buckets) <= quantile(high, buckets) <= len(counts)
