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


def stale_reasons(manager: CacheManager) -> dict[str, int]:
    """Requests with something stale, by why they got it."""
    return _by(manager, names.REQUESTS.name, names.STALE_REASON)


def saved_bytes(manager: CacheManager) -> int:
    """What `aurelis.cache.saved.io` says."""
    return manager._engine.telemetry.saved_bytes.n


def coalesced(manager: CacheManager) -> int:
    """Requests that waited for the load of another."""
    return manager._engine.telemetry.coalesced.n


def loads(manager: CacheManager) -> int:
    """How often the counters say that the app was called through the cache."""
    refreshes = sum(_by(manager, names.REFRESHES.name, names.REFRESH_REASON).values())
    return requests(manager).get("miss", 0) - coalesced(manager) + refreshes


def _by(manager: CacheManager, metric: str, attribute: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for attributes, cell in manager._engine.telemetry.table.cells.get(metric, {}).items():
        value = dict(attributes).get(attribute)
        if value is not None and cell.n:
            counts[value] += int(cell.n)
    return dict(counts)
