"""`CacheManager`: values, lives, copies, loads shared by their callers, and what an invalidation does to them."""

import asyncio
import contextlib
import contextvars
import doctest
import logging
import math
import random
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheLayer, CacheManager, _guard, manager
from aurelis.cache.exceptions import CacheClosedError, CacheError, RecursiveLoadError, UnstorableValueError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock, SharedMemory
from aurelis.cache.testing._layer_contract import ODD_KEYS
from aurelis.cache.typing import SharedLayer
from tests.broken_layers import Kept, Plain
from tests.codecs import examples as ex
from tests.codecs.examples import same
from tests.codecs.test_values import EXACT
from tests.managers import WITHIN, configuration, count, eventually, opened, requests, run_script, series

PATIENT = 10.0
"""Timeout where nothing is meant to time out."""

Gone = object()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
async def cache(clock: ManualClock) -> AsyncIterator[CacheManager]:
    """A cache in memory alone."""
    async with opened(clock=clock) as memory:
        yield memory


@pytest.fixture
async def shared(redis_url: str, clock: ManualClock) -> AsyncIterator[CacheManager]:
    """A cache over a Redis."""
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT), clock=clock) as layered:
        yield layered


@pytest.fixture
async def neighbour(redis_url: str, clock: ManualClock) -> AsyncIterator[CacheManager]:
    """Another process, as far as the cache can tell: the same Redis and namespace, a memory of its own."""
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT), clock=clock) as layered:
        yield layered


