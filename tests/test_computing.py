"""`get_or_compute`: the life of an entry from its load to its last use as a stale one."""

import asyncio
import contextlib
import contextvars
import itertools
import math
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from types import FrameType
from typing import Any

import pytest

from aurelis.cache import CacheManager, EntryOptions, UnifiedCacheManager, current_load
from aurelis.cache._clock import Clock
from aurelis.cache.codecs import Frame, decode_frame, encode_frame
from aurelis.cache.exceptions import CacheError, LoadTimeoutError, RecursiveLoadError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import ManualClock
from tests.managers import configuration, count, eventually, is_settled, opened, requests, series
from tests.shared_layers import SilentLayer, Truth
from tests.simulation.loop import current, explore, run

SEEDS = range(20)
"""Schedules of a scenario whose order hardly matters."""
Scenario = Callable[[], Coroutine[Any, Any, None]]

Gone = object()
EARLY = EntryOptions(ttl=100, early_refresh=0.8)
REVALIDATES = EntryOptions(ttl=100, stale_while_revalidate=50)
STANDS_IN = EntryOptions(ttl=100, stale_if_error=500, throttle=30)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
async def cache(clock: ManualClock) -> AsyncIterator[CacheManager]:
    """A cache in memory alone."""
    async with opened(clock=clock) as memory:
        yield memory


class Origin:
    """Gives `v1`, `v2` and so on, one for each load.

    Attributes:
        begun: loads that have begun.
        ended: loads that have ended, however.
        go: while it is clear, loads wait.
        error: what loads raise.
    """

    def __init__(self) -> None:
        self.begun = self.ended = self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def load(self) -> str:
        self.begun += 1
        value = f"v{self.begun}"
        try:
            await self.go.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended += 1
        return value


@pytest.fixture
async def origin() -> Origin:
    """An origin that answers at once."""
    return Origin()


async def settled(cache: CacheManager) -> None:
    """Waits until what goes on in the background is over."""
    await eventually(lambda: is_settled(cache))


def refreshes(cache: CacheManager) -> dict[str, int]:
    """Returns the counted loads that no request waited for, by reason."""
    return {
        dict(attributes)[names.REFRESH_REASON]: int(value)
        for attributes, value in series(cache, names.REFRESHES).items()
    }


async def waiting(cache: CacheManager, origin: Origin, options: EntryOptions | None = None) -> asyncio.Task[Any]:
    """Returns a caller of `k` that waits for a load which has begun."""
    before = origin.begun
    task = asyncio.create_task(cache.get_or_compute("k", origin.load, options=options))
    await eventually(lambda: origin.begun > before)
    return task


# --- fresh values


