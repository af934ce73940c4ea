"""Reads what the workers report: parses the Prometheus text format and adds it up. Pure.

The demo counts nothing itself: every figure that it shows comes from here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from aurelis.cache.telemetry import names

Labels = frozenset[tuple[str, str]]
Snapshot = Mapping[tuple[str, Labels], float]
"""Samples by name and labels; empty labels are left out, as they are the same as absent ones."""

Buckets = Mapping[float, float]
"""Cumulative counts by upper bound in seconds, the last bound infinite."""

_SUFFIXES: Final = {"counter": "_total", "gauge": "", "histogram": ""}
_UNITS: Final = {"s": "_seconds", "By": "_bytes"}


def series(metric: names.Metric) -> str:
    """The name of a metric in Prometheus, a histogram's without `_bucket`."""
    return metric.name.replace(".", "_") + _UNITS.get(metric.unit, "") + _SUFFIXES[metric.kind]


def label(attribute: str) -> str:
    """The name of an attribute in Prometheus."""
    return attribute.replace(".", "_")


@dataclass(frozen=True, slots=True)
class CacheView:
    """What one cache reports, over all workers, since they started."""

    results: Mapping[str, float] = field(default_factory=dict)
    """Requests by result."""
    hits: Mapping[str, float] = field(default_factory=dict)
    """Hits, stale ones included, by layer."""
    coalesced: float = 0.0
    refreshes: float = 0.0
    """Loads for which no request counts as a miss."""
    items: Mapping[str, float] = field(default_factory=dict)
    """Items of requests for several, by result."""
    errors: float = 0.0
    tokens_saved: float = 0.0
    cost_saved: float = 0.0
    """US dollars."""
    seconds_saved: float = 0.0
    entries: float = 0.0
    """Those in memory, and the next two likewise, in bytes."""
    usage: float = 0.0
    limit: float = 0.0
    hit_seconds: Mapping[str, Buckets] = field(default_factory=dict)
    """Durations of lookups by layer: in memory of hits only, and of a sample."""
    load_seconds: Buckets = field(default_factory=dict)
    """Durations of loads."""

    @property
    def requests(self) -> float:
        """All requests: every one has exactly one result."""
        return sum(self.results.values())

    @property
    def hit_total(self) -> float:
        """Requests that a stored entry answered."""
        return sum(self.hits.values())

    @property
    def loads(self) -> float:
        """How often the origin was asked."""
        passed_on = self.results.get(names.MISS, 0) + self.results.get(names.BYPASS, 0)
        return passed_on - self.coalesced + self.refreshes

    @property
    def avoided(self) -> float:
        """Requests that did not go on to the origin."""
        return self.hit_total + self.coalesced

    def hit_ratio(self, layer: str | None = None) -> float:
        """Share of the requests that were hits, in `layer` or in any; NaN without requests."""
        hits = self.hit_total if layer is None else self.hits.get(layer, 0)
        return hits / self.requests if self.requests else math.nan


@dataclass(frozen=True, slots=True)
class Journal:
    """What the write-behinds report, over all workers, since they started."""

    accepted: float = 0.0
    settled: Mapping[str, float] = field(default_factory=dict)
    """Writes that wait no more, by result."""
    replayed: float = 0.0

    @property
    def waiting(self) -> float:
        """Writes that are not settled yet."""
        return self.accepted + self.replayed - sum(self.settled.values())