@pytest.fixture(params=["memory", "redis", "redis alone"])
async def each(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[CacheManager]:
    """Each arrangement of layers in turn."""
    config = configuration()
    if request.param != "memory":
        url = request.getfixturevalue("redis_url")
        layers = [CacheLayer("L2", "redis", 3600)] if request.param == "redis alone" else None
        config = configuration(redis_url=url, timeout=PATIENT, layers=layers)
    async with opened(config, clock=clock) as layered:
        yield layered


class Origin:
    """Counts its loads; they wait until they are let go."""

    def __init__(self, value: object = "value", *, waits: bool = True) -> None:
        self.value = value
        self.loads = 0
        self.cancelled = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        if not waits:
            self.go.set()

    async def load(self) -> Any:
        self.loads += 1
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def constant(value: object) -> Callable[[], Awaitable[Any]]:
    """Returns a load that gives this value."""

    async def load() -> Any:
        return value

    return load


async def callers(cache: CacheManager, origin: Origin, number: int, key: str = "k") -> list[asyncio.Task[Any]]:
    """Returns that many callers of one key, all of which wait for its load."""
    tasks = [asyncio.create_task(cache.get_or_compute(key, origin.load)) for _ in range(number)]
    await asyncio.wait_for(origin.begun.wait(), WITHIN)
    await eventually(lambda: cache._engine.flights.waiting == number - 1)
    return tasks


# --- values


@pytest.mark.parametrize("module", [manager], ids=["manager"])
def test_the_examples_run(module: Any) -> None:  # `Any`: a module
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed


async def test_what_was_set_is_got_until_it_is_deleted(each: CacheManager) -> None:
    assert await each.get("k") is None
    assert await each.get("k", "default") == "default"
    assert await each.set("k", {"a": [1]}) is True
    assert await each.get("k", "default") == {"a": [1]}
    assert await each.delete("k") is True
    assert await each.delete("k") is False
    assert await each.get("k", Gone) is Gone


async def test_none_is_a_value(each: CacheManager) -> None:
    origin = Origin(None, waits=False)
    await each.set("k", None)
    assert await each.get("k", Gone) is None
    assert await each.get_many(["k"]) == {"k": None}
    assert await each.get_or_compute("k", constant(1)) is None
    assert await each.get_or_compute("computed", origin.load) is None
    assert await each.get_or_compute("computed", origin.load) is None
    assert origin.loads == 1


async def test_many_are_set_and_got_in_the_order_asked(each: CacheManager) -> None:
    assert await each.set_many({"a": 1, "b": None, "c": [3]}) is True
    found = await each.get_many(["c", "missing", "a", "b", "a"])
    assert list(found.items()) == [("c", [3]), ("a", 1), ("b", None)]
    assert await each.get_many([]) == {}
    assert await each.set_many({}) is True


async def test_many_may_come_from_an_iterator(each: CacheManager) -> None:
    await each.set_many({"a": 1, "b": 2})
    assert await each.get_many(key for key in "ab") == {"a": 1, "b": 2}


async def test_clear_forgets_everything(each: CacheManager) -> None:
    await each.set_many({f"k{number}": number for number in range(1200)})
    await each.clear()
    assert await each.get_many([f"k{number}" for number in range(1200)]) == {}
    await each.clear()


async def test_odd_keys_are_kept_apart(each: CacheManager) -> None:
    await each.set_many({key: number for number, key in enumerate(ODD_KEYS)})
    assert await each.get_many(ODD_KEYS) == {key: number for number, key in enumerate(ODD_KEYS)}
    for number, key in enumerate(ODD_KEYS):
        assert await each.get(key) == number
        assert await each.get_or_compute(key, constant("never")) == number


@pytest.mark.parametrize("key", [None, 1, b"k", ("k",)], ids=repr)
async def test_a_key_that_is_no_text_is_refused(each: CacheManager, key: Any) -> None:
    for attempt in (
        each.get(key),
        each.set(key, 1),
        each.delete(key),
        each.get_many([key]),
        each.set_many({key: 1}),
        each.get_or_compute(key, constant(1)),
    ):
        with pytest.raises(TypeError, match=f"a key must be a str, not {type(key).__name__}"):
            await attempt


async def test_a_value_that_cannot_be_stored_is_refused_by_name_and_changes_nothing(each: CacheManager) -> None:
    class Session:
        pass

    await each.set_many({"a": "old", "b": "old"})
    with pytest.raises(UnstorableValueError, match=r"Session") as caught:
        await each.set("a", {"user": Session()})
    assert caught.value.type_name.endswith("Session")
    assert isinstance(caught.value, TypeError)
    with pytest.raises(UnstorableValueError):
        await each.set_many({"a": "new", "b": Session()})
    assert await each.get_many(["a", "b"]) == {"a": "old", "b": "old"}


async def test_a_loaded_value_that_cannot_be_stored_is_returned_and_warned_of_once_per_type(
    each: CacheManager, caplog: pytest.LogCaptureFixture
) -> None:
    class Session:
        pass

    class Cursor:
        pass

    for kind in (Session, Cursor, Session, Cursor):
        value = kind()
        assert await each.get_or_compute("k", constant(value)) is value
    assert await each.get("k", Gone) is Gone
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [name for record in warnings for name in ("Session", "Cursor") if name in record.getMessage()] == [
        "Session",
        "Cursor",
    ]
    assert count(each, names.STORES, {names.STORE_RESULT: "unstorable"}) == 4


# --- exact round trips


@pytest.mark.parametrize("name", EXACT)
async def test_values_come_back_exactly_from_redis(redis_url: str, name: str) -> None:
    clock = ManualClock()
    value = EXACT[name]
    config = configuration(redis_url=redis_url, timeout=PATIENT, types=ex.TYPES)
    async with opened(config, clock=clock) as cache:
        await cache.set("set", value)
        loaded = await cache.get_or_compute("computed", constant(value))
        assert loaded is value
        for _ in range(2):
            assert same(await cache.get("set"), value)
            clock.advance(seconds_of(cache.config.l1_ttl))  # what memory holds is gone, what Redis holds is not
            for key in ("set", "computed"):
                assert same((await cache.get_many([key]))[key], value)  # from Redis
                assert same(await cache.get_or_compute(key, constant("never")), value)  # promoted
        assert requests(cache)["hit l2"] == 4


def seconds_of(duration: float | timedelta) -> float:
    """Returns a duration of a configuration as a number."""
    assert not isinstance(duration, timedelta)
    return duration


# --- lives


@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)], ids=repr)
async def test_a_value_lives_for_its_ttl(cache: CacheManager, clock: ManualClock, ttl: float | timedelta) -> None:
    await cache.set("set", 1, ttl)
    await cache.set_many({"many": 1}, ttl)
    await cache.get_or_compute("computed", constant(1), ttl)
    clock.advance(59.5)
    assert await cache.get_many(["set", "many", "computed"]) == {"set": 1, "many": 1, "computed": 1}
    clock.advance(0.5)
    assert await cache.get_many(["set", "many", "computed"]) == {}
    assert await cache.get("set", Gone) is Gone
    assert await cache.get_or_compute("computed", constant(2)) == 2


async def test_without_a_ttl_a_value_lives_for_that_of_the_configuration(clock: ManualClock) -> None:
    async with opened(configuration(ttl=timedelta(seconds=10)), clock=clock) as cache:
        await cache.set("k", 1)
        await cache.get_or_compute("l", constant(1), None)
        clock.advance(9)
        assert await cache.get_many("kl") == {"k": 1, "l": 1}
        clock.advance(1)
        assert await cache.get_many("kl") == {}


async def test_an_infinite_ttl_never_ends(cache: CacheManager, clock: ManualClock) -> None:
    await cache.set("k", 1, math.inf)
    clock.advance(timedelta(days=36_500))
    assert await cache.get("k") == 1


@pytest.mark.parametrize("ttl", [0, 0.0, timedelta(0)], ids=repr)
async def test_a_ttl_of_zero_keeps_nothing_and_forgets_what_was_there(
    each: CacheManager, ttl: float | timedelta
) -> None:
    await each.set_many({"a": 1, "b": 1})
    assert await each.set("a", 2, ttl)
    assert await each.set_many({"b": 2}, ttl)
    assert await each.get_many("ab") == {}
    assert await each.get_or_compute("c", constant(1), ttl) == 1
    assert await each.get("c", Gone) is Gone


