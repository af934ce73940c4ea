"""One manager in several event loops, threads and processes, also where they end without a word."""

import asyncio
import gc
import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest
import redis

from aurelis.cache import CacheManager
from aurelis.cache.exceptions import CacheClosedError
from aurelis.cache.telemetry import names
from tests.conftest import TOPOLOGIES
from tests.loops import LoopThread, loop_threads
from tests.managers import (
    WITHIN,
    configuration,
    count,
    eventually_blocking,
    is_settled,
    requests,
    run_script,
)
from tests.servers import ServerProcess

PATIENT = 10.0
TAKEN_OVER_WITHIN = 3.0
"""Seconds until a load is taken over from a loop that is gone: twice what its waiters poll, and slack."""


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[CacheManager]:
    """A manager that no event loop owns."""
    options = {} if request.param == "memory" else {"redis_url": request.getfixturevalue("redis_url")}
    manager = CacheManager(configuration(**options, timeout=PATIENT))
    yield manager
    eventually_blocking(lambda: is_settled(manager))
    asyncio.run(manager.aclose())


class Origin:
    """Loads that run in any loop and wait until they are let go."""

    def __init__(self) -> None:
        self.loads = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    async def load(self) -> str:
        with self._lock:
            self.loads += 1
        while not self.go.is_set():
            await asyncio.sleep(0.001)
        return "value"


def close_here(cache: CacheManager, loops: list[LoopThread]) -> None:
    """Closes the connections of loops that end before the cache does."""
    for guard in cache._engine.stack.lower:
        for loop in loops:
            loop.run(guard.layer.aclose())


def end_here(cache: CacheManager, loop: LoopThread) -> None:
    """Ends a loop whose loads, as they are cancelled, let go of their leases and so connect once more."""
    if not loop.loop.is_closed():
        loop.cancel()
        close_here(cache, [loop])
        loop.end()


def test_callers_of_several_loops_share_one_load(cache: CacheManager) -> None:
    origin = Origin()
    with loop_threads(4) as loops:
        futures = [loop.submit(cache.get_or_compute("k", origin.load)) for loop in loops for _ in range(50)]
        eventually_blocking(lambda: cache._engine.flights.waiting == 199)
        origin.go.set()
        assert {future.result(WITHIN) for future in futures} == {"value"}
        close_here(cache, loops)
    assert origin.loads == 1
    assert requests(cache) == {"miss": 200, "loads": 1}


@pytest.mark.parametrize("how", ["halted", "ended"])
def test_when_the_loop_of_a_load_is_gone_others_take_over_in_time(cache: CacheManager, how: str) -> None:
    origin = Origin()
    leader = LoopThread()
    with loop_threads(2) as loops:
        leader.submit(cache.get_or_compute("k", origin.load))
        eventually_blocking(lambda: origin.loads == 1)
        futures = [loop.submit(cache.get_or_compute("k", origin.load)) for loop in loops for _ in range(10)]
        eventually_blocking(lambda: cache._engine.flights.waiting == 20)
        close_here(cache, [leader])  # or there would be a warning of what it leaves open
        if how == "halted":
            leader.halt()
        else:
            end_here(cache, leader)
        begin = time.monotonic()
        eventually_blocking(lambda: origin.loads == 2)
        assert time.monotonic() - begin < TAKEN_OVER_WITHIN
        origin.go.set()
        assert {future.result(WITHIN) for future in futures} == {"value"}
        assert origin.loads == 2
        close_here(cache, loops)
    end_here(cache, leader)


def test_a_loop_that_was_only_halted_gets_its_own_answer_when_it_runs_on(cache: CacheManager) -> None:
    origin = Origin()
    leader = LoopThread()
    with loop_threads(1) as (loop,):
        first = leader.submit(cache.get_or_compute("k", origin.load))
        eventually_blocking(lambda: origin.loads == 1)
        leader.halt()
        second = loop.submit(cache.get_or_compute("k", origin.load))
        eventually_blocking(lambda: origin.loads == 2)
        leader.resume()
        origin.go.set()
        assert [first.result(WITHIN), second.result(WITHIN)] == ["value", "value"]
        close_here(cache, [loop, leader])
    end_here(cache, leader)


