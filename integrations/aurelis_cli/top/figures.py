"""What several endpoints say together, by cache and layer. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aurelis.cache.telemetry import names
from aurelis_cli.demo.metrics import Buckets, Snapshot, label, merged, quantile, select, series, total

from .readings import Reading

_NAME: Final = label(names.NAME)
_LAYER: Final = label(names.LAYER)
_LAYERS: Final = (names.L1, names.L2, names.L3)
"""Those that come first, in this order."""


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
    """`open` in one process at least, `closed`, or empty where it never opened."""


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
    counts = merged(reading.counts for reading in readings)
    recent = merged(reading.recent for reading in readings)
    levels = merged(level for reading in readings for level in (reading.levels, _breakers(reading.running)))
    found = {value for _, labels in (*counts, *levels) for name, value in labels if name == _NAME}
    spans = [(reading.recent, reading.span) for reading in readings if reading.span > 0]
    return [
        _cache(name, _of(counts, name), _of(recent, name), _of(levels, name), spans)
        for name in sorted(found)
        if not only or name in only
    ]


class _Rates:
    """Counts per second: each endpoint has a span of its own."""

    def __init__(self, cache: str, spans: Iterable[tuple[Snapshot, float]]) -> None:
        self._own = [(_of(recent, cache), span) for recent, span in spans]

    def __call__(self, metric: names.Metric, **labels: str) -> float:
        if not self._own:
            return math.nan
        return sum(total(recent, series(metric), **labels) / span for recent, span in self._own)


def _cache(
    name: str, counts: Snapshot, recent: Snapshot, levels: Snapshot, spans: Iterable[tuple[Snapshot, float]]
) -> CacheFigures:
    rate = _Rates(name, spans)
    results = {labels.get(label(names.RESULT), "") for labels, _ in select(counts, series(names.REQUESTS))}
    return CacheFigures(
        name=name,
        requests=rate(names.REQUESTS),
        results={result: rate(names.REQUESTS, **{label(names.RESULT): result}) for result in sorted(results)},
        hit_ratio=_ratio(_hits(recent), total(recent, series(names.REQUESTS))),
        requests_total=total(counts, series(names.REQUESTS)),
        hit_ratio_total=_ratio(_hits(counts), total(counts, series(names.REQUESTS))),
        hit=_latency(recent, "get", names.L1),
        load=_latency(recent, "fill"),
        waiting=total(levels, series(names.WAITING)),
        errors=rate(names.ERRORS),
        errors_total=total(counts, series(names.ERRORS)),
        saved_seconds=total(counts, series(names.SAVED_TIME)),
        saved_tokens=total(counts, series(names.SAVED_TOKENS)),
        saved_dollars=total(counts, series(names.SAVED_COST)),
        layers=[_layer(layer, counts, recent, levels, rate) for layer in _layers(counts, levels)],
    )


def _layer(layer: str, counts: Snapshot, recent: Snapshot, levels: Snapshot, rate: _Rates) -> LayerFigures:
    own = {_LAYER: layer}
    return LayerFigures(
        name=layer,
        hits=_ratio(_hits(recent, layer), total(recent, series(names.REQUESTS))),
        lookup=_latency(recent, "get", layer),
        entries=_level(levels, names.ENTRIES, own),
        usage=_level(levels, names.USAGE, own),
        limit=_level(levels, names.LIMIT, own),
        evictions=rate(names.EVICTIONS, **own),
        errors=rate(names.ERRORS, **own),
        breaker=_breaker(levels, own),
    )


def _of(snapshot: Snapshot, cache: str) -> Snapshot:
    own = (_NAME, cache)
    return {key: value for key, value in snapshot.items() if own in key[1]}


def _layers(counts: Snapshot, levels: Snapshot) -> list[str]:
    found = {value for _, labels in (*counts, *levels) for name, value in labels if name == _LAYER}
    return [*(layer for layer in _LAYERS if layer in found), *sorted(found.difference(_LAYERS))]


def _hits(snapshot: Snapshot, layer: str | None = None) -> float:
    """Requests that something stored has answered; a stale answer is one of memory's."""
    own = {} if layer is None else {_LAYER: layer}
    hits = total(snapshot, series(names.REQUESTS), **{label(names.RESULT): names.HIT}, **own)
    if layer in (None, names.L1):
        hits += total(snapshot, series(names.REQUESTS), **{label(names.RESULT): names.STALE})
    return hits


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _level(levels: Snapshot, metric: names.Metric, labels: Mapping[str, str]) -> float:
    found = select(levels, series(metric), **labels)
    return sum(value for _, value in found) if found else math.nan


def _latency(snapshot: Snapshot, operation: str, layer: str | None = None) -> Latency:
    wanted = {label(names.OPERATION): operation} | ({} if layer is None else {_LAYER: layer})
    buckets: defaultdict[float, float] = defaultdict(float)
    for labels, value in select(snapshot, f"{series(names.DURATION)}_bucket", **wanted):
        buckets[float(labels["le"])] += value
    known: Buckets = buckets
    return Latency(quantile(0.5, known), quantile(0.95, known))


def _breakers(running: Snapshot) -> Snapshot:
    """What breakers of the processes that run have done: those of others are open no more."""
    return {key: value for key, value in running.items() if key[0] == series(names.BREAKER)}


def _breaker(levels: Snapshot, own: Mapping[str, str]) -> str:
    """A breaker leaves `open` through `half_open` only, so it is open where it has come to the one more often."""

    def changes(state: str) -> float:
        return total(levels, series(names.BREAKER), **own, **{label(names.BREAKER_STATE): state})

    opened = changes("open")
    if not opened:
        return ""
    return "open" if opened > changes("half_open") else "closed"
