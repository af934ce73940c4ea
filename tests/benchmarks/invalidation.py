"""How long does it take to invalidate a tag, however many entries have it?

The baseline is one `INCR` and one `PUBLISH` in a pipeline: the least that tells Redis and other processes that
something has changed. With `--large` a tag has a million entries; filling Redis with them takes minutes and gigabytes.

The number misleads about the price of the entries themselves: they stay where they are until they expire or are asked
for, and the first reader of each one in memory compares it with its tags once more.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import redis.asyncio as redis_asyncio

from aurelis.cache import CacheConfig, CacheManager
from tests import servers
from tests.benchmarks.harness import Bench, Subject, always

_SIZES = (1, 1_000, 100_000)
_LARGE = 1_000_000
_BATCH = 1_000


def run(bench: Bench) -> None:
    """Print the table."""
    if shutil.which("redis-server") is None:
        bench.console.print("[yellow]skipped: redis-server is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        server = servers.redis(Path(folder))
        server.start()
        try:
            sizes = (*_SIZES, _LARGE) if bench.large else _SIZES
            bench.compare(
                "invalidating a tag, in memory and Redis",
                [baseline(bench, server), *[ours(bench, server, size) for size in sizes]],
                {},
                rounds=15,
                count=100,
                best=False,
            )
        finally:
            server.stop()


def baseline(bench: Bench, server: servers.ServerProcess) -> Subject:
    """A pipeline of two commands."""
    client = redis_asyncio.Redis.from_url(server.url)
    bench.at_end(client.aclose)

    async def tell(number: object) -> None:
        pipeline = client.pipeline(transaction=False)
        pipeline.incr("generation")
        pipeline.publish("news", b"changed")
        await pipeline.execute()

    return Subject("redis.asyncio INCR and PUBLISH", tell, always(None))


def ours(bench: Bench, server: servers.ServerProcess, size: int) -> Subject:
    """A tag of so many entries."""
    config = CacheConfig(redis_url=server.url, namespace=f"of{size}", name="tags", max_size=2_000_000, timeout=10)
    manager = CacheManager(config)
    bench.at_end(manager.aclose)

    async def fill() -> None:
        for begin in range(0, size, _BATCH):
            keys = range(begin, min(begin + _BATCH, size))
            assert await manager.set_many({f"key {number}": number for number in keys}, tags=["all"])

    bench.wait(fill())

    async def invalidate(number: object) -> None:
        await manager.invalidate_tags("all")

    return Subject(f"invalidate_tags, {size:,} entries", invalidate, always(None))