def test_whoever_comes_after_a_loop_was_closed_over_its_load_does_not_wait_for_it(cache: CacheManager) -> None:
    """Closed without cancelling its tasks, as careless programs do."""
    origin = Origin()
    careless = asyncio.new_event_loop()
    task = careless.create_task(cache.get_or_compute("k", origin.load))
    deadline = time.monotonic() + WITHIN
    while not origin.loads:
        assert time.monotonic() < deadline
        careless.run_until_complete(asyncio.sleep(0.001))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        careless.close()
        origin.go.set()
        begin = time.monotonic()
        assert asyncio.run(with_connections_closed(cache, "k", origin)) == "value"
        assert time.monotonic() - begin < TAKEN_OVER_WITHIN
        for abandoned in [task, *cache._engine.flights._tasks]:
            abandoned._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's switch for what is meant
        cache._engine.flights._tasks.clear()
        del task, abandoned, careless
        gc.collect()


async def with_connections_closed(cache: CacheManager, key: str, origin: Origin) -> str:
    """A request in a loop that ends after it."""
    value = await cache.get_or_compute(key, origin.load)
    for guard in cache._engine.stack.lower:
        await guard.layer.aclose()
    return value


def test_an_invalidation_in_one_loop_overtakes_a_load_in_another(cache: CacheManager) -> None:
    origin = Origin()
    with loop_threads(2) as (first, second):
        loading = first.submit(cache.get_or_compute("k", origin.load))
        eventually_blocking(lambda: origin.loads == 1)
        second.run(cache.delete("k"))
        origin.go.set()
        assert loading.result(WITHIN) == "value"
        assert second.run(cache.get("k", "nothing")) == "nothing"
        close_here(cache, [first, second])


def test_a_load_left_by_callers_of_all_loops_is_cancelled(cache: CacheManager) -> None:
    origin = Origin()
    with loop_threads(2) as (first, second):
        leader = first.submit(cache.get_or_compute("k", origin.load))
        eventually_blocking(lambda: origin.loads == 1)
        follower = second.submit(cache.get_or_compute("k", origin.load))
        eventually_blocking(lambda: cache._engine.flights.waiting == 1)
        leader.cancel()
        follower.cancel()
        eventually_blocking(lambda: is_settled(cache))
        close_here(cache, [first, second])
    assert requests(cache) == {"miss": 2, "loads": 1}


def test_many_threads_with_loops_of_their_own_hammer_one_manager(cache: CacheManager) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    made = [0] * 4

    async def work(number: int) -> None:
        chance = random.Random(number)

        async def load() -> list[int]:
            await asyncio.sleep(0)
            return [1]

        for _ in range(150):
            key = f"k{chance.randrange(20)}"
            match chance.randrange(8):
                case 0:
                    await cache.set(key, [1])
                case 1:
                    await cache.delete(key)
                case 2:
                    made[number] += 2
                    await cache.get_many(["k0", "k1"])
                case 3:
                    made[number] += 1
                    assert await cache.get(key) in (None, [1])
                case _:
                    made[number] += 1
                    value = await cache.get_or_compute(key, load)
                    assert value == [1]
                    value.append(2)

    try:
        with loop_threads(4) as loops:
            futures = [loop.submit(work(number)) for number, loop in enumerate(loops)]
            for future in futures:
                future.result(WITHIN)
            close_here(cache, loops)
    finally:
        sys.setswitchinterval(interval)
    results = requests(cache)
    assert sum(number for result, number in results.items() if result != "loads") == sum(made)


def test_one_manager_serves_one_event_loop_after_the_other(cache: CacheManager) -> None:
    async def turn(number: int) -> object:
        await cache.set(f"k{number}", number)
        value = await cache.get_or_compute(f"k{number - 1}", Origin().load) if number else None
        for guard in cache._engine.stack.lower:
            await guard.layer.aclose()
        return value

    assert [asyncio.run(turn(number)) for number in range(4)] == [None, 0, 1, 2]


