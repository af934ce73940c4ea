"""An event loop whose time and order are decided by a seed: a race that one seed finds, the same seed finds again.

Time is virtual. It stands still while anything is ready and then jumps to the next timer, so hours cost nothing.

The order is chosen at random, one handle at a time, among all that is ready, without the rounds of asyncio's own loop.
What asyncio documents is kept: callbacks given to `call_soon` and `call_soon_threadsafe` run in the order in which they
were given. Everything else may be overtaken, because nothing is promised about it: the steps of tasks, the callbacks
of a future when it is done, timers that are due together, and functions in executors. asyncio's own locks, queues and
timeouts hold under any such order. So a failure found here says that the code relies on how many steps others take,
which another `await` somewhere, a slower network or another Python changes. In some seeds tasks also differ in speed,
up to hundredfold, which finds what needs one task to stay behind for long.

A run replays exactly in one process. In another one, sets of strings have another order unless PYTHONHASHSEED is fixed;
what the code draws from `random` is for the test to seed. Threads do not exist here: a function in an executor runs in
one piece and must not wait for the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import heapq
import threading
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar, TypeVarTuple

from aurelis.cache._clock import Clock
from tests.simulation.order import Order
from tests.simulation.reporting import describe, label, where

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS = 100_000
"""Steps after which a run has failed: far more than a scenario takes."""
_MONOTONIC, _EPOCH = 1_000_000.0, 1_800_000_000.0
_RESOLUTION = 1e-9  # seconds, as of asyncio's own clock: what is due together but for rounding
_REAL = (  # what an event loop does with the world
    "add_reader", "add_signal_handler", "add_writer", "connect_accepted_socket", "connect_read_pipe",
    "connect_write_pipe", "create_connection", "create_datagram_endpoint", "create_server", "create_unix_connection",
    "create_unix_server", "getaddrinfo", "getnameinfo", "remove_reader", "remove_signal_handler", "remove_writer",
    "sendfile", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into",
    "sock_sendall", "sock_sendfile", "sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell",
)  # fmt: skip


class SimulationError(AssertionError):
    """A run went wrong in a way that its coroutine cannot report itself."""


class DeadlockError(SimulationError):
    """Nothing is ready, no timer is set, and the main coroutine waits."""


class StepLimitError(SimulationError):
    """The run takes more steps than it may."""


class LeftoverError(SimulationError):
    """The main coroutine has ended and left something behind, or an error that nobody has seen."""


class RealWorldError(SimulationError):
    """The code asked for something that a simulation has not: sockets, processes, signals, other threads."""


@dataclass(frozen=True, slots=True)
class Simulated(Generic[T]):
    """What a run was.

    Attributes:
        value: what the coroutine returned.
        seed: decided the order.
        digest: stands for the trace; equal if and only if all steps were the same.
        trace: the steps in order: virtual time, number of the task or future, and what ran.
        elapsed: virtual seconds.
    """

    value: T
    seed: int
    digest: str
    trace: tuple[str, ...]
    elapsed: float


class SimulatedLoop(asyncio.BaseEventLoop):
    """The event loop; `run` is the way to use it."""

    # Of the base class, which keeps them unpublished; they are the same from CPython 3.11 to 3.13.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _asyncgens: Iterable[Any]

    def __init__(self, seed: int, *, steps: int = STEPS, step_seconds: float = 0.0) -> None:
        super().__init__()
        self.trace: list[str] = []
        self._order = Order(seed)
        self._steps = steps
        self._step_seconds = step_seconds
        self._time = 0.0
        self._thread = threading.get_ident()
        self._settling = False
        self._unseen: list[str] = []
        self.set_exception_handler(lambda _, context: self._unseen.append(describe(context)))
        for name in _REAL:
            setattr(self, name, functools.partial(self._refuse, name))

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._time

    def clock(self, skew: float = 0.0) -> Clock:
        """Returns a clock for a cache that goes by this loop's time.

        Args:
            skew: seconds by which its wall clock is ahead of the others'.
        """
        return Clock(lambda: _MONOTONIC + self._time, lambda: _EPOCH + skew + self._time)

    def create_future(self) -> asyncio.Future[Any]:
        """Returns a future that has its number from the beginning."""
        future: asyncio.Future[Any] = super().create_future()
        self._order.number(future)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """The same as `call_soon`; only this thread is allowed."""
        if threading.get_ident() != self._thread:
            self._refuse(f"call_soon_threadsafe from thread {threading.current_thread().name}")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Runs the function in one step of the loop, and delivers its result in another."""
        future: asyncio.Future[T] = self.create_future()

        def deliver(finish: Callable[[], None]) -> None:
            if not future.done():
                finish()

        @functools.wraps(func)
        def work() -> None:
            if future.cancelled():
                return
            events._set_running_loop(None)  # as in a thread
            try:
                finish = functools.partial(future.set_result, func(*args))
            except BaseException as error:  # noqa: BLE001 — for whoever waits
                finish = functools.partial(future.set_exception, error)
            finally:
                events._set_running_loop(self)
            self._order.add_free(asyncio.Handle(deliver, (finish,), self))

        self._order.add_free(asyncio.Handle(work, (), self))
        return future

    def settle(self) -> None:
        """Lets run what is ready, without letting time pass."""
        self._settling = True
        self.run_forever()

    def leftovers(self) -> Iterator[str]:
        """Describes what there is of tasks, timers, asynchronous generators, and errors that nobody has seen."""
        for task in self._order.tasks():
            if not task.done():
                yield f"a task is not done: {where(task)}"
            elif getattr(task, "_log_traceback", False):
                yield f"nobody saw how a task failed: {task.exception()!r} in {label(task)}"
        for timer in sorted(self._scheduled):
            if not timer.cancelled():
                yield f"a timer is set for {timer.when():.9g} s: {label(timer)}"
        for generator in self._asyncgens:
            if generator.ag_frame is not None:
                yield f"an asynchronous generator is not closed: {where(generator)}"
        yield from self._unseen

    def discard(self) -> None:
        """Ends what is left, and the loop."""
        self._steps = len(self.trace) + STEPS
        for task in self._order.tasks():
            task.cancel()
        with contextlib.suppress(SimulationError):
            self.settle()
            self.create_task(self.shutdown_asyncgens())
            self.settle()
        for task in self._order.tasks():
            pending: Any = task  # asyncio would log that it was destroyed; typeshed does not know the attribute
            pending._log_destroy_pending = False
        self.close()

    def _run_once(self) -> None:
        """Takes one step; `run_forever` calls it until the loop is stopped."""
        if not self._gather():
            if self._settling:
                self.stop()
                return
            if not self._scheduled:
                raise DeadlockError("nothing can go on:\n" + "\n".join(self.leftovers()))
            self._time = max(self._time, self._scheduled[0].when())
            self._gather()
        if len(self.trace) >= self._steps:
            raise StepLimitError(f"{self._steps} steps were not enough:\n" + "\n".join(self.leftovers()))
        owner, handle = self._order.choose()
        self.trace.append(f"{self._time:.9f} {owner} {label(handle)}")
        handle._run()
        if self._step_seconds:
            self._time += self._order.random.uniform(0.0, self._step_seconds)

    def _gather(self) -> bool:
        """Puts in order what has become ready; returns whether anything is."""
        while self._ready:
            self._order.add(self._ready.popleft())
        while timer := next(iter(self._scheduled), None):
            if not timer.cancelled() and timer.when() >= self._time + _RESOLUTION:
                break
            self._order.add_free(heapq.heappop(self._scheduled))
        return self._order.drop_cancelled()

    def _refuse(self, what: str, *_: object, **__: object) -> NoReturn:
        message = f"{what}: a simulated event loop has no contact with the world"
        self._unseen.append(message)  # the code under test may swallow the error
        raise RealWorldError(message)

    def _write_to_self(self) -> None:
        """There is no other thread to wake this one for."""


