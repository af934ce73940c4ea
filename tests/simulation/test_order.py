"""Runs replay, find what depends on order, and keep what asyncio promises."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from tests.simulation.loop import current, explore, run

SEEDS = range(100)


# --- order


async def busy() -> list[int]:
    """Tasks of different length that meet in a queue; returns the order in which they came."""
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def arrive(number: int) -> None:
        for _ in range(number % 3):
            await asyncio.sleep(0)
        await asyncio.sleep(number % 2)
        await queue.put(number)

    tasks = {asyncio.create_task(arrive(number)) for number in range(8)}  # a set: its order goes by addresses
    arrived = [await queue.get() for _ in tasks]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return arrived


class Counter:
    """Counts wrongly: between reading and writing it lets others in."""

    def __init__(self, lock: asyncio.Lock | None = None) -> None:
        self.value = 0
        self._lock = lock

    async def add(self) -> None:
        if self._lock is None:
            await self._add()
        else:
            async with self._lock:
                await self._add()

    async def _add(self) -> None:
        value = self.value
        await asyncio.sleep(0)
        self.value = value + 1


async def count(lock: asyncio.Lock | None) -> None:
    counter = Counter(lock)

    async def late(steps: int) -> None:
        for _ in range(steps):  # by asyncio's own loop one after the other: no update is ever lost there
            await asyncio.sleep(0)
        await counter.add()

    await asyncio.gather(late(0), late(5), late(10))
    assert counter.value == 3


def test_the_same_seed_gives_the_same_run() -> None:
    for seed in SEEDS:
        first, second = run(busy(), seed), run(busy(), seed)
        assert first.trace == second.trace
        assert first == second


def test_what_ran_before_does_not_matter() -> None:
    before = run(busy(), 7)
    garbage = [asyncio.Queue[int]() for _ in range(1000)]
    explore(busy, range(5))
    del garbage
    assert run(busy(), 7) == before


def test_different_seeds_give_different_runs() -> None:
    runs = explore(busy, SEEDS)
    assert len({simulated.digest for simulated in runs}) == len(SEEDS)
    assert len({tuple(simulated.value) for simulated in runs}) > len(SEEDS) / 2


def test_a_lost_update_is_found_and_replayed() -> None:
    asyncio.run(count(None))
    with pytest.raises(AssertionError) as found:
        explore(lambda: count(None), SEEDS)
    (note,) = found.value.__notes__
    seed = int(note.removeprefix("simulated with seed ").partition(";")[0])
    with pytest.raises(AssertionError) as again:
        run(count(None), seed)
    assert again.value.__notes__ == [note]
    assert "Counter.add" in note or "late" in note


def test_a_counter_that_locks_loses_no_update() -> None:
    explore(lambda: count(asyncio.Lock()), SEEDS)


def test_call_soon_keeps_its_order_and_tasks_may_come_between() -> None:
    async def main() -> tuple[list[int], int]:
        called: list[int] = []
        loop = asyncio.get_running_loop()

        async def look() -> int:
            return len(called)

        for number in range(10):
            (loop.call_soon if number % 2 else loop.call_soon_threadsafe)(called.append, number)
        between = await asyncio.create_task(look())
        while len(called) < 10:
            await asyncio.sleep(0)
        return called, between

    runs = explore(main, SEEDS)
    assert all(simulated.value[0] == list(range(10)) for simulated in runs)
    assert len({simulated.value[1] for simulated in runs}) > 3


def test_callbacks_of_a_future_and_timers_due_together_come_in_any_order() -> None:
    async def main() -> tuple[str, str]:
        by_future: list[str] = []
        by_timer: list[str] = []

        def note(letter: str, _: asyncio.Future[None]) -> None:
            by_future.append(letter)

        loop = asyncio.get_running_loop()
        future = loop.create_future()
        for letter in "abc":
            future.add_done_callback(functools.partial(note, letter))
            loop.call_later(1, by_timer.append, letter)
        future.set_result(None)
        await asyncio.sleep(2)
        return "".join(by_future), "".join(by_timer)

    runs = explore(main, SEEDS)
    assert len({simulated.value[0] for simulated in runs}) == 6
    assert len({simulated.value[1] for simulated in runs}) == 6


# --- asyncio


async def semaphore() -> None:
    gate, inside, most = asyncio.Semaphore(2), 0, 0

    async def enter(number: int) -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(number % 2)
            finally:
                inside -= 1

    tasks = [asyncio.create_task(enter(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.wait(tasks)
    assert most == 2
    assert [task.cancelled() for task in tasks].count(True) <= 1
    assert not gate.locked()


async def timeouts() -> None:
    never = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await never.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(never.wait(), 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.sleep(7)), 5)
    async with asyncio.timeout(5):
        await asyncio.sleep(4)
    assert current().time() == 19


async def groups() -> None:
    ended: list[str] = []

    async def endure(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def fail() -> None:
        while current().time() < 1:
            await asyncio.sleep(1)
        raise ValueError("meant")

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(endure("a"))
            group.create_task(endure("b"))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await together()
    assert sorted(ended) == ["a", "b"]
    results = await asyncio.gather(fail(), asyncio.sleep(1, "slept"), return_exceptions=True)
    assert results[1] == "slept"


async def waits() -> None:
    fast, slow = asyncio.create_task(asyncio.sleep(1, "fast")), asyncio.create_task(asyncio.sleep(3, "slow"))
    done, pending = await asyncio.wait({fast, slow}, return_when=asyncio.FIRST_COMPLETED)
    assert (done, pending) == ({fast}, {slow})
    done, pending = await asyncio.wait({slow}, timeout=1)
    assert (done, pending) == (set(), {slow})
    condition = asyncio.Condition()
    async with condition:
        asyncio.get_running_loop().call_later(1, slow.cancel)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(condition.wait(), 2)
    assert slow.cancelled() or slow.result() == "slow"


async def generators() -> None:
    closed = False

    async def numbers() -> AsyncIterator[int]:
        nonlocal closed
        try:
            for number in range(3):
                await asyncio.sleep(1)
                yield number
        finally:
            await asyncio.sleep(0)
            closed = True

    assert [number async for number in numbers()] == [0, 1, 2]
    closed = False
    async for _ in numbers():
        break  # dropped: the loop closes it
    while not closed:
        await asyncio.sleep(0)


@pytest.mark.parametrize("scenario", [semaphore, timeouts, groups, waits, generators])
def test_asyncio_holds_in_any_order(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    runs = explore(scenario, SEEDS)
    assert len({simulated.digest for simulated in runs}) > 1
