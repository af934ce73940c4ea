"""Races that the simulated worlds have found, each on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import pytest

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache.exceptions import LayerError
from aurelis.cache.testing import Chaos, ChaosSharedLayer, Faults, SharedMemory
from tests.simulation.loop import current, explore

T = TypeVar("T")

SEEDS = range(5)
HEARTBEAT = 2.0
LATER = 10 * HEARTBEAT
"""Seconds after which everything has been told, or was noticed to be missing."""
FAILS = Faults(fail=1.0)


class Holding(Chaos):
    """Holds back answers while it is told to: all, or those of `only` one method."""

    def __init__(self) -> None:
        super().__init__()
        self.only = ""
        self.free = asyncio.Event()
        self.free.set()

    async def act(self, call: Callable[[], Awaitable[T]]) -> T:
        answer = await super().act(call)
        if not self.only or (isinstance(call, partial) and call.func.__name__ == self.only):
            await self.free.wait()
        return answer


class Node:
    """A manager, and what stands between it and the shared layer."""

    def __init__(self, shared: SharedMemory) -> None:
        self.shared, self.calls, self.news = shared, Holding(), Chaos()
        config = CacheConfig(name="simulated", heartbeat=HEARTBEAT, timeout=0.25, breaker_failures=1000)
        layer = ChaosSharedLayer(shared.node(), self.calls, self.news)
        self.cache = CacheManager(config, clock=current().clock(), lower=[layer])


def two_nodes(story: Callable[[Node, Node], Coroutine[Any, Any, None]]) -> None:
    """Runs a story of two nodes in several orders."""

    async def main() -> None:
        shared = SharedMemory(current().clock())
        nodes = Node(shared), Node(shared)
        for node in nodes:
            await node.cache.get("nothing")  # it listens
        await story(*nodes)
        for node in nodes:
            await node.cache.aclose()
        await asyncio.sleep(1)  # a timer of deadlines goes off once more

    explore(main, SEEDS)


async def a_moment() -> None:
    """What needs no answer that is held back is done after it."""
    await asyncio.sleep(0.1)


def test_a_value_that_was_replaced_elsewhere_while_it_was_stored_does_not_stay_in_memory() -> None:
    async def story(one: Node, other: Node) -> None:
        await one.cache.set("k", 0)  # so that nothing has to be asked for
        one.calls.free.clear()
        setting = asyncio.create_task(one.cache.set("k", 1))
        await a_moment()
        await other.cache.set("k", 2)
        await a_moment()
        one.calls.free.set()
        assert await setting
        assert await one.cache.get("k") == 2

    two_nodes(story)


def test_of_two_values_that_one_node_stores_at_once_memory_has_that_of_the_shared_layer() -> None:
    async def story(one: Node, other: Node) -> None:
        await one.cache.set("k", 0)
        one.calls.free.clear()
        first = asyncio.create_task(one.cache.set("k", 1))
        await a_moment()
        second = asyncio.create_task(one.cache.set("k", 2))
        await a_moment()
        one.calls.free.set()
        await asyncio.gather(first, second)
        assert await one.cache.get("k") == await other.cache.get("k")

    two_nodes(story)


def test_what_is_removed_later_because_it_could_not_be_stored_is_gone_on_its_own_node_too() -> None:
    async def story(one: Node, other: Node) -> None:
        one.calls.faults = FAILS
        assert not await one.cache.set("k", 1)
        await other.cache.set("something else", 2)
        one.calls.heal()
        await asyncio.sleep(LATER)
        assert await one.cache.get("k") is None
        assert await other.cache.get("k") is None

    two_nodes(story)


@pytest.mark.parametrize("how", ["tag", "key"])
def test_a_second_change_that_fails_while_the_first_is_told_later_is_told_as_well(how: str) -> None:
    async def story(one: Node, other: Node) -> None:
        async def change() -> None:
            with pytest.raises(LayerError):
                await (one.cache.invalidate_tags("t") if how == "tag" else one.cache.delete("k"))

        one.calls.faults = FAILS
        await change()
        one.calls.free.clear()
        one.calls.heal()
        while one.cache._engine.stack.generations.latest == 0 and how == "tag":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.16)  # the first is told, and its answer held back
        await other.cache.set("k", "old", tags=["t"])
        one.calls.faults = FAILS
        await change()
        one.calls.free.set()
        one.calls.heal()
        await asyncio.sleep(LATER)
        assert await other.cache.get("k") is None

    two_nodes(story)


def test_what_was_loaded_while_word_was_lost_is_not_relied_on() -> None:
    async def story(one: Node, other: Node) -> None:
        begun, finish = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            begun.set()
            await finish.wait()
            return "old"

        await one.cache.set("another", 1)
        one.calls.faults = FAILS  # it gets no lease, so nothing will be fenced
        loading = asyncio.create_task(one.cache.get_or_compute("k", load))
        await begun.wait()
        one.calls.heal()
        one.news.faults = Faults(drop=1.0, beats=False)
        await other.cache.delete("k")
        one.news.heal()
        await asyncio.sleep(LATER)  # it has noticed that something is missing
        assert await one.cache.get("another") == 1
        finish.set()
        assert await loading == "old"
        assert await one.cache.get("k") is None

    two_nodes(story)


@pytest.mark.parametrize("fails", [False, True])
def test_a_lease_that_ends_slowly_takes_nothing_beyond_the_budget(fails: bool) -> None:
    async def story(one: Node, other: Node) -> None:
        async def load() -> object:
            one.calls.faults = Faults(hang=1.0)
            if fails:
                raise ZeroDivisionError
            return object()  # cannot be stored

        one.calls.faults = Faults(delay=(0.03, 0.03))
        begin = current().time()
        try:
            await one.cache.get_or_compute("k", load)
        except ZeroDivisionError:
            assert fails
        assert current().time() - begin < 0.27
        one.calls.heal()
        await asyncio.sleep(LATER)

    two_nodes(story)


@pytest.mark.parametrize("closes", [False, True])
def test_a_caller_that_leaves_while_it_gets_a_lease_leaves_none_behind(closes: bool) -> None:
    async def story(one: Node, other: Node) -> None:
        async def load() -> int:
            return 1

        one.calls.only = "acquire"
        one.calls.free.clear()
        asking = asyncio.create_task(one.cache.get_or_compute("k", load))
        await a_moment()
        assert one.shared.leases() == ["k"]
        asking.cancel()
        await asyncio.wait((asking,))
        closing = asyncio.create_task(one.cache.aclose()) if closes else None
        await a_moment()
        one.calls.free.set()
        if closing is not None:
            await closing
        await a_moment()
        assert one.shared.leases() == []

    two_nodes(story)


def test_word_that_comes_while_a_cache_is_closed_does_not_keep_it_open() -> None:
    """On Python 3.11 `asyncio.wait_for` swallows a cancellation that comes together with a result."""

    async def story(one: Node, other: Node) -> None:
        one.news.disconnect()
        for task in list(one.cache._engine.flights._own):
            task.cancel()
            await asyncio.wait((task,), timeout=1.0)
            assert task.cancelled()

    two_nodes(story)
