"""What a cache has done, for those who ask in the process: `CacheMonitor`, `CacheStats` and `CacheMetrics`.

Nothing is counted here. Each figure is read from OpenTelemetry through a reader in memory, and is what dashboards show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from .manager import AnyManager, manager_of
from .telemetry import names
from .telemetry._cells import Cell
from .telemetry._reading import Reading, total
from .telemetry.otel import Telemetry, read

_GOOD: Final = 0.8
_ANSWERED: Final = (names.HIT, names.STALE)
_STORED: Final = (names.KEPT, names.LAYER_FAILED, names.BEYOND_MEMORY)


@dataclass(frozen=True, slots=True)
class CacheMetrics:
    """Figures of one cache, or of one of its layers, since the process began.

    Attributes:
        hits: requests that were answered with something stored, stale or not; of a layer, lookups.
        misses: all other requests: misses, revalidations and bypasses; of a layer, lookups that found nothing.
        writes: entries that were stored, those that were loaded too; of a layer it is not known: 0.
        deletes: keys that this process has named to be deleted; of a layer it is not known: 0.
        errors: failures that were handled and not raised.
        total_requests: hits and misses.
        hit_rate: hits / total_requests, 0 to 1; 0.0 without requests.
        average_response_time: mean seconds that a layer took for a read, hit or miss; of the cache, the means of its
            layers weighted by their hits. 0.0 as long as none is known. Recorded since the first `CacheStats` or
            `CacheMonitor` of the cache was made: every read that leaves memory, but one in 8 of those of the disk, and
            one in 128 hits in memory.
        cache_size: entries in memory; of a layer, in it.
        memory_usage: bytes in memory; of a layer, in it. 0 where the process cannot know, as in Redis.
    """

    hits: int = 0
    misses: int = 0
    writes: int = 0
    deletes: int = 0
    errors: int = 0
    total_requests: int = 0
    hit_rate: float = 0.0
    average_response_time: float = 0.0
    cache_size: int = 0
    memory_usage: int = 0


class CacheStats:
    """The figures of one cache; caches of one name are one.

    Args:
        cache: which one; `None`: that of the process, whichever it is when it is asked.

    Raises:
        MissingExtraError: OpenTelemetry's SDK is not installed.
        ConfigurationError: it is switched off by `OTEL_SDK_DISABLED`.
        TypeError: `cache` is no manager.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import CacheConfig, CacheManager
        >>> async def main() -> CacheMetrics:
        ...     async with CacheManager(CacheConfig(name="stats")) as cache:
        ...         stats = CacheStats(cache)
        ...         await cache.set("greeting", "hello")
        ...         await cache.get("greeting")
        ...         return stats.metrics
        >>> metrics = asyncio.run(main())
        >>> metrics.hits, metrics.misses, metrics.writes
        (1, 0, 1)
    """

    def __init__(self, cache: AnyManager | None = None) -> None:
        self._cache = cache
        self._read()  # from now on durations are recorded, too

    @property
    def metrics(self) -> CacheMetrics:
        """The figures of the cache, as they are now."""
        return _overall(self._read())

    @property
    def detailed_stats(self) -> dict[str, CacheMetrics]:
        """The figures of each layer (`l1`, `l2`, `l3`) and of what `record_…` named, as they are now."""
        return _by_layer(self._read())

    def get_performance_report(self) -> dict[str, Any]:
        """All figures and a summary, of one moment, as plain values that `json.dumps` takes.

        Returns:
            `overall_metrics`: the fields of `CacheMetrics`; `backend_metrics`: the same for each layer;
            `performance_summary`: `hit_rate_percentage`, `total_requests` and `cache_efficiency`, which is `"Good"`
            above a hit rate of 0.8 and `"Needs Improvement"` otherwise.
        """
        reading = self._read()
        overall = _overall(reading)
        return {
            "overall_metrics": asdict(overall),
            "backend_metrics": {layer: asdict(metrics) for layer, metrics in _by_layer(reading).items()},
            "performance_summary": {
                "hit_rate_percentage": overall.hit_rate * 100,
                "total_requests": overall.total_requests,
                "cache_efficiency": "Good" if overall.hit_rate > _GOOD else "Needs Improvement",
            },
        }

    async def record_hit(self, backend: str = "default") -> None:
        """Count one more hit, of something of your own that belongs to the cache.

        Args:
            backend: where: a layer (`l1`, …), or one of a few fixed names of your own. Of names, a hundred are kept
                apart; all others, and those that are long or look like an address, are `_OTHER`.
        """
        telemetry = self._telemetry()
        place = telemetry.place(_named(backend))
        _count(telemetry.request(names.HIT, place), telemetry.lookup(place, names.HIT))

    async def record_miss(self, backend: str = "default") -> None:
        """Count one more miss. `backend`: as for `record_hit`."""
        telemetry = self._telemetry()
        _count(telemetry.miss, telemetry.lookup(telemetry.place(_named(backend)), names.MISS))

    async def record_write(self) -> None:
        """Count one more entry that was stored."""
        self._telemetry().store("stored")

    async def record_delete(self) -> None:
        """Count one more key that was deleted."""
        _count(self._telemetry().deleted)

    async def record_error(self, backend: str = "default") -> None:
        """Count one more failure that was handled. `backend`: as for `record_hit`."""
        telemetry = self._telemetry()
        telemetry.error(telemetry.place(_named(backend)), "recorded", names.OTHER)

    def _read(self) -> Reading:
        return read(self._telemetry().name)

    def _telemetry(self) -> Telemetry:
        return manager_of(self._cache)._engine.telemetry


class CacheMonitor:
    """Watches one cache.

    Args:
        cache: which one; `None`: that of the process.

    Attributes:
        stats: the `CacheStats` behind it.

    Raises:
        MissingExtraError, ConfigurationError, TypeError: as `CacheStats`.
    """

    def __init__(self, cache: AnyManager | None = None) -> None:
        self.stats = CacheStats(cache)

    async def get_current_stats(self) -> CacheMetrics:
        """The figures of the cache, as they are now."""
        return self.stats.metrics

    def get_performance_report(self) -> dict[str, Any]:
        """As `CacheStats.get_performance_report`."""
        return self.stats.get_performance_report()


def _overall(reading: Reading) -> CacheMetrics:
    requests = reading.total(names.REQUESTS)
    hits = total(reading.matching(names.REQUESTS, names.RESULT, *_ANSWERED))
    return CacheMetrics(
        hits=hits,
        misses=requests - hits,
        writes=total(reading.matching(names.STORES, names.STORE_RESULT, *_STORED)),
        deletes=total(
            [
                each
                for each in reading.matching(names.INVALIDATIONS, names.INVALIDATION_SCOPE, "key")
                if each.attributes[names.INVALIDATION_SOURCE] == "local"
            ]
        ),
        errors=reading.total(names.ERRORS),
        total_requests=requests,
        hit_rate=_share(hits, requests),
        average_response_time=_weighted(_by_layer(reading)),
        cache_size=total(reading.matching(names.ENTRIES, names.LAYER, names.L1)),
        memory_usage=total(reading.matching(names.USAGE, names.LAYER, names.L1)),
    )


def _by_layer(reading: Reading) -> dict[str, CacheMetrics]:
    metrics = (names.LOOKUPS, names.ERRORS, names.ENTRIES)
    layers = {each.attributes[names.LAYER] for metric in metrics for each in reading.series.get(metric.name, ())}
    return {layer: _layer(reading, layer) for layer in sorted(layers)}


def _layer(reading: Reading, layer: str) -> CacheMetrics:
    lookups = reading.matching(names.LOOKUPS, names.LAYER, layer)
    hits = total([each for each in lookups if each.attributes[names.RESULT] in (*_ANSWERED, "negative")])
    misses = total([each for each in lookups if each.attributes[names.RESULT] == names.MISS])
    reads = [
        each
        for each in reading.matching(names.DURATION, names.LAYER, layer)
        if each.attributes[names.OPERATION] == "get"
    ]
    return CacheMetrics(
        hits=hits,
        misses=misses,
        errors=total(reading.matching(names.ERRORS, names.LAYER, layer)),
        total_requests=hits + misses,
        hit_rate=_share(hits, hits + misses),
        average_response_time=_share(sum(each.total for each in reads), sum(each.count for each in reads)),
        cache_size=total(reading.matching(names.ENTRIES, names.LAYER, layer)),
        memory_usage=total(reading.matching(names.USAGE, names.LAYER, layer)),
    )


def _weighted(layers: Mapping[str, CacheMetrics]) -> float:
    known = [each for each in layers.values() if each.average_response_time]
    return _share(sum(each.average_response_time * each.hits for each in known), sum(each.hits for each in known))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _named(backend: object) -> str:
    if not isinstance(backend, str) or not backend:
        raise TypeError(f"backend must be the name of a layer, not {backend!r}")
    return backend


def _count(*cells: Cell) -> None:
    for cell in set(cells):  # a hit in memory is a request and a lookup by one cell
        cell.n += 1
