"""Caches whose shared layers are compressed and encrypted: what is refused is a miss, counted, and loaded anew."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from aurelis.cache import CacheConfig, CacheManager, DiskBackend, RedisBackend
from aurelis.cache.layers._disk_file import NAME
from aurelis.cache.telemetry import names
from tests.managers import configuration, count, opened

OLD, NEW = bytes(range(32)), bytes(range(1, 33))
VALUE = {"text": "some words " * 200, "number": 17}
PATIENT = 10.0


class Store:
    """Where frames are, as somebody sees them who has no key."""

    def __init__(self, options: dict[str, Any], layer: str) -> None:
        self.options = options
        self.layer = layer

    @contextlib.asynccontextmanager
    async def opened(self, **options: Any) -> AsyncIterator[CacheManager]:
        """A manager of another process than those before."""
        async with opened(configuration(**self.options, timeout=PATIENT, **options)) as manager:
            yield manager

    def frames(self) -> list[bytes]:
        """What is stored."""
        with self._connected() as (all_frames, _):
            return all_frames()

    def change(self, change: Callable[[bytes], bytes]) -> None:
        """Change it all."""
        with self._connected() as (_, replace):
            replace(change)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[tuple[Callable[[], list[bytes]], Callable[[Callable[[bytes], bytes]], None]]]:
        if self.layer == names.L2:
            with redis.Redis.from_url(self.options["redis_url"]) as raw:

                def found() -> list[bytes]:
                    return [raw.get(name) for name in sorted(raw.keys("aurelis:e:*"))]

                def replace(change: Callable[[bytes], bytes]) -> None:
                    for name in raw.keys("aurelis:e:*"):
                        raw.set(name, change(raw.get(name)), keepttl=True)

                yield found, replace
        else:
            with contextlib.closing(sqlite3.connect(self.options["cache_dir"] / NAME, isolation_level=None)) as file:
                yield (
                    lambda: [frame for (frame,) in file.execute("SELECT frame FROM entries ORDER BY key").fetchall()],
                    lambda change: self._update(file, change),
                )

    def _update(self, file: sqlite3.Connection, change: Callable[[bytes], bytes]) -> None:
        for n, frame in file.execute("SELECT n, frame FROM entries").fetchall():
            file.execute("UPDATE entries SET frame = ? WHERE n = ?", (change(frame), n))


@pytest.fixture(params=["redis", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Redis, or a disk."""
    if request.param == "redis":
        return Store({"redis_url": request.getfixturevalue("redis_url")}, names.L2)
    return Store({"cache_dir": tmp_path}, names.L3)


async def load() -> object:
    return VALUE


def refused(manager: CacheManager, reason: str, layer: str) -> float:
    """Return how many frames were refused for a reason."""
    attributes = {names.LAYER: layer, names.OPERATION: "get", names.ERROR_TYPE: f"frame_{reason}"}
    return count(manager, names.ERRORS, attributes)


async def test_what_one_process_stored_the_next_one_finds(store: Store) -> None:
    options: dict[str, Any] = {"compression": "zstd", "encryption_key": OLD}
    async with store.opened(**options) as first:
        assert await first.set("k", VALUE, ttl=60, tags=["t"])
        assert await first.get_or_compute("loaded", load) == VALUE
    assert max(map(len, store.frames())) < 500
    async with store.opened(**options) as second:
        assert await second.get_many(["k", "loaded"]) == {"k": VALUE, "loaded": VALUE}
        await second.invalidate_tags("t")
        assert await second.get("k") is None
        assert await second.delete("loaded")
        assert count(second, names.ERRORS) == 0


async def test_a_soft_invalidation_keeps_what_is_stored(store: Store) -> None:
    async with store.opened(encryption_key=OLD) as first, store.opened(encryption_key=OLD) as second:
        await first.set("k", VALUE, ttl=60)
        assert await first.delete("k", soft=True)
        assert await second.get("k") is None
        assert count(second, names.ERRORS) == 0
    assert len(store.frames()) == 1


