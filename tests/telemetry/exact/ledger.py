"""What callers know of their requests to a cache, without asking it, and what its counts must say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aurelis.cache import CacheManager
from aurelis.cache.telemetry import names
from tests.managers import series

_FACES = ("get", "get_many", "set_many", "delete", "get_or_compute")


@dataclass
class Ledger:
    """What happened, as those saw it who asked.

    Attributes:
        requests: keys that were asked for.
        looks: those of them of which nobody would load what is not there.
        answered: looks that had an answer.
        loads: how often an origin was asked through the cache.
        given: loads that gave something.
        sets: keys that were set; to be kept, whether that went well or not.
        deletes: calls.
    """

    requests: int = 0
    looks: int = 0
    answered: int = 0
    loads: int = 0
    given: int = 0
    sets: int = 0
    deletes: int = 0

    def keep(self, manager: CacheManager) -> None:
        """Write down from now on what is asked of this manager."""
        for name in _FACES:
            setattr(manager, name, getattr(self, f"_{name}")(getattr(manager, name)))
        # Loading anew is for decorated functions, which have it from here.
        computing: Any = manager._computing
        computing.get_or_compute = self._anew(computing.get_or_compute)

    def _get(self, get: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def counted(key: str, default: Any = None) -> Any:
            self.requests += 1
            self.looks += 1
            found = await get(key)
            self.answered += found is not None
            return default if found is None else found

        return counted

    def _get_many(self, get_many: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def counted(keys: Iterable[str]) -> Any:
            wanted = dict.fromkeys(keys)
            self.requests += len(wanted)
            self.looks += len(wanted)
            found = await get_many(wanted)
            self.answered += len(found)
            return found

        return counted

    def _set_many(self, set_many: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def counted(mapping: Mapping[str, object], ttl: Any = None, tags: Iterable[str] = ()) -> Any:
            self.sets += len(mapping)
            return await set_many(mapping, ttl, tags)

        return counted

    def _delete(self, delete: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def counted(key: str, *, soft: bool = False) -> Any:
            self.deletes += 1
            return await delete(key, soft=soft)

        return counted

    def _get_or_compute(self, get_or_compute: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def counted(key: str, compute: Callable[[], Awaitable[Any]], *options: Any, **more: Any) -> Any:
            self.requests += 1
            return await get_or_compute(key, self._load(compute), *options, **more)

        return counted

    def _anew(self, get_or_compute: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def counted(key: str, compute: Callable[[], Awaitable[Any]], *options: Any, **more: Any) -> Any:
            if more.get("anew"):
                self.requests += 1
                compute = self._load(compute)
            return await get_or_compute(key, compute, *options, **more)

        return counted

    def _load(self, compute: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        async def load() -> Any:
            self.loads += 1
            value = await compute()
            self.given += 1
            return value

        return load


class Counts:
    """What the caches of one name have counted since this was made."""

    def __init__(self, cache: CacheManager | str) -> None:
        self._cache = cache
        self._before = {metric.name: series(cache, metric) for metric in names.METRICS if metric.kind == "counter"}

    def of(self, metric: names.Metric, *attributes: str) -> dict[str, int]:
        """Returns the sums by the values of these attributes, with spaces between; an absent one is left out."""
        sums: Counter[str] = Counter()
        before = self._before[metric.name]
        for found, value in series(self._cache, metric).items():
            described = dict(found)
            key = " ".join(described[name] for name in attributes if name in described)
            sums[key] += round(value - before.get(found, 0))
        return {key: number for key, number in sums.items() if number}

    def total(self, metric: names.Metric, attribute: str = "", *values: str) -> int:
        """Returns the sum; of some values of an attribute alone."""
        found = self.of(metric, *([attribute] if attribute else []))
        return sum(number for value, number in found.items() if not values or value in values)

    def deletes(self) -> int:
        """Returns how many keys were named here to be put out of date."""
        return self.of(names.INVALIDATIONS, names.INVALIDATION_SCOPE, names.INVALIDATION_SOURCE).get("key local", 0)

    def loads(self) -> int:
        """Returns how often the origin was asked, as the documentation has it computed."""
        missed = self.total(names.REQUESTS, names.RESULT, names.MISS)
        return missed - self.total(names.COALESCED) + self.total(names.REFRESHES)


def check(counts: Counts, ledger: Ledger, *, looks: int | None = None, sets: bool = True) -> None:
    """The counts are those of the ledger.

    Args:
        looks: how many looks had no answer, where the ledger cannot know it, since callers have left; `None`: it does.
        sets: all calls that set something have returned, so that what became of each is known.
    """
    results = counts.of(names.REQUESTS, names.RESULT)
    assert results.keys() <= {names.HIT, names.STALE, names.REVALIDATED, names.MISS, names.BYPASS}
    assert sum(results.values()) == ledger.requests, results
    unanswered = ledger.looks - ledger.answered if looks is None else looks
    assert counts.loads() - unanswered == ledger.loads, (results, counts.of(names.REFRESHES, names.REFRESH_REASON))
    assert counts.deletes() == ledger.deletes
    assert counts.of(names.LOOKUPS, names.LAYER).get(names.L1, 0) >= ledger.requests
    stores = counts.of(names.STORES, names.STORE_RESULT)
    assert sum(stores.values()) <= ledger.given + ledger.sets, stores
    if sets:
        assert sum(stores.values()) >= ledger.sets, stores
    identities(counts)


def identities(counts: Counts) -> None:
    """What the counts say of each other, as `docs/telemetry.md` has it."""
    hits = counts.of(names.REQUESTS, names.RESULT, names.LAYER)
    lookups = counts.of(names.LOOKUPS, names.LAYER, names.RESULT)
    assert hits.get("hit l1", 0) == lookups.get("l1 hit", 0)
    assert hits.get("hit negative", 0) == lookups.get("l1 negative", 0)
    assert hits.get("stale", 0) >= lookups.get("l1 stale", 0)
    assert counts.total(names.COALESCED) <= hits.get("miss", 0)
