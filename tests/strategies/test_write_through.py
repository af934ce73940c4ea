"""Write through: the store first, then the cache, which never keeps what the store no longer has."""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache import CacheConfig, CacheManager, UnifiedCacheManager, WriteThrough
from aurelis.cache.exceptions import CacheClosedError, ConfigurationError, UnstorableValueError
from aurelis.cache.telemetry import names
from tests.managers import configuration, count, eventually, opened, requests
from tests.proxies import Hang, Pass, Proxy
from tests.servers import ServerProcess
from tests.strategies.stores import Table


@pytest.fixture(params=["memory", "disk", "redis"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The layers of a cache."""
    match request.param:
        case "memory":
            return {}
        case "disk":
            return {"cache_dir": tmp_path, "timeout": 5}
        case _:
            return {"redis_url": request.getfixturevalue("redis_url"), "timeout": 5}


@pytest.fixture
async def cache(options: dict[str, Any]) -> AsyncIterator[CacheManager]:
    """An empty cache."""
    async with opened(configuration(**options)) as manager:
        yield manager


# --- what it does


async def test_a_write_is_in_the_store_and_in_the_cache(cache: CacheManager) -> None:
    store = Table()
    users = WriteThrough(cache, store)
    assert await users.set("k", {"name": "Ada"}) is True
    assert store.rows == {"k": {"name": "Ada"}}
    assert await cache.get("k") == {"name": "Ada"}
    assert await users.get("k") == {"name": "Ada"}
    assert store.reads == []


async def test_the_cache_has_a_value_only_once_the_store_has_it(cache: CacheManager) -> None:
    store = Table()
    store.open.clear()
    users = WriteThrough(cache, store)
    writing = asyncio.ensure_future(users.set("k", 1))
    await eventually(lambda: store.entered)
    assert await cache.get("k") is None
    store.open.set()
    assert await writing is True
    assert await cache.get("k") == 1


async def test_what_the_cache_lacks_is_read_from_the_store_by_one_for_all(cache: CacheManager) -> None:
    store = Table()
    store.rows["k"] = 7
    users = WriteThrough(cache, store)
    assert await asyncio.gather(*(users.get("k") for _ in range(20))) == [7] * 20
    assert store.reads == ["k"]


async def test_none_is_a_value_like_any_other(cache: CacheManager) -> None:
    store = Table()
    users = WriteThrough(cache, store)
    assert [await users.get("none") for _ in range(3)] == [None] * 3
    assert store.reads == ["none"]
    await users.set("k", None)
    assert await users.get("k") is None
    assert await cache.get("k", "default") is None
    assert store.reads == ["none"]


async def test_a_delete_is_in_the_store_and_in_the_cache(cache: CacheManager) -> None:
    store = Table()
    users = WriteThrough(cache, store)
    await users.set("k", 1)
    await users.delete("k")
    assert store.rows == {}
    assert await cache.get("k") is None


async def test_a_ttl_is_for_the_cache_and_0_keeps_nothing_there(cache: CacheManager) -> None:
    store = Table()
    users = WriteThrough(cache, store)
    await users.set("k", 1)
    assert await users.set("k", 2, ttl=0) is True
    assert store.rows == {"k": 2}
    assert await cache.get("k") is None
    with pytest.raises(ValueError, match="ttl"):
        await users.set("k", 3, ttl=-1)
    assert store.rows == {"k": 2}


async def test_a_unified_manager_is_used_with_full_keys() -> None:
    async with UnifiedCacheManager(configuration()) as cache:
        users = WriteThrough(cache, Table())
        key = cache.key_builder.build_key("user", "17")
        await users.set(key, "Ada")
        assert await cache.get("user", "17") == "Ada"
        assert users.cache is cache.manager


# --- what may fail


async def test_what_the_store_raises_reaches_the_caller_and_the_cache_forgets_the_key(cache: CacheManager) -> None:
    store = Table()
    users = WriteThrough(cache, store)
    await users.set("k", 1)
    store.down = True
    # It may have been written all the same.
    with pytest.raises(ConnectionError, match="the table is not there"):
        await users.set("k", 2)
    assert await cache.get("k") is None
    await cache.set("k", 1)
    with pytest.raises(ConnectionError):
        await users.delete("k")
    assert await cache.get("k") is None
    with pytest.raises(ConnectionError):
        await users.get("k")


async def test_a_write_that_is_cancelled_leaves_nothing_old_in_the_cache(cache: CacheManager) -> None:
    store = Table()
    users = WriteThrough(cache, store)
    await users.set("k", 1)
    store.open.clear()
    writing = asyncio.ensure_future(users.set("k", 2))
    await eventually(lambda: store.entered == 2)
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    assert writing.cancelled()
    while await cache.get("k") is not None:
        await asyncio.sleep(0.001)
    store.open.set()


async def test_a_write_that_is_cancelled_while_the_cache_forgets_it_leaves_nothing_old(redis_url: str) -> None:
    store = Table()
    with Proxy(redis_url) as proxy:
        async with opened(configuration(redis_url=proxy.url, timeout=5)) as cache:
            users = WriteThrough(cache, store)
            await users.set("k", 1)

            class Fails(Table):
                async def set(self, key: str, value: Any) -> None:
                    store.rows[key] = value
                    proxy.apply(Hang())  # the cache cannot be told yet
                    self.entered += 1
                    raise ConnectionError

            failing = Fails()
            writing = asyncio.ensure_future(WriteThrough(cache, failing).set("k", 2))
            await eventually(lambda: failing.entered)
            await asyncio.sleep(0.05)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            proxy.apply(Pass())
            proxy.reset()
            async with opened(configuration(redis_url=redis_url, timeout=5)) as other, asyncio.timeout(20):
                while await other.get("k") is not None:
                    await asyncio.sleep(0.01)


async def test_what_the_cache_cannot_store_does_not_reach_the_store(cache: CacheManager) -> None:
    store = Table()
    with pytest.raises(UnstorableValueError):
        await WriteThrough(cache, store).set("k", object())
    assert store.entered == 0


async def test_after_the_cache_is_closed_nothing_is_written() -> None:
    store = Table()
    cache = CacheManager(configuration())
    users = WriteThrough(cache, store)
    await cache.aclose()
    with pytest.raises(CacheClosedError):
        await users.set("k", 1)
    assert store.entered == 0


async def test_a_redis_that_is_down_fails_no_write_and_has_no_old_value_when_it_is_back(
    own_redis: ServerProcess,
) -> None:
    options = {"redis_url": own_redis.url, "timeout": 0.2, "breaker_pause": 0.05}
    store = Table()
    async with opened(configuration(**options)) as cache, opened(configuration(**options)) as other:
        users = WriteThrough(cache, store)
        await users.set("k", 1)
        own_redis.pause()
        assert await users.set("k", 2) is False
        assert store.rows == {"k": 2}
        assert await users.get("k") == 2
        assert count(cache, names.ERRORS) > 0
        own_redis.resume()
        await eventually(lambda: count(cache, names.PENDING) == 0)
        assert await other.get("k", 2) == 2


@pytest.mark.parametrize("store", [None, object(), {"a": 1}], ids=["None", "object", "dict"])
async def test_what_is_no_store_is_refused(store: Any) -> None:
    async with opened() as cache:
        with pytest.raises(ConfigurationError, match=r"get\(key\) and set\(key, value\)"):
            WriteThrough(cache, store)


async def test_a_store_without_delete_cannot_delete() -> None:
    class Keeps:
        async def get(self, key: str) -> None: ...

        async def set(self, key: str, value: object) -> None: ...

    async with opened() as cache:
        users = WriteThrough(cache, Keeps())
        await users.set("k", 1)
        with pytest.raises(ConfigurationError, match="Keeps has no delete"):
            await users.delete("k")
        assert await cache.get("k") == 1
    with pytest.raises(TypeError, match="CacheManager"):
        WriteThrough("redis://localhost", Keeps())  # type: ignore[arg-type]


# --- several at once


class Race(Table):
    """A store whose writes end when they are let go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[Any, asyncio.Event] = {}

    async def set(self, key: str, value: Any) -> None:
        """Keeps the row at once, and returns when it is let go."""
        self.rows[key] = value
        self.gates[value] = asyncio.Event()
        await self.gates[value].wait()


@pytest.mark.parametrize("first", [1, 2])
async def test_of_two_writes_in_one_process_the_cache_never_keeps_the_older(cache: CacheManager, first: int) -> None:
    store = Race()
    users = WriteThrough(cache, store)
    writes = {}
    for value in (1, 2):
        writes[value] = asyncio.ensure_future(users.set("k", value))
        await eventually(lambda value=value: value in store.gates)  # type: ignore[misc]
    for value in (first, 3 - first):
        store.gates[value].set()
        await writes[value]
    assert await cache.get("k", 2) == 2
    assert await users.get("k") == 2


@pytest.mark.parametrize("backend", ["redis", "disk"])
@pytest.mark.parametrize("first", [1, 2])
async def test_of_two_writes_in_two_processes_no_cache_keeps_the_older(
    backend: str, first: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    shared: dict[str, Any] = {"cache_dir": tmp_path}
    if backend == "redis":
        shared = {"redis_url": request.getfixturevalue("redis_url")}
    store = Race()
    async with opened(configuration(timeout=5, **shared)) as one, opened(configuration(timeout=5, **shared)) as two:
        for cache in (one, two):
            await cache.set("k", 0)
        users = {1: WriteThrough(one, store), 2: WriteThrough(two, store)}
        writes = {}
        for value in (1, 2):
            writes[value] = asyncio.ensure_future(users[value].set("k", value))
            await eventually(lambda value=value: value in store.gates)  # type: ignore[misc]
        for value in (first, 3 - first):
            store.gates[value].set()
            await writes[value]
        # Word of it takes a moment to the other one, which is at most as late as after any change.
        for value in (1, 2):
            while await users[value].get("k") != 2:
                await asyncio.sleep(0.01)
        for _ in range(20):
            assert await one.get("k", 2) == await two.get("k", 2) == 2
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("backend", ["redis", "cluster", "disk"])
@pytest.mark.parametrize("seed", range(2))
async def test_after_any_mixture_of_reads_and_writes_the_caches_have_what_the_store_has(
    backend: str, seed: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    shared: dict[str, Any] = {"cache_dir": tmp_path}
    if backend != "disk":
        url_of = request.getfixturevalue("topology_url")
        shared = {"redis_url": url_of("server" if backend == "redis" else backend)}
    rng = random.Random(seed)

    class Slow(Table):
        async def _pass(self, key: str) -> None:
            await asyncio.sleep(rng.random() * 0.004)

        async def get(self, key: str) -> Any:
            value = self.rows.get(key)
            await asyncio.sleep(rng.random() * 0.004)
            return value

        async def set(self, key: str, value: Any) -> None:
            await super().set(key, value)
            await asyncio.sleep(rng.random() * 0.004)

    store = Slow()
    async with opened(configuration(timeout=5, **shared)) as one, opened(configuration(timeout=5, **shared)) as two:
        caches = one, two

        async def work(owner: int) -> None:
            users = WriteThrough(caches[owner % 2], store)
            for number in range(25):
                key = f"k{rng.randrange(2)}"
                chance = rng.random()
                if chance < 0.45:
                    await users.set(key, (owner, number))
                elif chance < 0.55:
                    await users.delete(key)
                elif chance < 0.65:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(rng.random() * 0.004):
                            await users.set(key, (owner, number))
                else:
                    await users.get(key)

        await asyncio.gather(*(work(owner) for owner in range(6)))
        await eventually(lambda: not any(cache._engine.flights._last for cache in caches))
        await asyncio.sleep(0.3)  # word takes a moment
        for key in ("k0", "k1"):
            for cache in caches:
                assert await cache.get(key, store.rows.get(key)) == store.rows.get(key)
                cache._engine.stack.forget(key)  # and so has what is below memory
                assert await cache.get(key, store.rows.get(key)) == store.rows.get(key)


async def test_a_write_reaches_the_memory_of_other_processes(redis_url: str) -> None:
    shared = {"redis_url": redis_url, "timeout": 5}
    store = Table()
    async with opened(configuration(**shared)) as one, opened(configuration(**shared)) as two:
        users, others = WriteThrough(one, store), WriteThrough(two, store)
        await users.set("k", 1)
        assert await others.get("k") == 1
        await users.set("k", 2)
        while await others.get("k") != 2:
            await asyncio.sleep(0.001)
        assert store.reads == []


async def test_a_load_that_began_before_a_write_does_not_bring_the_old_value_back(cache: CacheManager) -> None:
    store = Table()
    store.rows["k"] = 1
    users = WriteThrough(cache, store)
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def read_slowly() -> Any:
        value = store.rows["k"]
        entered.set()
        await go_on.wait()
        return value

    loading = asyncio.ensure_future(cache.get_or_compute("k", read_slowly))
    await entered.wait()
    await users.set("k", 2)
    go_on.set()
    assert await loading == 1
    assert await cache.get("k", 2) == 2
    assert await users.get("k") == 2


def test_writes_of_several_threads_and_loops_leave_what_the_store_has() -> None:
    cache = CacheManager(configuration())
    rows: dict[str, int] = {}

    class Shared:
        async def get(self, key: str) -> Any:
            return rows.get(key)

        async def set(self, key: str, value: int) -> None:
            await asyncio.sleep(0.0001)
            rows[key] = value
            await asyncio.sleep(0.0001)

    users = WriteThrough(cache, Shared())

    async def write(owner: int) -> None:
        for number in range(100):
            await users.set(f"k{number % 3}", owner * 1000 + number)

    threads = [threading.Thread(target=lambda owner=owner: asyncio.run(write(owner))) for owner in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def check() -> None:
        for key, value in rows.items():
            assert await cache.get(key, value) == value
        await cache.aclose()

    asyncio.run(check())


async def test_reads_are_requests_to_the_cache_and_writes_are_not(cache: CacheManager) -> None:
    users = WriteThrough(cache, Table())
    await users.set("k", 1)
    await users.get("k")
    await users.get("other")
    assert requests(cache) == {"hit l1": 1, "miss": 1, "loads": 1}
    assert count(cache, names.STORES, {names.STORE_RESULT: "stored"}) == 2


def test_nothing_is_imported_or_connected_before_it_is_used() -> None:
    cache = CacheManager(CacheConfig(redis_url="redis://127.0.0.1:1/0"))
    WriteThrough(cache, Table())
