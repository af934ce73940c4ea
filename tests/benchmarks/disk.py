"""What do a hit on the disk and a store there cost, compared with SQLite itself and with diskcache?

The baseline of reading is one `SELECT` of the same bytes from a table with a key, in a thread of an executor, as one
would do who must not block an event loop. A hit of ours is one step of a thread of its own; in it are the look for a
file that was replaced, the remaining life, the frame's check and the note that the entry was used, and, through a
manager, the deadline, the breaker and the telemetry.

The baseline of writing is diskcache, as it comes, in a thread of an executor. It commits each value by itself; ours
commits what waits together, so the table has both: a hundred at once, and one after the other.

The numbers mislead where the file is not in the page cache: then a read is the disk's time, for all alike. They also
mislead for large values, where checking them grows.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from aurelis.cache import CacheConfig, CacheLayer, CacheManager, DiskBackend
from aurelis.cache._clock import SYSTEM_CLOCK
from aurelis.cache._entry import Entry
from aurelis.cache.layers._lane import Job
from tests.benchmarks.harness import Absent, Bench, Subject, Target, module, peer

VALUE = b"x" * 3000
KEYS = [f"aurelis:v1:user:{number}" for number in range(1000)]
_ROUNDS = 15
_READS = 400
_MANY = 100
_WRITES = 20


def run(bench: Bench) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        executor = ThreadPoolExecutor(1)
        try:
            read(bench, folder, executor)
            read_many(bench, folder, executor)
            write(bench, folder, executor)
        finally:
            bench.end()
            executor.shutdown()


def read(bench: Bench, folder: Path, executor: ThreadPoolExecutor) -> None:
    """Print the table of single reads."""
    rows = Table(folder / "bare.sqlite3", executor)
    disk, manager = filled(bench, folder), managed(bench, folder)
    target = [Target(1.3, "wall")]
    bench.compare(
        f"hit on the disk, {len(VALUE)} bytes",
        [
            Subject("SELECT in an executor", rows.select, single),
            Subject("DiskBackend.lookup", disk.lookup, single),
            Subject("CacheManager.get, disk alone", manager.get, single),
            peer("diskcache in an executor", lambda: Diskcache(bench, folder, executor).reader()),
        ],
        {"DiskBackend.lookup": target, "CacheManager.get, disk alone": target},
        rounds=_ROUNDS,
        count=_READS,
        best=False,
    )


def read_many(bench: Bench, folder: Path, executor: ThreadPoolExecutor) -> None:
    """Print the table of reads of many keys, each one step of the thread, which is checked."""
    rows = Table(folder / "bare.sqlite3", executor)
    disk, manager = filled(bench, folder), managed(bench, folder)
    lane = disk.database._reads  # nothing public counts its steps
    steps: list[int] = []
    inner = lane._run

    def counted(jobs: list[Job]) -> None:
        steps.append(len(jobs))
        inner(jobs)

    bench.wait(lane.finish())
    lane._run = counted
    bench.wait(disk.lookup_many(KEYS[:_MANY]))
    bench.wait(lane.finish())
    lane._run = inner
    assert steps == [1], f"reading {_MANY} keys took the steps {steps}"
    bench.compare(
        f"{_MANY} keys from the disk",
        [
            Subject(f"{_MANY} SELECT in one step of an executor", rows.select_many, many),
            Subject("DiskBackend.lookup_many", disk.lookup_many, many),
            Subject("CacheManager.get_many, disk alone", manager.get_many, many),
        ],
        {},
        rounds=_ROUNDS,
        count=_WRITES,
        best=False,
    )


def write(bench: Bench, folder: Path, executor: ThreadPoolExecutor) -> None:
    """Print the tables of writes."""
    disk, manager = filled(bench, folder), managed(bench, folder)
    theirs = peer("diskcache in an executor", lambda: Diskcache(bench, folder, executor).writer(at_once=True))
    if isinstance(theirs, Absent):
        bench.console.print(f"[yellow]skipped writing: {theirs.reason}")
        return
    target = [Target(0.2, "wall")]
    bench.compare(
        f"{_MANY} values of {len(VALUE)} bytes stored at once",
        [
            theirs,
            Subject("DiskBackend.set", at_once(disk.set), many),
            Subject("DiskBackend.store_many", store_many(disk), many),
            Subject("CacheManager.set, disk alone", at_once(manager.set), many),
            Subject(
                "CacheManager.set_many, disk alone", lambda keys: manager.set_many(dict.fromkeys(keys, VALUE)), many
            ),
        ],
        {"DiskBackend.set": target, "DiskBackend.store_many": target},
        rounds=_ROUNDS,
        count=_WRITES,
        best=False,
    )
    bench.compare(
        f"a value of {len(VALUE)} bytes stored, one after the other",
        [
            Diskcache(bench, folder, executor).writer(at_once=False),
            Subject("DiskBackend.set", lambda key: disk.set(key, VALUE), single),
            Subject("CacheManager.set, disk alone", lambda key: manager.set(key, VALUE), single),
        ],
        {},
        rounds=_ROUNDS,
        count=_READS,
        best=False,
    )


def single(count: int) -> Sequence[object]:
    """Different keys."""
    return KEYS[:count]


def many(count: int) -> Sequence[object]:
    """A hundred keys each time, of a thousand."""
    begins = [number * _MANY % len(KEYS) for number in range(count)]
    return [KEYS[begin : begin + _MANY] for begin in begins]


def at_once(
    put: Callable[[str, object], Coroutine[Any, Any, bool]],
) -> Callable[[list[str]], Coroutine[Any, Any, None]]:
    """Stores many values at once, each by a call of its own."""

    async def store(keys: list[str]) -> None:
        assert all(await asyncio.gather(*[put(key, VALUE) for key in keys]))

    return store


def store_many(disk: DiskBackend) -> Callable[[list[str]], Coroutine[Any, Any, None]]:
    """Stores many values by one call."""

    async def store(keys: list[str]) -> None:
        expires = SYSTEM_CLOCK.monotonic() + 3600
        await disk.store_many({key: Entry(VALUE, None, expires, expires, 0) for key in keys})

    return store


def filled(bench: Bench, folder: Path) -> DiskBackend:
    """A layer that has all keys."""
    disk = DiskBackend(folder / "layer", 100_000, timeout=10)
    bench.at_end(disk.aclose)

    async def fill() -> None:
        for key in KEYS:
            await disk.set(key, VALUE)

    bench.wait(fill())
    return disk


def managed(bench: Bench, folder: Path) -> CacheManager:
    """A manager without memory that has all keys."""
    config = CacheConfig(
        cache_dir=folder / "manager", layers=[CacheLayer("disk", "disk", ttl=3600)], timeout=10, name="disk"
    )
    manager = CacheManager(config)
    bench.at_end(manager.aclose)
    bench.wait(manager.set_many(dict.fromkeys(KEYS, VALUE)))
    return manager


class Table:
    """A table with keys and values, as SQLite is used without anything around it."""

    def __init__(self, path: Path, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._connection: sqlite3.Connection = executor.submit(self._make, path).result()

    def _make(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB)")
        connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", [(key, VALUE) for key in KEYS])
        return connection

    def _select(self, key: str) -> bytes:
        ((value,),) = self._connection.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchall()
        assert type(value) is bytes
        return value

    async def select(self, key: str) -> bytes:
        """The value."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._select, key)

    async def select_many(self, keys: list[str]) -> list[bytes]:
        """The values."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: [self._select(key) for key in keys]
        )


class Diskcache:
    """diskcache, as it comes."""

    def __init__(self, bench: Bench, folder: Path, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._cache = module("diskcache").Cache(str(folder / "diskcache"))
        bench.at_end(self._close)
        for key in KEYS:
            self._cache.set(key, VALUE, expire=3600)

    async def _close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._cache.close)

    def reader(self) -> Subject:
        """One value after the other."""

        async def get(key: str) -> object:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._cache.get, key)

        return Subject("diskcache in an executor", get, single)

    def writer(self, *, at_once: bool) -> Subject:
        """Many values at once, each by a call of its own; or one after the other."""

        async def put(key: str) -> object:
            store = partial(self._cache.set, key, VALUE, expire=3600)
            return await asyncio.get_running_loop().run_in_executor(self._executor, store)

        async def put_many(keys: list[str]) -> None:
            assert all(await asyncio.gather(*[put(key) for key in keys]))

        if at_once:
            return Subject("diskcache in an executor", put_many, many)
        return Subject("diskcache in an executor", put, single)
