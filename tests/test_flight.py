"""One load per key: who shares it, who ends it, and what an invalidation does to it."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._flight import Abandoned, Failed, Flight, Settled, enter
from aurelis.cache._flights import Flights
from aurelis.cache.exceptions import RecursiveLoadError
from tests.loops import LoopThread, loop_threads
from tests.managers import WITHIN, eventually, eventually_blocking

Load = Callable[[], Awaitable[object]]


async def fly(flights: Flights, key: str, load: Load) -> Settled[Any] | Failed | Abandoned:
    """What one caller does, as short as it can be; returns the outcome."""
    flight, leads = flights.join(key)
    if leads:
        flights.start(flight, run(flights, flight, load))
    try:
        return await flight.wait()
    finally:
        flights.leave(flight, leads=leads)


async def run(flights: Flights, flight: Flight[Any], load: Load) -> None:
    """What a leader's task does."""
    enter(flight)
    try:
        flight.settle(await load())
    except asyncio.CancelledError:
        flight.abandon()
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is
        flight.fail(error)
    finally:
        flights.land(flight)


class Origin:
    """Loads that wait until they are let go."""

    def __init__(self) -> None:
        self.loads = 0
        self.running = 0
        self.cancelled = 0
        self._go: asyncio.Event = asyncio.Event()
        self._error: Exception | None = None

    async def load(self) -> object:
        self.loads += 1
        self.running += 1
        number = self.loads
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self._error is not None:
            raise self._error
        return number

    def let_go(self, error: Exception | None = None) -> None:
        self._error = error
        self._go.set()


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancels the task and waits for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def callers(flights: Flights, number: int, load: Load, key: str = "k") -> list[asyncio.Task[Any]]:
    """Returns that many callers of one key, all of which wait."""
    before = flights.waiting
    tasks = [asyncio.create_task(fly(flights, key, load)) for _ in range(number)]
    others = number - (1 if before == 0 else 0)
    await eventually(lambda: flights.waiting >= before + others)
    return tasks


def assert_empty(flights: Flights) -> None:
    """Nothing is left of any flight."""
    assert not flights._flights
    assert all(task.done() for task in flights._tasks)
    assert flights.waiting == 0


async def test_all_callers_share_one_load() -> None:
    flights, origin = Flights(), Origin()
    tasks = await callers(flights, 50, origin.load)
    assert flights.waiting == 49
    origin.let_go()
    assert await asyncio.gather(*tasks) == [Settled(1)] * 50
    assert origin.loads == 1
    assert_empty(flights)


async def test_different_keys_do_not_wait_for_each_other() -> None:
    flights, slow, fast = Flights(), Origin(), Origin()
    (waiting,) = await callers(flights, 1, slow.load, "slow")
    fast.let_go()
    assert await fly(flights, "fast", fast.load) == Settled(1)
    slow.let_go()
    await waiting


@pytest.mark.parametrize("leavers", [[0], [3], [0, 1, 2, 3], [1, 2, 3, 4], [0, 2, 4]])
async def test_whoever_leaves_does_not_harm_those_who_stay(leavers: list[int]) -> None:
    flights, origin = Flights(), Origin()
    tasks = await callers(flights, 5, origin.load)
    for index in leavers:
        await cancel(tasks[index])
    assert origin.running == 1
    origin.let_go()
    stayers = [task for index, task in enumerate(tasks) if index not in leavers]
    assert await asyncio.gather(*stayers) == [Settled(1)] * len(stayers)
    assert origin.cancelled == 0
    assert_empty(flights)


async def test_the_last_one_who_leaves_ends_the_load() -> None:
    flights, origin = Flights(), Origin()
    for task in await callers(flights, 5, origin.load):
        await cancel(task)
    await eventually(lambda: origin.cancelled == 1)
    await eventually(lambda: not flights._tasks)
    assert_empty(flights)


async def test_whoever_comes_after_all_have_left_begins_a_new_load() -> None:
    flights, origin = Flights(), Origin()
    (task,) = await callers(flights, 1, origin.load)
    await eventually(lambda: origin.running)
    # The cancelled load has not ended yet when the next caller comes.
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    newcomer = asyncio.create_task(fly(flights, "k", origin.load))
    origin.let_go()
    assert await newcomer == Settled(2)