@pytest.mark.parametrize("ttl", [-1, math.nan, timedelta(seconds=-1)], ids=repr)
async def test_a_ttl_that_is_negative_or_no_number_is_refused(each: CacheManager, ttl: float | timedelta) -> None:
    origin = Origin(waits=False)
    await each.set("there", 1)
    for attempt in (
        each.set("k", 1, ttl),
        each.set_many({"k": 1}, ttl),
        each.get_or_compute("k", origin.load, ttl),
        each.get_or_compute("there", origin.load, ttl),  # not only when it has to be loaded
    ):
        with pytest.raises(ValueError, match="ttl must be 0 or more seconds"):
            await attempt
    assert origin.loads == 0


async def test_memory_forgets_a_shared_value_when_another_process_sets_it(
    shared: CacheManager, neighbour: CacheManager
) -> None:
    await shared.set("k", "old", ttl=3600)
    await neighbour.set("k", "new", ttl=3600)
    async with asyncio.timeout(WITHIN):
        while await shared.get("k") != "new":
            await asyncio.sleep(0.001)


async def test_a_promoted_value_lives_no_longer_than_in_redis(
    shared: CacheManager, neighbour: CacheManager, clock: ManualClock
) -> None:
    await neighbour.set("k", 1, ttl=100)
    assert await shared.get("k") == 1
    clock.advance(99)
    assert await shared.get("k") == 1
    assert requests(shared) == {"hit l2": 1, "hit l1": 1}
    # The server, whose time does not move with this clock, would still have it.
    entry = shared._engine.stack.peek("k")
    assert entry is not None
    assert 0 < entry.expires - clock.monotonic() <= 1


async def test_a_promoted_value_lives_no_longer_than_memory_keeps_values(
    shared: CacheManager, neighbour: CacheManager, clock: ManualClock
) -> None:
    await neighbour.set("k", 1, ttl=math.inf)
    assert await shared.get("k") == 1
    assert await shared.get_or_compute("k", constant(2)) == 1
    clock.advance(300)
    assert shared._engine.stack.peek("k") is None
    assert await shared.get("k") == 1
    assert requests(shared)["hit l2"] == 2


async def test_a_short_ttl_holds_in_every_layer(shared: CacheManager, clock: ManualClock) -> None:
    await shared.set("k", 1, ttl=0.05)
    deadline = asyncio.get_running_loop().time() + WITHIN
    clock.advance(0.05)
    while await shared.get("k", Gone) is not Gone:  # Redis goes by its own time
        assert asyncio.get_running_loop().time() < deadline
        clock.advance(0.05)


# --- copies


@pytest.mark.parametrize("promoted", [False, True], ids=["memory", "promoted"])
async def test_no_caller_can_change_what_another_one_gets(
    shared: CacheManager, clock: ManualClock, promoted: bool
) -> None:
    value = {"rows": [1]}
    await shared.set("k", value)
    value["rows"].append(2)
    if promoted:
        clock.advance(300)
    for _ in range(3):
        got = await shared.get("k")
        assert got == {"rows": [1]}
        got["rows"].append(3)
        got = (await shared.get_many(["k"]))["k"]
        assert got == {"rows": [1]}
        got["rows"].append(4)
        got = await shared.get_or_compute("k", constant(None))
        assert got == {"rows": [1]}
        got["rows"].append(5)


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_callers_of_one_load_get_values_of_their_own(
    where: str, shared: CacheManager, cache: CacheManager, neighbour: CacheManager
) -> None:
    subject = cache if where == "memory" else shared
    if where == "redis":
        await neighbour.set("k", {"rows": []})
        values = await asyncio.gather(*(subject.get_or_compute("k", constant(None)) for _ in range(20)))
    else:
        origin = Origin({"rows": []})
        tasks = await callers(subject, origin, 20)
        origin.go.set()
        values = await asyncio.gather(*tasks)
    values.append(await subject.get("k"))
    assert len({id(value) for value in values}) == 21
    for value in values:
        assert value == {"rows": []}
        value["rows"].append(1)


async def test_what_nobody_can_change_is_shared(cache: CacheManager) -> None:
    value = ("a", ("b" * 100,))
    await cache.set("k", value)
    assert await cache.get("k") is value


async def test_without_copies_everybody_gets_the_object_itself() -> None:
    async with opened(configuration(copy=False)) as cache:
        value = object()
        await cache.set("k", value)
        assert await cache.get("k") is value
        origin = Origin([1])
        tasks = await callers(cache, origin, 5, "computed")
        origin.go.set()
        assert {id(got) for got in await asyncio.gather(*tasks)} == {id(origin.value)}
        assert await cache.get("computed") is origin.value


# --- bounds


