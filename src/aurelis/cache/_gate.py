"""A one-shot event that callers of any event loop or thread can wait for."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable


class Gate:
    """Closed until somebody opens it; then open for good.

    An `asyncio.Event` belongs to one loop and a `threading.Event` blocks one, so neither serves callers of both kinds.
    """

    # No lock, which a garbage collector or a forked child could find taken: whoever waits is noted first and then looks
    # whether it is open, whoever opens it says so first and then looks who waits. So at least one sees the other.
    __slots__ = ("_opened", "_waiters")

    def __init__(self) -> None:
        # In order; those who leave are taken out at once, or a gate that stays closed would gather them without end.
        self._waiters: dict[asyncio.Future[None] | threading.Event, None] = {}
        self._opened = False

    def is_open(self) -> bool:
        """Whether somebody has opened it."""
        return self._opened

    def open(self) -> None:
        """Let everybody through. Opening it again does nothing."""
        self._opened = True
        if not self._waiters:
            return
        waiters, self._waiters = list(self._waiters), {}
        here = running_loop()
        elsewhere: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for waiter in waiters:
            if isinstance(waiter, threading.Event):
                waiter.set()
            elif (loop := waiter.get_loop()) is here:
                _resolve((waiter,))
            else:
                elsewhere.setdefault(loop, []).append(waiter)
        for loop, futures in elsewhere.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed, so nobody waits in it any more
                loop.call_soon_threadsafe(_resolve, futures)

    async def wait(self, *, alive: Callable[[], bool] | None = None, poll: float = 0.5) -> bool:
        """Wait in this event loop until it is open.

        Args:
            alive: asked every `poll` seconds whether whoever is to open it still can; `None`: it surely can.

        Returns:
            False when `alive` said no and it is still closed.
        """
        if self.is_open():
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[future] = None
        try:
            if self._opened:
                return True
            if alive is None:
                await future
                return True
            while not self.is_open():
                await asyncio.wait((future,), timeout=poll)
                if not self.is_open() and not alive():
                    return self.is_open()  # to open it may have been the last that it did
            return True
        finally:
            self._leave(future)

    def wait_blocking(self, *, alive: Callable[[], bool], poll: float = 0.5, patience: float = math.inf) -> bool:
        """Wait in this thread until it is open.

        Args:
            alive: asked every `poll` seconds whether whoever is to open it still can.
            patience: seconds to wait at most.

        Returns:
            False when `alive` said no, or the time is over, and it is still closed.
        """
        event = threading.Event()
        self._waiters[event] = None
        try:
            while not self.is_open():
                step = min(poll, patience)
                if event.wait(step):
                    continue
                patience -= step
                if not self.is_open() and (patience <= 0 or not alive()):
                    return self.is_open()
            return True
        finally:
            self._leave(event)

    def _leave(self, waiter: asyncio.Future[None] | threading.Event) -> None:
        self._waiters.pop(waiter, None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread, if it runs one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _resolve(futures: list[asyncio.Future[None]] | tuple[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():  # a cancelled caller has left
            future.set_result(None)
