"""The layer in the process: its bounds, what it drops, what it shares, and many threads at once."""

import contextlib
import math
import random
import sys
import threading
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aurelis.cache import MemoryBackend
from aurelis.cache._entry import Entry
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.testing import ManualClock
from tests.managers import WITHIN


def entry(value: object, size: int = 1, expires: float = math.inf) -> Entry:
    """Returns an entry of a value that may be shared."""
    return Entry(value, None, expires, expires, size)


def assert_in_step(layer: MemoryBackend) -> None:
    """The bounds hold, and the bytes are those of the entries."""
    entries = layer.entries
    assert len(entries) <= layer.max_size
    assert entries.currsize <= layer.max_bytes
    assert entries.currsize == sum(entries[key].size for key in list(entries))


# --- bounds


def test_beyond_its_entries_the_least_recently_used_goes_first() -> None:
    layer = MemoryBackend(max_size=3)
    for key in "abc":
        layer.put(key, entry(key))
    layer.peek("a")
    layer.put("d", entry("d"))
    assert sorted(layer.entries) == ["a", "c", "d"]
    assert layer.entries.evicted.n == 1


def test_beyond_its_bytes_the_least_recently_used_goes_first() -> None:
    layer = MemoryBackend(max_bytes=100)
    for key in "abc":
        layer.put(key, entry(key, 30))
    layer.peek("a")
    layer.put("d", entry("d", 40))
    assert sorted(layer.entries) == ["a", "c", "d"]
    layer.put("e", entry("e", 100))
    assert sorted(layer.entries) == ["e"]
    assert layer.entries.evicted.n == 4
    assert_in_step(layer)


def test_replacing_an_entry_is_no_eviction() -> None:
    layer = MemoryBackend(max_size=2, max_bytes=100)
    layer.put("a", entry("a", 50))
    layer.put("a", entry("b", 100))
    layer.put("a", entry("c", 1))
    assert layer.entries.evicted.n == 0
    assert layer.entries.currsize == 1


def test_an_old_entry_that_makes_room_for_its_own_new_one_is_no_eviction() -> None:
    layer = MemoryBackend(max_bytes=100)
    layer.put("a", entry("a", 40))
    layer.put("b", entry("b", 40))
    layer.put("a", entry("new", 80))
    assert sorted(layer.entries) == ["a"]
    assert layer.entries.evicted.n == 1  # which is b
    layer.put("a", entry("newer", 100))
    assert layer.entries.evicted.n == 1
    layer.put("b", entry("b", 1))
    assert layer.entries.evicted.n == 2
    assert_in_step(layer)


async def test_what_is_removed_after_its_life_has_expired() -> None:
    clock = ManualClock()
    layer = MemoryBackend(clock=clock)
    await layer.set("k", 1, ttl=10)
    clock.advance(10)
    assert not await layer.delete("k")
    assert layer.expired.n == 1
    assert not await layer.delete("k")
    assert layer.expired.n == 1


def test_what_is_larger_than_the_layer_is_refused_and_takes_the_place_of_nothing() -> None:
    layer = MemoryBackend(max_bytes=100)
    layer.put("other", entry("other", 60))
    layer.put("k", entry("old", 10))
    assert not layer.put("k", entry("new", 101))
    assert layer.peek("k") is None
    assert layer.peek("other") is not None
    assert layer.entries.evicted.n == 0


async def test_a_value_larger_than_the_layer_is_not_taken() -> None:
    layer = MemoryBackend(max_bytes=10_000)
    assert not await layer.set("k", "x" * 10_000)
    assert await layer.get("k") is None
    assert await layer.set("k", "x" * 9_000)


@pytest.mark.parametrize("value", ["x" * 50_000, ["x" * 500] * 100, b"x" * 50_000], ids=["str", "list", "bytes"])
async def test_the_size_of_a_value_counts_with_its_content(value: object) -> None:
    layer = MemoryBackend()
    await layer.set("k", value)
    assert 50_000 < layer.entries.currsize < 55_000


async def test_the_key_counts_too() -> None:
    layer = MemoryBackend()
    await layer.set("k" * 10_000, 1)
    assert 10_000 < layer.entries.currsize < 10_500