async def test_a_load_that_only_stores_is_not_cancelled_any_more() -> None:
    flights = Flights()
    stored = asyncio.Event()
    storing = asyncio.Event()
    flight, leads = flights.join("k")
    assert leads

    async def load() -> None:
        flight.keep()
        storing.set()
        await stored.wait()
        flight.settle("value")
        flights.land(flight)

    flights.start(flight, load())
    await storing.wait()
    flights.leave(flight, leads=True)
    follower = asyncio.create_task(fly(flights, "k", Origin().load))
    await eventually(lambda: flights.waiting == 1)
    stored.set()
    assert await follower == Settled("value")
    assert_empty(flights)


async def test_an_error_reaches_every_waiter_as_it_was() -> None:
    flights, origin, error = Flights(), Origin(), ValueError("broken")
    tasks = await callers(flights, 10, origin.load)
    origin.let_go(error)
    outcomes = await asyncio.gather(*tasks)
    assert {id(outcome.error) for outcome in outcomes} == {id(error)}
    assert_empty(flights)


async def test_the_traceback_of_a_shared_error_does_not_grow_with_its_waiters() -> None:
    flights, origin = Flights(), Origin()
    tasks = await callers(flights, 100, origin.load)
    origin.let_go(ValueError("broken"))
    lengths = set()
    for outcome in await asyncio.gather(*tasks):
        try:
            outcome.again()
        except ValueError as error:
            traceback, length = error.__traceback__, 0
            while traceback is not None:
                traceback, length = traceback.tb_next, length + 1
            lengths.add(length)
    assert len(lengths) == 1


@pytest.mark.parametrize("everything", [False, True], ids=["fence", "fence_all"])
async def test_an_invalidation_detaches_the_load(everything: bool) -> None:
    """Those who asked before it get the result; those who ask after it begin a new load."""
    flights, origin = Flights(), Origin()
    (early,) = await callers(flights, 1, origin.load)
    await eventually(lambda: origin.running == 1)
    flight = flights._flights["k"]
    if everything:
        assert flights.fence_all() == [flight]
    else:
        assert flights.fence("k") is flight
    assert flight.fenced
    await flight.stored()  # nothing is being stored, so there is nothing to wait for
    late = asyncio.create_task(fly(flights, "k", origin.load))
    await eventually(lambda: origin.running == 2)
    assert not flights._flights["k"].fenced
    origin.let_go()
    assert [await early, await late] == [Settled(1), Settled(2)]
    assert_empty(flights)


async def test_an_invalidation_waits_for_a_load_that_is_being_stored() -> None:
    """It cannot be stopped any more, so what comes next has to come after it."""
    flights = Flights()
    flight, _ = flights.join("k")
    with flight.storing():
        assert flights.fence("k") is flight
        assert flights.fence("k") is None
        waiting = asyncio.create_task(flight.stored())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_what_everybody_has_left_is_not_stored_even_if_it_resists_its_cancellation() -> None:
    """No later invalidation finds it, so its result might be older than one."""
    flights = Flights()
    ended = asyncio.Event()

    async def stubborn() -> object:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ended.set()
        return "old"

    (task,) = await callers(flights, 1, stubborn)
    await eventually(lambda: flights._tasks)
    await asyncio.sleep(0)
    flight = flights._flights["k"]
    await cancel(task)
    await asyncio.wait_for(ended.wait(), WITHIN)
    assert flight.fenced
    await eventually(lambda: not flights._tasks)


# --- recursion


async def test_a_load_that_asks_for_itself_raises() -> None:
    flights = Flights()

    async def load() -> object:
        return await fly(flights, "k", load)

    outcome = await asyncio.wait_for(fly(flights, "k", load), WITHIN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, RecursiveLoadError)
    assert_empty(flights)


async def test_a_load_that_asks_for_itself_in_another_task_raises() -> None:
    flights = Flights()

    async def load() -> object:
        return await asyncio.create_task(fly(flights, "k", load))

    outcome = await asyncio.wait_for(fly(flights, "k", load), WITHIN)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, RecursiveLoadError)


