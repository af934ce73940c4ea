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
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._forking import renew_in_children
from ._gate import Gate
from ._shared_errors import SharedError
from .exceptions import RecursiveLoadError
from .telemetry._cells import Cell

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settled(Generic[T]):
    """The flight has a result."""

    result: T


@dataclass(frozen=True, slots=True)
class Failed(SharedError):
    """The load raised. Traceback and context are the load's own."""


class Party:
    """Flights of several keys that one load is for: it goes on while anybody waits for any of them.

    Attributes:
        flights: all of them.
        failure: what came instead of results, for those who would have asked for nothing else; `None`: nothing.
    """

    __slots__ = ("failure", "flights")

    def __init__(self, flights: tuple[Flight[Any], ...]) -> None:
        self.flights = flights
        self.failure: object = None


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The load ended without a result, because its event loop did: whoever still waits starts again."""


ABANDONED = Abandoned()
_NOBODY = threading.Thread()  # never started, so never alive
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
        anew: it loads whatever there is: which one of those, from 1; 0: it does not.
        holds: asks whether nothing has overtaken the load; `None`: nobody can say.
        party: those with the same load; `None`: it has one of its own.
        patience: seconds for which whoever leads it waits at most; `None`: as long as it takes.
        linger: seconds for which the load goes on once nobody waits any more, as hardly anything of it is left; 0: it
            ends then.
        lingering: opened when that is over; `None`: it has not begun.
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
        "_waiters",
        "anew",
        "fenced",
        "generation",
        "holds",
        "key",
        "linger",
        "lingering",
        "link",
        "outcome",
        "overtaken",
        "party",
        "patience",
        "stale",
        "tags",
        "unclaimed",
    )

    def __init__(self, key: str, waiters: Cell | None = None) -> None:
        self.key = key
        self._waiters = waiters
        self.outcome: Settled[T] | Failed | Abandoned | None = None
        self.fenced = False
        self.anew = 0
        self.unclaimed = False
        self.link: object | None = None
        self.tags: tuple[str, ...] = ()
        self.stale: object = None
        self.overtaken = 0
        self.generation = -1
        self.holds: Callable[[], Awaitable[bool]] | None = None
        self.party: Party | None = None
        self.patience: float | None = None
        self.linger = 0.0
        self.lingering: Gate | None = None
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

    def lingers(self) -> bool:
        """Whether it goes on although nobody waits, for a moment."""
        return self.lingering is not None and not self.lingering.is_open()

    def is_of_this_thread(self) -> bool:
        """Whether the load runs in this thread, or in its event loop."""
        return self._thread is threading.current_thread()

    def take_over(self, thread: threading.Thread | None = None) -> None:
        """From now on this thread runs the load; `None`: the one that says so."""
        self._thread = threading.current_thread() if thread is None else thread

    def lose(self) -> None:
        """Nobody runs the load any more. Takes no lock: a garbage collector calls this."""
        self._thread = _NOBODY

    def lose_follower(self) -> None:
        """One of those who share it is gone without a word. Takes no lock: a garbage collector calls this."""
        self._refs -= 1
        if self._waiters is not None:
            self._waiters.n -= 1

    def settle(self, result: T) -> None:
        """Give everybody the result."""
        self._conclude(Settled(result))

    def fail(self, error: BaseException) -> None:
        """Give everybody the error."""
        self._conclude(Failed.of(error))

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

    async def lingered(self) -> None:
        """Wait in this event loop until it lingers no more."""
        if self.lingering is not None:
            foreign = self._loop is not asyncio.get_running_loop()
            await self.lingering.wait(alive=self.alive if foreign else None)

    def lingered_blocking(self) -> None:
        """The same in this thread."""
        if self.lingering is not None:
            self.lingering.wait_blocking(alive=self.alive)

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
                if flight.party is not None:
                    open_ends.extend(flight.party.flights)
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


def enter(flight: Flight[Any]) -> None:
    """Say that the current context runs this flight's load. To be called in the load's own task."""
    _current.set(flight)


def current() -> Flight[Any] | None:
    """The flight whose load the current context is part of."""
    return _current.get()
