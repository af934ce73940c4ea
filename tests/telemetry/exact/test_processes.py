"""Counts are exact from many threads, after a fork, and when caches of one name come and go."""

from __future__ import annotations

import ast
import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from aurelis.cache import CacheManager, cached
from aurelis.cache.telemetry import names
from tests.conftest import ROOT
from tests.managers import WITHIN, configuration, fresh_name, run_script
from tests.telemetry.exact.ledger import Counts

THREADS = 8


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], object]) -> None:
    """Run it in several threads, which begin at once; what one raises is raised here."""
    begin, problems = threading.Barrier(THREADS), []

    def run(number: int) -> None:
        begin.wait(WITHIN)
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # raised below
            problems.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for problem in problems:
        raise problem


@pytest.mark.usefixtures("hasty")
def test_hits_of_a_function_that_many_threads_call() -> None:
    manager, calls = CacheManager(configuration()), 10_000

    @cached(cache=manager)
    def square(root: int) -> int:
        return root * root

    assert square(3) == 9
    together(lambda _: [square(3) for _ in range(calls)])
    counts = _all(manager)
    assert counts.of(names.REQUESTS, names.RESULT, names.LAYER) == {"hit l1": THREADS * calls, "miss": 1}
    assert counts.of(names.LOOKUPS, names.LAYER, names.RESULT) == {"l1 hit": THREADS * calls, "l1 miss": 1}
    asyncio.run(manager.aclose())


@pytest.mark.usefixtures("hasty")
def test_misses_and_loads_of_functions_that_many_threads_call() -> None:
    manager, calls = CacheManager(configuration()), 300

    def work(number: int) -> None:
        @cached(cache=manager, category=str(number))
        def square(root: int) -> int:
            return root * root

        for root in range(calls):
            assert square(root) == square(root) == root * root
            if root % 10 == 0:
                assert square.invalidate(root)

    together(work)
    counts = _all(manager)
    assert counts.of(names.REQUESTS, names.RESULT) == {"hit": THREADS * calls, "miss": THREADS * calls}
    assert (counts.loads(), counts.deletes()) == (THREADS * calls, THREADS * calls // 10)
    assert counts.of(names.STORES, names.STORE_RESULT) == {"stored": THREADS * calls}
    asyncio.run(manager.aclose())


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("layers", ["memory", "redis"])
def test_keys_that_many_threads_ask_for_at_once(layers: str, request: pytest.FixtureRequest) -> None:
    options = {"redis_url": request.getfixturevalue("redis_url"), "timeout": WITHIN} if layers == "redis" else {}
    manager, calls = CacheManager(configuration(**options)), 200 if options else 3_000
    keys = [f"k{number}" for number in range(4)]

    def work(number: int) -> None:
        async def main() -> None:
            for _ in range(calls):
                assert await manager.get_many([*keys, "here"]) == {"here": 1}

        asyncio.run(main())

    asyncio.run(manager.set("here", 1))
    together(work)
    counts, each = _all(manager), THREADS * calls
    assert counts.of(names.REQUESTS, names.RESULT, names.LAYER) == {"hit l1": each, "miss": 4 * each}
    expected = {"l1 hit": each, "l1 miss": 4 * each}
    if options:
        expected["l2 miss"] = 4 * each
    assert counts.of(names.LOOKUPS, names.LAYER, names.RESULT) == expected
    asyncio.run(manager.aclose())


def _all(manager: CacheManager | str) -> Counts:
    """All that was counted under a name that no other test has."""
    counts = Counts(fresh_name())
    counts._cache = manager
    return counts


def test_nothing_is_called_between_the_load_and_the_store_of_a_count() -> None:
    """Another thread may have its turn there, whose count would be lost."""
    found = [
        f"{path}:{node.lineno}"
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute) and node.target.attr == "n"
        if any(isinstance(inner, ast.Call | ast.Await | ast.ListComp) for inner in ast.walk(node.value))
    ]
    assert found == []