@pytest.mark.parametrize("caches", [1, 2])
async def test_two_loads_that_wait_for_each_other_raise_instead_of_hanging(caches: int) -> None:
    """Each was begun by a caller of its own, also in caches of their own."""
    first = Flights()
    second = first if caches == 1 else Flights()
    both = asyncio.Barrier(2)

    async def loads_second() -> object:
        await both.wait()
        return await fly(second, "b", loads_first)

    async def loads_first() -> object:
        await both.wait()
        return await fly(first, "a", loads_second)

    outcomes = await asyncio.wait_for(
        asyncio.gather(fly(first, "a", loads_second), fly(second, "b", loads_first)), WITHIN
    )
    # One of the two closes the circle and is told; the other gets what that one made of it.
    assert [type(outcome) for outcome in outcomes].count(Failed) == 1
    assert_empty(first)
    assert_empty(second)


async def test_a_circle_is_found_while_one_of_several_tasks_of_a_load_still_waits() -> None:
    """Load A waits for B in two tasks and gives up one of them; then B asks for A."""
    flights = Flights()
    given_up = asyncio.Event()

    async def load_a() -> object:
        impatient = asyncio.create_task(fly(flights, "b", load_b))
        patient = asyncio.create_task(fly(flights, "b", load_b))
        await eventually(lambda: flights.waiting == 1)
        await cancel(impatient)
        given_up.set()
        return await patient

    async def load_b() -> object:
        await given_up.wait()
        return await fly(flights, "a", load_a)

    outcome = await asyncio.wait_for(fly(flights, "a", load_a), WITHIN)
    assert isinstance(outcome, Settled)
    assert isinstance(outcome.result.error, RecursiveLoadError)


async def test_loads_that_need_others_without_a_circle_are_fine() -> None:
    flights, origin = Flights(), Origin()

    async def load() -> object:
        return await asyncio.gather(fly(flights, "b", origin.load), fly(flights, "c", origin.load))

    tasks = await callers(flights, 3, load, "a")
    direct = asyncio.create_task(fly(flights, "b", origin.load))
    await eventually(lambda: origin.running == 2)
    origin.let_go()
    await asyncio.wait_for(asyncio.gather(*tasks, direct), WITHIN)
    assert origin.loads == 2
    assert_empty(flights)


async def test_the_same_load_can_be_asked_for_again_once_it_has_ended() -> None:
    flights = Flights()

    async def inner() -> object:
        return 1

    async def load() -> object:
        return [await fly(flights, "b", inner), await fly(flights, "b", inner)]

    assert await fly(flights, "a", load) == Settled([Settled(1), Settled(1)])


# --- several loops and threads


def test_callers_of_several_loops_share_one_load() -> None:
    flights = Flights()
    go = threading.Event()
    loads = 0

    async def load() -> object:
        nonlocal loads
        loads += 1
        await asyncio.to_thread(go.wait, WITHIN)
        return "value"

    with loop_threads(4) as loops:
        futures = [loop.submit(fly(flights, "k", load)) for loop in loops for _ in range(25)]
        eventually_blocking(lambda: flights.waiting == 99)
        go.set()
        assert [future.result(WITHIN) for future in futures] == [Settled("value")] * 100
    assert loads == 1
    assert_empty(flights)


def test_a_blocking_caller_waits_for_a_load_of_a_loop() -> None:
    flights = Flights()
    with loop_threads(1) as (loop,):
        origin = Origin()
        leader = loop.submit(fly(flights, "k", origin.load))
        eventually_blocking(lambda: origin.running)
        flight, leads = flights.join("k")
        assert not leads
        loop.loop.call_soon_threadsafe(origin.let_go)
        assert flight.wait_blocking() == Settled(1)
        flights.leave(flight, leads=False)
        leader.result(WITHIN)


@pytest.mark.parametrize("how", ["halt", "end"])
def test_when_the_leaders_loop_stops_or_closes_the_others_are_told_within_bounds(how: str) -> None:
    flights = Flights()
    origin = Origin()
    leader = LoopThread()
    leader.submit(fly(flights, "k", origin.load))
    eventually_blocking(lambda: origin.running)
    flight = flights._flights["k"]
    with loop_threads(1) as (loop,):
        follower = loop.submit(fly(flights, "k", origin.load))
        eventually_blocking(lambda: flights.waiting == 1)
        getattr(leader, how)()
        assert isinstance(follower.result(WITHIN), Abandoned)
        # The next one to ask leads a load of its own.
        newcomer, leads = flights.join("k")
        assert leads
        assert newcomer is not flight
        flights.land(newcomer)
        flights.leave(newcomer, leads=True)
    leader.end()


