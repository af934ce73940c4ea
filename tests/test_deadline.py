"""A deadline ends a wait, and nothing else."""

import asyncio
import gc
import weakref
from contextvars import ContextVar

import pytest

from aurelis.cache import _deadline
from aurelis.cache._deadline import Deadline
from tests.managers import WITHIN

SHORT = 0.01
LONG = 60.0


async def forever() -> None:
    """Waits until it is cancelled."""
    await asyncio.get_running_loop().create_future()


async def test_a_wait_beyond_the_deadline_ends_in_a_timeout() -> None:
    begin = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), Deadline(SHORT):
        await forever()
    assert SHORT <= asyncio.get_running_loop().time() - begin < WITHIN
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_wait_that_ends_in_time_is_left_alone() -> None:
    with Deadline(SHORT):
        pass
    with pytest.raises(LookupError), Deadline(SHORT):
        raise LookupError
    await asyncio.sleep(SHORT * 3)  # its time has passed, and nothing happens


async def test_without_seconds_there_is_no_deadline() -> None:
    with Deadline(None):
        await asyncio.sleep(0)


async def test_a_block_that_goes_on_after_its_deadline_sees_one_cancellation() -> None:
    seen = 0
    with Deadline(SHORT):
        try:
            await forever()
        except asyncio.CancelledError:
            seen += 1
        await asyncio.sleep(SHORT * 3)
    assert seen == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("seconds", [SHORT, LONG, None])
async def test_a_cancellation_from_outside_goes_through(seconds: float | None) -> None:
    async def wait() -> None:
        with Deadline(seconds):
            await forever()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("first", ["deadline", "outside"])
async def test_a_cancellation_from_outside_goes_through_also_when_both_come_at_once(first: str) -> None:
    deadlines = []

    async def wait() -> None:
        deadline = Deadline(LONG)
        deadlines.append(deadline)
        with deadline:
            await forever()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    for step in ("deadline", "outside") if first == "deadline" else ("outside", "deadline"):
        if step == "deadline":
            deadlines[0].expire()
        else:
            task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_earlier_deadline_is_kept_though_a_later_one_was_set_before() -> None:
    ended: list[str] = []

    async def wait(name: str, seconds: float) -> None:
        with pytest.raises(TimeoutError), Deadline(seconds):
            await forever()
        ended.append(name)

    waits = [wait("late", SHORT * 12), wait("early", SHORT), wait("middle", SHORT * 6), wait("early again", SHORT)]
    await asyncio.wait_for(asyncio.gather(*waits), WITHIN)
    assert ended[2:] == ["middle", "late"]


async def test_nested_deadlines_end_at_the_nearest() -> None:
    with Deadline(LONG):
        with pytest.raises(TimeoutError), Deadline(SHORT):
            await forever()
        await asyncio.sleep(SHORT)
    with pytest.raises(TimeoutError), Deadline(SHORT), Deadline(LONG):
        await forever()


async def test_thousands_of_waits_end_each_at_its_own_time() -> None:
    loop = asyncio.get_running_loop()
    lateness: list[float] = []

    async def wait(seconds: float) -> None:
        due = loop.time() + seconds
        with pytest.raises(TimeoutError), Deadline(seconds):
            await forever()
        lateness.append(loop.time() - due)

    await asyncio.wait_for(asyncio.gather(*(wait(0.05 + number / 20_000) for number in range(2000))), WITHIN)
    assert len(lateness) == 2000
    assert min(lateness) >= -0.001


async def test_waits_share_a_timer() -> None:
    timers = 0
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def counting(*args: object, **options: object) -> object:
        nonlocal timers
        timers += 1
        return call_at(*args, **options)  # type: ignore[arg-type]  # passed on as they came

    loop.call_at = counting  # type: ignore[method-assign,assignment]
    for _ in range(100):
        with Deadline(LONG):
            await asyncio.sleep(0)
    assert timers <= 1


def test_each_loop_has_deadlines_of_its_own_and_is_forgotten_when_it_was_closed() -> None:
    async def wait() -> None:
        with pytest.raises(TimeoutError), Deadline(SHORT):
            await forever()

    loops = [asyncio.new_event_loop() for _ in range(3)]
    for loop in loops:
        loop.run_until_complete(wait())
    abandoned = loops[0].create_task(forever_within(LONG))
    loops[0].run_until_complete(asyncio.sleep(0))
    references = [weakref.ref(loop) for loop in loops]
    for loop in loops:
        loop.close()
    abandoned._log_destroy_pending = False  # type: ignore[attr-defined]  # that it never ends is the point here
    del loop, loops, abandoned
    asyncio.run(wait())  # a new loop, which clears away those that were closed
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]
    assert all(not loop.is_closed() for loop in _deadline._watches)


async def forever_within(seconds: float) -> None:
    """Waits until it is cancelled or late."""
    with Deadline(seconds):
        await forever()


class _Session:
    """Something that belongs to whoever waits."""


async def test_who_has_waited_is_let_go_of_while_others_wait() -> None:
    """They share a timer, which is set again and again where there is always somebody."""
    session: ContextVar[_Session | None] = ContextVar("session", default=None)

    async def wait_first() -> weakref.ref[_Session]:
        mine = _Session()
        session.set(mine)
        with Deadline(SHORT * 2):
            await asyncio.sleep(SHORT)
        return weakref.ref(mine)

    async def wait_long() -> None:
        with Deadline(LONG):
            await forever()

    first = asyncio.create_task(wait_first())
    await asyncio.sleep(0)
    second = asyncio.create_task(wait_long())
    waited = await first
    del first
    await asyncio.sleep(SHORT * 3)  # the timer is for the second one now
    gc.collect()
    assert waited() is None
    second.cancel()