@pytest.mark.parametrize(
    "options",
    [
        *({"max_size": size} for size in (0, -1, True, 1.5, "10", None)),
        *({"max_bytes": size} for size in (0, "10")),
        *({"ttl": ttl} for ttl in (-1, math.nan, "60")),
        {"copy": "no"},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="MemoryBackend: "):
        MemoryBackend(**options)


# --- time


@pytest.mark.parametrize("ttl", [60, timedelta(minutes=1)])
async def test_without_a_ttl_a_value_lives_for_that_of_the_layer(ttl: float | timedelta) -> None:
    clock = ManualClock()
    layer = MemoryBackend(ttl=ttl, clock=clock)
    await layer.set("k", 1)
    clock.advance(59)
    assert await layer.get("k") == 1
    clock.advance(1)
    assert await layer.get("k") is None


def test_an_expired_entry_that_is_asked_for_is_dropped_and_counted() -> None:
    clock = ManualClock()
    layer = MemoryBackend(clock=clock)
    layer.put("k", entry("v", expires=clock.monotonic() + 1))
    clock.advance(1)
    assert layer.peek("k") is None
    assert not layer.entries
    assert layer.expired.n == 1
    assert layer.entries.evicted.n == 0


def test_expired_entries_that_nobody_asks_for_are_swept_out_by_writes() -> None:
    clock = ManualClock()
    layer = MemoryBackend(max_size=10_000, clock=clock)
    for number in range(1000):
        layer.put(f"old {number}", entry(number, expires=clock.monotonic() + 1))
    clock.advance(1)
    for number in range(2000):
        layer.put("new", entry(number))
    assert list(layer.entries) == ["new"]
    assert layer.expired.n == 1000
    assert layer.entries.currsize == 1


def test_sweeping_does_not_make_entries_recent() -> None:
    layer = MemoryBackend(max_size=20)
    for number in range(20):
        layer.put(str(number), entry(number))
    for number in range(60):
        layer.put("19", entry(number))
    layer.put("new", entry(0))
    assert "0" not in layer.entries
    assert "1" in layer.entries


def test_only_a_live_entry_keeps_another_from_its_place() -> None:
    clock = ManualClock()
    layer = MemoryBackend(clock=clock)
    expires = clock.monotonic() + 1
    assert layer.put_if_absent("k", entry("first", expires=expires), valid=lambda: True)
    assert not layer.put_if_absent("k", entry("second"), valid=lambda: True)
    clock.advance(1)
    assert not layer.put_if_absent("k", entry("third"), valid=lambda: False)
    assert layer.put_if_absent("k", entry("fourth"), valid=lambda: True)
    found = layer.peek("k")
    assert found is not None
    assert found.value == "fourth"
    assert layer.expired.n == 1


# --- sharing


@pytest.mark.parametrize("value", ["text", b"bytes", 12345678901234567890, (1, ("a", None)), frozenset({1})], ids=repr)
async def test_what_nobody_can_change_is_handed_out_as_it_is(value: object) -> None:
    layer = MemoryBackend()
    await layer.set("k", value)
    assert await layer.get("k") is value


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, bytearray(b"a"), (1, [2])], ids=repr)
async def test_what_can_be_changed_is_rebuilt_for_each_reader(value: object) -> None:
    layer = MemoryBackend()
    await layer.set("k", value)
    first, second = await layer.get("k"), await layer.get("k")
    assert first == second == value
    assert type(first) is type(value)
    assert first is not second
    assert first is not value


async def test_without_copies_any_object_is_handed_out_as_it_is() -> None:
    layer = MemoryBackend(copy=False)
    value = object()
    await layer.set("k", value)
    assert await layer.get("k") is value


async def test_below_another_layer_it_hands_out_copies_unless_it_is_told_not_to() -> None:
    codec = ValueCodec()
    value = {"rows": [1]}
    given = Entry(value, codec.dumps(value), math.inf, math.inf, 0)
    for copy in (True, False):
        layer = MemoryBackend(copy=copy)
        await layer.store("k", given)
        first, second = await layer.lookup("k"), await layer.lookup("k")
        assert first is not None
        assert second is not None
        assert (first.value is value, first.value is second.value) == (not copy, not copy)
        assert first.value == second.value == value
        assert layer.entries.currsize > 1  # it was given none


async def test_below_another_layer_it_unpacks_what_comes_packed() -> None:
    layer = MemoryBackend(copy=False)
    await layer.store("k", Entry(None, ValueCodec().dumps([1]), math.inf, math.inf, 0))
    found = await layer.lookup("k")
    assert found is not None
    assert found.value == [1]


async def test_a_dropped_value_is_not_held_any_longer() -> None:
    class Value:
        pass

    layer = MemoryBackend(max_size=1, copy=False)
    value = Value()
    watched = weakref.ref(value)
    await layer.set("k", value)
    del value
    assert watched() is not None
    await layer.set("l", 1)
    assert watched() is None


# --- any order of operations