def test_closing_in_one_loop_closes_connections_and_ends_loads_in_others(redis_url: str) -> None:
    cache = CacheManager(configuration(redis_url=redis_url, timeout=PATIENT))
    polite, stubborn = Origin(), Origin()
    with loop_threads(2) as (first, second):
        ends = first.submit(cache.get_or_compute("polite", polite.load))
        hangs = first.submit(cache.get_or_compute("stubborn", stubborn.load))
        eventually_blocking(lambda: polite.loads == stubborn.loads == 1)
        closing = second.submit(cache.aclose(timeout=0.5))
        eventually_blocking(lambda: cache._engine.closed)
        polite.go.set()
        closing.result(WITHIN)
        assert ends.result(WITHIN) == "value"
        with pytest.raises(CacheClosedError):
            hangs.result(WITHIN)
        with redis.Redis.from_url(redis_url) as raw:
            eventually_blocking(lambda: raw.info("clients")["connected_clients"] == 1)
    assert is_settled(cache)


# --- never closed

NEVER_CLOSED = """
    import asyncio, sys
    from aurelis.cache import CacheConfig, CacheManager

    cache = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10))

    async def load() -> str:
        return "loaded"

    async def main(number: int) -> None:
        await cache.set("k", number)
        await cache.get("missing")
        print(await cache.get("k"), await cache.get_or_compute(f"l{number}", load))

    for number in range(int(sys.argv[2])):
        asyncio.run(main(number))
"""


@pytest.mark.parametrize("turns", [1, 3])
def test_a_program_that_never_closes_its_cache_ends_promptly_and_well(redis_url: str, turns: int) -> None:
    """Also one with a module-level manager and several consecutive event loops."""
    begin = time.monotonic()
    printed = run_script(NEVER_CLOSED, redis_url, str(turns), PYTHONWARNINGS="default")
    assert printed.splitlines() == [f"{number} loaded" for number in range(turns)]
    assert time.monotonic() - begin < WITHIN


def test_connections_end_with_their_event_loop_and_a_cache_that_is_forgotten_ends_with_its_thread(
    own_redis: ServerProcess,
) -> None:
    """Without a warning: `asyncio.run` closes what the cache has opened in it."""
    printed = run_script(
        """
        import asyncio, gc, sys, threading, time
        from aurelis.cache import CacheConfig, CacheManager
        from tests.servers import redis_command

        sys.stderr = sys.stdout
        port = int(sys.argv[1].rpartition(":")[2].partition("/")[0])

        def connections() -> int:
            return redis_command(port, "CLIENT LIST").count(b"id=") - 1

        def eventually(number: int) -> bool:
            deadline = time.monotonic() + 10
            while connections() != number and time.monotonic() < deadline:
                time.sleep(0.01)
            return connections() == number

        async def use(cache: CacheManager, number: int) -> None:
            await asyncio.gather(*(cache.set(f"k{each}", number) for each in range(20)))
            assert await cache.get("k1") == number

        def run() -> None:
            cache = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10, heartbeat=60))
            for number in range(3):
                asyncio.run(use(cache, number))
                gc.collect()
                # One in which the cache hears of changes, and one for its signs of life.
                print(eventually(2))

        run()
        gc.collect()
        print(eventually(0), [thread.name for thread in threading.enumerate()])
        """,
        own_redis.url,
    )
    assert printed == "True\nTrue\nTrue\nTrue ['MainThread']\n"


def test_a_program_that_ends_during_a_load_ends_promptly(redis_url: str) -> None:
    printed = run_script(
        """
        import asyncio, sys
        from aurelis.cache import CacheConfig, CacheManager

        cache = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10))

        async def load() -> None:
            print("loading")
            await asyncio.Event().wait()

        async def main() -> None:
            for _ in range(3):
                asyncio.ensure_future(cache.get_or_compute("k", load))
            await asyncio.sleep(0.05)

        asyncio.run(main())
        print("over")
        """,
        redis_url,
        PYTHONWARNINGS="default",
    )
    assert printed == "loading\nover\n"


