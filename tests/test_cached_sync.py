"""`cached` for functions that are no coroutine functions."""

import asyncio
import contextvars
import inspect
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from aurelis.cache import CacheManager, EntryOptions, cached, current_load
from aurelis.cache.exceptions import CacheClosedError, CacheError, RecursiveLoadError
from tests.managers import WITHIN, configuration, eventually_blocking, is_settled, requests, run_script


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[CacheManager]:
    """A cache in memory, alone and over Redis."""
    options = {} if request.param == "memory" else {"redis_url": request.getfixturevalue("redis_url"), "timeout": 10}
    manager = CacheManager(configuration(**options))
    yield manager
    eventually_blocking(lambda: is_settled(manager))
    asyncio.run(manager.aclose())


def in_threads(*calls: Callable[[], object]) -> list[object]:
    """Runs the calls at once, each in a thread; returns what they returned or raised."""
    results: list[object] = [None] * len(calls)

    def run(number: int, call: Callable[[], object]) -> None:
        try:
            results[number] = call()
        except BaseException as error:  # noqa: BLE001  # an interruption, too
            results[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_equal_arguments_call_the_function_once_in_the_thread_of_the_caller(cache: CacheManager) -> None:
    called: list[tuple[int, threading.Thread]] = []

    @cached(cache=cache)
    def square(number: int) -> int:
        called.append((number, threading.current_thread()))
        return number * number

    assert [square(3), square(number=3), square(4)] == [9, 9, 16]
    assert called == [(3, threading.current_thread()), (4, threading.current_thread())]
    assert requests(cache) == {"miss": 2, "hit l1": 1, "loads": 2}
    assert not inspect.iscoroutinefunction(square)
    assert str(inspect.signature(square)) == "(number: int) -> int"


def test_a_hit_needs_no_other_thread() -> None:
    printed = run_script(
        """
        import threading
        from aurelis.cache import cached

        @cached()
        def square(number: int) -> int:
            return number * number

        assert threading.active_count() == 1
        square(3)
        began = threading.active_count()
        for thread in threading.enumerate():
            if thread is not threading.main_thread():
                assert thread.daemon and thread.name == "aurelis-cache"
        print(square(3), began)
        """
    )
    assert printed == "9 2\n"


def test_concurrent_calls_share_one(cache: CacheManager) -> None:
    called: list[int] = []

    @cached(cache=cache)
    def slow(number: int) -> list[int]:
        called.append(number)
        eventually_blocking(lambda: cache._engine.flights.waiting == 7)
        return [number]

    results = in_threads(*[lambda: slow(1)] * 8)
    assert results == [[1]] * 8
    assert called == [1]
    assert len({id(result) for result in results}) == 8  # each has its own
    assert requests(cache) == {"miss": 8, "loads": 1}


def test_an_error_reaches_all_callers_as_it_was(cache: CacheManager) -> None:
    error = LookupError("once")
    called: list[int] = []

    @cached(cache=cache)
    def fails() -> int:
        called.append(1)
        if len(called) == 1:
            eventually_blocking(lambda: cache._engine.flights.waiting == 1)
            raise error
        return 2

    assert in_threads(fails, fails) == [error, error]
    assert fails() == 2


def test_what_it_does_in_its_context_is_seen_and_stays_there(cache: CacheManager) -> None:
    variable = contextvars.ContextVar("variable", default="outside")

    @cached(tags=["t"], cache=cache)
    def page() -> str:
        current_load().add_tags("own")
        seen = variable.get()
        variable.set("inside")
        return seen

    variable.set("caller")
    assert page() == "caller"
    assert variable.get() == "caller"
    asyncio.run(cache.invalidate_tags("own"))
    variable.set("other")
    assert page() == "other"


def test_functions_may_call_each_other(cache: CacheManager) -> None:
    @cached(cache=cache)
    def inner(number: int) -> int:
        return number + 1

    @cached(cache=cache)
    def outer(number: int) -> int:
        return inner(number) + inner(number + 1)

    assert outer(1) == 5
    assert requests(cache) == {"miss": 3, "loads": 3}


def test_a_function_that_waits_for_itself_is_an_error(cache: CacheManager) -> None:
    @cached(cache=cache)
    def direct(number: int) -> int:
        return direct(number)

    with pytest.raises(RecursiveLoadError):
        direct(1)


def test_it_may_be_called_where_an_event_loop_runs(cache: CacheManager) -> None:
    """It blocks the loop while it runs, as it does without a cache."""

    @cached(cache=cache)
    def square(number: int) -> int:
        return number * number

    @cached(cache=cache)
    async def asks(number: int) -> int:
        return square(number) + square(number)

    async def main() -> int:
        return square(3) + square(3) + await asks(3)

    assert asyncio.run(main()) == 36


def test_it_does_not_wait_for_what_waits_for_it(cache: CacheManager) -> None:
    """A task of the loop that it blocks loads the same key, and could not go on."""
    key = cache.key_builder.build_key("function", "same")

    @cached(key_func=lambda: "same", cache=cache)
    def blocking() -> str:
        return "blocking"

    async def main() -> tuple[str, object]:
        gate = asyncio.Event()

        async def load() -> str:
            await gate.wait()
            return "task"

        task = asyncio.create_task(cache.get_or_compute(key, load))
        while not cache._engine.flights._flights:
            await asyncio.sleep(0.001)
        first = blocking()
        for function in (blocking.refresh, blocking.invalidate):
            with pytest.raises(RecursiveLoadError, match="call it in another thread"):
                function()
        gate.set()
        return first, await task

    assert asyncio.run(main()) == ("blocking", "task")
    assert blocking() == "task"


def test_a_task_may_wait_for_a_thread(cache: CacheManager) -> None:
    key = cache.key_builder.build_key("function", "same")
    began, go = threading.Event(), threading.Event()

    @cached(key_func=lambda: "same", cache=cache)
    def blocking() -> str:
        began.set()
        assert go.wait(WITHIN)
        return "thread"

    async def load() -> str:
        return "task"

    async def main() -> str:
        task = asyncio.create_task(cache.get_or_compute(key, load))
        while not cache._engine.flights.waiting:
            await asyncio.sleep(0.001)
        go.set()
        return await task

    def second() -> str:
        assert began.wait(WITHIN)
        return asyncio.run(main())

    assert in_threads(blocking, second) == ["thread", "thread"]


def test_one_call_can_be_invalidated_and_made_anew(cache: CacheManager) -> None:
    versions = iter(range(1, 10))

    @cached(cache=cache)
    def page(number: int) -> int:
        return next(versions)

    assert not page.invalidate(1)
    assert page(1) == 1
    assert page.invalidate(number=1)
    assert page(1) == 2
    assert page.refresh(1) == 3
    assert page(1) == 3
    assert asyncio.run(cache.get(page.key_for(1))) == 3


def test_a_function_that_refreshes_early_goes_on_without_its_caller(cache: CacheManager) -> None:
    """Another caller of the key has asked for early refreshes; the refresh needs a thread although nobody waits."""
    key = cache.key_builder.build_key("function", "same")

    async def load() -> str:
        return "first"

    asyncio.run(cache.get_or_compute(key, load, options=EntryOptions(ttl=3600, early_refresh=1e-9)))
    threads: list[threading.Thread] = []

    @cached(key_func=lambda: "same", cache=cache)
    def page() -> str:
        threads.append(threading.current_thread())
        return "second"

    time.sleep(0.001)
    assert page() == "first"
    eventually_blocking(lambda: page() == "second")
    assert threads[0] is not threading.current_thread()


def test_what_returns_something_to_be_awaited_is_refused(cache: CacheManager) -> None:
    async def number() -> int:
        return 1

    @cached(cache=cache)
    def factory() -> Coroutine[Any, Any, int]:
        return number()

    with pytest.raises(TypeError, match="returned something to be awaited"):
        factory()  # type: ignore[unused-coroutine]  # that is the point


def test_an_interrupted_call_leaves_the_others_to_start_again(cache: CacheManager) -> None:
    called: list[int] = []

    @cached(cache=cache)
    def page() -> str:
        called.append(1)
        if len(called) == 1:
            eventually_blocking(lambda: cache._engine.flights.waiting == 1)
            raise KeyboardInterrupt
        return "result"

    results = in_threads(page, page)
    assert sorted(map(type, results), key=str) == sorted([KeyboardInterrupt, str], key=str)
    assert page() == "result"
    assert len(called) == 2


def test_a_stop_iteration_is_no_hang(cache: CacheManager) -> None:
    @cached(cache=cache)
    def ends() -> int:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        ends()


def test_closing_ends_calls_under_way() -> None:
    manager = CacheManager(configuration())
    go = threading.Event()
    began = threading.Event()

    @cached(cache=manager)
    def slow() -> int:
        began.set()
        assert go.wait(WITHIN)
        return 1

    def close() -> None:
        assert began.wait(WITHIN)
        asyncio.run(manager.aclose(0.1))
        go.set()

    result, _ = in_threads(slow, close)
    assert isinstance(result, CacheClosedError)
    with pytest.raises(CacheClosedError):
        slow()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_calls_for_itself() -> None:
    printed = run_script(
        """
        import os, sys, warnings
        from aurelis.cache import cached

        warnings.simplefilter("ignore", DeprecationWarning)

        @cached()
        def square(number: int) -> int:
            print("called", flush=True)
            return number * number

        square(3)
        pid = os.fork()
        if pid == 0:
            print(square(3), square(4), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(square(4))
        """
    )
    assert printed == "called\ncalled\n9 16\ncalled\n16\n"


def test_errors_of_the_library_are_those_of_the_async_function(cache: CacheManager) -> None:
    @cached(cache=cache)
    def page() -> int:
        return 1

    page()
    with pytest.raises(TypeError):
        page(1)  # type: ignore[call-arg]  # that is the point
    assert issubclass(RecursiveLoadError, CacheError)
