"""Layers behind guards: deadlines, the breaker, what a failure means to whom, and what is promoted."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from aurelis.cache._entry import Details, Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._generations import Generations
from aurelis.cache._guard import Budget, Guard
from aurelis.cache._leases import Permit
from aurelis.cache._packing import Keep, Packed
from aurelis.cache._stack import Stack
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.exceptions import LayerError, LayerTimeout, LayerUnavailableError
from aurelis.cache.layers.memory import MemoryBackend
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry
from aurelis.cache.testing import ManualClock
from aurelis.cache.typing import Layer, SharedLayer
from tests.managers import WITHIN, count, eventually, fresh_name, series
from tests.shared_layers import SilentLayer, Truth

T = TypeVar("T")
THRESHOLD = 3
PAUSE = 10.0
CODEC = ValueCodec()
AS_LAYERS_SAY = Keep(None)


class Faulty:
    """A layer that fails, hangs or works, as it is told."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.name = name
        self.inner = MemoryBackend(clock=clock)
        self.error: Exception | None = None
        self.hangs: asyncio.Event | None = None
        self.calls: list[str] = []
        self.under_way = 0

    async def _do(self, operation: str, act: Awaitable[T]) -> T:
        self.calls.append(operation)
        self.under_way += 1
        try:
            if self.hangs is not None:
                await self.hangs.wait()
            if self.error is not None:
                raise self.error
            return await act
        finally:
            self.under_way -= 1
            if asyncio.iscoroutine(act):
                act.close()

    async def lookup(self, key: str) -> Entry | None:
        return await self._do("get", self.inner.lookup(key))

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        return await self._do("get many", self.inner.lookup_many(keys))

    async def store(self, key: str, entry: Entry) -> None:
        await self._do("set", self.inner.store(key, entry))

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        await self._do("set many", self.inner.store_many(entries))

    async def remove(self, key: str) -> bool:
        return await self._do("delete", self.inner.remove(key))

    async def remove_all(self) -> None:
        await self._do("clear", self.inner.remove_all())

    async def aclose(self) -> None:
        self.calls.append("close")


