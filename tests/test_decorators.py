"""`cached`: functions cached by their arguments."""

import asyncio
import doctest
import functools
import inspect
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache import (
    CacheInvalidator,
    CacheManager,
    UnifiedCacheManager,
    cached,
    cached_method,
    decorators,
    get_cache_manager,
    set_cache_manager,
)
from aurelis.cache._call_keys import CallKeys
from aurelis.cache.exceptions import ConfigurationError, UnkeyableError
from aurelis.cache.testing import ManualClock
from tests.managers import WITHIN, configuration, opened, requests, run_script


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
async def cache(clock: ManualClock) -> AsyncIterator[CacheManager]:
    """A cache in memory."""
    async with opened(clock=clock) as manager:
        yield manager


@pytest.fixture
def process() -> Iterator[None]:
    """Leaves the process's manager as it was."""
    set_cache_manager(None)
    yield
    set_cache_manager(None)


class Calls:
    """Records the arguments of each call."""

    def __init__(self) -> None:
        self.made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __len__(self) -> int:
        return len(self.made)

    async def __call__(self, *args: Any, **kwargs: Any) -> int:
        self.made.append((args, kwargs))
        await asyncio.sleep(0)
        return len(self.made)


def test_the_examples_run() -> None:
    set_cache_manager(None)
    results = doctest.testmod(decorators)
    set_cache_manager(None)
    assert results.attempted
    assert not results.failed


async def test_equal_arguments_call_the_function_once(cache: CacheManager) -> None:
    calls = Calls()

    @cached(cache=cache)
    async def function(a: int, b: str = "b", *, c: float = 0.0) -> int:
        return await calls(a, b, c)

    same = [
        await function(1),
        await function(1, "b"),
        await function(a=1),
        await function(b="b", a=1),
        await function(1, c=0.0),
    ]
    assert same == [1] * 5
    assert calls.made == [((1, "b", 0.0), {})]
    assert requests(cache) == {"miss": 1, "loads": 1, "hit l1": 4}


DIFFERENT: list[Any] = [
    *(0, False, 0.0, -0.0, "0", b"0", None, "", b"", ()),
    *(1, True, 1.0, "1", [1], (1,), {1}, {1: 1}, {"1": 1}, {1: "1"}, [[1]], [(1,)], math.nan, math.inf),
]


async def test_arguments_are_told_apart_by_value_and_type(cache: CacheManager) -> None:
    calls = Calls()

    @cached(cache=cache)
    async def function(argument: object) -> int:
        return await calls(argument)

    expected = list(range(1, len(DIFFERENT) + 1))
    for _ in range(2):
        assert [await function(argument) for argument in DIFFERENT] == expected
    for number, argument in zip(expected, DIFFERENT, strict=True):
        assert await function(argument=argument) == number


@given(st.lists(st.one_of(st.integers(-2, 2), st.booleans(), st.sampled_from(["", "1", b"1", None])), max_size=3))
async def test_remembered_keys_are_those_that_are_built(arguments: list[Any]) -> None:
    """Positional arguments of simple types take a short cut, which must not make a difference."""

    async def function(*args: Any) -> None: ...

    manager = CacheManager(configuration())
    keys = CallKeys(function, None, "function")
    built = manager.key_builder.build_key("function", keys._name, {"args": tuple(arguments)})
    assert keys.key(manager.key_builder, tuple(arguments), {}) == built
    assert keys.key(manager.key_builder, tuple(arguments), {}) == built


async def test_functions_do_not_share_their_results(cache: CacheManager) -> None:
    @cached(cache=cache)
    async def first(a: int) -> str:
        return f"first {a}"

    @cached(cache=cache)
    async def second(a: int) -> str:
        return f"second {a}"

    assert [await first(1), await second(1)] == ["first 1", "second 1"]


