"""What the counters of one cache say."""

from collections import Counter

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names


def requests(manager: CacheManager) -> dict[str, int]:
    """What `aurelis.cache.requests` says: requests by result."""
    return _by(manager, names.REQUESTS.name, names.RESULT)


def hits_by_layer(manager: CacheManager) -> dict[str, int]:
    """Requests answered by each layer."""
    return _by(manager, names.REQUESTS.name, names.LAYER)


def stores(manager: CacheManager) -> dict[str, int]:
    """What `aurelis.cache.stores` says: decisions by result."""
    return _by(manager, names.STORES.name, names.STORE_RESULT)


def coalesced(manager: CacheManager) -> int:
    """Requests that waited for the load of another."""
    return manager._engine.telemetry.coalesced.n


def loads(manager: CacheManager) -> int:
    """How often the counters say that the app was called through the cache."""
    refreshes = sum(_by(manager, names.REFRESHES.name, names.REFRESH_REASON).values())
    return requests(manager).get("miss", 0) - coalesced(manager) + refreshes


def _by(manager: CacheManager, metric: str, attribute: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (name, attributes), cell in manager._engine.telemetry.table.cells.items():
        value = dict(attributes).get(attribute)
        if name == metric and value is not None and cell.n:
            counts[value] += int(cell.n)
    return dict(counts)