class Agrees(RuleBasedStateMachine):
    """Within its bounds the layer agrees with a dictionary; beyond them it only forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.layer = MemoryBackend(max_size=4, max_bytes=40, clock=self.clock)
        self.model: dict[str, tuple[int, float]] = {}

    keys = st.sampled_from(["a", "b", "c", "d", "e", "f"])

    @rule(key=keys, value=st.integers(), size=st.integers(0, 50), life=st.sampled_from([1, 5, math.inf]))
    def put(self, key: str, value: int, size: int, life: float) -> None:
        expires = self.clock.monotonic() + life
        taken = self.layer.put(key, entry(value, size, expires))
        assert taken == (size <= 40)
        self.model.pop(key, None)
        if taken:
            self.model[key] = value, expires
            found = self.layer.peek(key)
            assert found is not None
            assert found.value == value

    @rule(key=keys, value=st.integers(), valid=st.booleans())
    def put_if_absent(self, key: str, value: int, valid: bool) -> None:
        was_there = self.layer.peek(key) is not None
        kept = self.layer.put_if_absent(key, entry(value), valid=lambda: valid)
        assert kept == (valid and not was_there)
        if kept:
            self.model[key] = value, math.inf

    @rule(key=keys)
    def peek(self, key: str) -> None:
        found = self.layer.peek(key)
        if found is not None:
            value, expires = self.model[key]
            assert found.value == value
            assert self.clock.monotonic() < expires

    @rule(key=keys)
    def drop(self, key: str) -> None:
        was_there = self.layer.peek(key) is not None
        assert self.layer.drop(key) == was_there
        self.model.pop(key, None)

    @rule()
    def pass_time(self) -> None:
        self.clock.advance(1)

    @invariant()
    def bounded(self) -> None:
        assert_in_step(self.layer)


TestAgrees = Agrees.TestCase
TestAgrees.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(1, 30), max_size=60))
def test_what_was_put_is_either_there_or_counted_as_evicted(sizes: list[int]) -> None:
    layer = MemoryBackend(max_size=5, max_bytes=60)
    for number, size in enumerate(sizes):
        layer.put(str(number), entry(number, size))
    assert layer.entries.evicted.n + len(layer.entries) == len(sizes)


# --- threads


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switching")
def test_many_threads_read_and_write_at_once() -> None:
    layer = MemoryBackend(max_size=50, max_bytes=2000)
    errors: list[BaseException] = []
    gate = threading.Barrier(8)

    def work(seed: int, reads: bool) -> None:
        chance = random.Random(seed)
        try:
            gate.wait(WITHIN)
            for number in range(4000):
                key = str(chance.randrange(100))
                if reads:
                    found = layer.peek(key)
                    assert found is None or found.value == key
                    # The fast path of the engine: where nothing is, something that has always been expired.
                    assert layer.entries[key].value in (key, None)
                    continue
                match number % 8:
                    case 0:
                        layer.drop(key)
                    case 1:
                        layer.put_if_absent(key, entry(key, 50), valid=lambda: True)
                    case 2:
                        layer.put(key, entry(key, 10, expires=0.0))
                    case _:
                        layer.put(key, entry(key, chance.randrange(1, 100)))
                assert len(layer.entries) <= layer.max_size + 1  # one more while it is being put
        except BaseException as error:  # noqa: BLE001  # a thread's error would be lost
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed, seed % 2 == 1)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert not errors
    assert_in_step(layer)
    # Nothing that was lost in between blocks what comes later.
    for number in range(200):
        assert layer.put(f"later {number}", entry(number, 30))
    assert_in_step(layer)
    assert layer.peek("later 199") is not None


@pytest.mark.usefixtures("switching")
def test_reading_an_entry_that_goes_away_leaves_no_trace_of_it() -> None:
    """A reader finds the value, a writer drops it, the reader makes it recent: no ghost may stand in line to go."""
    layer = MemoryBackend(max_size=3)
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            with contextlib.suppress(KeyError):
                layer.entries["k"]

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    try:
        for number in range(10_000):
            layer.put("k", entry(number))
            layer.drop("k")
            if number % 50 == 0:
                for other in range(4):
                    assert layer.put(str(other), entry(other))
    finally:
        over.set()
        for thread in readers:
            thread.join(WITHIN)
    assert_in_step(layer)


@pytest.mark.usefixtures("switching")
def test_of_many_threads_that_put_if_absent_exactly_one_does() -> None:
    layer = MemoryBackend()
    for attempt in range(200):
        gate = threading.Barrier(4)
        kept: list[bool] = []

        def work(key: str, gate: threading.Barrier, kept: list[bool]) -> None:
            gate.wait(WITHIN)
            kept.append(layer.put_if_absent(key, entry(key), valid=lambda: True))

        threads = [threading.Thread(target=work, args=(str(attempt), gate, kept)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)
        assert sorted(kept) == [False, False, False, True]