async def test_what_a_function_closes_over_counts_like_an_argument(
    cache: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Two functions of one factory have the same name."""

    def factory(factor: float, names: tuple[str, ...] = ()) -> Callable[[int], Awaitable[str]]:
        calls = 0

        @cached(cache=cache)
        async def function(a: int) -> str:
            nonlocal calls
            calls += 1
            return f"{a * factor} {names} {calls}"

        return function

    assert [await factory(2)(10), await factory(2.0)(10), await factory(3)(10), await factory(2, ("x",))(10)] == [
        "20 () 1",
        "20.0 () 1",
        "30 () 1",
        "20 ('x',) 1",
    ]
    again = factory(2)
    assert await again(10) == "20 () 1"
    assert await again(11) == "22 () 1"
    assert await again(12) == "24 () 2"  # what it assigns itself is no argument
    assert not caplog.records


async def test_variable_arguments_are_part_of_the_key(cache: CacheManager) -> None:
    calls = Calls()

    @cached(cache=cache)
    async def function(*args: int, **kwargs: int) -> int:
        return await calls(*args, **kwargs)

    results = [await function(), await function(1), await function(1, 2), await function(a=1), await function(1, a=1)]
    assert results == [1, 2, 3, 4, 5]
    assert await function(1, a=1) == 5
    assert await function(b=2, a=1) == await function(a=1, b=2) == 6


async def test_concurrent_calls_share_one(cache: CacheManager) -> None:
    calls = Calls()

    @cached(cache=cache)
    async def function(a: int) -> int:
        return await calls(a)

    assert await asyncio.gather(*(function(1) for _ in range(100))) == [1] * 100


async def test_none_and_mutable_results_are_cached_as_by_the_manager(cache: CacheManager) -> None:
    calls = Calls()

    @cached(cache=cache)
    async def nothing() -> None:
        await calls()

    @cached(cache=cache)
    async def rows() -> list[int]:
        return [1]

    await nothing()
    await nothing()
    assert len(calls) == 1
    (await rows()).append(2)
    assert await rows() == [1]


async def test_an_error_reaches_the_caller_and_is_not_cached(cache: CacheManager) -> None:
    calls = Calls()

    @cached(cache=cache)
    async def function() -> int:
        if await calls() == 1:
            raise LookupError("once")
        return len(calls)

    with pytest.raises(LookupError, match="once"):
        await function()
    assert await function() == 2


async def test_arguments_that_do_not_fit_raise_as_they_do_without_a_cache(cache: CacheManager) -> None:
    @cached(cache=cache)
    async def function(a: int) -> int:
        return a

    for attempt in (
        function(),  # type: ignore[call-arg]  # that is the point
        function(1, 2),  # type: ignore[call-arg]
        function(b=1),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            await attempt


# --- wrong use


def test_parentheses_are_needed() -> None:
    async def function() -> int:
        return 1

    with pytest.raises(ConfigurationError, match=r"write @cached\(\)"):
        cached(function)  # type: ignore[arg-type]  # the mistake


def test_a_key_func_must_be_a_function() -> None:
    with pytest.raises(ConfigurationError, match="key_func takes the arguments of a call"):
        cached(key_func="user")  # type: ignore[arg-type]  # the mistake


# --- lives


@pytest.mark.parametrize("ttl", [60, timedelta(minutes=1)], ids=repr)
async def test_a_result_lives_for_the_ttl(cache: CacheManager, clock: ManualClock, ttl: float | timedelta) -> None:
    calls = Calls()

    @cached(ttl, cache=cache)
    async def function() -> int:
        return await calls()

    clock.advance(59)
    assert await function() == 1
    clock.advance(59)
    assert await function() == 1
    clock.advance(1)
    assert await function() == 2


async def test_without_a_ttl_a_result_lives_for_an_hour(clock: ManualClock) -> None:
    calls = Calls()
    async with opened(configuration(ttl=5), clock=clock) as cache:

        @cached(cache=cache)
        async def function() -> int:
            return await calls()

        await function()
        clock.advance(3599)
        assert await function() == 1
        clock.advance(1)
        assert await function() == 2


async def test_with_a_ttl_of_zero_calls_are_shared_and_nothing_is_kept(cache: CacheManager) -> None:
    calls = Calls()

    @cached(ttl=0, cache=cache)
    async def function() -> int:
        return await calls()

    assert await asyncio.gather(*(function() for _ in range(5))) == [1] * 5
    assert await function() == 2


@pytest.mark.parametrize("ttl", [-1, math.nan], ids=repr)
def test_a_ttl_that_is_negative_or_no_number_is_refused_where_it_is_written(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        cached(ttl)


# --- keys of one's own


async def test_a_key_function_makes_the_identifier(cache: CacheManager) -> None:
    calls = Calls()

    @cached(key_func=lambda session, user: f"user:{user}", category="users", cache=cache)
    async def load(session: object, user: int) -> int:
        return await calls(user)

    assert [await load(object(), 1), await load(object(), user=1), await load(object(), 2)] == [1, 1, 2]
    assert await UnifiedCacheManager(cache).get("users", "user:1") == 1


async def test_a_key_function_that_gives_no_text_is_refused(cache: CacheManager) -> None:
    @cached(key_func=lambda a: a, cache=cache)
    async def function(a: int) -> int:
        return a

    with pytest.raises(UnkeyableError, match="identifier"):
        await function(1)


async def test_a_category_keeps_functions_apart(cache: CacheManager) -> None:
    async def function() -> int:
        return await calls()

    calls = Calls()
    first = cached(category="a", cache=cache)(function)
    second = cached(category="b", cache=cache)(function)
    assert [await first(), await second(), await first()] == [1, 2, 1]


async def test_an_argument_that_cannot_be_a_key_is_named_and_the_function_is_not_called(cache: CacheManager) -> None:
    calls = Calls()

    class Service:
        @cached(cache=cache)
        async def method(self, a: int) -> int:
            return await calls(a)

    @cached(cache=cache)
    async def function(session: object) -> int:
        return await calls(session)

    with pytest.raises(UnkeyableError, match="self"):
        await Service().method(1)  # type: ignore[call-arg, arg-type]  # a function does not bind
    with pytest.raises(UnkeyableError, match="session"):
        await function(object())
    assert len(calls) == 0


async def test_what_already_holds_arguments_needs_a_key_function(cache: CacheManager) -> None:
    """Of two clients' bound methods the keys would be the same, and one would get what the other loaded."""

    class Client:
        def __init__(self, name: str) -> None:
            self.name = name

        async def fetch(self, a: int) -> str:
            return f"{self.name} {a}"

    async def function(name: str, a: int) -> str:
        return f"{name} {a}"

    for kind in ("method", "partial"):
        wrapped: Any = Client("one").fetch if kind == "method" else functools.partial(function, "one")
        with pytest.raises(ConfigurationError, match=f"{kind}.*key_func"):
            cached(cache=cache)(wrapped)
        fetch = cached(key_func=lambda a: f"one:{a}", category=kind, cache=cache)(wrapped)
        assert [await fetch(1), await fetch(1)] == ["one 1"] * 2


async def test_what_is_around_something_that_holds_arguments_needs_a_key_function(cache: CacheManager) -> None:
    class Client:
        async def fetch(self, a: int) -> int:
            return a

    def around(function: Any) -> Any:
        @functools.wraps(function)
        async def inner(*args: Any) -> Any:
            return await function(*args)

        return inner

    for wrapped in (around(Client().fetch), around(functools.partial(Client().fetch))):
        with pytest.raises(ConfigurationError, match=r"may hold arguments.*key_func"):
            cached(cache=cache)(wrapped)


def test_a_function_without_a_name_needs_a_key_function(cache: CacheManager) -> None:
    """Otherwise all of a module would have one key for the same arguments."""
    with pytest.raises(ConfigurationError, match=r"lambdas.*key_func"):
        cached(cache=cache)(lambda a: a)
    double = cached(key_func=lambda a: f"double:{a}", cache=cache)(lambda a: 2 * a)
    triple = cached(key_func=lambda a: f"triple:{a}", cache=cache)(lambda a: 3 * a)
    assert [double(1), triple(1)] == [2, 3]


async def test_what_a_wrapped_function_closes_over_counts_too(cache: CacheManager) -> None:
    def logged(function: Callable[[int], Awaitable[int]], times: int = 1) -> Callable[[int], Awaitable[int]]:
        @functools.wraps(function)
        async def inner(a: int) -> int:
            return await function(a) * times

        return inner

    def times(factor: int) -> Any:
        async def function(a: int) -> int:
            return a * factor

        return cached(cache=cache)(logged(logged(function)))

    assert [await times(2)(7), await times(3)(7)] == [14, 21]
    assert times(2).key_for(7) == times(2).key_for(7)


async def test_a_function_may_close_over_a_time_zone(cache: CacheManager) -> None:
    def clock(zone: tzinfo) -> Any:
        @cached(cache=cache)
        async def show(hour: int) -> str:
            return str(datetime(2026, 1, 1, hour, tzinfo=UTC).astimezone(zone).time())

        return show

    zones = (UTC, timezone(timedelta(hours=1)), ZoneInfo("America/New_York"))
    assert [await clock(zone)(12) for zone in zones] == ["12:00:00", "13:00:00", "07:00:00"]


async def generator() -> AsyncIterator[int]:
    """An asynchronous generator."""
    yield 1


def plain_generator() -> Iterator[int]:
    """A generator."""
    yield 1


@pytest.mark.parametrize("function", [int, None], ids=["class", "none"])
def test_what_is_no_function_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="takes functions and coroutine functions"):
        cached()(function)


