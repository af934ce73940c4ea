"""What several endpoints say together, by cache and layer. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aurelis.cache.telemetry import names
from aurelis_cli.demo.metrics import Buckets, Labels, Snapshot, label, merged, quantile, select, series, total

from .readings import NOTHING, Reading

_NAME: Final = label(names.NAME)
_LAYER: Final = label(names.LAYER)
_LAYERS: Final = (names.L1, names.L2, names.L3)
"""Those that come first, in this order."""
_SHARED: Final = frozenset({(_LAYER, names.L3), (_LAYER, names.FILES)})
"""On a disk: all processes of a machine say the same of them."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds; NaN where nothing was measured."""

    median: float
    high: float
    """The 95th percentile."""


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer of a cache. Rates are per second, over the window; NaN until there is one."""

    name: str
    hits: float
    """Share of the requests in the window that it answered; NaN without requests."""
    lookup: Latency
    entries: float
    usage: float
    """Bytes; NaN where the layer does not say."""
    limit: float
    """Bytes; NaN where there is none."""
    evictions: float
    errors: float
    breaker: str
    """`open` in one process at least, else `half_open` where it is tried, `closed`, or empty where there is none."""


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """One cache, over all endpoints. Rates are per second, over the window; NaN until there is one."""

    name: str
    requests: float
    results: Mapping[str, float]
    """Requests by result."""
    hit_ratio: float
    """Share of hits, stale ones included, in the window; NaN without requests."""
    requests_total: float
    hit_ratio_total: float
    hit: Latency
    """In memory."""
    load: Latency
    waiting: float
    """Requests that wait now for the load of another."""
    errors: float
    errors_total: float
    saved_seconds: float
    saved_tokens: float
    saved_dollars: float
    """In all, as the others of this kind."""
    layers: Sequence[LayerFigures]


def figures(readings: Sequence[Reading], only: Collection[str] = ()) -> list[CacheFigures]:
    """The caches by name.

    Args:
        only: names of those that are wanted; empty: all.
    """
    counts = _by(_NAME, merged(reading.counts for reading in readings))
    recent = _by(_NAME, merged(reading.recent for reading in readings))
    levels = _by(_NAME, _levels(readings))
    spans = [(_by(_NAME, reading.recent), reading.span) for reading in readings if reading.span > 0]
    return [
        _cache(name, _of(counts, name), _of(recent, name), _of(levels, name), _each(spans, name))
        for name in sorted({*counts, *levels})
        if not only or name in only
    ]


Parts = Mapping[str, Snapshot]
"""Samples by the value of one label: each is looked at once, however many values there are."""


def _by(name: str, snapshot: Snapshot) -> Parts:
    parts: defaultdict[str, dict[tuple[str, Labels], float]] = defaultdict(dict)
    for key, count in snapshot.items():
        for found, value in key[1]:
            if found == name:
                parts[value][key] = count
    return parts


def _of(parts: Parts, value: str) -> Snapshot:
    return parts.get(value, NOTHING)


Spans = Sequence[tuple[Snapshot, float]]
"""What has come at each endpoint, and in how many seconds."""


def _each(spans: Iterable[tuple[Parts, float]], value: str) -> Spans:
    return [(_of(parts, value), span) for parts, span in spans]


class _Rates:
    """Counts per second: each endpoint has a span of its own."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def __call__(self, metric: names.Metric, **labels: str) -> float:
        if not self._spans:
            return math.nan
        return sum(total(recent, series(metric), **labels) / span for recent, span in self._spans)


def _cache(name: str, counts: Snapshot, recent: Snapshot, levels: Snapshot, spans: Spans) -> CacheFigures:
    rate = _Rates(spans)
    results = {labels.get(label(names.RESULT), "") for labels, _ in select(counts, series(names.REQUESTS))}
    requests, requests_total = (total(each, series(names.REQUESTS)) for each in (recent, counts))
    stale = _answered(recent, names.STALE)  # which says no layer, and is an answer of memory's
    recent_by, levels_by = _by(_LAYER, recent), _by(_LAYER, levels)
    spans_by = [(_by(_LAYER, each), span) for each, span in spans]
    found = {*_by(_LAYER, counts), *levels_by}
    return CacheFigures(
        name=name,
        requests=rate(names.REQUESTS),
        results={result: rate(names.REQUESTS, **{label(names.RESULT): result}) for result in sorted(results)},
        hit_ratio=_ratio(_answered(recent, names.HIT) + stale, requests),
        requests_total=requests_total,
        hit_ratio_total=_ratio(_answered(counts, names.HIT) + _answered(counts, names.STALE), requests_total),
        hit=_latency(_of(recent_by, names.L1), "get"),
        load=_latency(recent, "fill"),
        waiting=total(levels, series(names.WAITING)),
        errors=rate(names.ERRORS),
        errors_total=total(counts, series(names.ERRORS)),
        saved_seconds=total(counts, series(names.SAVED_TIME)),
        saved_tokens=total(counts, series(names.SAVED_TOKENS)),
        saved_dollars=total(counts, series(names.SAVED_COST)),
        layers=[
            _layer(
                layer,
                _ratio(_answered(_of(recent_by, layer), names.HIT) + (stale if layer == names.L1 else 0), requests),
                _of(recent_by, layer),
                _of(levels_by, layer),
                _Rates(_each(spans_by, layer)),
            )
            for layer in (*(one for one in _LAYERS if one in found), *sorted(found.difference(_LAYERS)))
        ],
    )


def _layer(layer: str, hits: float, recent: Snapshot, levels: Snapshot, rate: _Rates) -> LayerFigures:
    """One layer, from what has its label."""
    return LayerFigures(
        name=layer,
        hits=hits,
        lookup=_latency(recent, "get"),
        entries=_level(levels, names.ENTRIES),
        usage=_level(levels, names.USAGE),
        limit=_level(levels, names.LIMIT),
        evictions=rate(names.EVICTIONS),
        errors=rate(names.ERRORS),
        breaker=_breaker(levels),
    )


def _answered(snapshot: Snapshot, result: str) -> float:
    return total(snapshot, series(names.REQUESTS), **{label(names.RESULT): result})


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _level(levels: Snapshot, metric: names.Metric) -> float:
    found = select(levels, series(metric))
    return sum(value for _, value in found) if found else math.nan


def _latency(snapshot: Snapshot, operation: str) -> Latency:
    buckets: defaultdict[float, float] = defaultdict(float)
    for labels, value in select(snapshot, f"{series(names.DURATION)}_bucket", **{label(names.OPERATION): operation}):
        bound = _number(labels.get("le", ""))
        if not math.isnan(bound):
            buckets[bound] += value
    known: Buckets = buckets
    return Latency(quantile(0.5, known), quantile(0.95, known))


def _number(text: str) -> float:
    """What it says; NaN where that is no number: the other end may be anything."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _levels(readings: Iterable[Reading]) -> Snapshot:
    """What there is in all processes; of what they share, what the one says that says most."""
    levels: defaultdict[tuple[str, Labels], float] = defaultdict(float)
    for reading in readings:
        for key, value in reading.levels.items():
            levels[key] = max(levels[key], value) if key[1] & _SHARED else levels[key] + value
    return levels


def _breaker(levels: Snapshot) -> str:
    """The worst state that one is in."""
    for state in names.BREAKER_STATES:
        if total(levels, series(names.BREAKERS), **{label(names.BREAKER_STATE): state}) > 0:
            return state
    return ""