def test_a_program_whose_redis_hangs_ends_promptly(own_redis: ServerProcess) -> None:
    own_redis.pause()
    printed = run_script(
        """
        import asyncio, sys
        from aurelis.cache import CacheConfig, CacheManager

        async def main() -> None:
            async with CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=0.1)) as cache:
                print(await cache.set("k", 1), await cache.get("l"))

        asyncio.run(main())
        """,
        own_redis.url,
        within=10,
    )
    assert printed == "False None\n"
    own_redis.resume()


# --- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_works_with_the_manager_of_its_parent(redis_url: str) -> None:
    """As servers do that load the app before they fork their workers, here even in the middle of a load."""
    printed = run_script(
        """
        import asyncio, os, sys, threading
        from aurelis.cache import CacheConfig, CacheManager, EntryOptions

        cache = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10))
        loading, go = threading.Event(), threading.Event()

        async def slow() -> str:
            loading.set()
            await asyncio.to_thread(go.wait)
            return "of the parent"

        async def quick() -> str:
            return "of the child"

        async def main() -> None:
            await cache.set("k", 1)
            await cache.get_or_compute("slow", slow)

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        loading.wait()
        child = os.fork()
        if child == 0:
            async def in_child() -> None:
                assert await cache.get("k") == 1
                # Nobody will ever finish the parent's load here.
                options = EntryOptions(lease_wait=0)  # the parent is alive and has the lease
                assert await cache.get_or_compute("slow", quick, options=options) == "of the child"
                await cache.set("from the child", 2)
            asyncio.run(in_child())
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        go.set()
        thread.join()
        async def after() -> object:
            return await cache.get("from the child")
        print(status, asyncio.run(after()))
        """,
        redis_url,
        PYTHONWARNINGS="ignore",
    )
    assert printed == "0 2\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_does_not_wait_for_threads_that_it_does_not_have(redis_url: str) -> None:
    """What other threads of the parent had locked when it forked, here all there is, stays locked for ever."""
    printed = run_script(
        """
        import asyncio, gc, os, signal, sys, threading
        import httpx2
        from aurelis.cache import CacheConfig, CacheManager, get_cache_manager
        from aurelis_httpx2 import AsyncCacheTransport, CacheTransport

        memory = get_cache_manager().manager
        shared = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=5))
        half, go = threading.Event(), threading.Event()

        class Slow(httpx2.AsyncByteStream):
            async def __aiter__(self):
                yield b"half"
                half.set()
                await asyncio.to_thread(go.wait)

        def origin(body):
            fields = {"cache-control": "max-age=60"}
            return httpx2.MockTransport(lambda request: httpx2.Response(200, headers=fields, stream=body))

        async def ask(cache, path, body):
            async with httpx2.AsyncClient(transport=AsyncCacheTransport(origin(body), cache=cache)) as client:
                return (await client.get(f"http://origin{path}")).content

        async def loaded():
            return 2

        async def use(cache):
            await cache.set("k", 1, tags=["t"])
            assert await cache.get_many(["k", "l"]) == {"k": 1}
            assert await cache.get_or_compute("loaded", loaded) == 2
            await cache.invalidate_tags("t")
            await cache.delete("k")
            await cache.clear()
            assert await ask(cache, "/quick", httpx2.ByteStream(b"whole")) == b"whole"
            assert await cache.get("k") is None

        def use_all():
            for cache in memory, shared:
                asyncio.run(use(cache))
                with httpx2.Client(transport=CacheTransport(origin(httpx2.ByteStream(b"read")), cache=cache)) as client:
                    assert client.get("http://origin/read").content == b"read"

        def locks():
            kind = type(threading.Lock())
            for thing in gc.get_objects():
                if str(type(thing).__module__).startswith("aurelis"):
                    slots = [slot for base in type(thing).__mro__ for slot in vars(base).get("__slots__", ())]
                    parts = [getattr(thing, slot, None) for slot in slots]
                    for part in (*parts, *getattr(thing, "__dict__", {}).values()):
                        if isinstance(part, kind):
                            yield type(thing).__name__, part

        use_all()
        thread = threading.Thread(target=lambda: asyncio.run(ask(memory, "/slow", Slow())))
        thread.start()  # a response is on its way
        half.wait()
        held = [(name, lock) for name, lock in locks() if lock.acquire(timeout=5)]
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            use_all()
            gc.collect()  # ends what belonged to the parent's threads
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        for name, lock in held:
            lock.release()
        go.set()
        thread.join()
        print(status, {"Guard", "MemoryBackend", "Recording", "RedisBackend"} <= {name for name, _ in held})
        """,
        redis_url,
        PYTHONWARNINGS="ignore",
    )
    assert printed == "0 True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_finds_no_memory_half_changed() -> None:
    """A thread of the parent may have been in the middle of a change, of which the child would never see the end."""
    printed = run_script(
        """
        import asyncio, os, signal
        from aurelis.cache.layers.memory import MemoryBackend

        memory = MemoryBackend(max_size=2)

        async def use() -> object:
            for number in range(3):
                await memory.set(f"key {number}", number)
            return [await memory.get(f"key {number}") for number in range(3)]

        asyncio.run(use())
        with memory._lock:
            del memory.entries._Cache__data["key 1"]  # as when a thread stops within `del memory.entries[...]`
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                assert asyncio.run(memory.get("key 2")) is None
                assert asyncio.run(use()) == [None, 1, 2]
                assert memory.entries.evicted.n == 2
                os._exit(0)
        print(os.waitpid(child, 0)[1])
        """,
        PYTHONWARNINGS="ignore",
    )
    assert printed == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_forked_child_has_no_connections_of_its_parent(topology_url: Callable[[str], str], topology: str) -> None:
    """They would end with the child alone; and whoever closes one in the child must not disturb the parent."""
    printed = run_script(
        """
        import asyncio, gc, os, socket, sys, time
        from aurelis.cache import CacheConfig, CacheManager
        from aurelis.cache.telemetry import names
        from tests.managers import series

        cache = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10, heartbeat=0.2))

        def connections() -> int:
            found = 0
            for descriptor in os.listdir("/proc/self/fd"):
                try:
                    with socket.socket(fileno=os.dup(int(descriptor))) as copy:
                        found += bool(copy.getpeername())  # those of event loops to themselves have no name
                except OSError:
                    pass
            return found

        async def use(value: int) -> None:
            await cache.set("k", value)
            assert await cache.get("missing") is None
            assert await cache.get("k") == value
            await asyncio.sleep(0.1)  # who was asked for the way is left

        loop = asyncio.new_event_loop()
        loop.run_until_complete(use(1))
        before = connections()
        child = os.fork()
        if child == 0:
            assert connections() == 0
            asyncio.run(use(2))
            begin = time.monotonic()
            asyncio.run(cache.aclose())
            assert time.monotonic() - begin < 5  # nobody answers in the loops of the parent's threads
            cache._engine.stack.lower[0].layer._inherited.clear()
            gc.collect()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        time.sleep(0.6)
        assert connections() == before > 1
        loop.run_until_complete(use(3))
        print(status, sum(series(cache, names.GAPS).values()))
        loop.run_until_complete(cache.aclose())
        loop.close()
        """,
        topology_url(topology),
        PYTHONWARNINGS="ignore",
    )
    assert printed == "0 0\n"


def test_waiting_is_counted_across_loops(cache: CacheManager) -> None:
    origin = Origin()
    with loop_threads(3) as loops:
        futures = [loop.submit(cache.get_or_compute("k", origin.load)) for loop in loops]
        eventually_blocking(lambda: count(cache, names.WAITING) == 2)
        origin.go.set()
        for future in futures:
            future.result(WITHIN)
        close_here(cache, loops)
    assert count(cache, names.WAITING) == 0
