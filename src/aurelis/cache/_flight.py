"""One load per key at a time, shared by callers of any event loop or thread.

The contract:

* The load runs in a task of its own (or in the thread of a synchronous leader). Callers wait for it without owning it,
  so a cancelled caller harms nobody; when the last one leaves, the load is cancelled.
* Errors reach all waiters as they were.
* A load that waits for itself, directly or through others, raises instead of hanging.
* An invalidation detaches the flight: those who wait get its result, it is not stored, later callers begin a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from ._forking import renew_in_children
from ._gate import Gate
from .exceptions import RecursiveLoadError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settled(Generic[T]):
    """The flight has a result."""

    result: T


@dataclass(frozen=True, slots=True)
class Failed:
    """The load raised. `traceback` is the load's own, before any waiter raised it again."""

    error: BaseException
    traceback: TracebackType | None

    def again(self) -> BaseException:
        """The error to raise in one more waiter, without the frames that other waiters added to it."""
        return self.error.with_traceback(self.traceback)


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The load ended without a result, because its event loop did: whoever still waits starts again."""


ABANDONED = Abandoned()
_NOBODY = threading.Thread()  # never started, so never alive
_POLL = 0.02
"""Seconds between two looks at loads of other event loops, while closing."""
_current: ContextVar[Flight[Any] | None] = ContextVar("aurelis_cache_flight", default=None)


class _Graph:
    """Who waits for whom is one graph over all caches, changed under one lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        renew_in_children(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()


_graph = _Graph()


class Flight(Generic[T]):
    """One load.

    Attributes:
        outcome: `None` while there is none.
        fenced: an invalidation has overtaken it, or nobody waits for it, so its result must not be stored.
        unclaimed: a load has begun, and no request is counted for it yet; see `Flights.claim`.
        link: the context of the span around the load, for links from those who wait.
        tags: of what is loaded, beside those that follow from the key.
        stale: what there is in place of the result.
        overtaken: the lowest generation that an invalidation may have of which the load has learnt; 0: there is none.
        generation: of the load; that of an invalidation which has overtaken it is higher. -1: not known yet.
        holds: asks whether nothing has overtaken the load; `None`: nobody can say.
    """

    __slots__ = (
        "__weakref__",
        "_awaits",
        "_gate",
        "_keep",
        "_loop",
        "_refs",
        "_storing",
        "_task",
        "_thread",
        "fenced",
        "generation",
        "holds",
        "key",
        "link",
        "outcome",
        "overtaken",
        "stale",
        "tags",
        "unclaimed",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.outcome: Settled[T] | Failed | Abandoned | None = None
        self.fenced = False
        self.unclaimed = False
        self.link: object | None = None
        self.tags: tuple[str, ...] = ()
        self.stale: object = None
        self.overtaken = 0
        self.generation = -1
        self.holds: Callable[[], Awaitable[bool]] | None = None
        self._gate = Gate()
        self._refs = 1
        self._keep = False
        self._storing: Gate | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.current_thread()
        self._awaits: dict[Flight[Any], int] = {}  # with the number of tasks of this load that do

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task of the load; `None` where a thread runs it."""
        return self._task

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of that task."""
        return self._loop

    def has_callers(self) -> bool:
        """Whether anybody waits for it or reads it."""
        return self._refs > 0

    def is_of_this_thread(self) -> bool:
        """Whether the load runs in this thread, or in its event loop."""
        return self._thread is threading.current_thread()

    def take_over(self) -> None:
        """From now on this thread runs the load."""
        self._thread = threading.current_thread()

    def lose(self) -> None:
        """Nobody runs the load any more. Takes no lock: a garbage collector calls this."""
        self._thread = _NOBODY

    def settle(self, result: T) -> None:
        """Give everybody the result."""
        self._conclude(Settled(result))

    def fail(self, error: BaseException) -> None:
        """Give everybody the error."""
        self._conclude(Failed(error, error.__traceback__))

    def abandon(self) -> None:
        """Let everybody start again."""
        self._conclude(ABANDONED)

    def keep(self) -> None:
        """From now on the task goes on although nobody waits: what remains is to store the result."""
        self._keep = True

    @contextlib.contextmanager
    def storing(self) -> Iterator[None]:
        """Around looking at `fenced` and storing the result: an invalidation that comes too late to stop it waits."""
        gate = self._storing = Gate()
        try:
            yield
        finally:
            gate.open()

    async def stored(self) -> None:
        """Wait until what is being stored is stored."""
        if self._storing is not None:
            await self._storing.wait(alive=self.alive)

    async def wait(self) -> Settled[T] | Failed | Abandoned:
        """Wait in this event loop for the outcome."""
        if self.outcome is None:
            foreign = self._loop is not asyncio.get_running_loop()
            if not await self._gate.wait(alive=self.alive if foreign else None):
                self._give_up()
        return self.outcome or ABANDONED

    def wait_blocking(self) -> Settled[T] | Failed | Abandoned:
        """Wait in this thread for the outcome."""
        if self.outcome is None and not self._gate.wait_blocking(alive=self.alive):
            self._give_up()
        return self.outcome or ABANDONED

    def _give_up(self) -> None:
        # Its loop may only pause and run on later: what it loads then may be older than an invalidation that no longer
        # finds it.
        self.fenced = True
        self.abandon()

    async def landed(self) -> None:
        """Wait until the task itself has ended, also after the outcome is known. Never raises its error."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    def error(self) -> BaseException | None:
        """What the ended task raised after its outcome was known. If nobody asks, asyncio reports it."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    def awaits(self, other: Flight[Any]) -> None:
        """Note that this load waits for another one.

        Raises:
            RecursiveLoadError: the other one waits, perhaps through further ones, for this one.
        """
        with _graph.lock:
            if other is self or other._reaches(self):
                raise RecursiveLoadError("the load waits for the result of itself, directly or through other loads")
            self._awaits[other] = self._awaits.get(other, 0) + 1

    def awaits_no_more(self, other: Flight[Any]) -> None:
        """The opposite of `awaits`."""
        with _graph.lock:
            if (left := self._awaits.pop(other, 0) - 1) > 0:
                self._awaits[other] = left

    def _reaches(self, target: Flight[Any]) -> bool:
        seen: set[Flight[Any]] = set()
        open_ends = [self]
        while open_ends:
            flight = open_ends.pop()
            if flight is target:
                return True
            if flight not in seen:
                seen.add(flight)
                open_ends.extend(flight._awaits)
        return False

    def _conclude(self, outcome: Settled[T] | Failed | Abandoned) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self._gate.open()

    def alive(self) -> bool:
        """Whether whoever runs the load still can."""
        if self._loop is None:
            return self._thread.is_alive()
        return self._loop.is_running()


class Flights:
    """The flights of one cache."""

    def __init__(self) -> None:
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """No loop of the parent runs in a child, so a flight that was inherited would never end."""
        self._lock = threading.Lock()
        self._flights: dict[str, Flight[Any]] = {}
        self._apart: set[Flight[Any]] = set()
        self._tasks: dict[asyncio.Task[None], None] = {}  # in the order in which they began
        self._own: dict[asyncio.Task[None], None] = {}
        self.waiting = 0

    def join(self, key: str) -> tuple[Flight[Any], bool]:
        """The flight of the key, and whether the caller leads it and has to start it.

        The caller must `leave` it in any case.

        Raises:
            RecursiveLoadError: the caller is part of a load that this flight waits for.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None and isinstance(flight.outcome, Abandoned):
                flight = None
            if flight is None:
                flight = Flight(key)
                self._flights[key] = flight
                leads = True
            else:
                leads = False
                if (current := _current.get()) is not None:
                    current.awaits(flight)
                flight._refs += 1
                self.waiting += 1
        if leads and (current := _current.get()) is not None:
            current.awaits(flight)
        return flight, leads

    def apart(self, key: str) -> Flight[Any]:
        """A flight of the key that the caller leads and nobody can join; an invalidation still reaches it."""
        flight: Flight[Any] = Flight(key)
        with self._lock:
            self._apart.add(flight)
        if (current := _current.get()) is not None:
            current.awaits(flight)
        return flight

    def behind(self, key: str) -> Flight[Any] | None:
        """A flight that no caller waits for, which the cache itself leads; `None`: the key is being loaded already."""
        with self._lock:
            if (other := self._flights.get(key)) is not None:
                if other.alive():
                    return None
                other.fenced = True  # its loop is gone, or pauses
            flight = self._flights[key] = Flight(key)
            flight._refs = 0
            flight._keep = True
        return flight

    def start(
        self, flight: Flight[Any], load: Coroutine[Any, Any, None], context: Context | None = None
    ) -> asyncio.Task[None]:
        """Run the load in a task of this event loop, and return the task. It must settle the flight, and `land` it.

        Args:
            context: of the task; `None`: a copy of the caller's.
        """
        loop = asyncio.get_running_loop()
        flight._loop = loop
        task = loop.create_task(load, context=context)
        flight._task = task
        self._tasks[task] = None
        task.add_done_callback(partial(self._ended, flight))
        return task

    def _ended(self, flight: Flight[Any], task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if flight.outcome is None:  # cancelled before it began
            flight.abandon()
            self.land(flight)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something of the cache's own in this event loop until it ends or the cache is closed."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._own[task] = None
        task.add_done_callback(self._forget_own)

    def _forget_own(self, task: asyncio.Task[None]) -> None:
        self._own.pop(task, None)

    def leave(self, flight: Flight[Any], *, leads: bool) -> None:
        """One caller less. The last one cancels a load that has no outcome worth keeping."""
        with self._lock:
            flight._refs -= 1
            if not leads:
                self.waiting -= 1
            last = flight._refs == 0 and not flight._keep
            if last:
                self._apart.discard(flight)
                if self._flights.get(flight.key) is flight:
                    # First out of the map, then cancelled: nobody can join a load that is about to end.
                    del self._flights[flight.key]
                # A later invalidation does not find it either, so what resists its cancellation must not be stored.
                flight.fenced = flight.fenced or flight._task is not None
        if (current := _current.get()) is not None:
            current.awaits_no_more(flight)
        task = flight._task
        if last and task is not None and not task.done():
            loop = task.get_loop()
            if loop is _running_loop():
                task.cancel()
            else:
                with contextlib.suppress(RuntimeError):  # that loop is closed, and the task with it
                    loop.call_soon_threadsafe(task.cancel)

    def land(self, flight: Flight[Any]) -> None:
        """Nobody can join it any more."""
        with self._lock:
            self._apart.discard(flight)
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]

    def claim(self, flight: Flight[Any]) -> bool:
        """Whether the caller's request is the one that the flight's load is counted for: the first to ask, if any."""
        with self._lock:
            claimed, flight.unclaimed = flight.unclaimed, False
        return claimed

    def fence(self, key: str, before: float = math.inf) -> Flight[Any] | None:
        """An invalidation of the key: a load under way is not stored, and later callers begin a new one.

        Args:
            before: the generation of the invalidation; what began with it or later is not overtaken.

        Returns:
            The flight: where it is storing its result already, that is to be waited for.
        """
        with self._lock:
            for apart in self._apart:
                apart.fenced = apart.fenced or (apart.key == key and apart.generation < before)
            flight = self._flights.get(key)
            if flight is None or flight.generation >= before:
                return None
            del self._flights[key]
            flight.fenced = True
        return flight

    def fence_tagged(
        self, tags: Iterable[str], implied: Callable[[str], tuple[str, ...]], before: float = math.inf
    ) -> list[Flight[Any]]:
        """An invalidation of tags; returns the flights of what has one of them.

        Args:
            implied: gives the tags that follow from a key.
            before: as for `fence`.
        """
        wanted = frozenset(tags)
        found = []
        with self._lock:
            for flight in (*self._flights.values(), *self._apart):
                if flight.generation >= before:
                    continue
                if not wanted.isdisjoint(flight.tags) or not wanted.isdisjoint(implied(flight.key)):
                    flight.fenced = True
                    found.append(flight)
                    if self._flights.get(flight.key) is flight:
                        del self._flights[flight.key]
        return found

    def fence_matching(self, matches: Callable[[str], bool]) -> list[Flight[Any]]:
        """An invalidation of all keys that match; returns their flights."""
        with self._lock:
            flights = [flight for flight in (*self._flights.values(), *self._apart) if matches(flight.key)]
            for flight in flights:
                flight.fenced = True
                if self._flights.get(flight.key) is flight:
                    del self._flights[flight.key]
        return flights

    def begun(self) -> list[Flight[Any]]:
        """Those that have something to be loaded, and whose result would be stored."""
        with self._lock:
            return [flight for flight in (*self._flights.values(), *self._apart) if flight.holds and not flight.fenced]

    def fence_one(self, flight: Flight[Any]) -> None:
        """Something has overtaken this one."""
        with self._lock:
            flight.fenced = True
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]

    def fence_all(self) -> list[Flight[Any]]:
        """An invalidation of everything; returns all flights."""
        with self._lock:
            flights = [*self._flights.values(), *self._apart]
            for flight in flights:
                flight.fenced = True
            self._flights.clear()
        return flights

    async def aclose(self, timeout: float) -> None:
        """Let the loads of all running event loops end within `timeout` seconds, then cancel them."""
        loop = asyncio.get_running_loop()
        for own in list(self._own):
            with contextlib.suppress(RuntimeError):  # that loop is closed by now
                own.get_loop().call_soon_threadsafe(own.cancel)
        if here := [own for own in self._own if own.get_loop() is loop]:
            await asyncio.wait(here, timeout=timeout)
        deadline = loop.time() + timeout
        while (tasks := self._under_way()) and loop.time() < deadline:
            await _first_of(tasks, loop, min(timeout, deadline - loop.time()))
        for task in tasks:
            with contextlib.suppress(RuntimeError):  # that loop is closed by now
                task.get_loop().call_soon_threadsafe(task.cancel)
        deadline = loop.time() + timeout
        while (tasks := self._under_way()) and loop.time() < deadline:
            await _first_of(tasks, loop, min(timeout, deadline - loop.time()))
        # What has ended may not have been told yet that it did.
        for task in [task for task in list(self._tasks) if task.done()]:
            self._tasks.pop(task, None)

    def _under_way(self) -> list[asyncio.Task[None]]:
        # A copy, because other threads change the set.
        return [task for task in list(self._tasks) if not task.done() and task.get_loop().is_running()]


async def _first_of(tasks: list[asyncio.Task[None]], loop: asyncio.AbstractEventLoop, timeout: float) -> None:
    """Wait until one of the tasks has ended, or for a moment if some of them run in other loops."""
    here = [task for task in tasks if task.get_loop() is loop]
    if len(here) < len(tasks):
        timeout = min(timeout, _POLL)
    if here:
        await asyncio.wait(here, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(timeout)


def enter(flight: Flight[Any]) -> None:
    """Say that the current context runs this flight's load. To be called in the load's own task."""
    _current.set(flight)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