async def test_memory_is_bounded_by_entries_and_says_what_it_dropped() -> None:
    async with opened(configuration(max_size=10)) as cache:
        for number in range(25):
            await cache.set(str(number), number)
        assert count(cache, names.ENTRIES) == 10
        assert count(cache, names.EVICTIONS, {names.REASON: "capacity"}) == 15
        assert await cache.get_many(map(str, range(25))) == {str(number): number for number in range(15, 25)}


async def test_memory_is_bounded_by_bytes_and_says_how_many_it_holds() -> None:
    async with opened(configuration(max_bytes=100_000)) as cache:
        for number in range(30):
            await cache.set(str(number), "x" * 10_000)
        assert 80_000 < count(cache, names.USAGE) <= 100_000
        assert count(cache, names.LIMIT) == 100_000
        assert count(cache, names.ENTRIES) + count(cache, names.EVICTIONS) == 30


async def test_a_value_too_large_for_memory_is_kept_by_redis(redis_url: str) -> None:
    async with opened(configuration(redis_url=redis_url, max_bytes=1000, timeout=PATIENT)) as cache:
        assert not await cache.set("k", "x" * 10_000)
        assert await cache.get("k") == "x" * 10_000
        assert requests(cache) == {"hit l2": 1}


# --- several caches on one Redis


async def test_two_processes_share_through_redis(shared: CacheManager, neighbour: CacheManager) -> None:
    await shared.set("k", [1])
    assert await neighbour.get("k") == [1]
    origin = Origin(waits=False)
    await shared.get_or_compute("l", origin.load)
    assert await neighbour.get_or_compute("l", origin.load) == "value"
    assert origin.loads == 1
    assert requests(neighbour) == {"hit l2": 2}


async def test_clear_touches_its_own_namespace_alone(redis_url: str) -> None:
    namespaces = ["shop", "shop*", "sh?p", "[s]hop", "shop:e", "s"]
    with redis.Redis.from_url(redis_url) as raw:
        raw.set("shop:e", "foreign")
        raw.set("shop:session:1", "foreign")
        async with contextlib.AsyncExitStack() as stack:
            caches = [
                await stack.enter_async_context(
                    opened(configuration(redis_url=redis_url, namespace=namespace, timeout=PATIENT))
                )
                for namespace in namespaces
            ]
            for cleared in caches:
                for cache in caches:
                    await cache.set("k", 1)
                await cleared.clear()
                for cache in caches:
                    assert await cache.get("k", Gone) == (Gone if cache is cleared else 1)
        assert raw.get("shop:e") == raw.get("shop:session:1") == b"foreign"


