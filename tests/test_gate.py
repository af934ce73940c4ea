"""A gate lets everybody through, whatever loop or thread they wait in."""

import asyncio
import threading

import pytest

from aurelis.cache._gate import Gate
from tests.loops import LoopThread, loop_threads
from tests.managers import WITHIN, eventually, eventually_blocking

POLL = 0.01


def waiting(gate: Gate) -> int:
    """Returns how many wait."""
    return len(gate._waiters)


async def test_an_open_gate_makes_nobody_wait() -> None:
    gate = Gate()
    gate.open()
    assert gate.is_open()
    assert await gate.wait()
    assert await gate.wait(alive=lambda: False)
    assert gate.wait_blocking(alive=lambda: False)


async def test_it_lets_tasks_of_its_own_loop_through() -> None:
    gate = Gate()
    waiters = [asyncio.create_task(gate.wait()) for _ in range(100)]
    await eventually(lambda: waiting(gate) == 100)
    gate.open()
    assert await asyncio.wait_for(asyncio.gather(*waiters), WITHIN) == [True] * 100


def test_it_lets_other_loops_and_threads_through() -> None:
    gate = Gate()
    passed: list[bool] = []
    thread = threading.Thread(target=lambda: passed.append(gate.wait_blocking(alive=lambda: True, poll=WITHIN)))
    thread.start()
    with loop_threads(2) as loops:
        waiters = [loop.submit(gate.wait()) for loop in loops for _ in range(10)]
        eventually_blocking(lambda: waiting(gate) == 21)
        gate.open()
        assert [waiter.result(WITHIN) for waiter in waiters] == [True] * 20
        thread.join(WITHIN)
    assert passed == [True]


async def test_opening_it_twice_is_harmless() -> None:
    gate = Gate()
    waiter = asyncio.create_task(gate.wait())
    await eventually(lambda: waiting(gate))
    gate.open()
    gate.open()
    assert await waiter


async def test_who_leaves_is_forgotten_at_once() -> None:
    """Clients that give up and ask again would otherwise fill the memory while one load goes on."""
    gate = Gate()
    waiters = [asyncio.create_task(gate.wait()) for _ in range(10)]
    waiters += [asyncio.create_task(gate.wait(alive=lambda: True, poll=WITHIN)) for _ in range(10)]
    await eventually(lambda: waiting(gate) == 20)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    assert not await gate.wait(alive=lambda: False, poll=POLL)
    assert not gate.wait_blocking(alive=lambda: False, poll=POLL)
    assert waiting(gate) == 0


async def test_a_cancelled_waiter_does_not_disturb_the_others() -> None:
    gate = Gate()
    leaver, stayer = asyncio.create_task(gate.wait()), asyncio.create_task(gate.wait())
    await eventually(lambda: waiting(gate) == 2)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    gate.open()
    assert await stayer


def test_a_waiter_whose_loop_was_closed_does_not_disturb_the_others() -> None:
    gate = Gate()
    gone = LoopThread()
    unfinished = gate.wait()  # kept: it would leave when it is garbage
    gone.submit(unfinished)
    eventually_blocking(lambda: waiting(gate) == 1)
    gone.halt()
    gone.loop.set_exception_handler(lambda loop, context: None)  # it would be told of the task that never ends
    gone.loop.close()
    with loop_threads(1) as (loop,):
        waiter = loop.submit(gate.wait())
        eventually_blocking(lambda: waiting(gate) == 2)
        gate.open()
        assert waiter.result(WITHIN)


async def test_who_is_to_open_it_may_be_gone() -> None:
    assert not await Gate().wait(alive=lambda: False, poll=POLL)
    assert not await asyncio.to_thread(Gate().wait_blocking, alive=lambda: False, poll=POLL)


async def test_as_long_as_somebody_may_open_it_it_is_waited_for() -> None:
    gate = Gate()
    asked = 0

    def alive() -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:
            gate.open()
        return True

    assert await gate.wait(alive=alive, poll=POLL)
    assert asked == 3


async def test_opened_at_the_last_moment_it_counts_as_open() -> None:
    """The opener's last act is to open it: whoever asks then whether it lives must not conclude that it did not."""
    gate = Gate()

    def opens_and_dies() -> bool:
        gate.open()
        return False

    assert await gate.wait(alive=opens_and_dies, poll=POLL)
    gate = Gate()
    assert await asyncio.to_thread(gate.wait_blocking, alive=opens_and_dies, poll=POLL)


def test_nobody_is_forgotten_when_it_is_opened_while_others_arrive() -> None:
    with loop_threads(3) as loops:
        for _ in range(200):
            gate = Gate()
            waiters = [loop.submit(gate.wait()) for loop in loops]
            gate.open()
            assert all(waiter.result(WITHIN) for waiter in waiters)
