"""The counts of values are exact: for any plan over three layers that fail, and to the layer where none does."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheManager, EntryOptions, current_load
from aurelis.cache.exceptions import CacheError, LoadTimeoutError
from aurelis.cache.telemetry import names
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, ManualClock, SharedMemory
from tests.managers import configuration, eventually, is_settled
from tests.telemetry.exact.ledger import Counts, Ledger, check

OPTIONS = (
    EntryOptions(),
    EntryOptions(negative_ttl=5),
    EntryOptions(stale_while_revalidate=20, stale_if_error=60, throttle=3),
    EntryOptions(early_refresh=0.5, jitter=2, lease_wait=0.1),
    EntryOptions(ttl=0),
)


class Session:
    """Something that cannot be stored."""


class Caches:
    """A manager over memory, a shared layer and a disk."""

    def __init__(self, folder: Path, *, faults: Faults | None = None, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.shared = SharedMemory(self.clock)
        self.chaos = Chaos(faults, seed=seed)
        # One name for all, so that they are few series.
        options: dict[str, Any] = {"timeout": 10, "heartbeat": 1000.0, "breaker_pause": 2.0, "lease": 5.0}
        config = configuration(name="values", cache_dir=folder, **options)
        lower = [ChaosSharedLayer(self.shared.node(self.clock), self.chaos)]
        self.manager = CacheManager(config, clock=self.clock, lower=lower)
        self.keys = [self.manager.key_builder.build_key("category", name) for name in "abc"]


STEP = st.tuples(
    st.sampled_from(
        ["get", "get_many", "set", "delete", "soft", "tags", "clear", "load", "load", "load", "load", "pass"]
    ),
    st.integers(0, 2),
    st.sampled_from(["gives", "gives", "fails", "skips", "unstorable", "tagged"]),
    st.sampled_from(OPTIONS),
    st.sampled_from([None, None, None, 0, 2, 5, 9]),
)


@settings(max_examples=40)
@given(
    st.lists(st.lists(STEP, min_size=1, max_size=6), max_size=10),
    st.sampled_from([0.0, 0.0, 0.2, 1.0]),
    st.integers(0, 99),
)
async def test_any_plan_over_three_layers(
    plan: list[list[tuple[str, int, str, EntryOptions, int | None]]], fails: float, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        caches = Caches(Path(folder), faults=Faults(fail=fails), seed=seed)
        ledger, counts, manager = Ledger(), Counts("values"), caches.manager
        ledger.keep(manager)
        for steps in plan:
            tasks = []
            for what, number, outcome, options, moment in steps:
                task = asyncio.create_task(act(caches, what, caches.keys[number], outcome, options))
                tasks.append((task, moment if what in ("load", "get") else None))
            await asyncio.sleep(0)
            for task, moment in tasks:
                if moment is not None:
                    for _ in range(moment):
                        await asyncio.sleep(0)
                    task.cancel()
            for task, _ in tasks:
                with contextlib.suppress(LookupError, CacheError, asyncio.CancelledError):
                    await task
        await eventually(lambda: is_settled(manager))
        check(counts, ledger)
        await manager.aclose()


async def act(caches: Caches, what: str, key: str, outcome: str, options: EntryOptions) -> None:
    """One step."""
    manager = caches.manager

    async def load() -> object:
        await asyncio.sleep(0)
        match outcome:
            case "fails":
                raise LookupError("no value")
            case "skips":
                current_load().skip()
            case "unstorable":
                return Session()
            case "tagged":
                current_load().add_tags("tag")
        return [1]

    match what:
        case "get":
            await manager.get(key)
        case "get_many":
            await manager.get_many(caches.keys)
        case "set":
            await manager.set_many({key: [2], f"{key}2": [3]}, tags=["tag"])
        case "delete" | "soft":
            await manager.delete(key, soft=what == "soft")
        case "tags":
            await manager.invalidate_tags("tag")
        case "clear":
            await manager.clear()
        case "load":
            await manager.get_or_compute(key, load, None, ("tag",), options)
        case _:
            caches.clock.advance(3)


# --- to the layer


LOOK = st.tuples(
    st.sampled_from(["get", "get", "many", "set", "load", "delete", "forget", "evict", "clear"]), st.integers(0, 2)
)


@settings(max_examples=40)
@given(st.lists(LOOK, max_size=30))
async def test_lookups_of_each_layer_follow_from_those_above(plan: list[tuple[str, int]]) -> None:
    """One after the other, so that a plain model knows what is where."""
    with tempfile.TemporaryDirectory() as folder:
        caches = Caches(Path(folder))
        counts, manager = Counts("values"), caches.manager
        layers: dict[str, set[str]] = {"l1": set(), "l2": set(), "l3": set()}
        expected: Counter[str] = Counter()

        def look(*keys: str) -> None:
            for key in keys:
                layer = next((layer for layer, kept in layers.items() if key in kept), None)
                expected[f"hit {layer}" if layer else "miss"] += 1
                if layer:
                    layers["l1"].add(key)

        def keep(key: str) -> None:
            for kept in layers.values():
                kept.add(key)

        def lose(*keys: str, of: str = "l1 l2 l3") -> None:
            for layer in of.split():
                layers[layer] -= set(keys)

        async def load() -> object:
            return [1]

        for what, number in plan:
            key = caches.keys[number]
            match what:
                case "get":
                    look(key)
                    await manager.get(key)
                case "many":
                    look(*caches.keys)
                    await manager.get_many(caches.keys)
                case "load":
                    look(key)
                    await manager.get_or_compute(key, load)
                    keep(key)
                case "set":
                    assert await manager.set(key, [2])
                    keep(key)
                case "delete":
                    await manager.delete(key)
                    lose(key)
                case "clear":
                    await manager.clear()
                    lose(*caches.keys)
                case "evict":
                    caches.shared.lose_entries(key)
                    lose(key, of="l2")
                case _:
                    assert manager._engine.stack.memory is not None
                    await manager._engine.stack.memory.remove_all()
                    lose(*caches.keys, of="l1")
        requests = counts.of(names.REQUESTS, names.RESULT, names.LAYER)
        assert requests == dict(expected)
        lookups = counts.of(names.LOOKUPS, names.LAYER, names.RESULT)
        by_layer = {layer: counts.of(names.LOOKUPS, names.LAYER).get(layer, 0) for layer in ("l1", "l2", "l3")}
        assert by_layer["l1"] == sum(requests.values())
        assert by_layer["l2"] == lookups.get("l1 miss", 0)
        assert by_layer["l3"] == lookups.get("l2 miss", 0)
        assert all(lookups.get(f"{layer} hit", 0) == requests.get(f"hit {layer}", 0) for layer in by_layer)
        await manager.aclose()


# --- what was found to be counted wrong


async def test_a_load_that_begins_when_all_who_waited_have_left_is_counted() -> None:
    """Another process has the lease, so nobody knows yet whether there will be a load here."""
    shared = SharedMemory()
    config = configuration(lease=0.2, timeout=10)
    other = CacheManager(configuration(lease=0.2, timeout=10), lower=[shared.node()])
    begun, loads = asyncio.Event(), 0

    async def never() -> int:
        begun.set()
        await asyncio.Event().wait()
        return 1

    async def load() -> int:
        nonlocal loads
        loads += 1
        return 2

    async with CacheManager(config, lower=[shared.node()]) as manager:
        counts = Counts(manager)
        loading = asyncio.create_task(other.get_or_compute("k", never))
        await begun.wait()
        with pytest.raises(LoadTimeoutError):
            await manager.get_or_compute("k", load, options=EntryOptions(hard_timeout=0.05))
        assert (loads, counts.loads()) == (0, 0)
        loading.cancel()  # which gives back the lease
        await eventually(lambda: is_settled(manager))
        assert await manager.get("k") == 2
        assert counts.of(names.REQUESTS, names.RESULT) == {"hit": 1, "miss": 1}
        assert (loads, counts.loads()) == (1, 1)
        assert counts.of(names.REFRESHES, names.REFRESH_REASON) == {"timeout": 1}
    await other.aclose()
