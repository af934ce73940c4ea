"""The simulated loop has virtual time and no contact with the world, and sees what hangs or is left."""

import asyncio
import contextlib
import gc
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from aurelis.cache import CacheManager
from aurelis.cache.testing import ManualClock
from tests.managers import configuration
from tests.simulation.loop import DeadlockError, LeftoverError, RealWorldError, StepLimitError, current, explore, run

SEEDS = range(100)


# --- time and executors


def test_time_is_virtual_and_exact() -> None:
    async def main() -> tuple[float, float, float]:
        clock, ahead = current().clock(), current().clock(skew=30)
        reference = ManualClock()
        await asyncio.sleep(86_400)
        reference.advance(86_400)
        assert clock.monotonic() == ahead.monotonic() == reference.monotonic()
        assert clock.time() == reference.time()
        return current().time(), clock.time(), ahead.time()

    simulated = run(main(), 1)
    elapsed, wall, ahead = simulated.value
    assert elapsed == simulated.elapsed == 86_400
    assert ahead - wall == 30


def test_steps_may_take_time() -> None:
    async def main() -> bool:
        try:
            async with asyncio.timeout(1):
                for _ in range(100):
                    await asyncio.sleep(0)
        except TimeoutError:
            return True
        return False

    assert {simulated.value for simulated in explore(main, SEEDS, step_seconds=0.02)} == {True, False}
    assert {simulated.value for simulated in explore(main, SEEDS)} == {False}


def test_a_function_in_an_executor_runs_at_some_point_outside_the_loop() -> None:
    async def main() -> int:
        steps = 0

        def work(offset: int) -> int:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            return steps + offset

        working = asyncio.ensure_future(asyncio.to_thread(work, 100))
        for _ in range(5):
            await asyncio.sleep(0)
            steps += 1
        return await working

    assert len({simulated.value for simulated in explore(main, SEEDS)}) > 3


def test_an_error_in_an_executor_reaches_the_caller_and_a_cancelled_call_may_run_or_not() -> None:
    async def main() -> bool:
        ran = False

        def work() -> None:
            nonlocal ran
            ran = True

        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().run_in_executor(None, divmod, 1, 0)
        working = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait([working])
        return ran

    assert {simulated.value for simulated in explore(main, SEEDS)} == {True, False}


# --- what goes wrong


async def open_socket() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def call_from_a_thread() -> None:
    loop, errors = asyncio.get_running_loop(), []

    def call() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except RealWorldError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    raise errors[0]


@pytest.mark.parametrize("scenario", [open_socket, call_from_a_thread])
def test_the_real_world_is_refused(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(RealWorldError, match="no contact with the world"):
        run(scenario(), 1)


def test_a_refusal_that_the_code_swallows_is_still_reported() -> None:
    async def main() -> None:
        with pytest.raises(RealWorldError):
            await open_socket()

    with pytest.raises(LeftoverError, match="create_connection"):
        run(main(), 1)


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def main() -> None:
        first, second = asyncio.Lock(), asyncio.Lock()

        async def take(one: asyncio.Lock, other: asyncio.Lock) -> None:
            async with one:
                await asyncio.sleep(0)
                async with other:
                    pass

        await asyncio.gather(take(first, second), take(second, first))

    with pytest.raises(DeadlockError) as raised:
        explore(main, SEEDS)
    lines = str(raised.value).splitlines()
    assert sum("take" in line and "locks.py" in line and "in acquire" in line for line in lines) == 2
    assert sum(".main at" in line for line in lines) == 1


def test_what_never_ends_is_stopped() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(StepLimitError, match=r"50 steps were not enough:\na task is not done: .*main"):
        run(main(), 1, steps=50)


async def leave_task() -> None:
    asyncio.current_task().kept = asyncio.create_task(asyncio.Event().wait())  # type: ignore[union-attr]  # a reference


async def leave_stubborn_task() -> None:
    async def refuse() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    kept.append(asyncio.create_task(refuse()))


async def leave_timer() -> None:
    asyncio.get_running_loop().call_later(60, print)


async def leave_generator() -> None:
    async def endless() -> AsyncIterator[int]:
        while True:
            yield 1

    generator = endless()
    await anext(generator)
    kept.append(generator)


async def leave_error() -> None:
    async def fail() -> None:
        raise ValueError("nobody looks")

    kept.append(asyncio.create_task(fail()))


async def leave_error_of_callback() -> None:
    asyncio.get_running_loop().call_soon(divmod, 1, 0)


kept: list[object] = []


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (leave_task, "a task is not done: Event.wait at .*locks.py"),
        (leave_stubborn_task, "a task is not done: .*refuse"),
        (leave_timer, "a timer is set for 60 s: print"),
        (leave_generator, "an asynchronous generator is not closed: .*endless at .*test_loop.py"),
        (leave_error, r"nobody saw how a task failed: ValueError\('nobody looks'\) in .*fail"),
        (leave_error_of_callback, "ZeroDivisionError"),
    ],
)
def test_what_is_left_is_an_error(scenario: Callable[[], Coroutine[Any, Any, None]], words: str) -> None:
    for seed in range(5):
        with pytest.raises(LeftoverError, match=words):
            run(scenario(), seed)
        kept.clear()
    gc.collect()  # nothing complains later


def test_what_is_ready_may_end_after_the_main_coroutine() -> None:
    async def main() -> None:
        kept.append(asyncio.create_task(asyncio.sleep(0)))
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()

    explore(main, SEEDS)
    kept.clear()


# --- a cache


def test_a_cache_loads_once_per_key_in_any_order_and_expires_by_virtual_time() -> None:
    async def main() -> None:
        loads, chance = 0, random.Random(3)

        async def load() -> int:
            nonlocal loads
            loads += 1
            await asyncio.sleep(chance.random())
            return loads

        async with CacheManager(configuration(), clock=current().clock()) as cache:
            for round_ in (1, 2):
                values = await asyncio.gather(*(cache.get_or_compute("key", load, ttl=60) for _ in range(5)))
                assert values == [round_] * 5
                await asyncio.sleep(60)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    explore(main, range(20))