async def test_a_fresh_value_is_served_and_not_loaded_again(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    options = EntryOptions(ttl=100, stale_while_revalidate=50, stale_if_error=500)
    for _ in range(3):
        assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    clock.advance(99.5)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    assert origin.begun == 1
    assert requests(cache) == {"miss": 1, "loads": 1, "hit l1": 3}
    assert refreshes(cache) == {}


async def test_the_ttl_argument_wins_over_that_of_the_options(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    await cache.get_or_compute("k", origin.load, ttl=10, options=EntryOptions(ttl=100))
    clock.advance(10)
    assert await cache.get_or_compute("k", origin.load, options=EntryOptions(ttl=100)) == "v2"
    clock.advance(99)
    assert await cache.get_or_compute("k", origin.load) == "v2"
    clock.advance(1)
    assert await cache.get_or_compute("k", origin.load) == "v3"


async def test_other_reads_find_a_value_while_it_is_fresh_and_never_a_stale_one(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    options = EntryOptions(ttl=100, stale_if_error=500, early_refresh=0.5)
    await cache.get_or_compute("k", origin.load, options=options)
    clock.advance(99)  # to be refreshed early, by somebody who can
    assert await cache.get("k") == "v1"
    assert await cache.get_many(["k"]) == {"k": "v1"}
    clock.advance(1)
    assert await cache.get("k", Gone) is Gone
    assert await cache.get_many(["k"]) == {}
    assert origin.begun == 1


# --- early refresh


async def test_from_its_threshold_on_a_hit_starts_exactly_one_load_and_has_the_fresh_value(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    await cache.get_or_compute("k", origin.load, options=EARLY)
    clock.advance(79.5)
    assert await cache.get_or_compute("k", origin.load, options=EARLY) == "v1"
    await settled(cache)
    assert origin.begun == 1
    clock.advance(0.5)
    origin.go.clear()
    for _ in range(20):
        assert await cache.get_or_compute("k", origin.load, options=EARLY) == "v1"
        await asyncio.sleep(0)
    assert origin.begun == 2
    origin.go.set()
    await settled(cache)
    clock.advance(79.5)  # all of the next ttl counts from the second load
    assert await cache.get_or_compute("k", origin.load, options=EARLY) == "v2"
    assert origin.begun == 2
    assert requests(cache) == {"miss": 1, "loads": 1, "hit l1": 22}
    assert refreshes(cache) == {"early": 1}


async def test_an_early_refresh_that_fails_leaves_the_fresh_value_and_is_tried_again_after_the_throttle(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    options = EntryOptions(ttl=1000, early_refresh=0.5, throttle=30)
    await cache.get_or_compute("k", origin.load, options=options)
    clock.advance(500)
    origin.error = OSError("origin")
    for _ in range(5):
        assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
        await settled(cache)
    assert origin.begun == 2
    clock.advance(29.5)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    await settled(cache)
    assert origin.begun == 2
    clock.advance(0.5)
    origin.error = None
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    await settled(cache)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v3"
    assert refreshes(cache) == {"early": 2}


@pytest.mark.parametrize(
    ("beta", "chance", "lead"),
    [
        pytest.param(1.0, math.exp(-1), 10.0, id="as-long-as-the-load"),
        pytest.param(2.0, math.exp(-1), 20.0, id="twice"),
        pytest.param(1.0, math.exp(-3), 30.0, id="drawn-early"),
        pytest.param(1.0, 1.0, 0.0, id="drawn-late"),
    ],
)
async def test_a_random_refresh_is_the_earlier_the_longer_the_load_took(
    cache: CacheManager,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    beta: float,
    chance: float,
    lead: float,
) -> None:
    """XFetch: Vattani, Chierichetti, Lowenstein, VLDB 2015."""
    monkeypatch.setattr(random, "random", lambda: 1 - chance)
    options = EntryOptions(ttl=100, early_beta=beta)
    loads = 0

    async def load() -> int:
        nonlocal loads
        loads += 1
        clock.advance(10)
        return loads

    await cache.get_or_compute("k", load, options=options)
    clock.advance(99.75 - lead)
    assert await cache.get_or_compute("k", load, options=options) == 1
    await settled(cache)
    assert loads == 1
    clock.advance(0.25)
    if lead:
        assert await cache.get_or_compute("k", load, options=options) == 1
        await settled(cache)
    assert await cache.get_or_compute("k", load, options=options) == 2
    assert refreshes(cache) == ({"early": 1} if lead else {})


async def test_of_both_ways_of_early_refresh_the_earlier_one_counts(
    cache: CacheManager, clock: ManualClock, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 1 - math.exp(-1))
    options = EntryOptions(ttl=100, early_refresh=0.8, early_beta=1)

    async def slow() -> str:
        clock.advance(30)
        return await origin.load()

    await cache.get_or_compute("k", slow, options=options)
    clock.advance(70)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    await settled(cache)
    assert origin.begun == 2
    clock.advance(79)  # this load took no time
    await cache.get_or_compute("k", origin.load, options=options)
    await settled(cache)
    assert origin.begun == 2
    clock.advance(1)
    await cache.get_or_compute("k", origin.load, options=options)
    await settled(cache)
    assert origin.begun == 3


async def test_what_never_ends_is_never_refreshed_early_and_can_be_written_down(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    """Its details go into the frame of a shared layer as well."""
    options = EntryOptions(ttl=math.inf, early_refresh=0.8, early_beta=1)
    await cache.get_or_compute("k", origin.load, options=options)
    clock.advance(1e9)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    await settled(cache)
    assert origin.begun == 1
    entry = cache._engine.stack.peek("k")
    assert entry is not None
    frame = Frame("k", 0.0, math.inf, 0.0, b"", details=entry.details)
    assert decode_frame(encode_frame(frame), "k") == frame


# --- stale while it is refreshed


async def test_within_its_window_a_stale_value_is_served_at_once_and_refreshed_by_one_load(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    """RFC 5861 §3, for values."""
    await cache.get_or_compute("k", origin.load, options=REVALIDATES)
    clock.advance(149.5)
    origin.go.clear()
    for _ in range(20):
        assert await cache.get_or_compute("k", origin.load, options=REVALIDATES) == "v1"
        await asyncio.sleep(0)
    assert origin.begun == 2
    origin.go.set()
    await settled(cache)
    assert await cache.get_or_compute("k", origin.load, options=REVALIDATES) == "v2"
    assert requests(cache) == {"miss": 1, "loads": 1, "stale": 20, "hit l1": 1}
    assert refreshes(cache) == {"revalidate": 1}
    assert count(cache, names.LOOKUPS, {names.LAYER: names.L1, names.RESULT: names.STALE}) == 20


async def test_after_its_window_callers_wait_for_the_load(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    await cache.get_or_compute("k", origin.load, options=REVALIDATES)
    clock.advance(150)
    assert await cache.get_or_compute("k", origin.load, options=REVALIDATES) == "v2"
    assert requests(cache) == {"miss": 2, "loads": 2}


async def test_who_does_not_allow_stale_values_waits_for_the_refresh_that_another_caller_started(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    await cache.get_or_compute("k", origin.load, options=REVALIDATES)
    clock.advance(100)
    origin.go.clear()
    assert await cache.get_or_compute("k", origin.load, options=REVALIDATES) == "v1"
    strict = [asyncio.create_task(cache.get_or_compute("k", origin.load)) for _ in range(3)]
    await eventually(lambda: cache._engine.flights.waiting == 3)
    origin.go.set()
    assert await asyncio.gather(*strict) == ["v2"] * 3
    assert origin.begun == 2
    assert requests(cache)["miss"] == 4
    assert requests(cache)["loads"] == 1
    assert refreshes(cache) == {"revalidate": 1}


async def test_a_refresh_in_the_background_that_fails_is_not_tried_again_until_the_throttle_has_passed(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    options = EntryOptions(ttl=100, stale_while_revalidate=100, throttle=30)
    await cache.get_or_compute("k", origin.load, options=options)
    clock.advance(100)
    origin.error = OSError("origin")
    for _ in range(5):
        assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
        await settled(cache)
    assert origin.begun == 2
    clock.advance(30)
    for _ in range(5):
        assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
        await settled(cache)
    assert origin.begun == 3
    origin.error = None
    clock.advance(30)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    await settled(cache)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v4"


async def test_refreshes_in_the_background_are_few_at_once_whatever_is_due(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    keys = [f"k{number}" for number in range(100)]
    for key in keys:
        await cache.get_or_compute(key, origin.load, options=REVALIDATES)
    clock.advance(100)
    origin.go.clear()
    for key in keys:
        assert await cache.get_or_compute(key, origin.load, options=REVALIDATES) is not None
    await asyncio.sleep(0)
    assert origin.begun == 100 + 64
    origin.go.set()
    await settled(cache)
    for key in keys:
        await cache.get_or_compute(key, origin.load, options=REVALIDATES)
    await settled(cache)
    assert origin.begun == 200


async def test_a_refresh_does_not_see_what_belongs_to_the_request(cache: CacheManager, clock: ManualClock) -> None:
    session: contextvars.ContextVar[str] = contextvars.ContextVar("session", default="none")
    seen = []

    async def load() -> int:
        seen.append(session.get())
        return len(seen)

    session.set("of the first")
    for options in (REVALIDATES, EARLY):
        key = str(id(options))
        await cache.get_or_compute(key, load, options=options)
        clock.advance(99 if options is EARLY else 100)
        await cache.get_or_compute(key, load, options=options)
        await settled(cache)
    assert seen == ["of the first", "none", "of the first", "none"]


async def test_a_refresh_that_needs_its_own_key_gets_the_stale_value(cache: CacheManager, clock: ManualClock) -> None:
    async def load() -> str:
        return f"from {await cache.get_or_compute('k', load, options=REVALIDATES)}"

    with pytest.raises(RecursiveLoadError):
        await cache.get_or_compute("k", load, options=REVALIDATES)
    await cache.set("k", "v1", ttl=100)
    await cache.get_or_compute("k", load, options=REVALIDATES)
    await settled(cache)
    entry = cache._engine.stack.peek("k")
    assert entry is not None


def test_refreshes_that_ended_with_their_event_loop_do_not_keep_later_ones_away() -> None:
    """`asyncio.run` cancels what is left as soon as the value is there."""
    clock = ManualClock()
    cache = CacheManager(configuration(), clock=clock)
    loads = itertools.count(1)
    options = EntryOptions(ttl=100, stale_while_revalidate=1e9)

    async def load() -> int:
        await asyncio.sleep(0.001)
        return next(loads)

    async def patient() -> object:
        value = await cache.get_or_compute("k", load, options=options)
        await settled(cache)
        return value

    asyncio.run(patient())
    clock.advance(100)
    for _ in range(100):
        assert asyncio.run(cache.get_or_compute("k", load, options=options)) == 1
    assert asyncio.run(patient()) == 1
    assert asyncio.run(patient()) == 2
    assert not cache._computing._behind
    asyncio.run(cache.aclose())


# --- stale if it cannot be loaded


async def test_a_stale_value_stands_in_for_a_failure_until_the_throttle_has_passed(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    """RFC 5861 §4, for values."""
    await cache.get_or_compute("k", origin.load, options=STANDS_IN)
    clock.advance(100)
    origin.error = OSError("origin")
    for _ in range(5):
        assert await cache.get_or_compute("k", origin.load, options=STANDS_IN) == "v1"
    assert origin.begun == 2
    clock.advance(29.5)
    assert await cache.get_or_compute("k", origin.load, options=STANDS_IN) == "v1"
    assert origin.begun == 2
    clock.advance(0.5)
    for _ in range(5):
        assert await cache.get_or_compute("k", origin.load, options=STANDS_IN) == "v1"
    assert origin.begun == 3
    origin.error = None
    clock.advance(30)
    assert await cache.get_or_compute("k", origin.load, options=STANDS_IN) == "v4"
    assert requests(cache) == {"miss": 2, "loads": 2, "stale": 11}
    assert refreshes(cache) == {"error": 2}


async def test_after_its_window_callers_get_the_failure_as_it_was(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    await cache.get_or_compute("k", origin.load, options=STANDS_IN)
    origin.error = OSError("as it was")
    clock.advance(599.5)
    assert await cache.get_or_compute("k", origin.load, options=STANDS_IN) == "v1"
    clock.advance(0.5)
    for _ in range(2):
        with pytest.raises(OSError, match="as it was"):
            await cache.get_or_compute("k", origin.load, options=STANDS_IN)
    assert origin.begun == 4


async def test_without_a_throttle_each_caller_tries(cache: CacheManager, clock: ManualClock, origin: Origin) -> None:
    options = EntryOptions(ttl=100, stale_if_error=500, throttle=0)
    await cache.get_or_compute("k", origin.load, options=options)
    clock.advance(100)
    origin.error = OSError("origin")
    for _ in range(3):
        assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    assert origin.begun == 4


async def test_all_who_wait_for_a_load_that_fails_get_a_stale_value_of_their_own(
    cache: CacheManager, clock: ManualClock
) -> None:
    failing = False

    async def load() -> list[int]:
        await asyncio.sleep(0)
        if failing:
            raise OSError
        return []

    await cache.get_or_compute("k", load, options=STANDS_IN)
    clock.advance(100)
    failing = True
    values = await asyncio.gather(*(cache.get_or_compute("k", load, options=STANDS_IN) for _ in range(5)))
    values.append(await cache.get_or_compute("k", load, options=STANDS_IN))
    for value in values:
        assert value == []
        value.append(1)
    assert requests(cache) == {"miss": 1, "loads": 1, "stale": 6}
    assert refreshes(cache) == {"error": 1}


# --- failures that are remembered


async def test_a_failure_is_raised_again_for_a_while_without_loading(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    options = EntryOptions(ttl=100, negative_ttl=5)
    origin.error = error = OSError("as it was")
    lengths = set()
    for _ in range(4):
        with pytest.raises(OSError, match="as it was") as caught:
            await cache.get_or_compute("k", origin.load, options=options)
        assert caught.value is error
        lengths.add(len(caught.traceback))
    assert len(lengths) <= 2
    assert origin.begun == 1
    clock.advance(5)
    origin.error = None
    assert await cache.get_or_compute("k", origin.load, options=options) == "v2"
    assert requests(cache) == {"miss": 2, "loads": 2, "hit negative": 3}


@pytest.mark.parametrize("how", ["set", "delete", "clear", "invalidate"])
async def test_a_remembered_failure_is_forgotten_when_its_key_is_changed(
    cache: CacheManager, origin: Origin, how: str
) -> None:
    options = EntryOptions(negative_ttl=5)
    origin.error = OSError("origin")
    with pytest.raises(OSError, match="origin"):
        await cache.get_or_compute("k", origin.load, tags=["a"], options=options)
    origin.error = None
    match how:
        case "set":
            await cache.set("k", "v2", ttl=60)
        case "delete":
            await cache.delete("k")
        case "clear":
            await cache.clear()
        case _:
            await cache.invalidate_tags("a")
    assert await cache.get_or_compute("k", origin.load, tags=["a"], options=options) == "v2"


async def test_a_remembered_failure_may_be_dropped_by_another_thread_at_any_moment(
    cache: CacheManager, origin: Origin
) -> None:
    options = EntryOptions(negative_ttl=5)
    origin.error = OSError("origin")
    failures = cache._engine.failures._known

    dropped = True

    def dropping_after(steps: int) -> Callable[[FrameType, str, object], Any]:
        """Returns a tracer that drops the failure after so many steps of the interpreter."""
        counter = itertools.count()

        def step(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal dropped
            frame.f_trace_opcodes = True
            if next(counter) == steps:
                dropped = failures.pop("k", None) is not None
            return step

        return step

    for steps in itertools.count():
        for trace in None, dropping_after(steps):
            dropped = False
            sys.settrace(trace)
            try:
                with pytest.raises(OSError, match="origin"):
                    await cache.get_or_compute("k", origin.load, options=options)
            finally:
                sys.settrace(None)
        if not dropped:
            break
    assert origin.begun > 1


async def test_where_a_stale_value_stands_in_no_failure_is_remembered(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    options = EntryOptions(ttl=100, stale_if_error=500, negative_ttl=5, throttle=0)
    await cache.get_or_compute("k", origin.load, options=options)
    clock.advance(100)
    origin.error = OSError("origin")
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    origin.error = None
    assert await cache.get_or_compute("k", origin.load, options=options) == "v3"


# --- timeouts: in virtual time


@contextlib.asynccontextmanager
async def simulated(truth: Truth | None = None, **options: Any) -> AsyncIterator[CacheManager]:
    """A cache in the time of the simulated loop; of several processes if they share something."""
    lower = [] if truth is None else [SilentLayer(truth)]
    cache = CacheManager(configuration(**options), clock=current().clock(), lower=lower)
    try:
        yield cache
        await asyncio.sleep(3600)  # what is in the background ends, and timers of what went well pass
        assert is_settled(cache)
    finally:
        await cache.aclose()


async def at(instant: float) -> None:
    """Waits until that instant of the run."""
    await asyncio.sleep(instant - current().time())


class Slow:
    """Gives `v1`, `v2` and so on, each after its own time in seconds; the last one counts for all further ones."""

    def __init__(self, *seconds: float, name: str = "v") -> None:
        self.seconds = [*seconds]
        self.name = name
        self.begun = self.cancelled = 0
        self.ended: list[float] = []

    async def load(self) -> str:
        self.begun += 1
        value, takes = f"{self.name}{self.begun}", self.seconds[min(self.begun, len(self.seconds)) - 1]
        try:
            await asyncio.sleep(takes)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended.append(current().time())
        return value


def test_after_the_soft_timeout_callers_get_the_stale_value_and_the_load_goes_on() -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=100, stale_if_error=500, soft_timeout=2)
        origin = Slow(0, 10)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=options)
            await at(100)
            calls = [cache.get_or_compute("k", origin.load, options=options) for _ in range(5)]
            assert await asyncio.gather(*calls) == ["v1"] * 5
            assert current().time() == 102
            # Whoever comes while it goes on has no reason to wait anew.
            assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            assert current().time() <= 104
            await at(111)
            assert await cache.get_or_compute("k", origin.load, options=options) == "v2"
            assert origin.begun == 2
            assert requests(cache) == {"miss": 1, "loads": 1, "stale": 6, "hit l1": 1}
            assert refreshes(cache) == {"timeout": 1}

    explore(scenario, SEEDS)


def test_a_load_within_the_soft_timeout_is_waited_for() -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=100, stale_if_error=500, soft_timeout=2)
        origin = Slow(0, 1.5)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=options)
            await at(100)
            assert await cache.get_or_compute("k", origin.load, options=options) == "v2"
            assert current().time() == 101.5
            assert refreshes(cache) == {}

    explore(scenario, SEEDS)


def test_with_nothing_stale_at_hand_callers_wait_beyond_the_soft_timeout() -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=100, stale_if_error=500, soft_timeout=2)
        origin = Slow(10)
        async with simulated() as cache:
            assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            assert current().time() == 10

    explore(scenario, SEEDS)


@pytest.mark.parametrize("background", [True, False], ids=["goes-on", "given-up"])
def test_after_the_hard_timeout_callers_get_an_error_where_nothing_is_stale(background: bool) -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=100, hard_timeout=2, background_completion=background)
        origin = Slow(10, 0)
        async with simulated() as cache:
            calls = [cache.get_or_compute("k", origin.load, options=options) for _ in range(5)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [LoadTimeoutError] * 5
            assert isinstance(results[0], TimeoutError)
            assert current().time() == 2
            assert requests(cache) == {"miss": 5, "loads": 1}
            await at(11)
            assert (origin.begun, origin.cancelled) == (1, 0 if background else 1)
            expected = "v1" if background else "v2"
            assert await cache.get_or_compute("k", origin.load, options=options) == expected
            assert count(cache, names.WAITING) == 0

    explore(scenario, SEEDS)


@pytest.mark.parametrize("background", [True, False], ids=["goes-on", "given-up"])
def test_after_the_hard_timeout_callers_get_a_stale_value_if_there_is_one(background: bool) -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=100, stale_if_error=500, hard_timeout=2, background_completion=background)
        origin = Slow(0, 10, 0)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=options)
            await at(100)
            assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            assert current().time() == 102
            await at(111)
            assert origin.cancelled == (0 if background else 1)
            expected = "v2" if background else "v3"
            assert await cache.get_or_compute("k", origin.load, options=options) == expected
            assert refreshes(cache) == {"timeout": 1}

    explore(scenario, SEEDS)


def test_a_load_that_is_given_up_at_the_soft_timeout_is_cancelled() -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=100, stale_if_error=500, soft_timeout=2, background_completion=False)
        origin = Slow(0, 10)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=options)
            await at(100)
            assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            await at(103)
            assert origin.cancelled == 1

    explore(scenario, SEEDS)


def test_the_hard_timeout_holds_for_whoever_joins_a_refresh_that_hangs() -> None:
    """The refresh begins in the background, where nobody waits; when its window is over, callers do."""

    async def scenario() -> None:
        options = EntryOptions(ttl=10, stale_while_revalidate=10, hard_timeout=2)
        origin = Slow(0, 1000)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=options)
            await at(11)
            assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            await at(25)
            with pytest.raises(LoadTimeoutError):
                await cache.get_or_compute("k", origin.load, options=options)
            assert current().time() == 27

    explore(scenario, SEEDS)


def test_the_soft_timeout_holds_for_whoever_joins_a_refresh_that_hangs() -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=10, stale_while_revalidate=10, stale_if_error=5000, soft_timeout=2)
        origin = Slow(0, 1000)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=options)
            await at(11)
            assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            await at(25)
            assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            assert current().time() <= 27

    explore(scenario, SEEDS)


def test_the_hard_timeout_holds_for_whoever_joins_a_load_of_somebody_more_patient() -> None:
    async def scenario() -> None:
        origin = Slow(10)
        async with simulated() as cache:
            patient = asyncio.create_task(cache.get_or_compute("k", origin.load))
            await at(1)
            with pytest.raises(LoadTimeoutError):
                await cache.get_or_compute("k", origin.load, options=EntryOptions(hard_timeout=2))
            assert current().time() == 3
            assert await patient == "v1"
            assert requests(cache) == {"miss": 2, "loads": 1}

    explore(scenario, SEEDS)


def test_a_patient_caller_is_not_failed_by_the_timeout_of_an_impatient_one() -> None:
    async def scenario() -> None:
        origin = Slow(10)
        async with simulated() as cache:
            hasty = asyncio.create_task(cache.get_or_compute("k", origin.load, options=EntryOptions(hard_timeout=2)))
            await at(1)
            assert await cache.get_or_compute("k", origin.load) == "v1"
            assert isinstance(hasty.exception(), LoadTimeoutError)
            assert origin.begun == 1

    explore(scenario, SEEDS)


def test_when_all_callers_are_cancelled_before_a_timeout_the_load_is_cancelled() -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=100, stale_if_error=500, soft_timeout=2, hard_timeout=5)
        origin = Slow(0, 10)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=options)
            await at(100)
            calls = [asyncio.create_task(cache.get_or_compute("k", origin.load, options=options)) for _ in range(3)]
            await at(101)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            await at(102)
            assert origin.cancelled == 1
            assert requests(cache) == {"miss": 4, "loads": 2}
            assert refreshes(cache) == {}

    explore(scenario, SEEDS)


def test_when_all_callers_are_cancelled_after_a_timeout_that_helped_nobody_the_load_is_cancelled() -> None:
    """The stale value is too old for the soft timeout to serve it, so nothing is won by going on."""

    async def scenario() -> None:
        origin = Slow(0, 10)
        async with simulated() as cache:
            await cache.get_or_compute("k", origin.load, options=EntryOptions(ttl=100, stale_if_error=500))
            await at(200)
            options = EntryOptions(ttl=100, stale_if_error=50, soft_timeout=2)
            call = asyncio.create_task(cache.get_or_compute("k", origin.load, options=options))
            await at(205)
            assert not call.done()
            call.cancel()
            await asyncio.wait([call])
            await at(206)
            assert origin.cancelled == 1

    explore(scenario, SEEDS)


# --- lives


@pytest.mark.parametrize(("drawn", "life"), [(0.0, 100.0), (0.5, 90.0), (0.999, 80.02)])
async def test_jitter_shortens_the_ttl_at_random(
    cache: CacheManager,
    clock: ManualClock,
    origin: Origin,
    monkeypatch: pytest.MonkeyPatch,
    drawn: float,
    life: float,
) -> None:
    monkeypatch.setattr(random, "random", lambda: drawn)
    options = EntryOptions(ttl=100, jitter=20)
    await cache.get_or_compute("k", origin.load, options=options)
    clock.advance(life - 0.01)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
    clock.advance(0.02)
    assert await cache.get_or_compute("k", origin.load, options=options) == "v2"


async def test_jitter_leaves_at_least_half_of_a_shorter_ttl(
    cache: CacheManager, clock: ManualClock, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options know no ttl, so they could not be refused."""
    monkeypatch.setattr(random, "random", lambda: 0.999)
    await cache.get_or_compute("k", origin.load, ttl=10, options=EntryOptions(jitter=20))
    clock.advance(4.9)
    assert await cache.get("k") == "v1"


async def test_what_is_loaded_together_does_not_expire_together(cache: CacheManager, clock: ManualClock) -> None:
    options = EntryOptions(ttl=100, jitter=50)
    keys = [str(number) for number in range(200)]
    for key in keys:
        await cache.get_or_compute(key, Origin().load, options=options)
    clock.advance(50)
    left = [len(await cache.get_many(keys))]
    for _ in range(5):
        clock.advance(10)
        left.append(len(await cache.get_many(keys)))
    assert left[0] == 200
    assert left[-1] == 0
    assert all(20 < before - after < 60 for before, after in itertools.pairwise(left))


def test_memory_keeps_a_value_for_no_longer_than_the_options_say() -> None:
    async def scenario() -> None:
        options = EntryOptions(ttl=1000, memory_ttl=5)
        origin = Slow(0)
        truth = Truth(current().clock())
        async with simulated(truth) as one, simulated(truth) as other:
            layers = [one._engine.stack.lower[0].layer, other._engine.stack.lower[0].layer]
            for cache in (one, other, one, other):
                assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
            for layer in layers:
                assert isinstance(layer, SilentLayer)
                layer.calls.clear()
            for _ in range(3):  # also what has come back into memory from the shared layer
                await asyncio.sleep(4.5)
                for cache in (one, other):
                    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
                assert [layer.calls.count("lookup") for layer in layers if isinstance(layer, SilentLayer)] == [0, 0]
                await asyncio.sleep(0.5)
                for cache in (one, other):
                    assert await cache.get_or_compute("k", origin.load, options=options) == "v1"
                for layer in layers:
                    assert isinstance(layer, SilentLayer)
                    assert layer.calls.count("lookup") == 1
                    layer.calls.clear()

    explore(scenario, SEEDS)


async def test_memory_alone_keeps_a_value_for_its_ttl_whatever_the_options_say_of_memory(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    for key, options in {"a": EntryOptions(memory_ttl=5), "b": EntryOptions(ttl=100, memory_ttl=5)}.items():
        await cache.get_or_compute(key, origin.load, options=options)
    clock.advance(99)
    assert await cache.get_many(["a", "b"]) == {"a": "v1", "b": "v2"}


# --- what a load says of its result


async def test_outside_of_a_load_there_is_none(cache: CacheManager, origin: Origin) -> None:
    with pytest.raises(CacheError, match="for functions that get_or_compute or @cached run"):
        current_load()
    await cache.get_or_compute("k", origin.load)
    with pytest.raises(CacheError):
        current_load()


async def test_a_load_may_set_the_ttl_of_its_result(cache: CacheManager, clock: ManualClock) -> None:
    loads = itertools.count(1)

    async def load() -> int:
        await asyncio.sleep(0)
        current_load().set_ttl(5)
        return next(loads)

    for options, ttl in ((None, None), (EntryOptions(ttl=100), None), (None, 100)):
        value = await cache.get_or_compute("k", load, ttl=ttl, options=options)
        clock.advance(4.5)
        assert await cache.get_or_compute("k", load, ttl=ttl, options=options) == value
        clock.advance(0.5)
        assert await cache.get("k", Gone) is Gone


async def test_a_load_may_say_that_its_result_lives_longer_or_is_not_kept(
    cache: CacheManager, clock: ManualClock
) -> None:
    async def lasting() -> int:
        current_load().set_ttl(math.inf)
        return 1

    async def passing() -> int:
        current_load().set_ttl(0)
        return 2

    assert await cache.get_or_compute("a", lasting, ttl=0) == 1
    assert await cache.get_or_compute("b", passing, ttl=math.inf) == 2
    clock.advance(1e9)
    assert await cache.get_many(["a", "b"]) == {"a": 1}


@pytest.mark.parametrize("ttl", [-1, math.nan])
async def test_a_load_gets_the_error_when_it_sets_a_wrong_ttl(cache: CacheManager, ttl: float) -> None:
    async def load() -> None:
        current_load().set_ttl(ttl)

    with pytest.raises(ValueError, match="ttl must be 0 or more seconds"):
        await cache.get_or_compute("k", load)


async def test_a_load_may_add_tags_to_those_of_the_caller(cache: CacheManager) -> None:
    async def load() -> str:
        current_load().add_tags("a", "b")
        current_load().add_tags("b", "c")
        return "v"

    for tag in ("a", "b", "c", "of the caller"):
        await cache.get_or_compute("k", load, tags=["of the caller"])
        await cache.invalidate_tags("other")
        assert await cache.get("k") == "v"
        await cache.invalidate_tags(tag)
        assert await cache.get("k", Gone) is Gone


async def test_what_a_load_skips_is_given_to_all_who_wait_and_not_kept(cache: CacheManager, origin: Origin) -> None:
    async def load() -> str:
        current_load().skip()
        return await origin.load()

    origin.go.clear()
    tasks = [asyncio.create_task(cache.get_or_compute("k", load)) for _ in range(5)]
    await eventually(lambda: cache._engine.flights.waiting == 4)
    origin.go.set()
    assert await asyncio.gather(*tasks) == ["v1"] * 5
    assert await cache.get("k", Gone) is Gone
    assert await cache.get_or_compute("k", load) == "v2"
    assert count(cache, names.STORES, {names.STORE_RESULT: "skipped"}) == 2


async def test_what_has_not_changed_at_the_origin_is_fresh_again(cache: CacheManager, clock: ManualClock) -> None:
    transfers = 0

    async def load() -> dict[str, list[int]]:
        nonlocal transfers
        context = current_load()
        if context.has_stale:
            assert (context.etag, context.last_modified) == ('"1"', "Sun, 06 Nov 1994 08:49:37 GMT")
            value: dict[str, list[int]] = context.not_modified()
            assert value == context.stale
            return value
        assert (context.stale, context.etag, context.last_modified) == (None, None, None)
        transfers += 1
        context.etag, context.last_modified = '"1"', "Sun, 06 Nov 1994 08:49:37 GMT"
        return {"rows": [1]}

    for _ in range(5):
        value = await cache.get_or_compute("k", load, options=STANDS_IN)
        assert value == {"rows": [1]}
        value["rows"].append(2)
        clock.advance(99.5)
        assert await cache.get("k") == {"rows": [1]}
        clock.advance(0.5)
        assert await cache.get("k", Gone) is Gone
    assert transfers == 1


async def test_what_has_not_changed_at_the_origin_keeps_the_tags_that_its_load_gave(
    cache: CacheManager, clock: ManualClock
) -> None:
    """The load that finds nothing changed has not seen what they were made of."""

    async def load() -> Any:
        context = current_load()
        if context.has_stale:
            return context.not_modified()
        context.add_tags("author:7")
        return "article"

    await cache.get_or_compute("k", load, options=STANDS_IN)
    clock.advance(100)
    assert await cache.get_or_compute("k", load, options=STANDS_IN) == "article"
    await cache.invalidate_tags("author:7")
    assert await cache.get("k", Gone) is Gone


async def test_what_a_load_does_to_the_stale_value_reaches_nobody(cache: CacheManager, clock: ManualClock) -> None:
    failing = False

    async def load() -> list[int]:
        if failing:
            current_load().stale.append(1)
            raise OSError
        return []

    await cache.get_or_compute("k", load, options=STANDS_IN)
    clock.advance(100)
    failing = True
    for _ in range(3):
        assert await cache.get_or_compute("k", load, options=STANDS_IN) == []


async def test_without_a_stale_value_nothing_can_be_unmodified(cache: CacheManager) -> None:
    async def load() -> object:
        return current_load().not_modified()

    with pytest.raises(CacheError, match="look at has_stale first"):
        await cache.get_or_compute("k", load)


async def test_loads_within_loads_each_have_their_own(cache: CacheManager, clock: ManualClock) -> None:
    async def inner() -> str:
        current_load().add_tags("inner")
        current_load().set_ttl(5)
        return "inner"

    async def outer() -> str:
        before = current_load()
        value = await cache.get_or_compute("inner", inner)
        assert current_load() is before
        before.add_tags("outer")
        return f"outer {value}"

    await cache.get_or_compute("outer", outer, ttl=100)
    await cache.invalidate_tags("inner")
    assert await cache.get_many(["inner", "outer"]) == {"outer": "outer inner"}
    clock.advance(10)
    assert await cache.get("outer") == "outer inner"
    await cache.invalidate_tags("outer")
    assert await cache.get("outer", Gone) is Gone


async def test_a_function_that_a_load_calls_in_a_task_speaks_for_the_load(cache: CacheManager) -> None:
    async def part() -> None:
        current_load().add_tags("part")

    async def load() -> str:
        await asyncio.gather(part(), part())
        return "v"

    await cache.get_or_compute("k", load)
    await cache.invalidate_tags("part")
    assert await cache.get("k", Gone) is Gone


# --- cancellation


async def test_when_all_callers_are_cancelled_the_load_is_and_the_stale_value_stays(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    await cache.get_or_compute("k", origin.load, options=STANDS_IN)
    clock.advance(100)
    origin.go.clear()
    first = await waiting(cache, origin, STANDS_IN)
    others = [asyncio.create_task(cache.get_or_compute("k", origin.load, options=STANDS_IN)) for _ in range(4)]
    await eventually(lambda: cache._engine.flights.waiting == 4)
    for task in (first, *others):
        task.cancel()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 5
    await settled(cache)
    assert origin.cancelled == 1
    assert requests(cache) == {"miss": 6, "loads": 2}
    origin.go.set()
    origin.error = OSError("origin")
    assert await cache.get_or_compute("k", origin.load, options=STANDS_IN) == "v1"


async def test_a_caller_who_has_a_stale_value_cannot_cancel_its_refresh(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    await cache.get_or_compute("k", origin.load, options=REVALIDATES)
    clock.advance(100)
    origin.go.clear()

    async def caller() -> None:
        await cache.get_or_compute("k", origin.load, options=REVALIDATES)
        await asyncio.Event().wait()

    task = asyncio.create_task(caller())
    await eventually(lambda: origin.begun == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    origin.go.set()
    await settled(cache)
    assert origin.cancelled == 0
    assert await cache.get("k") == "v2"


# --- invalidation


async def test_a_hard_invalidation_leaves_nothing_that_could_be_served(cache: CacheManager, origin: Origin) -> None:
    options = EntryOptions(ttl=100, stale_while_revalidate=50, stale_if_error=500)
    await cache.get_or_compute("k", origin.load, tags=["a"], options=options)
    await cache.invalidate_tags("a")
    assert await cache.get("k", Gone) is Gone
    origin.error = OSError("origin")
    with pytest.raises(OSError, match="origin"):
        await cache.get_or_compute("k", origin.load, tags=["a"], options=options)
    origin.error = None
    assert await cache.get_or_compute("k", origin.load, tags=["a"], options=options) == "v3"


async def test_what_was_invalidated_leaves_memory_when_somebody_looks(cache: CacheManager) -> None:
    await cache.set_many({"a": 1, "b": 2}, tags=["t"])
    await cache.invalidate_tags("t")
    assert await cache.get_many(["a", "b"]) == {}
    assert count(cache, names.ENTRIES) == 0


async def test_a_soft_invalidation_leaves_a_value_that_is_stale(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    for number, options in enumerate((REVALIDATES, STANDS_IN, EntryOptions(ttl=100))):
        key = str(number)
        first = await cache.get_or_compute(key, origin.load, tags=["a"], options=options)
        await cache.invalidate_tags("a", soft=True)
        assert await cache.get(key, Gone) is Gone
        assert await cache.get_many([key]) == {}
        origin.error = OSError("origin")
        if options in (REVALIDATES, STANDS_IN):
            assert await cache.get_or_compute(key, origin.load, tags=["a"], options=options) == first
            await settled(cache)
        else:
            with pytest.raises(OSError, match="origin"):
                await cache.get_or_compute(key, origin.load, tags=["a"], options=options)
        origin.error = None
        clock.advance(30)  # the throttle
        second = await cache.get_or_compute(key, origin.load, tags=["a"], options=options)
        await settled(cache)
        if options is REVALIDATES:
            assert second == first
            second = await cache.get_or_compute(key, origin.load, tags=["a"], options=options)
        assert second != first
        assert await cache.get(key) == second


def ticking(clock: ManualClock) -> Clock:
    """Returns a clock that goes on by itself with every look."""
    looks = itertools.count()
    return Clock(lambda: clock.monotonic() + next(looks) * 1e-6, clock.time)


async def test_a_soft_invalidation_holds_however_fast_the_clock_goes(clock: ManualClock, origin: Origin) -> None:
    async with opened(clock=ticking(clock)) as cache:
        await cache.get_or_compute("k", origin.load, tags=["a"], ttl=100)
        await cache.invalidate_tags("a", soft=True)
        assert await cache.get("k", Gone) is Gone
        assert await cache.get_many(["k"]) == {}
        assert await cache.get_or_compute("k", origin.load, tags=["a"], ttl=100) == "v2"


async def test_a_value_made_stale_is_served_for_its_window_and_not_for_ever(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    options = EntryOptions(ttl=10_000, stale_if_error=50, throttle=1)
    await cache.get_or_compute("k", origin.load, tags=["a"], options=options)
    await cache.invalidate_tags("a", soft=True)
    origin.error = OSError("origin")
    assert await cache.get_or_compute("k", origin.load, tags=["a"], options=options) == "v1"
    clock.advance(49)
    assert await cache.get_or_compute("k", origin.load, tags=["a"], options=options) == "v1"
    clock.advance(1)
    with pytest.raises(OSError, match="origin"):
        await cache.get_or_compute("k", origin.load, tags=["a"], options=options)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
async def test_an_invalidation_reaches_what_has_its_tag_and_nothing_else(cache: CacheManager, soft: bool) -> None:
    await cache.set("a", 1, tags=["x", "y"])
    await cache.set_many({"b": 2, "c": 3}, tags=["y"])
    await cache.set("d", 4, tags=["z"])
    await cache.set("e", 5)
    await cache.invalidate_tags("x", soft=soft)
    assert await cache.get_many("abcde") == {"b": 2, "c": 3, "d": 4, "e": 5}
    await cache.invalidate_tags("y", "z", soft=soft)
    assert await cache.get_many("abcde") == {"e": 5}
    await cache.set("a", 6, tags=["x", "y"])
    assert await cache.get("a") == 6
    await cache.invalidate_tags(soft=soft)
    assert await cache.get_many("abcde") == {"a": 6, "e": 5}


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
async def test_a_category_is_invalidated_as_a_whole_and_alone(cache: CacheManager, soft: bool) -> None:
    unified = UnifiedCacheManager(cache)
    for category in ("user", "user:a", "page"):
        await unified.set(category, "1", category)
        await unified.set(category, "2", category, params={"a": 1})
    await cache.set("user", "no key of the builder")
    await unified.invalidate_category("user", soft=soft)
    assert await unified.get_many("user", ["1"]) == {}
    assert await unified.get("user", "2", {"a": 1}) is None
    for category in ("user:a", "page"):
        assert await unified.get(category, "1") == category
        assert await unified.get(category, "2", {"a": 1}) == category
    assert await cache.get("user") == "no key of the builder"


HOW = ["tags", "soft tags", "category", "clear"]


async def invalidate(cache: CacheManager, how: str) -> None:
    """Makes `aurelis:v1:user:1` out of date, which has the tag `a`."""
    match how:
        case "tags":
            await cache.invalidate_tags("a")
        case "soft tags":
            await cache.invalidate_tags("a", soft=True)
        case "category":
            await cache.invalidate_category("user")
        case _:
            await cache.clear()


KEY = "aurelis:v1:user:1"


@pytest.mark.parametrize("how", HOW)
async def test_of_a_load_under_way_the_callers_get_the_value_and_nobody_later_does(
    cache: CacheManager, origin: Origin, how: str
) -> None:
    origin.go.clear()
    early = [asyncio.create_task(cache.get_or_compute(KEY, origin.load, tags=["a"])) for _ in range(3)]
    await eventually(lambda: cache._engine.flights.waiting == 2)
    await invalidate(cache, how)
    late = [asyncio.create_task(cache.get_or_compute(KEY, origin.load, tags=["a"])) for _ in range(3)]
    await eventually(lambda: origin.begun == 2)
    origin.go.set()
    assert await asyncio.gather(*early) == ["v1"] * 3
    assert await asyncio.gather(*late) == ["v2"] * 3
    assert await cache.get(KEY) == "v2"
    assert count(cache, names.STORES, {names.STORE_RESULT: "fenced"}) == 1
    assert requests(cache)["loads"] == 2


@pytest.mark.parametrize("how", HOW)
async def test_the_value_of_a_load_under_way_is_not_kept(cache: CacheManager, origin: Origin, how: str) -> None:
    origin.go.clear()
    early = asyncio.create_task(cache.get_or_compute(KEY, origin.load, tags=["a"]))
    await eventually(lambda: origin.begun)
    await invalidate(cache, how)
    origin.go.set()
    assert await early == "v1"
    assert await cache.get(KEY, Gone) is Gone


@pytest.mark.parametrize("how", HOW)
async def test_a_refresh_under_way_is_not_kept_either(
    cache: CacheManager, clock: ManualClock, origin: Origin, how: str
) -> None:
    await cache.get_or_compute(KEY, origin.load, tags=["a"], options=REVALIDATES)
    clock.advance(100)
    origin.go.clear()
    await cache.get_or_compute(KEY, origin.load, tags=["a"], options=REVALIDATES)
    await eventually(lambda: origin.begun == 2)
    await invalidate(cache, how)
    origin.go.set()
    await settled(cache)
    assert await cache.get(KEY, Gone) is Gone
    value = await cache.get_or_compute(KEY, origin.load, tags=["a"], options=REVALIDATES)
    assert value == ("v1" if how == "soft tags" else "v3")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_tags_that_a_load_adds_hold_for_the_load_itself(cache: CacheManager, origin: Origin, when: str) -> None:
    """Whatever it had read when it learnt of the tag, it may have read before the invalidation."""

    async def load() -> str:
        if when == "before":
            current_load().add_tags("a")
        value = await origin.load()
        if when == "after":
            current_load().add_tags("a")
        return value

    origin.go.clear()
    early = asyncio.create_task(cache.get_or_compute("k", load))
    await eventually(lambda: origin.begun)
    await cache.invalidate_tags("a")
    late = asyncio.create_task(cache.get_or_compute("k", load))
    await asyncio.sleep(0)
    origin.go.set()
    assert await early == "v1"
    assert await late == "v2"
    assert await cache.get("k") == "v2"


@pytest.mark.parametrize("of", ["the load", "another caller"])
async def test_what_was_invalidated_during_a_load_does_not_stand_in_for_its_failure_afterwards(
    cache: CacheManager, clock: ManualClock, origin: Origin, of: str
) -> None:
    """The tags are those of what is stored; the load that fails has none."""

    async def load() -> str:
        value = await origin.load()
        if of == "the load":
            current_load().add_tags("a")
        return value

    tags = ["a"] if of == "another caller" else []
    await cache.get_or_compute("k", load, tags=tags, options=STANDS_IN)
    clock.advance(100)
    origin.go.clear()
    early = asyncio.create_task(cache.get_or_compute("k", load, options=STANDS_IN))
    await eventually(lambda: origin.begun == 2)
    await cache.invalidate_tags("a")
    late = asyncio.create_task(cache.get_or_compute("k", load, options=STANDS_IN))
    await asyncio.sleep(0)
    origin.error = OSError("origin")
    origin.go.set()
    await asyncio.wait([early])
    assert early.exception() is not None or early.result() == "v1"
    with pytest.raises(OSError, match="origin"):
        await late
    with pytest.raises(OSError, match="origin"):
        await cache.get_or_compute("k", load, options=STANDS_IN)
    assert await cache.get("k", Gone) is Gone


async def test_what_was_made_stale_during_an_early_refresh_that_fails_does_not_become_fresh(
    cache: CacheManager, clock: ManualClock, origin: Origin
) -> None:
    async def load() -> str:
        current_load().add_tags("a")
        return await origin.load()

    await cache.get_or_compute("k", load, options=EARLY)
    clock.advance(80)
    origin.go.clear()
    await cache.get_or_compute("k", origin.load, options=EARLY)  # whose load does not know of the tag
    await eventually(lambda: origin.begun == 2)
    await cache.invalidate_tags("a", soft=True)
    origin.error = OSError("origin")
    origin.go.set()
    await settled(cache)
    assert await cache.get("k", Gone) is Gone


# --- several processes


def test_of_several_processes_one_loads_and_the_others_have_its_value() -> None:
    async def scenario() -> None:
        origin = Slow(3)
        truth = Truth(current().clock())
        async with contextlib.AsyncExitStack() as stack:
            caches = [await stack.enter_async_context(simulated(truth)) for _ in range(4)]
            values = await asyncio.gather(*(cache.get_or_compute("k", origin.load) for cache in caches))
            assert values == ["v1"] * 4
            assert origin.begun == 1

    explore(scenario, SEEDS)


@pytest.mark.parametrize("how", ["expired", "made stale"])
def test_of_several_processes_one_loads_anew_what_is_stale_and_the_others_have_its_value(how: str) -> None:
    async def scenario() -> None:
        origin = Slow(0, 3)
        options = EntryOptions(ttl=100, stale_if_error=5 if how == "expired" else 0)
        truth = Truth(current().clock())
        async with contextlib.AsyncExitStack() as stack:
            caches = [await stack.enter_async_context(simulated(truth)) for _ in range(4)]
            for cache in caches:
                await cache.get_or_compute("k", origin.load, tags=["a"], options=options)
            if how == "expired":
                await at(101)
                options = EntryOptions(ttl=100)  # whose callers want nothing stale
            else:
                await caches[0].invalidate_tags("a", soft=True)
                await at(20)  # nobody tells the others, but in a while they ask
                for cache in caches[1:]:
                    await cache._engine.stack.memory.remove_all()  # type: ignore[union-attr]  # there is one
            calls = (cache.get_or_compute("k", origin.load, tags=["a"], options=options) for cache in caches)
            assert await asyncio.gather(*calls) == ["v2"] * 4
            assert origin.begun == 2

    explore(scenario, SEEDS)


def test_whoever_joins_a_refresh_that_another_process_does_gets_a_value() -> None:
    """
    1. A caller has a stale value, and starts a refresh.
    2. Another one, who wants nothing stale, waits for that.
    3. The refresh finds that another process loads, and ends.
    """

    async def scenario() -> None:
        origin, elsewhere = Slow(0, name="own"), Slow(0, 5)
        truth = Truth(current().clock())
        async with simulated(truth) as one, simulated(truth) as other:
            await other.get_or_compute("k", elsewhere.load, options=REVALIDATES)
            await one.get_or_compute("k", origin.load, options=REVALIDATES)
            await at(100)
            assert await other.get_or_compute("k", elsewhere.load, options=REVALIDATES) == "v1"
            await at(101)
            assert await one.get_or_compute("k", origin.load, options=REVALIDATES) == "v1"
            async with asyncio.timeout(60):
                assert await one.get_or_compute("k", origin.load) in ("v2", "own1")

    explore(scenario, SEEDS)


def test_the_hard_timeout_counts_while_another_process_loads() -> None:
    async def scenario() -> None:
        origin = Slow(100)
        truth = Truth(current().clock())
        async with simulated(truth) as one, simulated(truth) as other:
            loading = asyncio.create_task(other.get_or_compute("k", origin.load))
            await at(1)
            with pytest.raises(LoadTimeoutError):
                await one.get_or_compute("k", origin.load, options=EntryOptions(hard_timeout=2))
            assert current().time() == pytest.approx(3, abs=0.01)
            assert await loading == "v1"
            assert origin.begun == 1

    explore(scenario, SEEDS)


def test_whoever_has_waited_long_enough_for_another_process_loads() -> None:
    async def scenario() -> None:
        origin, hanging = Slow(0), Slow(1000)
        truth = Truth(current().clock())
        async with simulated(truth) as one, simulated(truth) as other:
            loading = asyncio.create_task(other.get_or_compute("k", hanging.load))
            await at(1)
            assert await one.get_or_compute("k", origin.load, options=EntryOptions(lease_wait=2)) == "v1"
            assert 3 <= current().time() < 4
            loading.cancel()
            await asyncio.wait([loading])

    explore(scenario, SEEDS)


def test_where_another_process_refreshes_a_stale_value_is_served_without_loading() -> None:
    async def scenario() -> None:
        origin = Slow(0, 10)
        truth = Truth(current().clock())
        async with simulated(truth) as one, simulated(truth) as other:
            for cache in (one, other):
                await cache.get_or_compute("k", origin.load, options=STANDS_IN)
            await at(100)
            loading = asyncio.create_task(other.get_or_compute("k", origin.load, options=STANDS_IN))
            await at(101)
            assert await one.get_or_compute("k", origin.load, options=STANDS_IN) == "v1"
            assert current().time() < 102
            assert await loading == "v2"
            assert origin.begun == 2

    explore(scenario, SEEDS)


# --- counts


def test_counts_add_up_whatever_happens() -> None:
    """Each request counts once, with its result; each load is that of a miss or a refresh."""

    async def scenario(seed: int) -> None:
        draw = random.Random(seed)
        random.seed(seed)
        begun = 0

        async def load() -> str:
            nonlocal begun
            begun += 1
            await asyncio.sleep(draw.choice([0, 0, 0.5, 2, 8]))
            match draw.randrange(8):
                case 0 | 1:
                    raise OSError
                case 2:
                    current_load().skip()
                case 3:
                    current_load().set_ttl(draw.choice([0, 1, 30]))
            return "v"

        kinds = [
            EntryOptions(ttl=5),
            EntryOptions(ttl=5, stale_while_revalidate=10, throttle=1),
            EntryOptions(ttl=5, stale_if_error=20, soft_timeout=1, throttle=1),
            EntryOptions(ttl=5, stale_if_error=20, soft_timeout=1, hard_timeout=3, background_completion=False),
            EntryOptions(ttl=5, hard_timeout=1, negative_ttl=1),
            EntryOptions(ttl=10, early_refresh=0.3, early_beta=1, jitter=2, stale_while_revalidate=5),
            EntryOptions(ttl=0),
        ]
        calls = 0

        async def caller(cache: CacheManager, key: str) -> None:
            nonlocal calls
            for _ in range(12):
                calls += 1
                with contextlib.suppress(OSError):
                    await cache.get_or_compute(key, load, tags=["a"], options=draw.choice(kinds))
                await asyncio.sleep(draw.choice([0, 0, 1, 4]))

        async with simulated() as cache:
            tasks = [asyncio.create_task(caller(cache, key)) for key in "aabbbc"]
            for _ in range(8):
                await asyncio.sleep(draw.uniform(0, 5))
                match draw.randrange(4):
                    case 0:
                        draw.choice(tasks).cancel()
                    case 1:
                        await cache.invalidate_tags("a", soft=draw.random() < 0.5)
                    case 2:
                        await cache.delete(draw.choice("abc"))
                    case _:
                        await cache.clear()
            await asyncio.wait(tasks)
            await asyncio.sleep(100)
            counted = requests(cache)
            loads = counted.pop("loads", 0)
            # A caller that is cancelled while it pauses asks no more; one that is in a call has been counted.
            assert sum(counted.values()) == calls
            assert loads + count(cache, names.REFRESHES) == begun
            assert count(cache, names.WAITING) == 0
            assert not cache._computing._behind

    for seed in range(100):
        run(scenario(seed), seed)


# --- schedules


@pytest.mark.parametrize("where", ["memory", "one process", "two processes"])
@pytest.mark.parametrize("by", ["the caller", "the load"])
def test_no_call_returns_what_was_loaded_before_an_invalidation_that_it_began_after(where: str, by: str) -> None:
    """Whatever the schedule, the options, who is cancelled, and what another process loads meanwhile.

    Of its own loads a process uses none that began before it knew that all was done; of those of another process none
    that began before it asked.

    Args:
        by: whom the tag comes from that is invalidated.
    """
    tags = ["a"] if by == "the caller" else []

    async def scenario(seed: int) -> None:
        draw = random.Random(seed)
        random.seed(seed)
        acknowledged = version = 0

        async def load() -> int:
            seen = version
            early = draw.random() < 0.5
            if by == "the load" and early:
                current_load().add_tags("a")
            await asyncio.sleep(draw.choice([0, 0, 0.1, 1]))
            if draw.random() < 0.3:
                raise OSError("origin")
            if by == "the load" and not early:
                current_load().add_tags("a")
            return seen

        kinds = [
            EntryOptions(ttl=5),
            EntryOptions(ttl=1, stale_while_revalidate=100, throttle=0.5),
            EntryOptions(ttl=1, stale_if_error=100, throttle=0.5),
            EntryOptions(ttl=1, stale_if_error=100, soft_timeout=0.05, hard_timeout=0.5, throttle=0.5),
            EntryOptions(ttl=2, early_refresh=0.2),
        ]

        async def caller(cache: CacheManager, *, checks: bool = True) -> None:
            for _ in range(10):
                oldest = acknowledged if checks else 0
                with contextlib.suppress(OSError):
                    value = await cache.get_or_compute("k", load, tags=tags, options=draw.choice(kinds))
                    assert value >= oldest, f"{value} was loaded before invalidation {oldest}"
                oldest = acknowledged if checks else 0
                found = await cache.get("k")
                assert found is None or found >= oldest, f"{found} was loaded before invalidation {oldest}"
                await asyncio.sleep(draw.choice([0, 0, 0.2, 1]))

        async def invalidator(cache: CacheManager) -> None:
            nonlocal acknowledged, version
            for _ in range(10):
                version += where == "two processes"
                now = version
                match draw.randrange(5):
                    case 0:
                        await cache.clear()
                    case 1:
                        await cache.delete("k")
                    case _:
                        await cache.invalidate_tags("a")
                if where != "two processes":
                    now = version = version + 1
                acknowledged = now
                await asyncio.sleep(draw.choice([0, 0.3, 1]))

        truth = None if where == "memory" else Truth(current().clock())
        async with simulated(truth) as cache, simulated(truth) as other:
            cancelled = asyncio.create_task(caller(cache))
            work = [asyncio.create_task(caller(cache)) for _ in range(3)]
            work.append(asyncio.create_task(invalidator(cache)))
            if where == "two processes":
                work.append(asyncio.create_task(caller(other, checks=False)))
            await asyncio.sleep(draw.uniform(0, 3))
            cancelled.cancel()
            results = await asyncio.gather(cancelled, *work, return_exceptions=True)
            for result in results[1:]:
                if result is not None:
                    raise result

    for seed in range(200):
        run(scenario(seed), seed)