async def test_foreign_bytes_under_our_key_are_a_miss_that_is_counted(
    shared: CacheManager, neighbour: CacheManager, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        for number, garbage in enumerate([b"", b"garbage", b"AuC\x01 and more"]):
            await neighbour.set(str(number), 1)
            raw.set(f"aurelis:e:{{{number}}}", garbage)
        raw.lpush("aurelis:e:{3}", "a", "list")
        for number in range(4):
            assert await shared.get(str(number), Gone) is Gone
    reasons = {dict(attributes)[names.ERROR_TYPE]: value for attributes, value in series(shared, names.ERRORS).items()}
    assert sum(reasons.values()) == 4
    assert all(reason.startswith("frame_") for reason in reasons)
    assert requests(shared)["miss"] == 4
    assert await shared.get_or_compute("3", constant("ours")) == "ours"
    assert await neighbour.get("3") == "ours"


# --- loads


async def test_a_value_is_loaded_once_and_then_kept(each: CacheManager) -> None:
    origin = Origin(waits=False)
    for _ in range(3):
        assert await each.get_or_compute("k", origin.load) == "value"
    assert origin.loads == 1
    assert await each.get("k") == "value"


async def test_ten_thousand_callers_share_one_load(cache: CacheManager) -> None:
    origin = Origin()
    tasks = await callers(cache, origin, 10_000)
    assert count(cache, names.WAITING) == 9999
    origin.go.set()
    assert set(await asyncio.gather(*tasks)) == {"value"}
    assert origin.loads == 1
    assert requests(cache) == {"miss": 10_000, "loads": 1}
    assert count(cache, names.WAITING) == 0


@pytest.mark.parametrize("leavers", [[0], [4], [0, 1, 2, 3], [1, 2, 3, 4]], ids=repr)
async def test_callers_who_are_cancelled_leave_the_others_with_the_right_answer(
    each: CacheManager, leavers: list[int]
) -> None:
    origin = Origin()
    tasks = await callers(each, origin, 5)
    for index in leavers:
        tasks[index].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[index]
    origin.go.set()
    stayers = [task for index, task in enumerate(tasks) if index not in leavers]
    assert await asyncio.gather(*stayers) == ["value"] * len(stayers)
    assert (origin.loads, origin.cancelled) == (1, 0)
    assert requests(each) == {"miss": 5, "loads": 1}
    assert await each.get("k") == "value"


async def test_when_all_callers_are_cancelled_the_load_is_cancelled_and_nothing_is_kept(each: CacheManager) -> None:
    origin = Origin()
    for task in await callers(each, origin, 5):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await eventually(lambda: origin.cancelled == 1)
    assert requests(each) == {"miss": 5, "loads": 1}
    assert await each.get("k", Gone) is Gone


async def test_a_caller_with_a_timeout_of_its_own_harms_nobody(cache: CacheManager) -> None:
    origin = Origin()
    (patient,) = await callers(cache, origin, 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await cache.get_or_compute("k", origin.load)
    origin.go.set()
    assert await patient == "value"


async def test_the_error_of_a_load_reaches_every_waiter_as_it_was_and_is_not_kept(each: CacheManager) -> None:
    error = ZeroDivisionError("as it was")
    origin = Origin(error)
    tasks = await callers(each, origin, 10)
    origin.go.set()
    lengths = set()
    for task in tasks:
        with pytest.raises(ZeroDivisionError) as caught:
            await task
        assert caught.value is error
        assert error.__cause__ is None
        lengths.add(len(caught.traceback))
    assert len(lengths) == 1
    assert await each.get_or_compute("k", constant("well")) == "well"
    assert requests(each)["loads"] == 2


async def test_a_load_that_raises_before_it_waits_is_like_any_other(cache: CacheManager) -> None:
    def compute() -> Awaitable[int]:
        raise LookupError("at once")

    for _ in range(2):
        with pytest.raises(LookupError):
            await cache.get_or_compute("k", compute)
    with pytest.raises(TypeError):
        await cache.get_or_compute("k", lambda: 1)  # type: ignore[arg-type, return-value]  # that is the point
    assert requests(cache) == {"miss": 3, "loads": 3}


async def test_a_cancellation_inside_of_the_load_is_an_error_and_cancels_no_caller(cache: CacheManager) -> None:
    async def leaks() -> None:
        inner = asyncio.create_task(asyncio.sleep(WITHIN))
        inner.cancel()
        await inner

    results = await asyncio.gather(*(cache.get_or_compute("k", leaks) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [CacheError] * 3
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await cache.get_or_compute("k", constant(1)) == 1


async def test_a_load_may_time_out_inside(cache: CacheManager) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(WITHIN)

    with pytest.raises(TimeoutError):
        await cache.get_or_compute("k", impatient)


async def test_a_load_that_asks_for_its_own_key_raises_instead_of_hanging(each: CacheManager) -> None:
    async def recursive() -> object:
        return await each.get_or_compute("k", recursive)

    async with asyncio.timeout(WITHIN):
        with pytest.raises(RecursiveLoadError):
            await each.get_or_compute("k", recursive)
    assert await each.get_or_compute("k", constant(1)) == 1


async def test_two_loads_that_need_each_other_raise_instead_of_hanging(each: CacheManager) -> None:
    both = asyncio.Barrier(2)

    async def load_a() -> object:
        await both.wait()
        return await each.get_or_compute("b", load_b)

    async def load_b() -> object:
        await both.wait()
        return await each.get_or_compute("a", load_a)

    async with asyncio.timeout(WITHIN):
        results = await asyncio.gather(
            each.get_or_compute("a", load_a), each.get_or_compute("b", load_b), return_exceptions=True
        )
    assert [type(result) for result in results] == [RecursiveLoadError] * 2
    # Of four calls two asked for a load and two for that of the other.
    assert requests(each) == {"miss": 4, "loads": 2}


async def test_loads_may_need_further_loads(each: CacheManager) -> None:
    async def outer() -> Any:
        return await asyncio.gather(*(each.get_or_compute(key, constant(key)) for key in "abcab"))

    assert await each.get_or_compute("outer", outer) == ["a", "b", "c", "a", "b"]


async def test_a_load_sees_the_context_of_who_asked_first_and_changes_nobodys(cache: CacheManager) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def load() -> str:
        seen = variable.get()
        variable.set("changed by the load")
        return seen

    variable.set("of the caller")
    assert await cache.get_or_compute("k", load) == "of the caller"
    assert variable.get() == "of the caller"


async def test_a_cancelled_caller_does_not_keep_a_loaded_value_from_being_stored(redis_url: str) -> None:
    async with opened(configuration(redis_url=redis_url, timeout=PATIENT)) as cache:
        origin = Origin()
        (task,) = await callers(cache, origin, 1)
        origin.go.set()
        await eventually(lambda: cache._engine.stack.peek("k"))  # in memory, and on its way to Redis
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await eventually(lambda: count(cache, names.STORES, {names.STORE_RESULT: "stored"}))
        await cache._engine.stack.memory.remove_all()  # type: ignore[union-attr]  # there is one
        assert await cache.get("k") == "value"


# --- invalidation during a load


@pytest.mark.parametrize("how", ["delete", "clear", "set", "set_many", "set with ttl 0"])
async def test_a_load_that_an_invalidation_has_overtaken_is_not_stored(each: CacheManager, how: str) -> None:
    origin = Origin("old")
    (early,) = await callers(each, origin, 1)
    match how:
        case "delete":
            await each.delete("k")
        case "clear":
            await each.clear()
        case "set":
            await each.set("k", "set")
        case "set_many":
            await each.set_many({"k": "set"})
        case _:
            await each.set("k", "set", ttl=0)
    expected: Any = "set" if how in ("set", "set_many") else Gone
    assert await each.get("k", Gone) == expected
    origin.go.set()
    # Who asked before the invalidation gets what was loaded for it.
    assert await early == "old"
    assert await each.get("k", Gone) == expected
    assert count(each, names.STORES, {names.STORE_RESULT: "fenced"}) == 1


async def test_who_asks_after_an_invalidation_begins_a_load_of_its_own(each: CacheManager) -> None:
    old, new = Origin("old"), Origin("new")
    (early,) = await callers(each, old, 1)
    await each.delete("k")
    (late,) = await callers(each, new, 1)
    new.go.set()
    assert await late == "new"
    old.go.set()
    assert await early == "old"
    assert await each.get("k") == "new"


async def test_a_load_may_invalidate_its_own_key(each: CacheManager) -> None:
    async def load() -> str:
        await each.delete("k")
        return "value"

    async with asyncio.timeout(WITHIN):
        assert await each.get_or_compute("k", load) == "value"
    assert await each.get("k", Gone) is Gone


@pytest.mark.parametrize("how", ["delete", "clear", "set"])
async def test_a_load_that_is_just_being_stored_does_not_overtake_the_invalidation(
    shared: CacheManager, neighbour: CacheManager, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two commands travel on connections of their own; the later one must not arrive first."""
    (guard,) = shared._engine.stack.lower
    layer = guard.layer
    assert isinstance(layer, SharedLayer)
    publish = layer.publish
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow_publish(*args: Any, **kwargs: Any) -> bool:
        if not reached.is_set():
            reached.set()
            await go.wait()
        return await publish(*args, **kwargs)

    monkeypatch.setattr(layer, "publish", slow_publish)
    early = asyncio.create_task(shared.get_or_compute("k", constant("old")))
    await reached.wait()
    invalidation: asyncio.Task[object]
    match how:
        case "delete":
            invalidation = asyncio.create_task(shared.delete("k"))
        case "clear":
            invalidation = asyncio.create_task(shared.clear())
        case _:
            invalidation = asyncio.create_task(shared.set("k", "set"))
    for _ in range(20):
        await asyncio.sleep(0)
    go.set()
    assert await early == "old"
    await invalidation
    expected = "set" if how == "set" else Gone
    assert await shared.get("k", Gone) == expected
    assert await neighbour.get("k", Gone) == expected


async def test_a_value_read_below_before_a_deletion_is_not_promoted_after_it(
    shared: CacheManager, neighbour: CacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await neighbour.set("k", "old")
    (guard,) = shared._engine.stack.lower
    lookup = guard.layer.lookup
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow_lookup(key: str) -> Any:
        found = await lookup(key)
        reached.set()
        await go.wait()
        return found

    monkeypatch.setattr(guard.layer, "lookup", slow_lookup)
    reader = asyncio.create_task(shared.get("k"))
    await reached.wait()
    await shared.delete("k")
    go.set()
    assert await reader == "old"
    monkeypatch.undo()
    assert await shared.get("k", Gone) is Gone


async def test_a_value_read_below_does_not_replace_what_was_set_meanwhile(
    shared: CacheManager, neighbour: CacheManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await neighbour.set("k", "old")
    (guard,) = shared._engine.stack.lower
    lookup_many = guard.layer.lookup_many
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow_lookup(keys: Any) -> Any:
        found = await lookup_many(keys)
        reached.set()
        await go.wait()
        return found

    monkeypatch.setattr(guard.layer, "lookup_many", slow_lookup)
    reader = asyncio.create_task(shared.get_many(["k"]))
    await reached.wait()
    await shared.set("k", "new")
    go.set()
    assert await reader == {"k": "old"}
    assert await shared.get("k") == "new"


# --- any order of operations


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 9), st.sampled_from([None, 0, 5, math.inf])),
        st.tuples(st.sampled_from(["get", "delete", "compute"]), st.sampled_from("abc"), st.integers(0, 9), st.none()),
        st.tuples(st.just("many"), st.just(""), st.integers(0, 9), st.sampled_from([None, 5])),
        st.tuples(st.sampled_from(["clear", "pass"]), st.just(""), st.integers(0, 3), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(OPERATIONS)
async def test_a_cache_in_memory_agrees_with_a_dictionary(operations: list[tuple[str, str, int, float | None]]) -> None:
    await agrees(operations, {}, passing=True)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
async def test_a_cache_over_redis_agrees_with_a_dictionary(
    redis_url: str, operations: list[tuple[str, str, int, float | None]]
) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        raw.flushall()
    await agrees(operations, {"redis_url": redis_url, "timeout": PATIENT}, passing=False)


async def agrees(
    operations: list[tuple[str, str, int, float | None]], options: dict[str, Any], *, passing: bool
) -> None:
    """Plays the operations on a cache and on a dictionary."""
    clock = ManualClock()
    model: dict[str, tuple[list[int], float]] = {}
    calls = loads = 0

    def alive(key: str) -> list[int] | None:
        value, expires = model.get(key, ([], 0.0))
        return value if clock.monotonic() < expires else None

    # One name for all examples: the SDK reports no more than 2 000 series.
    config = configuration(name="test-agrees", ttl=1000, l1_ttl=50, **options)
    requests_before = sum(number for result, number in requests(config.name).items() if result != "loads")
    async with opened(config, clock=clock) as cache:
        for operation, key, number, ttl in operations:
            if ttl == 5 and not passing:
                ttl = math.inf  # Redis goes by its own time
            expires = clock.monotonic() + (1000 if ttl is None else ttl)
            match operation:
                case "set":
                    assert await cache.set(key, [number], ttl)
                    model[key] = [number], expires
                case "get":
                    calls += 1
                    assert await cache.get(key) == alive(key)
                case "delete":
                    assert await cache.delete(key) == (alive(key) is not None)
                    model.pop(key, None)
                case "compute":
                    calls += 1
                    held = alive(key)
                    assert await cache.get_or_compute(key, constant([number])) == (held or [number])
                    if held is None:
                        loads += 1
                        model[key] = [number], expires
                case "many":
                    assert await cache.set_many({"a": [number], "b": [number]}, ttl)
                    model |= {"a": ([number], expires), "b": ([number], expires)}
                    calls += 3
                    assert await cache.get_many("abc") == {k: v for k in "abc" if (v := alive(k)) is not None}
                case "clear":
                    await cache.clear()
                    model.clear()
                case "pass" if passing:
                    clock.advance(number)
                case _:
                    clock.advance(0 if number < 2 else 20)  # memory may forget; Redis does not
        results = requests(cache)
        made = sum(number for result, number in results.items() if result != "loads")
        assert made - requests_before == calls
        assert count(cache, names.STORES, {names.STORE_RESULT: "stored"}) >= loads


# --- closing


async def test_a_closed_cache_says_so(each: CacheManager) -> None:
    await each.set("k", 1)
    await each.aclose()
    await each.aclose()
    for attempt in (
        each.get("k"),
        each.set("k", 1),
        each.delete("k"),
        each.clear(),
        each.get_many(["k"]),
        each.set_many({"k": 1}),
        each.get_or_compute("k", constant(1)),
    ):
        with pytest.raises(CacheClosedError):
            await attempt


async def test_closing_lets_loads_end(each: CacheManager) -> None:
    origin = Origin()
    tasks = await callers(each, origin, 3)
    closing = asyncio.create_task(each.aclose())
    await eventually(lambda: each._engine.closed)
    origin.go.set()
    assert await asyncio.gather(*tasks) == ["value"] * 3
    await closing


async def test_closing_cancels_loads_that_do_not_end_and_tells_their_callers(each: CacheManager) -> None:
    origin = Origin()
    tasks = await callers(each, origin, 3)
    await each.aclose(timeout=0.01)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [CacheClosedError] * 3
    assert (origin.loads, origin.cancelled) == (1, 1)


async def test_closing_that_is_cancelled_ends_everything_all_the_same(redis_url: str) -> None:
    cache = CacheManager(configuration(redis_url=redis_url, timeout=PATIENT))
    threads = set(threading.enumerate())
    origin = Origin()
    tasks = await callers(cache, origin, 3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cache.aclose(timeout=WITHIN), 0.1)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [CacheClosedError] * 3
    assert (origin.loads, origin.cancelled) == (1, 1)
    assert not [thread for thread in {*threading.enumerate()} - threads if thread.name == "aurelis-cache"]
    with redis.Redis.from_url(redis_url) as raw:
        await eventually(lambda: raw.info("clients")["connected_clients"] == 1)
        assert not raw.keys("*:l:*")


async def test_who_closes_second_waits_until_the_first_has_done_it(each: CacheManager) -> None:
    origin = Origin()
    tasks = await callers(each, origin, 2)
    first = asyncio.create_task(each.aclose())
    await eventually(lambda: each._engine.closed)
    here = [asyncio.create_task(each.aclose()) for _ in range(2)]
    elsewhere = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(each.aclose())))
    impatient = asyncio.create_task(each.aclose())
    _, waiting = await asyncio.wait([first, *here, elsewhere, impatient], timeout=0.05)
    assert len(waiting) == 5
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    origin.go.set()
    for closing in (*here, elsewhere):
        await closing
        await eventually(first.done)
    assert await asyncio.gather(*tasks) == ["value"] * 2


async def test_who_closes_second_hears_of_it_when_the_first_is_cancelled(each: CacheManager) -> None:
    tasks = await callers(each, Origin(), 2)
    first = asyncio.create_task(each.aclose())
    await eventually(lambda: each._engine.closed)
    second = asyncio.create_task(each.aclose())
    await asyncio.sleep(0)
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [CacheClosedError] * 2


def test_who_closes_second_does_not_wait_for_an_event_loop_that_has_ended() -> None:
    cache = CacheManager(configuration())
    ended = asyncio.new_event_loop()
    ended.close()
    cache._engine._closer, cache._engine.closed = ended, True  # it began to close there, and never came to an end
    asyncio.run(asyncio.wait_for(cache.aclose(), WITHIN))


def test_a_child_does_not_wait_for_its_parent_to_close() -> None:
    run_script(
        """
        import asyncio, os
        from aurelis.cache import CacheConfig, CacheManager

        cache = CacheManager(CacheConfig())

        async def main() -> None:
            go, begun = asyncio.Event(), asyncio.Event()

            async def load() -> int:
                begun.set()
                await go.wait()
                return 1

            caller = asyncio.create_task(cache.get_or_compute("k", load))
            await begun.wait()
            closing = asyncio.create_task(cache.aclose())
            await asyncio.sleep(0)
            assert not closing.done()
            child = os.fork()
            if child == 0:
                asyncio.events._set_running_loop(None)
                asyncio.set_event_loop(None)
                try:
                    asyncio.run(asyncio.wait_for(cache.aclose(), 10))
                except BaseException as error:
                    print(repr(error), flush=True)
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            go.set()
            await closing
            assert await caller == 1

        asyncio.run(main())
        """
    )


@pytest.mark.parametrize("problem", [LookupError, TimeoutError])
async def test_a_layer_that_does_not_close_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: type[Exception]
) -> None:
    monkeypatch.setattr(_guard, "_FAREWELL", 0.05)
    stubborn, polite = SharedMemory().node(), SharedMemory().node(name="l3")
    closed: list[str] = []

    async def close_badly() -> None:
        closed.append("stubborn")
        if problem is LookupError:
            raise LookupError("secret")
        await asyncio.Event().wait()

    async def close() -> None:
        closed.append("polite")

    monkeypatch.setattr(stubborn, "aclose", close_badly)
    monkeypatch.setattr(polite, "aclose", close)
    async with CacheManager(configuration(), lower=[stubborn, polite]) as cache:
        await cache.set("k", 1)
    assert closed == ["stubborn", "polite"]
    assert f"closing the layer l2 failed: {problem.__name__}" in caplog.text
    assert "secret" not in caplog.text


async def test_a_closed_cache_holds_no_values() -> None:
    class Value:
        pass

    value = Value()
    watched = weakref.ref(value)
    cache = CacheManager(configuration(copy=False))
    await cache.set("k", value)
    del value
    await cache.aclose()
    assert watched() is None
    assert count(cache, names.ENTRIES) == 0


async def test_a_cache_can_be_a_context_manager() -> None:
    async with CacheManager(configuration()) as cache:
        await cache.set("k", 1)
    with pytest.raises(CacheClosedError):
        await cache.get("k")


async def test_random_operations_at_once_leave_nothing_behind(shared: CacheManager) -> None:
    chance = random.Random(11)

    async def act(number: int) -> None:
        key = f"k{chance.randrange(8)}"

        async def load() -> int:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                raise LookupError
            return number

        match chance.randrange(6):
            case 0:
                await shared.set(key, number)
            case 1:
                await shared.delete(key)
            case 2:
                await shared.get_many([key, "k0"])
            case _:
                with contextlib.suppress(LookupError):
                    await shared.get_or_compute(key, load)

    tasks = []
    for number in range(600):
        tasks.append(asyncio.create_task(act(number)))
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
        if chance.random() < 0.2:
            await asyncio.sleep(0)
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)


async def test_after_a_restart_what_is_invalidated_in_a_layer_of_ones_own_is_gone() -> None:
    """The numbers of a new process are above those of the entries that the one before has left there."""
    clock = ManualClock()
    kept: Kept = {}
    async with CacheManager(configuration(), clock=clock, lower=[Plain(clock, kept)]) as before:
        for number in range(5):
            await before.invalidate_tags("other")
            await before.set(f"k{number}", number, tags=["t"])
    (size,) = {entry.size for entry in kept.values()}
    assert size > 0
    clock.advance(1)
    async with CacheManager(configuration(), clock=clock, lower=[Plain(clock, kept)]) as after:
        assert await after.get("k4") == 4
        await after.invalidate_tags("t")
        assert await after.get_many(["k1", "k4"]) == {}