def parse(text: str) -> Snapshot:
    """The samples of one exposition.

    Raises:
        ValueError: The text is not in the format.
    """
    samples: dict[tuple[str, Labels], float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset((name, value) for name, value in sample.labels.items() if value)
            samples[sample.name, labels] += sample.value
    return dict(samples)


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sum of what several workers report."""
    total: dict[tuple[str, Labels], float] = defaultdict(float)
    for snapshot in snapshots:
        for key, value in snapshot.items():
            total[key] += value
    return dict(total)


def select(snapshot: Snapshot, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """The samples of `name` that carry all `labels`; an empty value asks for the label's absence."""
    found = []
    for (candidate, pairs), value in snapshot.items():
        if candidate == name:
            have = dict(pairs)
            if all(have.get(key, "") == wanted for key, wanted in labels.items()):
                found.append((have, value))
    return found


def total(snapshot: Snapshot, name: str, **labels: str) -> float:
    """The sum of what `select` finds."""
    return sum(value for _, value in select(snapshot, name, **labels))


def view(snapshot: Snapshot, cache: str) -> CacheView:
    """What `snapshot` says about the cache of that name."""
    own = {label(names.NAME): cache}
    memory = {**own, label(names.LAYER): names.L1}
    results: dict[str, float] = defaultdict(float)
    hits: dict[str, float] = defaultdict(float)
    for labels, value in select(snapshot, series(names.REQUESTS), **own):
        result = labels.get(label(names.RESULT), "")
        results[result] += value
        if result in (names.HIT, names.STALE):
            hits[labels.get(label(names.LAYER), "")] += value
    layers = (names.L1, names.L2)
    return CacheView(
        results=dict(results),
        hits=dict(hits),
        coalesced=total(snapshot, series(names.COALESCED), **own),
        refreshes=total(snapshot, series(names.REFRESHES), **own),
        items=_by(snapshot, names.ITEMS, names.RESULT, own),
        errors=total(snapshot, series(names.ERRORS), **own),
        tokens_saved=total(snapshot, series(names.SAVED_TOKENS), **own),
        cost_saved=total(snapshot, series(names.SAVED_COST), **own),
        seconds_saved=total(snapshot, series(names.SAVED_TIME), **own),
        entries=total(snapshot, series(names.ENTRIES), **memory),
        usage=total(snapshot, series(names.USAGE), **memory),
        limit=total(snapshot, series(names.LIMIT), **memory),
        hit_seconds={layer: _buckets(snapshot, own, operation="get", layer=layer) for layer in layers},
        load_seconds=_buckets(snapshot, own, operation="fill"),
    )


def journal(snapshot: Snapshot) -> Journal:
    """What `snapshot` says about writes to stores behind the caches."""
    return Journal(
        accepted=total(snapshot, series(names.WRITES_ACCEPTED)),
        settled=_by(snapshot, names.WRITES_SETTLED, names.WRITE_RESULT, {}),
        replayed=total(snapshot, series(names.WRITES_REPLAYED)),
    )


def similar(snapshot: Snapshot) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Searches for similar questions by result, and answers that were compared by verdict."""
    searches = _by(snapshot, names.SIMILARITY_LOOKUPS, names.SIMILARITY_RESULT, {})
    return searches, _by(snapshot, names.SIMILARITY_VERDICTS, names.VERDICT, {})


def quantile(q: float, buckets: Buckets) -> float:
    """The q-quantile as Prometheus estimates it: linear within its bucket; NaN without observations.

    Above the last finite bound it is that bound.
    """
    bounds = sorted(buckets)
    count = buckets[bounds[-1]] if bounds else 0
    if not count:
        return math.nan
    rank = q * count
    lower, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, buckets[bound]
    return lower


def _by(snapshot: Snapshot, metric: names.Metric, attribute: str, own: Mapping[str, str]) -> Mapping[str, float]:
    """The sums of a metric by the values of one attribute."""
    found: dict[str, float] = defaultdict(float)
    for labels, value in select(snapshot, series(metric), **own):
        found[labels.get(label(attribute), "")] += value
    return dict(found)


def _buckets(snapshot: Snapshot, own: Mapping[str, str], *, operation: str, layer: str | None = None) -> Buckets:
    wanted = {**own, label(names.OPERATION): operation}
    if layer is not None:
        wanted[label(names.LAYER)] = layer
    buckets: dict[float, float] = defaultdict(float)
    for labels, value in select(snapshot, f"{series(names.DURATION)}_bucket", **wanted):
        buckets[float(labels["le"])] += value
    return dict(buckets)
