"""Many processes miss the same key at once: one of them loads, and when it dies another one takes over."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from aurelis.cache.telemetry import names
from tests.fleet import Fleet, Json, Report
from tests.managers import requests, series
from tests.reliability.board import Board, cache_of
from tests.servers import ServerProcess, redis_command

PROCESSES = 8
CALLERS = 500
POLL = 0.4
"""Seconds between two looks of those who wait, at most, with the time that the look itself takes."""
SLACK = 1.0
"""Seconds that a process may have to wait for its turn on a busy machine."""


async def miss(report: Report, url: str, number: int, callers: int, seconds: float, lease: float) -> Json:
    """Asks many times at once for what takes some seconds to load."""
    cache = cache_of(url, lease=lease)
    loads = 0

    async def load() -> dict[str, int]:
        nonlocal loads
        loads += 1
        await asyncio.sleep(seconds)
        return {"loaded by": number}

    begin = time.monotonic()
    values = await asyncio.gather(*(cache.get_or_compute("k", load) for _ in range(callers)))
    lasted = time.monotonic() - begin
    report("has it")
    again = await cache.get("k")
    counted = requests(cache)
    await cache.aclose()
    return {
        "loads": loads,
        "by": sorted({value["loaded by"] for value in [*values, again]}),
        "seconds": lasted,
        "requests": sum(value for result, value in counted.items() if result != "loads"),
        "counted loads": counted.get("loads", 0),
    }


@pytest.mark.parametrize(
    ("seconds", "lease"),
    [
        pytest.param(0.05, 10.0, id="quick"),
        pytest.param(1.5, 0.5, id="slower than the lease"),
        pytest.param(12.0, 1.0, id="much slower than the lease", marks=pytest.mark.reliability),
    ],
)
def test_eight_processes_that_miss_one_key_load_it_once(redis_url: str, seconds: float, lease: float) -> None:
    shared = {"url": redis_url, "callers": CALLERS, "seconds": seconds, "lease": lease}
    with Fleet(miss, [{**shared, "number": number} for number in range(PROCESSES)]) as fleet:
        results = fleet.results(within=60)
    assert sum(result["loads"] for result in results) == 1
    assert sum(result["counted loads"] for result in results) == 1
    assert [result["requests"] for result in results] == [CALLERS + 1] * PROCESSES
    assert len({tuple(result["by"]) for result in results}) == 1
    lasted = max(result["seconds"] for result in results)
    print(f"{PROCESSES} processes × {CALLERS} misses, a load of {seconds} s: the last had it after {lasted:.2f} s")
    assert lasted < seconds + POLL + 2 * SLACK


@pytest.mark.reliability
def test_of_many_keys_each_is_loaded_once(redis_url: str, tmp_path: Path) -> None:
    arguments = [{"url": redis_url, "board": str(tmp_path / "board"), "number": n} for n in range(PROCESSES)]
    with Fleet(miss_many, arguments) as fleet:
        results = fleet.results(within=60)
    loads = [sum(each) for each in zip(*results, strict=True)]
    assert loads == [1] * len(loads)


async def miss_many(report: Report, url: str, board: str, number: int) -> Json:
    """Asks for many keys at once; returns how often each was loaded here."""
    cache = cache_of(url)
    loads = [0] * 300

    async def ask(key: int) -> None:
        async def load() -> int:
            loads[key] += 1
            await asyncio.sleep(0.01)
            return key

        assert await cache.get_or_compute(f"k{key}", load) == key

    await asyncio.gather(*(ask(key) for key in range(len(loads)) for _ in range(10)))
    await cache.aclose()
    return loads


# --- a loader that dies, or stands still


async def hold(report: Report, url: str, lease: float) -> Json:
    """Loads until it is killed."""
    cache = cache_of(url, lease=lease)

    async def load() -> dict[str, int]:
        report("loads")
        await asyncio.sleep(1000)
        return {"loaded by": -1}

    await cache.get_or_compute("k", load)
    return None


@pytest.mark.parametrize("lease", [1.0, pytest.param(5.0, marks=pytest.mark.reliability)])
def test_when_the_loader_is_killed_another_one_takes_over_within_the_lease(redis_url: str, lease: float) -> None:
    shared = {"url": redis_url, "callers": 50, "seconds": 0.05, "lease": lease}
    with Fleet(hold, [{"url": redis_url, "lease": lease}]) as holder:
        assert holder.report(0) == "loads"
        with Fleet(miss, [{**shared, "number": number} for number in range(3)]) as others:
            time.sleep(lease * 1.5)  # longer than the lease, which is renewed
            holder.kill(0)
            killed = time.monotonic()
            for number in range(3):
                assert others.report(number, within=lease + 20) == "has it"
            lasted = time.monotonic() - killed
            results = others.results()
    assert sum(result["loads"] for result in results) == 1
    assert len({tuple(result["by"]) for result in results}) == 1
    print(f"lease of {lease} s: everybody had the value {lasted:.2f} s after the loader was killed")
    assert lasted < lease + POLL + SLACK


async def load_twice(report: Report, url: str, lease: float, flags: str) -> Json:
    """Loads until it is told to end, then says what it finds."""
    cache = cache_of(url, lease=lease)
    board = Board(flags, 2)

    async def load() -> dict[str, int]:
        report("loads")
        while not board[0]:
            await asyncio.sleep(0.01)
        return {"loaded by": -1}

    got = await cache.get_or_compute("k", load)
    report(got["loaded by"])
    while not board[1]:
        await asyncio.sleep(0.01)
    then = await cache.get("k")
    stores = {dict(attributes)[names.STORE_RESULT]: value for attributes, value in series(cache, names.STORES).items()}
    await cache.aclose()
    return {"then": then and then["loaded by"], "stores": stores}


@pytest.mark.parametrize("taken_over", [True, False], ids=["taken over", "lease lost"])
def test_a_loader_that_stood_still_does_not_overwrite_what_came_after_it(
    redis_url: str, shared_redis: ServerProcess, tmp_path: Path, taken_over: bool
) -> None:
    lease = 0.6
    flags = tmp_path / "flags"
    board = Board(flags, 2)
    with Fleet(load_twice, [{"url": redis_url, "lease": lease, "flags": str(flags)}]) as loader:
        assert loader.report(0) == "loads"
        loader.pause(0)
        if taken_over:
            shared = {"url": redis_url, "callers": 50, "seconds": 0.0, "lease": lease, "number": 7}
            with Fleet(miss, [shared]) as other:
                (result,) = other.results()
            assert (result["loads"], result["by"]) == (1, [7])
        else:
            time.sleep(lease * 1.5)
        board[0] = 1
        loader.resume(0)
        assert loader.report(0) == -1  # its callers get what it loaded: they asked before
        board[1] = 1
        (result,) = loader.results()
    assert result["then"] == (7 if taken_over else None)
    assert result["stores"] == {"fenced": 1}
    assert redis_command(shared_redis.port, "KEYS fleet:l:*") == b"*0\r\n"
    assert (b"fleet:e:{k}" in redis_command(shared_redis.port, "KEYS *")) == taken_over
