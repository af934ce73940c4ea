"""What does a call of a `@cached` function cost when memory has its result?

The baseline is that of `l1_hit`, a coroutine around `cachetools.LRUCache.get`, which is given its key: what the
decorator adds is making the key from the arguments.

The number misleads for arguments whose keys are not remembered (anything but str, bytes, int, bool and None, and
keyword arguments), which are built for each call; the table has one such row. It also misleads for functions called
with more different arguments than the decorator remembers keys of.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from aurelis.cache import CacheConfig, CacheManager, cached, cached_method
from tests.benchmarks import l1_hit
from tests.benchmarks.harness import Bench, Subject, Target, always, module, peer

ARGUMENT = 500


def run(bench: Bench) -> None:
    """Print the table."""
    bench.compare(
        "@cached, hit in memory, one argument",
        [
            l1_hit.baseline(),
            ours(bench, "@cached(cache=manager)", decorated(CacheManager())),
            ours(bench, "span_attributes=False", decorated(CacheManager(CacheConfig(span_attributes=False)))),
            ours(bench, "the process's manager", decorated(None)),
            ours(bench, "an argument by keyword", by_keyword(CacheManager())),
            ours(bench, "@cached_method", Service().load),
            ours(bench, "@cached_method(identity=...)", Service().load_by_name),
            peer("cashews", lambda: cashews(bench)),
            peer("aiocache", lambda: aiocache(bench)),
        ],
        {"@cached(cache=manager)": [Target(7.0)], "span_attributes=False": [Target(7.0)]},
        rounds=200,
        count=300,
    )


async def load(user: int) -> str:
    """The function that is cached."""
    return f"{l1_hit.VALUE}: {user}"


class Service:
    """The same as methods."""

    name = "service"

    @cached_method(ttl=3600)
    async def load(self, user: int) -> str:
        """Each instance has its own."""
        return await load(user)

    @cached_method(ttl=3600, identity="name")
    async def load_by_name(self, user: int) -> str:
        """Those of one name share theirs."""
        return await load(user)


def decorated(manager: CacheManager | None) -> Callable[[int], Coroutine[Any, Any, object]]:
    """The function with our decorator."""
    return cached(ttl=3600, cache=manager)(load)


def by_keyword(manager: CacheManager) -> Callable[[int], Coroutine[Any, Any, object]]:
    """The same, called so that its key is built each time."""
    function = cached(ttl=3600, cache=manager)(load)

    def call(user: int) -> Coroutine[Any, Any, object]:
        return function(user=user)

    return call


def ours(bench: Bench, name: str, function: Callable[[int], Coroutine[Any, Any, object]]) -> Subject:
    """A decorated function, after its results were stored."""

    async def fill() -> None:
        for number in range(l1_hit.ENTRIES):
            await function(number)

    bench.wait(fill())
    return Subject(name, function, always(ARGUMENT))


def aiocache(bench: Bench) -> Subject:
    """`aiocache.cached`, as it comes."""
    return ours(bench, "aiocache", module("aiocache").cached(ttl=3600)(load))


def cashews(bench: Bench) -> Subject:
    """`Cache.__call__`, as it comes."""
    cache = module("cashews").Cache()
    cache.setup("mem://", size=10_000)
    return ours(bench, "cashews", cache(ttl=3600)(load))