async def test_what_is_under_a_key_that_is_gone_is_a_miss_and_loaded_anew(store: Store) -> None:
    async with store.opened(encryption_key=OLD) as before:
        await before.set("k", "old", ttl=60)
    async with store.opened(encryption_key=NEW) as after:
        assert await after.get("k") is None
        assert await after.get_or_compute("k", load) == VALUE
        assert refused(after, "unknown_key", store.layer) >= 1
        assert count(after, names.LOOKUPS, {names.LAYER: store.layer, names.RESULT: names.HIT}) == 0
    async with store.opened(encryption_key=NEW) as again:
        assert await again.get("k") == VALUE


async def test_keys_are_rotated_without_a_miss(store: Store) -> None:
    async with store.opened(encryption_key=OLD) as before:
        await before.set("k", "old", ttl=60)
    async with store.opened(encryption_key=[NEW, OLD]) as both:
        assert await both.get("k") == "old"
        await both.set("l", "new", ttl=60)
    async with store.opened(encryption_key=[NEW]) as after:
        assert await after.get("l") == "new"
        assert await after.get("k") is None
        assert refused(after, "unknown_key", store.layer) == 1


async def test_what_was_stored_without_encryption_is_a_miss_with_it(store: Store) -> None:
    async with store.opened() as before:
        await before.set("k", "planted", ttl=60)
    async with store.opened(encryption_key=OLD) as after:
        assert await after.get("k") is None
        assert refused(after, "unencrypted", store.layer) == 1


async def test_what_was_tampered_with_is_a_miss_though_its_check_is_right(store: Store) -> None:
    from tests.codecs.test_framing import checked  # the same change of the same bytes

    async with store.opened(encryption_key=OLD) as before:
        await before.set("k", VALUE, ttl=60)
    store.change(lambda frame: checked(frame[:-1] + bytes([frame[-1] ^ 1])))
    async with store.opened(encryption_key=OLD) as after:
        assert await after.get_many(["k"]) == {}
        assert refused(after, "tampered", store.layer) == 1
        assert await after.get_or_compute("k", load) == VALUE


async def test_what_would_unpack_to_too_much_is_a_miss(store: Store) -> None:
    async with store.opened(compression="gzip") as before:
        await before.set("k", "a" * 100_000, ttl=60)
    async with store.opened(compression="gzip", compression_max_bytes=50_000) as after:
        assert await after.get("k") is None
        assert refused(after, "too_large", store.layer) == 1
        await after.set("k", "a" * 100_000, ttl=60)  # which is then stored as it is
    async with store.opened(compression_max_bytes=50_000) as reader:
        assert await reader.get("k") == "a" * 100_000


async def test_a_process_without_compression_reads_what_was_compressed(store: Store) -> None:
    for method in ("gzip", "zstd"):
        async with store.opened(compression=method) as writer:
            await writer.set("k", VALUE, ttl=60)
        async with store.opened() as reader:
            assert await reader.get("k") == VALUE


async def test_memory_holds_what_is_neither_compressed_nor_encrypted(store: Store) -> None:
    """A hit in memory costs what it does without."""
    options: dict[str, Any] = {"compression": "zstd", "encryption_key": OLD}
    async with store.opened(**options) as writer, store.opened(**options) as reader:
        await writer.set("k", VALUE, ttl=60)
        assert await reader.get("k") == VALUE
        for manager in (writer, reader):
            memory = manager._engine.stack.memory
            assert memory is not None
            entry = memory.peek("k")
            assert entry is not None
            assert entry.payload is not None
            assert b"some words" in entry.payload


async def test_backends_on_their_own_do_the_same(redis_url: str, tmp_path: Path) -> None:
    config = CacheConfig(redis_url=redis_url, compression="zstd", encryption_key=OLD.hex(), timeout=PATIENT)
    disk = DiskBackend(tmp_path, compression="zstd", encryption_key=[OLD.hex()], timeout=PATIENT)
    for backend in (RedisBackend(config), disk):
        assert await backend.set("k", VALUE)
        assert await backend.get("k") == VALUE
        await backend.aclose()
    for store in (Store({"redis_url": redis_url}, names.L2), Store({"cache_dir": tmp_path}, names.L3)):
        (frame,) = store.frames()
        assert len(frame) < 500
        assert b"words" not in frame
