"""How often is a value loaded that 10 000 callers miss at the same moment, and how long until all have it?

The load takes 50 ms, as a query or a call does, so the least possible time is that. Every caller asks for one key.

The number misleads as a measure of speed: it is mostly the event loop starting and waking 10 000 tasks, and one load is
the only number that matters. All callers are tasks of one process; for several processes it is another question.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Coroutine
from time import perf_counter, process_time
from typing import Any

from rich.table import Table

from aurelis.cache import CacheManager, cached
from tests.benchmarks.harness import Bench, Target, module

CALLERS = 10_000
LOAD_SECONDS = 0.05
_ROUNDS = 5
Decorate = Callable[[Callable[[int], Coroutine[Any, Any, str]]], Callable[[int], Coroutine[Any, Any, str]]]


class Load:
    """The function that is cached; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, number: int) -> str:
        """Takes a while."""
        self.calls += 1
        await asyncio.sleep(LOAD_SECONDS)
        return f"value {number}"


def run(bench: Bench) -> None:
    """Print the table."""
    subjects: dict[str, Callable[[], Decorate]] = {
        "no cache": lambda: lambda function: function,
        "@cached": lambda: cached(ttl=3600, cache=CacheManager()),
        "CacheManager.get_or_compute": _get_or_compute,
        "cashews, lock=True": _cashews_locking,
        "cashews": _cashews,
        "aiocache.cached_stampede": _aiocache_stampede,
        "aiocache.cached": _aiocache,
    }
    table = Table(title=f"{CALLERS:,} callers miss one key at once", title_justify="left")
    table.add_column("subject")
    for column in ("loads", "median ms", "CPU ms", "target"):
        table.add_column(column, justify="right")
    table.add_column("")
    makers: dict[str, Decorate] = {}
    rounds: dict[str, list[tuple[int, float, float]]] = {}
    for name, make in subjects.items():
        try:
            makers[name] = make()
        except ImportError as error:
            table.add_row(name, "", "", "", "", f"not installed ({error})", style="dim")
            continue
        rounds[name] = []
    for number in range(2 if bench.quick else _ROUNDS):
        for name, decorate in makers.items():
            rounds[name].append(bench.wait(stampede(decorate, number)))
    for name, measured in rounds.items():
        loads = max(calls for calls, _, _ in measured)
        wanted = [Target(1, "loads")] if name in ("@cached", "CacheManager.get_or_compute") else []
        table.add_row(
            name,
            str(loads),
            f"{statistics.median(wall for _, wall, _ in measured) * 1e3:.0f}",
            f"{statistics.median(cpu for _, _, cpu in measured) * 1e3:.0f}",
            ", ".join(map(str, wanted)),
            bench.judge(f"{CALLERS:,} callers", name, {"loads": loads}, wanted),
        )
    bench.console.print(table)


async def stampede(decorate: Decorate, number: int) -> tuple[int, float, float]:
    """All callers at once: the number of loads, seconds, and seconds of CPU."""
    load = Load()

    async def get(number: int) -> str:
        return await load(number)

    function = decorate(get)
    cpu, begin = process_time(), perf_counter()
    values = await asyncio.gather(*[function(number) for _ in range(CALLERS)])
    taken = perf_counter() - begin, process_time() - cpu
    assert values == [f"value {number}"] * CALLERS
    return load.calls, *taken


def _get_or_compute() -> Decorate:
    manager = CacheManager()

    def decorate(function: Callable[[int], Coroutine[Any, Any, str]]) -> Callable[[int], Coroutine[Any, Any, str]]:
        async def get(number: int) -> str:
            return await manager.get_or_compute(f"number {number}", lambda: function(number))

        return get

    return decorate


def _cashews() -> Decorate:
    return _cashews_with(lock=False)


def _cashews_locking() -> Decorate:
    return _cashews_with(lock=True)


def _cashews_with(*, lock: bool) -> Decorate:
    cache = module("cashews").Cache()
    cache.setup("mem://")

    def decorate(function: Callable[[int], Coroutine[Any, Any, str]]) -> Callable[[int], Coroutine[Any, Any, str]]:
        decorated: Callable[[int], Coroutine[Any, Any, str]] = cache(ttl=3600, key=f"{lock}:{{number}}", lock=lock)(
            function
        )
        return decorated

    return decorate


def _aiocache() -> Decorate:
    decorate: Decorate = module("aiocache").cached(ttl=3600, namespace="plain")
    return decorate


def _aiocache_stampede() -> Decorate:
    decorate: Decorate = module("aiocache").cached_stampede(ttl=3600, lease=2, namespace="stampede")
    return decorate
