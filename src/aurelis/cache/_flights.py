"""The flights of one cache: who joins, who leads, who is cancelled, and what an invalidation overtakes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from functools import partial
from typing import Any, Literal, TypeVar

from ._flight import Abandoned, Flight, current
from ._forking import renew_in_children
from ._gate import Gate, running_loop
from .telemetry._cells import Cell

T = TypeVar("T")

_POLL = 0.02
"""Seconds between two looks at loads of other event loops, while closing."""


class Flights:
    """The flights of one cache.

    Attributes:
        last_anew: the number of the last one that loads whatever there is.
    """

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
        self._last: set[asyncio.Task[Any]] = set()
        self._waiters = Cell()
        self.last_anew = 0

    @property
    def waiting(self) -> int:
        """How many wait for a load that another one leads."""
        return self._waiters.n

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
                flight = Flight(key, self._waiters)
                self._flights[key] = flight
                leads = True
            else:
                leads = False
                if (own := current()) is not None:
                    own.awaits(flight)
                flight._refs += 1
                self._waiters.n += 1
        if leads and (own := current()) is not None:
            own.awaits(flight)
        return flight, leads

    def join_anew(
        self, key: str, since: int
    ) -> tuple[Flight[Any], Literal["lead", "follow", "wait"], Flight[Any] | None]:
        """A flight of the key that loads whatever there is, and what the caller has to do with it.

        `lead`: start it. `follow`: it has begun after `since`, so its result is the caller's, too. `wait`: until it has
        ended, and then ask again; its result must not be lost, and may be older than the caller wants. The caller must
        `leave` it in any case.

        Args:
            since: `last_anew` when the caller came.

        Returns:
            With a flight to lead, the one whose place it takes, if any. Those who wait for that one get its result,
            which is not stored.

        Raises:
            RecursiveLoadError: the caller is part of a load of this key, or of one that waits for it.
        """
        own = current()
        with self._lock:
            other = self._flights.get(key)
            if other is not None and isinstance(other.outcome, Abandoned):
                other = None
            if own is not None and other is not None:
                own.awaits(other)
            if other is not None and other.anew:
                other._refs += 1
                self._waiters.n += 1
                return other, "follow" if other.anew > since else "wait", None
            if own is not None and other is not None:
                own.awaits_no_more(other)
            if other is not None:
                other.fenced = True
            flight = self._flights[key] = Flight(key, self._waiters)
            self.last_anew += 1
            flight.anew = self.last_anew
        if own is not None:
            own.awaits(flight)
        return flight, "lead", other

    def would_block(self, key: str) -> bool:
        """Whether the load of the key goes on only when this thread does something else than wait for it."""
        flight = self._flights.get(key)
        return flight is not None and flight.outcome is None and flight.is_of_this_thread()

    def apart(self, key: str) -> Flight[Any]:
        """A flight of the key that the caller leads and nobody can join; an invalidation still reaches it."""
        flight: Flight[Any] = Flight(key, self._waiters)
        with self._lock:
            self._apart.add(flight)
        if (own := current()) is not None:
            own.awaits(flight)
        return flight

    def behind(self, key: str) -> Flight[Any] | None:
        """A flight that no caller waits for, which the cache itself leads; `None`: the key is being loaded already."""
        with self._lock:
            if (other := self._flights.get(key)) is not None:
                if other.alive():
                    return None
                other.fenced = True  # its loop is gone, or pauses
            flight = self._flights[key] = Flight(key, self._waiters)
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
        # In the same context: of itself it would keep a copy of the caller's for as long as the load takes.
        task.add_done_callback(partial(self._ended, flight), context=context)
        return task

    def start_party(
        self, flights: Iterable[Flight[Any]], load: Coroutine[Any, Any, None], context: Context | None = None
    ) -> asyncio.Task[None]:
        """`start` for several flights that one load is for. It must settle and `land` each of them."""
        first, *others = flights
        task = self.start(first, load, context)
        for flight in others:
            flight._loop, flight._task = first._loop, task
            task.add_done_callback(partial(self._ended, flight), context=context)
        return task

    def _ended(self, flight: Flight[Any], task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if flight.outcome is None:  # cancelled before it began
            flight.abandon()
            self.land(flight)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something of the cache's own in this event loop until it ends or the cache is closed."""
        context = Context()
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._own[task] = None
        task.add_done_callback(self._forget_own, context=context)

    def run_to_its_end(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """The same for something short, which closing waits for.

        Args:
            context: of the task; `None`: an empty one.
        """
        context = context or Context()
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._last.add(task)
        task.add_done_callback(self._last.discard, context=context)
        return task

    def _forget_own(self, task: asyncio.Task[None]) -> None:
        self._own.pop(task, None)

    def leave(self, flight: Flight[Any], *, leads: bool) -> None:
        """One caller less. The last one cancels a load that has no outcome worth keeping, at once or soon."""
        with self._lock:
            flight._refs -= 1
            if not leads:
                self._waiters.n -= 1
            begins = flight.linger > 0 and flight._refs == 0 and not flight._keep and flight.lingering is None
            if begins:
                flight.lingering = Gate()
            last = self._drop_unless_wanted(flight)
        if (own := current()) is not None:
            own.awaits_no_more(flight)
        if begins or last:
            self._in_its_loop(flight, partial(self._linger, flight) if begins else partial(_cancel, flight))

    def linger_no_more(self, flight: Flight[Any]) -> None:
        """What a load has gone on for has not come soon: it ends, unless somebody waits for it again.

        To be called in its event loop, if it has one.
        """
        with self._lock:
            flight.linger = 0.0
            lingering, flight.lingering = flight.lingering, None
            last = self._drop_unless_wanted(flight)
        if lingering is not None:
            lingering.open()
        if last:
            _cancel(flight)

    def _linger(self, flight: Flight[Any]) -> None:
        asyncio.get_running_loop().call_later(flight.linger, self.linger_no_more, flight)

    def _drop_unless_wanted(self, flight: Flight[Any]) -> bool:
        """Whether nobody wants the load any more; then nobody can join it either. The lock is held."""
        together = (flight,) if flight.party is None else flight.party.flights
        if not all(one._refs == 0 and not one._keep and not one.lingers() for one in together):
            return False
        for one in together:
            self._apart.discard(one)
            if self._flights.get(one.key) is one:
                # First out of the map, then cancelled: nobody can join a load that is about to end.
                del self._flights[one.key]
            # A later invalidation does not find it either, so what resists its cancellation must not be stored.
            one.fenced = one.fenced or one._task is not None
        return True

    def _in_its_loop(self, flight: Flight[Any], step: Callable[[], object]) -> None:
        """Take a step where the load runs, if it does."""
        task = flight._task
        if task is None or task.done():
            return
        loop = task.get_loop()
        if loop is running_loop():
            step()
        else:
            with contextlib.suppress(RuntimeError):  # that loop is closed, and the task with it
                loop.call_soon_threadsafe(step)

    def land(self, flight: Flight[Any]) -> None:
        """Nobody can join it any more."""
        with self._lock:
            self._apart.discard(flight)
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            flight.linger = 0.0  # whoever leaves from now on leaves nothing behind
        if flight.lingering is not None:
            flight.lingering.open()

    def lingering(self, key: str, *, blocking: bool) -> Flight[Any] | None:
        """The flight of the key if it goes on although nobody waits, and the caller can wait until that is over.

        What it brings then is stored, or was nothing to share: it may lack its end.

        Args:
            blocking: the caller's thread does nothing else meanwhile.
        """
        flight = self._flights.get(key)
        if flight is None or not flight.lingers() or (blocking and flight.is_of_this_thread()):
            return None
        return flight

    def is_loading(self, key: str) -> bool:
        """Whether a load of the key is under way that others can join."""
        with self._lock:
            return key in self._flights

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
        if last := [task for task in list(self._last) if task.get_loop() is loop]:
            _, late = await asyncio.wait(last, timeout=timeout)
            for task in late:
                task.cancel()
        # What has ended may not have been told yet that it did.
        for task in [task for task in list(self._tasks) if task.done()]:
            self._tasks.pop(task, None)

    def _under_way(self) -> list[asyncio.Task[None]]:
        # A copy, because other threads change the set.
        return [task for task in list(self._tasks) if not task.done() and task.get_loop().is_running()]


def _cancel(flight: Flight[Any]) -> None:
    if flight._task is not None:
        flight._task.cancel()


async def _first_of(tasks: list[asyncio.Task[None]], loop: asyncio.AbstractEventLoop, timeout: float) -> None:
    """Wait until one of the tasks has ended, or for a moment if some of them run in other loops."""
    here = [task for task in tasks if task.get_loop() is loop]
    if len(here) < len(tasks):
        timeout = min(timeout, _POLL)
    if here:
        await asyncio.wait(here, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(timeout)