def test_what_a_halted_loop_loads_after_it_was_given_up_is_not_stored() -> None:
    """An invalidation meanwhile would not have found it."""
    flights = Flights()
    origin = Origin()
    leader = LoopThread()
    leader.submit(fly(flights, "k", origin.load))
    eventually_blocking(lambda: origin.running)
    flight = flights._flights["k"]
    with loop_threads(1) as (loop,):
        follower = loop.submit(fly(flights, "k", origin.load))
        eventually_blocking(lambda: flights.waiting == 1)
        leader.halt()
        assert isinstance(follower.result(WITHIN), Abandoned)
    assert flight.fenced
    leader.resume()
    leader.end()


def test_a_load_left_by_its_last_caller_is_cancelled_in_the_loop_where_it_runs() -> None:
    flights = Flights()
    with loop_threads(2) as (first, second):
        origin = Origin()
        leader = first.submit(fly(flights, "k", origin.load))
        eventually_blocking(lambda: origin.running)
        follower = second.submit(fly(flights, "k", origin.load))
        eventually_blocking(lambda: flights.waiting == 1)
        leader.cancel()
        follower.cancel()
        eventually_blocking(lambda: origin.cancelled == 1)
        eventually_blocking(lambda: not flights._tasks)
    assert_empty(flights)


# --- any schedule


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from("ab")),
        st.tuples(st.sampled_from(["leave", "finish", "fail"]), st.integers(0, 20)),
        st.tuples(st.just("fence"), st.sampled_from("ab")),
        st.just(("tick", 0)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_whatever_the_schedule_callers_get_a_load_that_was_not_older_than_the_last_fence(
    actions: list[tuple[str, Any]],
) -> None:
    asyncio.run(asyncio.wait_for(play(actions), WITHIN))


async def play(actions: list[tuple[str, Any]]) -> None:
    """Plays a schedule; checks at its end what each caller got."""
    flights = Flights()
    generation = {"a": 0, "b": 0}
    under_way: list[asyncio.Future[object]] = []
    calls: list[tuple[str, int, asyncio.Task[Any]]] = []
    left: set[asyncio.Task[Any]] = set()

    def loader(key: str) -> Load:
        async def load() -> object:
            begun = generation[key]
            go: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            under_way.append(go)
            await go
            return key, begun

        return load

    def take(number: int) -> asyncio.Future[object] | None:
        pending = [go for go in under_way if not go.done()]
        return pending[number % len(pending)] if pending else None

    for action, argument in actions:
        match action:
            case "call":
                task = asyncio.create_task(fly(flights, argument, loader(argument)))
                calls.append((argument, generation[argument], task))
                await asyncio.sleep(0)  # it joins now
            case "leave" if calls:
                task = calls[argument % len(calls)][2]
                if not task.done():
                    left.add(task)
                    task.cancel()
            case "finish" if (go := take(argument)) is not None:
                go.set_result(None)
            case "fail" if (go := take(argument)) is not None:
                go.set_exception(ValueError("broken"))
            case "fence":
                flights.fence(argument)
                generation[argument] += 1
            case _:
                await asyncio.sleep(0)
    while not all(task.done() for *_, task in calls):
        for go in under_way:
            if not go.done():
                go.set_result(None)
        await asyncio.sleep(0)
    for key, asked, task in calls:
        if task.cancelled():
            assert task in left
            continue
        match task.result():
            case Settled((loaded_key, begun)):
                assert loaded_key == key
                assert begun >= asked
            case Failed(error, _):
                assert isinstance(error, ValueError)
            case outcome:
                pytest.fail(f"nobody's loop ended, and yet there is {outcome}")
    await eventually(lambda: not flights._tasks)
    assert_empty(flights)


def test_whoever_leaves_a_load_that_is_over_does_not_have_it_linger() -> None:
    """Nobody would end that, and somebody may have found the flight just before."""
    flights = Flights()
    flight, leads = flights.join("k")
    flight.linger = 30.0
    flights.land(flight)
    flights.leave(flight, leads=leads)
    assert not flight.lingers()


def test_a_load_that_lingers_is_over_when_it_has_landed() -> None:
    flights = Flights()
    flight, leads = flights.join("k")
    flight.linger = 30.0
    flights.leave(flight, leads=leads)
    assert flights.lingering("k", blocking=False) is flight
    flights.land(flight)
    assert not flight.lingers()