class Bed:
    """A stack of memory and two faulty layers, `l2` above `l3`."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.telemetry = Telemetry(fresh_name())
        self.memory = MemoryBackend(clock=self.clock)
        self.upper, self.lower = Faulty("l2", self.clock), Faulty("l3", self.clock)
        self.guards = [self.guard(self.upper, 1000.0), self.guard(self.lower, 2000.0)]
        self.stack = self.build(self.guards)

    def guard(self, layer: Layer, ttl: float) -> Guard:
        return Guard(layer, ttl, self.clock, self.telemetry, threshold=THRESHOLD, pause=PAUSE)

    def build(self, guards: Sequence[Guard]) -> Stack:
        return Stack(self.memory, 100.0, guards, codec=CODEC, copy=True, clock=self.clock, timeout=WITHIN)

    def budget(self, left: float = WITHIN) -> Budget:
        return Budget(left)

    def entry(self, value: object, life: float = 50.0) -> Entry:
        now = self.clock.monotonic()
        return Entry(value, CODEC.dumps(value), now + life, now + life, 0)

    def counted(self, metric: names.Metric, **attributes: str) -> float:
        keys = {"layer": names.LAYER, "result": names.RESULT, "state": names.BREAKER_STATE, "error": names.ERROR_TYPE}
        return count(self.telemetry.name, metric, {keys[name]: value for name, value in attributes.items()})

    async def break_upper(self) -> None:
        """Makes the breaker of the upper layer open."""
        self.upper.error = ConnectionError("down")
        for _ in range(THRESHOLD):
            await self.stack.lookup("k", self.budget())


@pytest.fixture
def bed() -> Bed:
    """Everything empty, working and closed."""
    return Bed()


def packed(value: object) -> Packed:
    """Returns a value ready to be stored."""
    return Packed(value, CODEC.dumps(value), isinstance(value, str | int))


async def many(stack: Stack, keys: list[str]) -> dict[str, Found]:
    """Returns what is found below memory, by key."""
    found = await stack.lookup_many(keys, stack.budget())
    return {key: Found(entry, layer) for layer, entries in found for key, entry in entries.items()}


# --- the guard


async def test_what_a_layer_raises_becomes_a_layer_error_with_its_cause(bed: Bed) -> None:
    bed.upper.error = OSError("secret details")
    with pytest.raises(LayerError) as caught:
        await bed.guards[0].call("get", lambda: bed.upper.lookup("k"), bed.budget())
    assert (caught.value.layer, caught.value.operation) == ("l2", "get")
    assert caught.value.__cause__ is bed.upper.error
    assert "secret" not in str(caught.value)
    assert bed.counted(names.ERRORS, layer="l2", error="OSError") == 1


async def test_a_layer_that_hangs_is_left_after_the_budget(bed: Bed) -> None:
    bed.upper.hangs = asyncio.Event()
    budget = bed.budget(0.01)
    with pytest.raises(LayerTimeout):
        await bed.guards[0].call("get", lambda: bed.upper.lookup("k"), budget)
    assert bed.upper.under_way == 0
    assert bed.counted(names.ERRORS, layer="l2", error="timeout") == 1


async def test_without_anything_left_to_spend_a_layer_is_not_asked(bed: Bed) -> None:
    with pytest.raises(LayerTimeout):
        await bed.guards[0].call("get", lambda: bed.upper.lookup("k"), bed.budget(0))
    assert bed.upper.calls == []
    assert bed.counted(names.ERRORS) == 0


async def test_the_time_of_a_call_is_taken_from_the_budget(bed: Bed) -> None:
    budget = bed.budget(5)

    async def slow() -> str:
        bed.clock.advance(2)
        return "done"

    async def fails() -> str:
        bed.clock.advance(1)
        raise OSError

    assert await bed.guards[0].call("get", slow, budget) == "done"
    assert budget.left == 3
    with pytest.raises(LayerError):
        await bed.guards[0].call("get", fails, budget)
    assert budget.left == 2


async def test_failures_in_a_row_open_the_breaker_and_then_nobody_asks(bed: Bed) -> None:
    await bed.break_upper()
    assert bed.counted(names.BREAKER, layer="l2", state="open") == 1
    asked = len(bed.upper.calls)
    with pytest.raises(LayerUnavailableError):
        await bed.guards[0].call("get", lambda: bed.upper.lookup("k"), bed.budget())
    assert len(bed.upper.calls) == asked


async def test_a_success_in_between_keeps_it_closed(bed: Bed) -> None:
    for _ in range(3 * THRESHOLD):
        for error in [OSError()] * (THRESHOLD - 1) + [None]:
            bed.upper.error = error
            await bed.stack.lookup("k", bed.budget())
    assert bed.counted(names.BREAKER) == 0
    # A series that begins with its first event would have no increase by it; there are two layers.
    assert len(series(bed.telemetry.name, names.BREAKER, zeros=True)) == 6


async def test_after_the_pause_exactly_one_probes_and_its_success_heals(bed: Bed) -> None:
    await bed.break_upper()
    bed.upper.error, bed.upper.hangs = None, asyncio.Event()
    bed.clock.advance(PAUSE * 2)
    bed.upper.calls.clear()
    requests = [asyncio.create_task(bed.stack.lookup("k", bed.budget())) for _ in range(100)]
    await eventually(lambda: sum(request.done() for request in requests) == 99)
    assert bed.upper.calls == ["get"]
    bed.upper.hangs.set()
    await asyncio.gather(*requests)
    await bed.stack.lookup("k", bed.budget())
    assert bed.upper.calls == ["get", "get"]
    assert bed.counted(names.LOOKUPS, layer="l2", result="skipped") == 99
    changes = {dict(attributes)[names.BREAKER_STATE] for attributes in series(bed.telemetry.name, names.BREAKER)}
    assert changes == {"open", "half_open", "closed"}
    assert bed.counted(names.BREAKER) == 3


async def test_a_probe_that_fails_starts_the_pause_anew(bed: Bed) -> None:
    await bed.break_upper()
    bed.clock.advance(PAUSE * 2)
    bed.upper.calls.clear()
    for _ in range(3):
        await bed.stack.lookup("k", bed.budget())
    assert bed.upper.calls == ["get"]
    bed.clock.advance(PAUSE * 2)
    await bed.stack.lookup("k", bed.budget())
    assert bed.upper.calls == ["get", "get"]


async def test_a_cancelled_probe_leaves_its_place_to_the_next(bed: Bed) -> None:
    await bed.break_upper()
    bed.upper.error, bed.upper.hangs = None, asyncio.Event()
    bed.clock.advance(PAUSE * 2)
    bed.upper.calls.clear()
    probe = asyncio.create_task(bed.stack.lookup("k", bed.budget()))
    await eventually(lambda: bed.upper.under_way)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    bed.upper.hangs = None
    await bed.stack.lookup("k", bed.budget())
    assert bed.upper.calls == ["get", "get"]
    assert bed.counted(names.BREAKER, state="closed") == 1


@pytest.mark.parametrize("patience", [WITHIN, math.inf])
async def test_a_probe_whose_event_loop_is_gone_does_not_keep_the_layer_out_for_ever(bed: Bed, patience: float) -> None:
    await bed.break_upper()
    bed.upper.error = None
    bed.clock.advance(PAUSE * 2)

    def probe_and_vanish() -> None:
        loop = asyncio.new_event_loop()
        bed.upper.hangs = asyncio.Event()
        task = loop.create_task(bed.stack.lookup("k", Budget(patience)))
        loop.run_until_complete(asyncio.sleep(0))
        assert bed.upper.under_way
        loop.close()
        # Held, so that nothing is thrown into it.
        vanished.append(task)

    vanished: list[asyncio.Task[Any]] = []
    await asyncio.to_thread(probe_and_vanish)
    bed.upper.hangs = None
    bed.upper.calls.clear()
    await bed.stack.lookup("k", bed.budget())
    assert bed.upper.calls == []
    bed.clock.advance(30)
    await bed.stack.lookup("k", bed.budget())
    assert bed.upper.calls == ["get"]
    assert bed.counted(names.BREAKER, state="closed") == 1
    vanished[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch for what is meant


def test_of_many_threads_exactly_one_probes(bed: Bed) -> None:
    asyncio.run(bed.break_upper())
    bed.upper.error = None
    for _ in range(20):
        bed.clock.advance(PAUSE * 2)
        bed.guards[0]._change(lambda state: type(state)("open", until=bed.clock.monotonic()))
        together = threading.Barrier(8)
        probes: list[bool] = []

        def ask(together: threading.Barrier, probes: list[bool]) -> None:
            together.wait(WITHIN)
            probes.append(bed.guards[0]._admit(bed.clock.monotonic(), bed.budget()))

        threads = [threading.Thread(target=ask, args=(together, probes)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)
        assert sorted(probes) == [False] * 7 + [True]


async def test_each_layer_has_a_breaker_of_its_own(bed: Bed) -> None:
    await bed.break_upper()
    bed.upper.calls.clear()
    bed.lower.calls.clear()
    await bed.lower.inner.store("k", bed.entry("v"))
    found = await bed.stack.lookup("k", bed.budget())
    assert found is not None
    assert found.layer == "l3"
    assert (bed.upper.calls, bed.lower.calls) == ([], ["get"])


# --- reading


async def test_layers_are_asked_in_order_until_one_has_it(bed: Bed) -> None:
    await bed.lower.inner.store("k", bed.entry("below"))
    found = await bed.stack.lookup("k", bed.budget())
    assert found is not None
    assert (found.layer, found.entry.value) == ("l3", "below")
    assert bed.counted(names.LOOKUPS, layer="l2", result="miss") == 1
    assert bed.counted(names.LOOKUPS, layer="l3", result="hit") == 1
    await bed.upper.inner.store("k", bed.entry("above"))
    found = await bed.stack.lookup("k", bed.budget())
    assert found is not None
    assert found.layer == "l2"


async def test_many_are_asked_for_once_and_only_what_is_missing_further_below(bed: Bed) -> None:
    await bed.upper.inner.store("a", bed.entry("above"))
    await bed.lower.inner.store("b", bed.entry("below"))
    found = await many(bed.stack, ["a", "b", "c"])
    assert {key: (hit.layer, hit.entry.value) for key, hit in found.items()} == {
        "a": ("l2", "above"),
        "b": ("l3", "below"),
    }
    assert (bed.upper.calls, bed.lower.calls) == (["get many"], ["get many"])
    assert bed.counted(names.LOOKUPS, layer="l2", result="miss") == 2
    assert bed.counted(names.LOOKUPS, layer="l3", result="miss") == 1
    await many(bed.stack, ["a"])
    assert bed.lower.calls == ["get many"]


async def test_a_layer_that_fails_is_a_miss_and_the_next_one_is_asked(bed: Bed) -> None:
    await bed.lower.inner.store("k", bed.entry("below"))
    bed.upper.error = OSError()
    assert await bed.stack.lookup("k", bed.budget()) is not None
    assert list(await many(bed.stack, ["k", "l"])) == ["k"]
    assert bed.counted(names.LOOKUPS, layer="l2", result="error") == 3
    await bed.break_upper()
    await many(bed.stack, ["k", "l"])
    assert bed.counted(names.LOOKUPS, layer="l2", result="skipped") >= 2


async def test_what_is_found_below_is_promoted_for_no_longer_than_it_lives_there(bed: Bed) -> None:
    await bed.upper.inner.store("short", bed.entry([1], life=50))
    await bed.upper.inner.store("long", bed.entry([1], life=math.inf))
    await bed.stack.lookup("short", bed.budget())
    await many(bed.stack, ["long"])
    now = bed.clock.monotonic()
    lives = {key: entry.expires - now for key in ("short", "long") if (entry := bed.memory.peek(key))}
    assert lives == {"short": 50, "long": 100}


async def test_what_is_promoted_replaces_nothing_newer(bed: Bed) -> None:
    await bed.upper.inner.store("k", bed.entry("old"))
    bed.memory.put("k", bed.entry("new"))
    await bed.stack.lookup("k", bed.budget())
    entry = bed.memory.peek("k")
    assert entry is not None
    assert entry.value == "new"


@pytest.mark.parametrize("how", ["remove", "clear", "store"])
async def test_what_was_read_before_a_change_is_not_promoted_after_it(bed: Bed, how: str) -> None:
    await bed.upper.inner.store("k", bed.entry("old"))
    found: Callable[[str], Awaitable[Entry | None]] = bed.upper.inner.lookup

    async def reads_then_waits(key: str) -> Entry | None:
        entry = await found(key)
        match how:
            case "remove":
                await bed.stack.remove("k", bed.budget())
            case "clear":
                await bed.stack.clear()
            case _:
                await bed.stack.store({"k": packed("new")}, AS_LAYERS_SAY, bed.budget())
                bed.memory.drop("k")  # evicted again
        return entry

    bed.upper.inner.lookup = reads_then_waits  # type: ignore[method-assign]  # between reading and promoting
    found_before = await bed.stack.lookup("k", bed.budget())
    assert (found_before is None) == (how == "clear")  # what it invalidates is not even found
    assert bed.memory.peek("k") is None


# --- writing


async def test_a_value_goes_into_every_layer_for_the_time_that_layer_keeps_it(bed: Bed) -> None:
    assert (await bed.stack.store({"k": packed("v")}, AS_LAYERS_SAY, bed.budget())).result == "stored"
    now = bed.clock.monotonic()
    lives = [
        entry.expires - now for layer in (bed.memory, bed.upper.inner, bed.lower.inner) if (entry := layer.peek("k"))
    ]
    assert lives == [100, 1000, 2000]


@pytest.mark.parametrize(
    ("ttl", "lives"), [(10.0, [10, 10, 10]), (500.0, [100, 500, 500]), (math.inf, [100, math.inf])]
)
async def test_a_ttl_of_the_callers_is_capped_in_memory_alone(bed: Bed, ttl: float, lives: list[float]) -> None:
    await bed.stack.store({"k": packed("v")}, Keep(ttl), bed.budget())
    now = bed.clock.monotonic()
    found = [
        entry.expires - now for layer in (bed.memory, bed.upper.inner, bed.lower.inner) if (entry := layer.peek("k"))
    ]
    assert found[: len(lives)] == lives


@pytest.mark.parametrize(
    ("keep", "life"),
    [
        pytest.param(Keep(500.0), 500, id="ttl"),
        pytest.param(Keep(500.0, stale_for=100.0), 600, id="stale"),
        pytest.param(Keep(None, stale_for=50.0), 150, id="stale-after-its-own"),
        pytest.param(Keep(500.0, memory_ttl=10.0), 500, id="memory-ttl"),
        pytest.param(Keep(None, memory_ttl=10.0), 100, id="memory-ttl-for-its-own"),
    ],
)
async def test_memory_alone_keeps_a_value_for_all_of_its_life(bed: Bed, keep: Keep, life: float) -> None:
    """`memory_ttl` is for memory above a shared layer."""
    await bed.build([]).store({"k": packed("v")}, keep, bed.budget())
    bed.clock.advance(life - 1)
    assert bed.memory.peek("k") is not None
    bed.clock.advance(1)
    assert bed.memory.peek("k") is None


@pytest.mark.parametrize(
    ("keep", "fresh", "lives"),
    [
        pytest.param(Keep(10.0, stale_for=30.0), [10, 10, 10], [40, 40, 40], id="short"),
        pytest.param(Keep(90.0, stale_for=30.0), [90, 90, 90], [100, 120, 120], id="stale-beyond-memory"),
        pytest.param(Keep(90.0, memory_ttl=20.0), [90, 90, 90], [20, 90, 90], id="memory-ttl"),
        pytest.param(Keep(90.0, memory_ttl=1000.0), [90, 90, 90], [90, 90, 90], id="long-memory-ttl"),
    ],
)
async def test_after_its_ttl_a_value_is_kept_for_as_long_as_it_may_be_served_stale(
    bed: Bed, keep: Keep, fresh: list[float], lives: list[float]
) -> None:
    await bed.stack.store({"k": packed("v")}, keep, bed.budget())
    now = bed.clock.monotonic()
    entries = [entry for layer in (bed.memory, bed.upper.inner, bed.lower.inner) if (entry := layer.peek("k"))]
    assert [entry.fresh_until - now for entry in entries] == fresh
    assert [entry.expires - now for entry in entries] == lives


@pytest.mark.parametrize("number", [1, 3])
async def test_storing_says_whether_every_layer_took_it_and_goes_on_where_one_did_not(bed: Bed, number: int) -> None:
    values = {str(key): packed(key) for key in range(number)}
    assert (await bed.stack.store(values, AS_LAYERS_SAY, bed.budget())).result == "stored"
    bed.upper.error = OSError()
    assert (await bed.stack.store(values, AS_LAYERS_SAY, bed.budget())).result == "layer_failed"
    assert bed.lower.calls[-1] == bed.upper.calls[-1] == ("set" if number == 1 else "set many")
    assert bed.memory.peek("0") is not None
    await bed.break_upper()
    assert (await bed.stack.store(values, AS_LAYERS_SAY, bed.budget())).result == "layer_failed"


async def test_removing_reaches_every_layer_and_raises_where_one_could_not_be_reached(bed: Bed) -> None:
    await bed.stack.store({"k": packed("v")}, AS_LAYERS_SAY, bed.budget())
    assert await bed.stack.remove("k", bed.budget())
    assert not await bed.stack.remove("k", bed.budget())
    await bed.stack.store({"k": packed("v")}, AS_LAYERS_SAY, bed.budget())
    bed.upper.error = OSError()
    with pytest.raises(LayerError) as caught:
        await bed.stack.remove("k", bed.budget())
    assert caught.value.layer == "l2"
    assert bed.memory.peek("k") is None
    assert bed.lower.inner.peek("k") is None
    await bed.break_upper()
    with pytest.raises(LayerUnavailableError):
        await bed.stack.remove("k", bed.budget())


async def test_clearing_reaches_every_layer_and_raises_where_one_could_not_be_reached(bed: Bed) -> None:
    await bed.stack.store({"k": packed("v")}, AS_LAYERS_SAY, bed.budget())
    bed.upper.error = OSError()
    with pytest.raises(LayerError):
        await bed.stack.clear()
    assert bed.memory.peek("k") is None
    assert bed.lower.inner.peek("k") is None
    bed.upper.error = None
    await bed.stack.clear()
    assert bed.upper.inner.peek("k") is None


async def test_closing_forgets_what_memory_holds_and_closes_the_layers(bed: Bed) -> None:
    await bed.stack.store({"k": packed("v")}, AS_LAYERS_SAY, bed.budget())
    await bed.stack.aclose()
    assert bed.memory.peek("k") is None
    assert bed.upper.calls[-1] == bed.lower.calls[-1] == "close"


# --- invalidation


async def loaded(stack: Stack, key: str, value: object, keep: Keep = AS_LAYERS_SAY) -> Permit:
    """Stores a value as a load does; returns its permit."""
    found, permit = await stack.acquire(key, b"token", stack.budget(), again=True, life=10)
    assert found is None
    await stack.publish({key: packed(value)}, keep, permit, stack.budget())
    return permit


def tagged(*tags: str) -> Keep:
    """Returns how a value with these tags is kept."""
    return Keep(None, details=Details(tags))


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
async def test_what_an_invalidation_has_overtaken_is_not_found_or_stale_in_every_layer(bed: Bed, soft: bool) -> None:
    for kept in ("memory", "below"):
        await bed.stack.store({"k": packed(kept), "l": packed(kept)}, tagged("t:a"), bed.budget())
        await bed.stack.store({"m": packed(kept)}, tagged("t:b"), bed.budget())
        await bed.stack.invalidate(["t:a"], soft=soft, budget=bed.budget())
        if kept == "below":
            await bed.memory.remove_all()
        now = bed.clock.monotonic()
        found = {key: bed.stack.peek(key) for key in "klm"}
        if kept == "below":
            single = await bed.stack.lookup("k", bed.budget())
            others = await many(bed.stack, ["l", "m"])
            found = {"k": single.entry if single else None} | {key: hit.entry for key, hit in others.items()}
        fresh = {key: entry.fresh_until > now for key, entry in found.items() if entry is not None}
        assert fresh == ({"k": False, "l": False, "m": True} if soft else {"m": True})


async def test_an_invalidation_does_not_touch_what_is_stored_later(bed: Bed) -> None:
    for soft in (False, True):
        await bed.stack.invalidate(["t:a"], soft=soft, budget=bed.budget())
        await bed.stack.store({"k": packed("v")}, tagged("t:a"), bed.budget())
        entry = bed.stack.peek("k")
        assert entry is not None
        assert entry.fresh_until > bed.clock.monotonic()
        assert (await many(bed.stack, ["k"])).keys() == {"k"}


async def test_what_was_made_stale_while_a_refresh_failed_does_not_become_fresh(bed: Bed) -> None:
    stack = bed.build([])
    await stack.store({"k": packed("v")}, tagged("t:a"), bed.budget())
    entry = stack.peek("k")
    assert entry is not None
    await stack.invalidate(["t:a"], soft=True, budget=bed.budget())
    stack.rearm("k", entry, bed.clock.monotonic() + 30)
    again = stack.peek("k")
    assert again is None or again.fresh_until <= bed.clock.monotonic()


# --- a shared layer


class Process:
    """One of several processes: memory over a layer that they share."""

    def __init__(self, truth: Truth) -> None:
        self.clock = truth.clock
        self.telemetry = Telemetry(fresh_name())
        self.memory = MemoryBackend(clock=self.clock)
        self.layer = SilentLayer(truth)
        guard = Guard(self.layer, 1000.0, self.clock, self.telemetry, threshold=THRESHOLD, pause=PAUSE)
        self.generations = Generations(self.clock, shared=True, trust=5.0)
        self.stack = Stack(
            self.memory,
            100.0,
            [guard],
            codec=CODEC,
            copy=True,
            clock=self.clock,
            timeout=WITHIN,
            generations=self.generations,
            prefix="aurelis:",
        )

    def budget(self) -> Budget:
        return self.stack.budget()

    async def value(self, key: str = "k") -> object:
        """Returns what a reader gets that is still fresh; `None`: nothing."""
        entry = self.stack.peek(key)
        if entry is None:
            found = await self.stack.lookup(key, self.budget())
            entry = None if found is None else found.entry
        if entry is None or entry.fresh_until <= self.clock.monotonic():
            return None
        return self.stack.read(entry)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def truth(clock: ManualClock) -> Truth:
    """What the processes share."""
    return Truth(clock)


@pytest.fixture
def one(truth: Truth) -> Process:
    """A process."""
    return Process(truth)


@pytest.fixture
def other(truth: Truth) -> Process:
    """Another one."""
    return Process(truth)


def test_a_layer_that_can_keep_order_is_the_shared_one(bed: Bed, one: Process) -> None:
    assert isinstance(one.layer, SharedLayer)
    assert not isinstance(bed.upper, SharedLayer)
    assert bed.stack.shared is None
    assert one.stack.shared is one.stack.lower[0]


async def test_what_one_process_stores_the_other_one_finds(one: Process, other: Process) -> None:
    assert (await one.stack.store({"k": packed([1])}, AS_LAYERS_SAY, one.budget())).result == "stored"
    assert await other.value() == [1]
    await loaded(other.stack, "l", [2])
    assert await one.value("l") == [2]


async def test_what_a_process_has_stored_itself_it_serves_from_memory(one: Process) -> None:
    await loaded(one.stack, "loaded", "v", tagged("t:a"))
    await one.stack.store({"set": packed("v")}, tagged("t:b"), one.budget())
    one.layer.calls.clear()
    assert [await one.value("loaded"), await one.value("set")] == ["v", "v"]
    assert one.layer.calls == []


@pytest.mark.parametrize("how", ["set", "load"])
@pytest.mark.parametrize(
    "tag",
    [
        pytest.param("t:a", id="tag"),
        pytest.param("c:user", id="category"),
        pytest.param("i:user:1", id="identifier"),
        pytest.param("*", id="everything"),
    ],
)
async def test_an_invalidation_in_one_process_reaches_what_another_one_finds_afterwards(
    one: Process, other: Process, how: str, tag: str
) -> None:
    key, untouched = f"aurelis:v1:user:1:{'0' * 32}", "aurelis:v1:page:1"
    for name in (key, untouched):
        keep = tagged("t:a") if name == key else AS_LAYERS_SAY
        if how == "set":
            await one.stack.store({name: packed("v")}, keep, one.budget())
        else:
            await loaded(one.stack, name, "v", keep)
    await one.stack.invalidate([tag], soft=False, budget=one.budget())
    assert await one.value(key) is None
    assert await other.value(key) is None
    assert await other.value(untouched) == (None if tag == "*" else "v")


async def test_where_both_kinds_met_a_value_the_hard_one_counts_in_every_process(one: Process, other: Process) -> None:
    """The second process has never heard of the tag when it makes it stale."""
    await loaded(one.stack, "k", "v", tagged("t:a"))
    await one.stack.invalidate(["t:a"], soft=False, budget=one.budget())
    await other.stack.invalidate(["t:a"], soft=True, budget=other.budget())
    for process in (one, other):
        assert process.stack.peek("k") is None
        assert await process.stack.lookup("k", process.budget()) is None


async def test_a_load_that_something_overtook_is_fenced_and_not_even_kept_in_memory(
    one: Process, other: Process
) -> None:
    _, permit = await one.stack.acquire("k", b"one", one.budget(), again=False, life=10)
    assert permit.owner
    await other.stack.remove("k", other.budget())
    result = await one.stack.publish({"k": packed("old")}, AS_LAYERS_SAY, permit, one.budget())
    assert result.result == "fenced"
    assert await one.value() is None


async def test_a_load_that_began_before_an_invalidation_is_out_of_date_as_soon_as_it_is_stored(
    one: Process, other: Process
) -> None:
    _, permit = await one.stack.acquire("k", b"one", one.budget(), tags=("t:a",), again=False, life=10)
    await other.stack.invalidate(["t:a"], soft=False, budget=other.budget())
    await one.stack.publish({"k": packed("old")}, tagged("t:a"), permit, one.budget())
    assert await other.value() is None


async def test_what_is_loaded_while_the_layer_is_away_is_kept_in_memory_alone(one: Process, truth: Truth) -> None:
    one.layer.error = OSError()
    found, permit = await one.stack.acquire("k", b"one", one.budget(), again=False, life=10)
    assert (found, permit.fence) == (None, None)
    one.layer.error = None
    result = await one.stack.publish({"k": packed("v")}, AS_LAYERS_SAY, permit, one.budget())
    assert result.result == "layer_failed"
    assert truth.entries == {}


async def test_clearing_leaves_the_shared_layer_to_its_times_and_empties_the_others(one: Process, bed: Bed) -> None:
    stack = bed.build([*one.stack.lower, *bed.guards])
    await stack.store({"k": packed("v")}, AS_LAYERS_SAY, bed.budget())
    await stack.clear()
    assert bed.upper.calls[-1] == bed.lower.calls[-1] == "clear"
    assert "remove_all" not in one.layer.calls
    assert await stack.lookup("k", bed.budget()) is None
    assert stack.peek("k") is None


async def test_once_step_is_lost_memory_is_verified_and_then_relied_on_again(one: Process) -> None:
    await loaded(one.stack, "k", "v")
    one.generations.in_step = True
    assert await one.value() == "v"
    one.generations.lost_step()
    one.generations.in_step = True
    assert await one.value() == "v"
    one.layer.calls.clear()
    assert await one.value() == "v"
    assert one.layer.calls == []


async def test_once_step_is_lost_what_was_invalidated_meanwhile_is_not_served(one: Process, other: Process) -> None:
    await loaded(one.stack, "k", "v", tagged("t:a"))
    one.generations.in_step = True
    await other.stack.invalidate(["t:a"], soft=False, budget=other.budget())
    one.generations.lost_step()
    one.generations.in_step = True
    assert await one.value() is None


async def test_an_invalidation_that_does_not_get_through_is_raised_and_counts_here(
    one: Process, other: Process, truth: Truth
) -> None:
    await loaded(one.stack, "k", "old", tagged("t:a"))
    await one.memory.remove_all()
    truth.number += 1000  # much has happened elsewhere, of which this process has not heard
    await loaded(other.stack, "k", "v", tagged("t:a"))
    assert await one.value() == "v"
    one.layer.error = OSError()
    with pytest.raises(LayerError):
        await one.stack.invalidate(["t:a"], soft=False, budget=one.budget())
    assert await one.value() is None


@pytest.mark.parametrize(("soft", "fresh"), [(None, True), (True, False)], ids=["valid", "soft"])
async def test_where_no_layer_answers_memory_serves_what_it_has(one: Process, soft: bool | None, fresh: bool) -> None:
    await loaded(one.stack, "k", "v", tagged("t:a"))
    if soft:
        await one.stack.invalidate(["t:a"], soft=True, budget=one.budget())
    else:
        one.generations.lost_step()
    one.layer.error = OSError()
    for found in (
        await one.stack.lookup("k", one.budget()),
        (await many(one.stack, ["k"])).get("k"),
    ):
        assert found is not None
        assert found.layer == names.L1
        assert (found.entry.fresh_until > one.clock.monotonic()) == fresh


async def test_in_need_memory_does_not_serve_what_is_known_to_be_gone(one: Process) -> None:
    await loaded(one.stack, "k", "v", tagged("t:a"))
    await one.stack.invalidate(["t:a"], soft=False, budget=one.budget())
    one.layer.error = OSError()
    assert await one.stack.lookup("k", one.budget()) is None
    assert await many(one.stack, ["k"]) == {}


async def test_another_process_gets_what_is_known_of_a_value(one: Process, other: Process) -> None:
    details = Details(("t:a",), 12.0, 0.5, '"abc"', "Sun, 06 Nov 1994 08:49:37 GMT")
    await loaded(one.stack, "k", "v", Keep(60.0, stale_for=30.0, details=details))
    found = await other.stack.lookup("k", other.budget())
    assert found is not None
    promoted = other.memory.peek("k")
    assert promoted is not None
    assert found.entry.details == promoted.details == details
    assert promoted.until < promoted.fresh_until  # to be refreshed early
    assert (promoted.fresh_until, promoted.expires) == (found.entry.fresh_until, found.entry.expires)