@pytest.mark.parametrize("function", [generator, plain_generator])
def test_a_generator_is_refused(function: Any) -> None:
    """It can be read once."""
    with pytest.raises(ConfigurationError, match="is a generator; return a list"):
        cached()(function)


async def test_long_arguments_are_not_kept_alive_by_the_memory_of_keys(cache: CacheManager) -> None:
    @cached(cache=cache)
    async def function(prompt: str) -> int:
        return len(prompt)

    keys = inspect.getclosurevars(function).nonlocals["key_of"].__self__
    await function("short")
    assert len(keys._known) == 1
    assert await function("x" * 10_000) == 10_000
    assert len(keys._known) == 1
    for number in range(3000):
        await function(str(number))
    assert len(keys._known) == 1024


# --- the wrapper


async def test_the_wrapper_looks_like_the_function(cache: CacheManager) -> None:
    @cached(cache=cache)
    async def function(a: int, b: str = "b") -> int:
        """Its documentation."""
        return a

    assert function.__name__ == "function"
    assert function.__doc__ == "Its documentation."
    assert str(inspect.signature(function)) == "(a: int, b: str = 'b') -> int"
    assert inspect.iscoroutinefunction(function)


async def test_either_kind_of_manager_will_do(cache: CacheManager) -> None:
    @cached(cache=UnifiedCacheManager(cache))
    async def function() -> int:
        return 1

    await function()
    assert requests(cache) == {"miss": 1, "loads": 1}
    with pytest.raises(TypeError, match="cache must be a CacheManager"):
        cached(cache={})  # type: ignore[arg-type]  # that is the point


