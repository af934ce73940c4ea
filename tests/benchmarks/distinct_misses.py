"""What happens when 10 000 callers miss 10 000 different keys at the same moment, with Redis below?

Each load takes 50 ms. No more connections may be opened than configured, and all callers get their values. Throughput
with several processes is the second table: each process reads and loads from the same keys for a while.

The numbers mislead on a machine with fewer cores than processes, Redis included: they take turns then.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from time import perf_counter, process_time

from rich.table import Table

from aurelis.cache import CacheConfig, CacheManager
from tests import servers
from tests.benchmarks.harness import Bench, Target
from tests.benchmarks.l2_hit import command_counts

CALLERS = 10_000
LOAD_SECONDS = 0.05
_CONNECTIONS = 64
_SECONDS = 3.0
_KEYS = 20_000
_TASKS = 50


def run(bench: Bench) -> None:
    """Print the tables."""
    if shutil.which("redis-server") is None:
        bench.console.print("[yellow]skipped: redis-server is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        server = servers.redis(Path(folder))
        server.start()
        try:
            misses(bench, server)
            throughput(bench, server)
        finally:
            server.stop()


def misses(bench: Bench, server: servers.ServerProcess) -> None:
    """Print the first table."""
    table = Table(title=f"{CALLERS:,} callers miss {CALLERS:,} keys at once", title_justify="left")
    for column in ("loads", "seconds", "CPU s", "peak MB", "connections", "commands", "target", ""):
        table.add_column(column, justify="right")
    before = received(server)
    commands = sum(command_counts(server).values())
    loads, wall, cpu = bench.wait(all_miss(server.url, "misses"))
    connections = received(server) - before - 2  # the table's own
    commands = sum(command_counts(server).values()) - commands
    # Once more, as looking at each allocation makes everything several times slower.
    tracemalloc.start()
    bench.wait(all_miss(server.url, "traced"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    targets = [Target(_CONNECTIONS + 2, "connections")]  # and those that listen for changes
    table.add_row(
        str(loads),
        f"{wall:.2f}",
        f"{cpu:.2f}",
        f"{peak / 1e6:.0f}",
        str(connections),
        str(commands),
        ", ".join(map(str, targets)),
        bench.judge("misses of distinct keys", "CacheManager", {"connections": connections}, targets),
    )
    bench.console.print(table)


async def all_miss(url: str, namespace: str) -> tuple[int, float, float]:
    """All callers at once: the number of loads, seconds, and seconds of CPU."""
    loads = 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        await asyncio.sleep(LOAD_SECONDS)
        return "value"

    config = CacheConfig(
        redis_url=url, namespace=namespace, max_size=CALLERS, redis_max_connections=_CONNECTIONS, timeout=60
    )
    async with CacheManager(config) as cache:
        await cache.get("warm")
        cpu, begin = process_time(), perf_counter()
        values = await asyncio.gather(*[cache.get_or_compute(f"key {number}", load) for number in range(CALLERS)])
        wall, used = perf_counter() - begin, process_time() - cpu
    assert values == ["value"] * CALLERS
    return loads, wall, used


def throughput(bench: Bench, server: servers.ServerProcess) -> None:
    """Print the second table."""
    table = Table(title=f"requests to one Redis from several processes, {os.cpu_count()} cores", title_justify="left")
    for column in ("processes", "requests/s", "× one process"):
        table.add_column(column, justify="right")
    first = 0.0
    for processes in (1, 2, 4):
        command = [sys.executable, "-m", "tests.benchmarks.distinct_misses", server.url]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        rate = sum(float(process.communicate()[0]) for process in running)
        first = first or rate
        table.add_row(str(processes), f"{rate:,.0f}", f"{rate / first:.2f}")
    bench.console.print(table)


async def work(url: str) -> float:
    """Requests per second of one process; half of them find nothing in its memory."""
    config = CacheConfig(redis_url=url, namespace="throughput", max_size=_KEYS // 2, timeout=5)
    done = 0

    async def load() -> int:
        return 1

    async def ask(cache: CacheManager, first: int, end: float) -> None:
        nonlocal done
        number = first
        while perf_counter() < end:
            number = (number * 1103515245 + 12345) % 2**31
            await cache.get_or_compute(f"key {number % _KEYS}", load, tags=["all"])
            done += 1

    async with CacheManager(config) as cache:
        end = perf_counter() + _SECONDS
        await asyncio.gather(*[ask(cache, first, end) for first in range(_TASKS)])
    return done / _SECONDS


def received(server: servers.ServerProcess) -> int:
    """Connections that the server has accepted so far."""
    for line in servers.redis_command(server.port, "INFO stats").decode().splitlines():
        if line.startswith("total_connections_received:"):
            return int(line.partition(":")[2])
    raise AssertionError("the server says nothing of its connections")


if __name__ == "__main__":
    print(asyncio.run(work(sys.argv[1])))