# --- caches come and go


async def value() -> int:
    """A load."""
    return 1


def test_a_counter_never_goes_back_whatever_becomes_of_the_caches_of_a_name() -> None:
    name = fresh_name()
    caches: list[CacheManager] = []
    requests = 0

    def total() -> int:
        return _all(name).total(names.REQUESTS)

    async def use(manager: CacheManager) -> None:
        for key in ("a", "a", "b"):
            await manager.get_or_compute(key, value)

    for turn in range(7):
        caches.append(CacheManager(configuration(name=name)))
        for manager in caches:
            asyncio.run(use(manager))
            requests += 3
        assert total() == requests
        if turn % 3 == 1:
            asyncio.run(caches.pop(0).aclose())
        if turn % 5 == 1:
            caches.pop()  # without closing it
        assert total() == requests
        gc.collect()
        assert total() == requests
    assert (
        _all(name).of(names.REQUESTS, names.RESULT)["miss"] + _all(name).of(names.REQUESTS, names.RESULT)["hit"]
        == requests
    )


def test_a_load_that_outlives_its_manager_is_counted() -> None:
    name = fresh_name()

    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def load() -> int:
            begun.set()
            await go.wait()
            return 1

        task = asyncio.create_task(CacheManager(configuration(name=name)).get_or_compute("k", load))
        await begun.wait()
        gc.collect()
        go.set()
        assert await task == 1

    asyncio.run(main())
    gc.collect()
    assert _all(name).of(names.REQUESTS, names.RESULT) == {"miss": 1}
    assert _all(name).of(names.STORES, names.STORE_RESULT) == {"stored": 1}


def test_caches_that_come_and_go_while_many_threads_count_and_one_reads() -> None:
    name, turns = fresh_name(), 60
    seen: list[int] = []

    def work(number: int) -> None:
        if number == 0:
            seen.extend(_all(name).total(names.REQUESTS) for _ in range(200))
            return

        async def main() -> None:
            for _ in range(turns):
                manager = CacheManager(configuration(name=name))
                for key in ("a", "a", "b"):
                    await manager.get_or_compute(key, value)

        asyncio.run(main())

    together(work)
    gc.collect()
    assert seen == sorted(seen)
    assert _all(name).total(names.REQUESTS) == 3 * turns * (THREADS - 1)


def test_a_child_counts_what_it_does_and_its_parent_what_it_has_done(redis_url: str) -> None:
    printed = run_script(
        """
        import asyncio, os, sys
        from aurelis.cache import CacheConfig, CacheManager, cached
        from aurelis.cache.telemetry import names
        from tests.managers import count, requests

        manager = CacheManager(CacheConfig(name="forked", redis_url=sys.argv[1], timeout=10))

        @cached(cache=manager)
        def square(root: int) -> int:
            return root * root

        def show(who: str) -> None:
            found = requests("forked")
            print(who, found.get("miss", 0), found.get("hit l1", 0), found["loads"], int(count("forked", names.STORES)),
                  int(count("forked", names.LOOKUPS, {names.LAYER: "l2"})), flush=True)

        for root in (1, 2, 1):
            square(root)
        show("parent")
        for turn in (10, 20):
            child = os.fork()
            if child == 0:
                for root in (1, 2, 1):
                    square(turn + root)
                square.invalidate(turn + 1)
                square(turn + 1)
                show("child")
                grandchild = os.fork()
                if grandchild == 0:
                    square(turn + 5)
                    show("grandchild")
                    os._exit(0)
                os.waitpid(grandchild, 0)
                os._exit(0)
            os.waitpid(child, 0)
        square(6)
        show("parent")
        """,
        redis_url,
    )
    child, grandchild = "child 3 1 3 3 3", "grandchild 1 0 1 1 1"
    assert printed.splitlines() == ["parent 2 1 2 2 2", child, grandchild, child, grandchild, "parent 3 1 3 3 3"]
