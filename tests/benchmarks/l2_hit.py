"""What does a hit in Redis cost, compared with asking Redis for the same bytes?

The baseline is `redis.asyncio`, as it comes, with `GET` and `msgpack.unpackb`, against the same server. A hit of ours
is one round trip, which the benchmark checks by Redis' own counts; in it are the frame's check, the remaining life, the
deadline, the breaker, the copy for memory and the telemetry.

Wall time depends on where the two processes run, and the kernel decides that anew in each run, so it is decided here.
Sharing a core, they take turns, and wall time is the work of both. With a core each, most of it is waking up the other
core: what a client does before it waits costs nothing then, as the timers that redis-py sets by default, and what it
does afterwards counts twice. CPU time is this process's own and hardly depends on it.

The number misleads where Redis is not on this machine: everything but the round trip is the same then, and its share
shrinks. It also misleads for large values, where checking and unpacking grow, and under concurrency, where round trips
of one connection overlap; this is one call after the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import redis.asyncio as redis_asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from aurelis.cache import CacheConfig, CacheLayer, CacheManager
from tests import servers
from tests.benchmarks.harness import Bench, Subject, Target, module, peer
from tests.benchmarks.l1_mutable_hit import RECORD

KEYS = [f"aurelis:user:{number}" for number in range(1000)]
_ROUNDS = 15
_COUNT = 400
_CHECKED = 50
# Redis counts the commands inside of a script, too: two for each of ours.
_OURS = {"evalsha": 1, "get": 1, "pttl": 1}


def run(bench: Bench) -> None:
    """Print the tables."""
    if shutil.which("redis-server") is None:
        bench.console.print("[yellow]skipped: redis-server is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        server = servers.redis(Path(folder))
        server.start()
        try:
            for placement in ("sharing a core", "a core each"):
                with placed(server.pid, apart=placement == "a core each") as possible:
                    compare(bench, server, placement if possible else "wherever the kernel puts them")
                if not possible:
                    break
        finally:
            server.stop()


@contextlib.contextmanager
def placed(pid: int, *, apart: bool) -> Iterator[bool]:
    """Puts this process and the other one on cores; gives whether that is possible here."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield False
        return
    os.sched_setaffinity(0, {cores[0]})
    os.sched_setaffinity(pid, {cores[1 if apart else 0]})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, cores)
        os.sched_setaffinity(pid, cores)


def compare(bench: Bench, server: servers.ServerProcess, placement: str) -> None:
    """Print a table, with a server that runs."""
    limit = 1.4 if bench.telemetry == "on" else 1.2
    targets = [Target(limit, "wall"), Target(limit, "cpu")]
    only_redis = CacheConfig(
        redis_url=server.url, layers=[CacheLayer("L2", "redis", ttl=3600)], namespace="alone", name="alone"
    )
    both = CacheConfig(redis_url=server.url, namespace="both", name="both")
    bench.compare(
        f"hit in Redis, {len(msgpack.packb(RECORD))} bytes, client and server {placement}",
        [
            baseline(bench, server),
            baseline(bench, server, with_our_settings=True),
            ours(bench, server, "CacheManager.get, Redis alone", only_redis),
            ours(bench, server, "CacheManager.get, memory emptied before", both),
            ours(bench, server, "get_or_compute, Redis alone", only_redis, computing=True),
            peer("cashews", lambda: cashews(bench, server)),
            peer("aiocache", lambda: aiocache(bench, server)),
        ],
        {
            "CacheManager.get, Redis alone": targets,
            "CacheManager.get, memory emptied before": targets,
        },
        rounds=_ROUNDS,
        count=_COUNT,
        best=False,
    )


def arguments(count: int) -> Sequence[object]:
    """Different keys, so that none of them is promoted to memory before it is asked for."""
    return KEYS[:count]


