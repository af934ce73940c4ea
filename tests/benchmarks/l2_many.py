"""What does it cost to read 100 keys from Redis, compared with asking Redis for the same bytes?

The baseline is `MGET` and unpacking. Ours is one round trip to one server, with the frame of each key checked, its
remaining life and its tags looked at, and each value promoted to memory where there is one.

The number misleads for a few keys, where the round trip is nearly all, and for large values, where unpacking is.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgpack
import redis.asyncio as redis_asyncio

from aurelis.cache import CacheConfig, CacheLayer, CacheManager
from tests import servers
from tests.benchmarks.harness import Bench, Subject, Target
from tests.benchmarks.l1_mutable_hit import RECORD
from tests.benchmarks.l2_hit import placed

KEYS = [f"aurelis:user:{number}" for number in range(100)]
_ROUNDS = 15
_COUNT = 20


def run(bench: Bench) -> None:
    """Print the table."""
    if shutil.which("redis-server") is None:
        bench.console.print("[yellow]skipped: redis-server is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        server = servers.redis(Path(folder))
        server.start()
        try:
            with placed(server.pid, apart=False):
                compare(bench, server)
        finally:
            server.stop()


def compare(bench: Bench, server: servers.ServerProcess) -> None:
    """Print the table, with a server that runs."""
    only_redis = CacheConfig(
        redis_url=server.url, layers=[CacheLayer("L2", "redis", ttl=3600)], namespace="alone", name="alone"
    )
    with_tags = CacheConfig(
        redis_url=server.url, layers=[CacheLayer("L2", "redis", ttl=3600)], namespace="tagged", name="tagged"
    )
    both = CacheConfig(redis_url=server.url, namespace="both", name="both")
    targets = [Target(1.6, "wall"), Target(1.6, "cpu")]
    bench.compare(
        "100 keys from Redis, client and server sharing a core",
        [
            baseline(bench, server),
            ours(bench, "CacheManager.get_many, Redis alone", only_redis),
            ours(bench, "the same with two tags each", with_tags, tags=("a", "b")),
            ours(bench, "CacheManager.get_many, memory emptied before", both),
        ],
        {"CacheManager.get_many, Redis alone": targets, "the same with two tags each": targets},
        rounds=_ROUNDS,
        count=_COUNT,
        best=False,
    )


def arguments(count: int) -> Sequence[object]:
    """The same keys each time."""
    return [KEYS] * count


def baseline(bench: Bench, server: servers.ServerProcess) -> Subject:
    """`MGET` and `unpackb`."""
    client = redis_asyncio.Redis.from_url(server.url)
    bench.at_end(client.aclose)

    async def fill() -> None:
        await client.mset({key: msgpack.packb(RECORD) for key in KEYS})

    bench.wait(fill())

    async def read(keys: list[str]) -> object:
        return [msgpack.unpackb(value) for value in await client.mget(keys)]

    return Subject("redis.asyncio MGET and unpackb", read, arguments)


def ours(bench: Bench, name: str, config: CacheConfig, tags: Sequence[str] = ()) -> Subject:
    """A manager whose memory, if it has one, is emptied before each batch."""
    manager = CacheManager(config)
    bench.at_end(manager.aclose)
    bench.wait(manager.set_many(dict.fromkeys(KEYS, RECORD), tags=tags))
    memory = manager._engine.stack.memory  # nothing public empties memory alone

    async def read(keys: list[str]) -> object:
        if memory is not None:
            await memory.remove_all()
        found = await manager.get_many(keys)
        assert len(found) == len(keys)
        return found

    return Subject(name, read, arguments)