@pytest.mark.usefixtures("process")
async def test_without_a_manager_that_of_the_process_is_found_at_each_call(cache: CacheManager) -> None:
    calls = Calls()

    @cached()
    async def function() -> int:
        return await calls()

    set_cache_manager(cache)
    assert await function() == 1
    async with opened() as other:
        set_cache_manager(other)
        assert await function() == 2
        set_cache_manager(cache)
        assert await function() == 1


def test_nothing_is_made_when_a_module_is_imported() -> None:
    printed = run_script(
        """
        import asyncio, threading
        from aurelis.cache import cached, manager

        @cached(ttl=60)
        async def function() -> int:
            return 1

        assert manager._process.manager is None
        assert threading.active_count() == 1
        print(asyncio.run(function()), asyncio.run(function()))
        assert manager._process.manager is not None
        """
    )
    assert printed == "1 1\n"


def test_keys_are_the_same_in_every_process(redis_url: str) -> None:
    source = """
        import asyncio, sys
        from aurelis.cache import CacheConfig, CacheManager, cached

        cache = CacheManager(CacheConfig(redis_url=sys.argv[1], timeout=10))

        @cached(cache=cache)
        async def function(a: object, b: object) -> str:
            print("called")
            return "result"

        async def main() -> None:
            async with cache:
                print(await function({"x", "y", "z"}, {"k": (1, 2.5, None)}))

        asyncio.run(main())
    """
    outputs = [run_script(source, redis_url, PYTHONHASHSEED=seed) for seed in "123"]
    assert outputs == ["called\nresult\n", "result\n", "result\n"]


@pytest.mark.usefixtures("process")
def test_threads_with_loops_of_their_own_share_a_decorated_function() -> None:
    lock = threading.Lock()
    called: list[int] = []

    @cached()
    async def function(number: int) -> int:
        with lock:
            called.append(number)
        await asyncio.sleep(0)
        return number

    def work() -> None:
        async def main() -> None:
            assert [await function(number) for number in range(300)] == list(range(300))

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert sorted(called) == list(range(300))
    asyncio.run(get_cache_manager().aclose())


# --- as the interface uses it


@pytest.mark.usefixtures("process")
async def test_the_usages_of_the_interface(cache: CacheManager) -> None:
    set_cache_manager(cache)
    called: list[str] = []

    @cached(ttl=3600, category="model_responses")
    async def get_model_response(model_type: str, prompt: str) -> str:
        called.append("response")
        return f"{model_type}: {prompt}"

    @cached(ttl=1800, key_func=lambda user_id, options: f"user:{user_id}:{hash(str(options))}")
    async def get_user_data(user_id: str, options: dict[str, Any]) -> dict[str, Any]:
        called.append("user")
        return {"id": user_id, **options}

    class ModelService:
        @cached_method(ttl=3600, category="models")
        async def get_model_info(self, model_type: str) -> dict[str, Any]:
            called.append("info")
            return {"model": model_type}

        @cached_method(ttl=600, invalidate_on=["model_config_updated"])
        async def get_model_config(self, model_type: str) -> list[str]:
            called.append("config")
            return [model_type]

    service = ModelService()
    for _ in range(2):
        assert await get_model_response("gpt-4o", "hello") == "gpt-4o: hello"
        assert await get_user_data("7", {"lang": "de"}) == {"id": "7", "lang": "de"}
        assert await service.get_model_info("gpt-4o") == {"model": "gpt-4o"}
        assert await service.get_model_config("gpt-4o") == ["gpt-4o"]
    assert called == ["response", "user", "info", "config"]

    invalidator = CacheInvalidator(cache)
    invalidator.register_invalidation_rule(
        trigger="model_config_updated", targets=["category:model_responses", "category:models"]
    )
    await invalidator.invalidate_on_event("model_config_updated", context={"model_type": "gpt-4o"})
    await get_model_response("gpt-4o", "hello")
    await get_user_data("7", {"lang": "de"})
    await service.get_model_info("gpt-4o")
    await service.get_model_config("gpt-4o")
    assert called[4:] == ["response", "info", "config"]