def baseline(bench: Bench, server: servers.ServerProcess, with_our_settings: bool = False) -> Subject:
    """`GET` and `unpackb`."""
    settings: dict[str, Any] = {}
    if with_our_settings:
        settings = {"socket_timeout": None, "socket_connect_timeout": None, "retry": Retry(NoBackoff(), 0)}
    client = redis_asyncio.Redis.from_url(server.url, **settings)
    bench.at_end(client.aclose)

    async def fill() -> None:
        for key in KEYS:
            await client.set(key, msgpack.packb(RECORD))

    bench.wait(fill())
    get = client.get
    unpackb = msgpack.unpackb

    async def read(key: str) -> object:
        return unpackb(await get(key))

    name = "redis.asyncio GET and unpackb" + (", our settings" if with_our_settings else "")
    return checked(bench, server, Subject(name, read, arguments), {"get": 1})


def ours(
    bench: Bench, server: servers.ServerProcess, name: str, config: CacheConfig, computing: bool = False
) -> Subject:
    """A manager whose memory, if it has one, is emptied before each batch."""
    manager = CacheManager(config)
    bench.at_end(manager.aclose)
    bench.wait(manager.set_many(dict.fromkeys(KEYS, RECORD)))
    memory = manager._engine.stack.memory  # nothing public empties memory alone
    before = None if memory is None else memory.remove_all
    call: Callable[[Any], Coroutine[Any, Any, object]] = manager.get
    if computing:

        async def compute() -> object:
            raise AssertionError("it is stored")

        def get_or_compute(key: str) -> Coroutine[Any, Any, object]:
            return manager.get_or_compute(key, compute)

        call = get_or_compute
    return checked(bench, server, Subject(name, call, arguments, before), _OURS)


def cashews(bench: Bench, server: servers.ServerProcess) -> Subject:
    """The Redis backend, as it comes."""
    cache = module("cashews").Cache()
    cache.setup(server.url)
    bench.at_end(cache.close)

    async def fill() -> None:
        for key in KEYS:
            await cache.set(f"cashews:{key}", RECORD)

    bench.wait(fill())

    def get(key: str) -> Any:
        return cache.get(f"cashews:{key}")

    return checked(bench, server, Subject("cashews", get, arguments))


def aiocache(bench: Bench, server: servers.ServerProcess) -> Subject:
    """The Redis backend with its JSON serializer."""
    library = module("aiocache")
    serializer = module("aiocache.serializers").JsonSerializer()
    cache = library.RedisCache(endpoint=servers.HOST, port=server.port, namespace="aiocache", serializer=serializer)
    bench.at_end(cache.close)

    async def fill() -> None:
        for key in KEYS:
            await cache.set(key, RECORD)

    bench.wait(fill())
    return checked(bench, server, Subject("aiocache", cache.get, arguments))


def checked(
    bench: Bench, server: servers.ServerProcess, subject: Subject, commands: dict[str, int] | None = None
) -> Subject:
    """The subject, once it gave the value and sent Redis just these commands for each call."""

    async def read() -> None:
        for key in KEYS[:_CHECKED]:
            assert await subject.call(key) == RECORD

    if subject.before is not None:
        bench.wait(subject.before())
    bench.wait(read())  # connects
    if subject.before is not None:
        bench.wait(subject.before())
    before = command_counts(server)
    bench.wait(read())
    after = command_counts(server)
    sent = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
    for name in ("info", "quit"):  # those are the benchmark's
        sent.pop(name, None)
    wanted = None if commands is None else {name: count * _CHECKED for name, count in commands.items()}
    assert wanted is None or sent == wanted, f"{subject.name} sent {sent}, not {wanted}"
    return subject


def command_counts(server: servers.ServerProcess) -> dict[str, int]:
    """How often Redis ran each command, from `INFO commandstats`."""
    counts = {}
    for line in servers.redis_command(server.port, "INFO commandstats").decode().splitlines():
        name, found, rest = line.partition(":calls=")
        if found:
            counts[name.removeprefix("cmdstat_")] = int(rest.partition(",")[0])
    return counts
