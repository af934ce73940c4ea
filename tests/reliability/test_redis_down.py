"""An app that starts while Redis is down serves as if there were none, and hardly slower."""

from __future__ import annotations

import asyncio
import time

import pytest

from aurelis.cache import CacheLayer, CacheManager
from aurelis.cache.telemetry import names
from tests.fleet import Fleet, Json, Report
from tests.managers import WITHIN, count, requests
from tests.proxies import Fault, Hang, Pass, Proxy, Refuse
from tests.reliability.board import cache_of, figures, percentile

TIMEOUT = 0.25
SLACK = 0.75
REQUESTS = 2000


async def serve(report: Report, url: str) -> Json:
    """Serves requests that memory cannot answer; returns how long the first ones took, and how long each of the rest.

    At the end Redis is there, and is used.
    """
    cache = cache_of(url, layers=[CacheLayer("L2", "redis", 60)], timeout=TIMEOUT)
    loads = 0

    async def load() -> int:
        nonlocal loads
        loads += 1
        return loads

    begin = time.monotonic()
    await asyncio.gather(*(cache.get_or_compute(f"first {number}", load) for number in range(100)))
    first = time.monotonic() - begin
    while not count(cache, names.BREAKER, {names.BREAKER_STATE: "open"}):
        await cache.get("any")
    alone, added = [], []
    for number in range(REQUESTS):
        begin = time.perf_counter()
        await load()
        middle = time.perf_counter()
        await cache.get_or_compute(f"k{number}", load)
        alone.append(middle - begin)
        added.append(time.perf_counter() - middle)
        if number % 10 == 0:
            await asyncio.sleep(0)
    report("served")
    counted = requests(cache)
    await until_used(cache)
    await cache.aclose()
    return {"first": first, "alone": percentile(alone, 0.5), "added": added, "counted": counted, "loads": loads}


async def until_used(cache: CacheManager) -> None:
    """Waits until Redis is used."""
    deadline = time.monotonic() + WITHIN
    while not await cache.set("k", 1):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert await cache.get("k") == 1


@pytest.mark.parametrize("fault", [Refuse(), Hang()], ids=["refused", "hanging"])
def test_redis_down_from_the_start_adds_less_than_a_millisecond(redis_url: str, fault: Fault) -> None:
    with Proxy(redis_url) as proxy:
        proxy.apply(fault)
        with Fleet(serve, [{"url": proxy.url}]) as fleet:
            assert fleet.report(0) == "served"
            proxy.apply(Pass())
            (result,) = fleet.results()
    added = result["added"]
    print(f"the first hundred requests at once took {result['first']:.3f} s")
    print(f"with an open breaker a request takes {figures(added)}, of which the load {result['alone'] * 1e6:.1f} µs")
    assert result["first"] < 2 * TIMEOUT + SLACK
    assert percentile(added, 0.5) - result["alone"] < 0.001
    # One in each pause of the breaker asks whether Redis is back, and waits for the timeout at most.
    assert percentile(added, 0.99) < 0.05
    assert max(added) < TIMEOUT + SLACK
    assert result["counted"]["loads"] <= result["counted"]["miss"]
    assert result["loads"] == REQUESTS + REQUESTS + 100