def current() -> SimulatedLoop:
    """Returns the running simulated loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop), "the coroutine does not run in a simulation"
    return loop


def run(main: Coroutine[Any, Any, T], seed: int, *, steps: int = STEPS, step_seconds: float = 0.0) -> Simulated[T]:
    """Runs a coroutine in a simulated event loop.

    When it has ended, what is ready may go on to its end, without time passing. Nothing may be left then. What is to
    be gone even sooner, such as tasks when a close returns, is for the coroutine to check.

    Args:
        main: the coroutine.
        seed: decides the order; the same seed gives the same run.
        steps: the most that may be taken.
        step_seconds: the longest virtual time that a step takes, seconds. With it, timers go off amid work.

    Raises:
        SimulationError: one of its subclasses; or what the coroutine raises. The seed is in a note.

    Example:
        >>> async def main() -> float:
        ...     await asyncio.sleep(3600)
        ...     return asyncio.get_running_loop().time()
        >>> run(main(), seed=1).value
        3600.0
    """
    loop = SimulatedLoop(seed, steps=steps, step_seconds=step_seconds)
    collects = gc.isenabled()
    gc.disable()  # it would finalise generators at a moment that depends on what ran before
    try:
        value = loop.run_until_complete(main)
        elapsed = loop.time()
        loop.settle()
        if left := "\n".join(loop.leftovers()):
            raise LeftoverError(f"the main coroutine has ended, and:\n{left}")
        trace = tuple(loop.trace)
    except BaseException as error:
        tail = "".join(f"\n  {step}" for step in loop.trace[-20:])
        error.add_note(f"simulated with seed {seed}; the last of {len(loop.trace)} steps:{tail}")
        raise
    finally:
        loop.discard()
        if collects:
            gc.enable()
    digest = hashlib.blake2b("\n".join(trace).encode(), digest_size=16).hexdigest()
    return Simulated(value=value, seed=seed, digest=digest, trace=trace, elapsed=elapsed)


def explore(
    scenario: Callable[[], Coroutine[Any, Any, T]], seeds: Iterable[int], *, step_seconds: float = 0.0
) -> list[Simulated[T]]:
    """Runs a scenario with each seed, and stops at the first that fails; its number is in a note of the error."""
    return [run(scenario(), seed, step_seconds=step_seconds) for seed in seeds]
