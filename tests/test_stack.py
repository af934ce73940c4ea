"""Layers behind guards: deadlines, the breaker, what a failure means to whom, and what is promoted."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from aurelis.cache._entry import Entry
from aurelis.cache._stack import Budget, Guard, Packed, Stack
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.exceptions import LayerError, LayerTimeout, LayerUnavailableError
from aurelis.cache.layers.memory import MemoryBackend
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import Telemetry
from aurelis.cache.testing import ManualClock
from aurelis.cache.typing import Layer
from tests.managers import WITHIN, count, eventually, fresh_name, series

T = TypeVar("T")
THRESHOLD = 3
PAUSE = 10.0
CODEC = ValueCodec()


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


async def test_a_probe_whose_event_loop_is_gone_does_not_keep_the_layer_out_for_ever(bed: Bed) -> None:
    await bed.break_upper()
    bed.upper.error = None
    bed.clock.advance(PAUSE * 2)

    def probe_and_vanish() -> None:
        loop = asyncio.new_event_loop()
        bed.upper.hangs = asyncio.Event()
        task = loop.create_task(bed.stack.lookup("k", bed.budget()))
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
    bed.clock.advance(WITHIN)
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
    found = await bed.stack.lookup_many(["a", "b", "c"], bed.budget())
    assert {key: (hit.layer, hit.entry.value) for key, hit in found.items()} == {
        "a": ("l2", "above"),
        "b": ("l3", "below"),
    }
    assert (bed.upper.calls, bed.lower.calls) == (["get many"], ["get many"])
    assert bed.counted(names.LOOKUPS, layer="l2", result="miss") == 2
    assert bed.counted(names.LOOKUPS, layer="l3", result="miss") == 1
    await bed.stack.lookup_many(["a"], bed.budget())
    assert bed.lower.calls == ["get many"]


async def test_a_layer_that_fails_is_a_miss_and_the_next_one_is_asked(bed: Bed) -> None:
    await bed.lower.inner.store("k", bed.entry("below"))
    bed.upper.error = OSError()
    assert await bed.stack.lookup("k", bed.budget()) is not None
    assert list(await bed.stack.lookup_many(["k", "l"], bed.budget())) == ["k"]
    assert bed.counted(names.LOOKUPS, layer="l2", result="error") == 3
    await bed.break_upper()
    await bed.stack.lookup_many(["k", "l"], bed.budget())
    assert bed.counted(names.LOOKUPS, layer="l2", result="skipped") >= 2


async def test_what_is_found_below_is_promoted_for_no_longer_than_it_lives_there(bed: Bed) -> None:
    await bed.upper.inner.store("short", bed.entry([1], life=50))
    await bed.upper.inner.store("long", bed.entry([1], life=math.inf))
    await bed.stack.lookup("short", bed.budget())
    await bed.stack.lookup_many(["long"], bed.budget())
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
                await bed.stack.store({"k": packed("new")}, None, bed.budget())
                bed.memory.drop("k")  # evicted again
        return entry

    bed.upper.inner.lookup = reads_then_waits  # type: ignore[method-assign]  # between reading and promoting
    assert await bed.stack.lookup("k", bed.budget()) is not None
    assert bed.memory.peek("k") is None


# --- writing


async def test_a_value_goes_into_every_layer_for_the_time_that_layer_keeps_it(bed: Bed) -> None:
    assert await bed.stack.store({"k": packed("v")}, None, bed.budget())
    now = bed.clock.monotonic()
    lives = [
        entry.expires - now for layer in (bed.memory, bed.upper.inner, bed.lower.inner) if (entry := layer.peek("k"))
    ]
    assert lives == [100, 1000, 2000]


@pytest.mark.parametrize(
    ("ttl", "lives"), [(10.0, [10, 10, 10]), (500.0, [100, 500, 500]), (math.inf, [100, math.inf])]
)
async def test_a_ttl_of_the_callers_is_capped_in_memory_alone(bed: Bed, ttl: float, lives: list[float]) -> None:
    await bed.stack.store({"k": packed("v")}, ttl, bed.budget())
    now = bed.clock.monotonic()
    found = [
        entry.expires - now for layer in (bed.memory, bed.upper.inner, bed.lower.inner) if (entry := layer.peek("k"))
    ]
    assert found[: len(lives)] == lives


async def test_memory_alone_keeps_a_value_for_all_of_the_callers_ttl(bed: Bed) -> None:
    await bed.build([]).store({"k": packed("v")}, 500.0, bed.budget())
    bed.clock.advance(499)
    assert bed.memory.peek("k") is not None


@pytest.mark.parametrize("number", [1, 3])
async def test_storing_says_whether_every_layer_took_it_and_goes_on_where_one_did_not(bed: Bed, number: int) -> None:
    values = {str(key): packed(key) for key in range(number)}
    assert await bed.stack.store(values, None, bed.budget())
    bed.upper.error = OSError()
    assert not await bed.stack.store(values, None, bed.budget())
    assert bed.lower.calls[-1] == bed.upper.calls[-1] == ("set" if number == 1 else "set many")
    assert bed.memory.peek("0") is not None
    await bed.break_upper()
    assert not await bed.stack.store(values, None, bed.budget())


async def test_removing_reaches_every_layer_and_raises_where_one_could_not_be_reached(bed: Bed) -> None:
    await bed.stack.store({"k": packed("v")}, None, bed.budget())
    assert await bed.stack.remove("k", bed.budget())
    assert not await bed.stack.remove("k", bed.budget())
    await bed.stack.store({"k": packed("v")}, None, bed.budget())
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
    await bed.stack.store({"k": packed("v")}, None, bed.budget())
    bed.upper.error = OSError()
    with pytest.raises(LayerError):
        await bed.stack.clear()
    assert bed.memory.peek("k") is None
    assert bed.lower.inner.peek("k") is None
    bed.upper.error = None
    await bed.stack.clear()
    assert bed.upper.inner.peek("k") is None


async def test_closing_forgets_what_memory_holds_and_closes_the_layers(bed: Bed) -> None:
    await bed.stack.store({"k": packed("v")}, None, bed.budget())
    await bed.stack.aclose()
    assert bed.memory.peek("k") is None
    assert bed.upper.calls[-1] == bed.lower.calls[-1] == "close"
