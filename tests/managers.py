"""Caches under test: with a name of their own, checked for what they leave behind, and their counts."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import textwrap
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache._clock import SYSTEM_CLOCK, Clock
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._cells import REGISTRY
from tests.conftest import ROOT

WITHIN = 20.0
"""Seconds after which waiting for something has failed: far more than it takes."""

_numbers = itertools.count(1)


def fresh_name() -> str:
    """Returns the name of a cache that no other test has, so that its counts begin at zero."""
    return f"test-{next(_numbers)}"


def configuration(**options: Any) -> CacheConfig:  # `Any`: whatever CacheConfig takes
    """Returns a configuration with a fresh name."""
    return CacheConfig(**{"name": fresh_name(), **options})


@contextlib.asynccontextmanager
async def opened(config: CacheConfig | None = None, *, clock: Clock = SYSTEM_CLOCK) -> AsyncIterator[CacheManager]:
    """A manager; at the end nothing is left of its loads, and it is closed."""
    manager = CacheManager(config or configuration(), clock=clock)
    try:
        yield manager
        await eventually(lambda: is_settled(manager))
    finally:
        await manager.aclose()


def is_settled(manager: CacheManager) -> bool:
    """Returns whether no load is under way and nobody waits for one."""
    flights = manager._engine.flights
    return not flights._flights and not flights._tasks and flights.waiting == 0


async def eventually(condition: Callable[[], object], within: float = WITHIN) -> None:
    """Waits in an event loop until something is true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        await asyncio.sleep(0.001)


def eventually_blocking(condition: Callable[[], object], within: float = WITHIN) -> None:
    """Waits in a thread until something is true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.001)


def series(
    manager: CacheManager | str, metric: names.Metric, *, zeros: bool = False
) -> dict[tuple[tuple[str, str], ...], float]:
    """Returns what one cache has counted, by attributes other than its name; without counters at zero, if not told."""
    name = manager if isinstance(manager, str) else manager.config.name
    read = REGISTRY.counts if metric.kind == "counter" else REGISTRY.levels
    return {
        tuple(pair for pair in attributes if pair[0] != names.NAME): value
        for attributes, value in read(metric).items()
        if (names.NAME, name) in attributes and (value or zeros or metric.kind != "counter")
    }


def count(manager: CacheManager | str, metric: names.Metric, attributes: Mapping[str, str] | None = None) -> float:
    """Returns the sum of what one cache has counted under these attributes, among others."""
    wanted = set((attributes or {}).items())
    return sum(value for found, value in series(manager, metric).items() if wanted <= set(found))


@contextlib.contextmanager
def own_counts() -> Iterator[None]:
    """Inside, OpenTelemetry is told of those caches alone that are made inside.

    The caches of all tests have more series than the SDK keeps apart, and each collection would read them all.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(REGISTRY, "_live", {})
        patch.setattr(REGISTRY, "_retired", {})
        patch.setattr(REGISTRY, "_ended", deque())
        yield


def requests(manager: CacheManager | str) -> dict[str, int]:
    """Returns the requests by result, with `loads` beside them; results without requests are left out."""
    results: dict[str, int] = {}
    for attributes, value in series(manager, names.REQUESTS).items():
        described = dict(attributes)
        result = described[names.RESULT]
        result = f"{result} {described[names.LAYER]}" if names.LAYER in described else result
        results[result] = results.get(result, 0) + int(value)
    results["loads"] = results.get(names.MISS, 0) - int(count(manager, names.COALESCED))
    return {result: number for result, number in results.items() if number}


def run_script(source: str, *arguments: str, within: float = 30.0, **environment: str) -> str:
    """Runs a program in a process of its own, which must succeed in time; returns what it printed."""
    environ = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'integrations'}:{ROOT}", "PYTHONWARNINGS": "error"}
    completed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        check=False,
        capture_output=True,
        env={**environ, **environment},
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=within,
    )
    assert completed.returncode == 0, f"{completed.stdout}\n{completed.stderr}"
    return completed.stdout
