"""A one-shot event that callers of any event loop or thread can wait for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable


class Gate:
    """Closed until somebody opens it; then open for good.

    An `asyncio.Event` belongs to one loop and a `threading.Event` blocks one, so neither serves callers of both kinds.
    """

    __slots__ = ("_lock", "_opened", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[asyncio.Future[None] | threading.Event] = []
        self._opened = False

    def is_open(self) -> bool:
        """Whether somebody has opened it."""
        return self._opened

    def open(self) -> None:
        """Let everybody through. Opening it again does nothing."""
        with self._lock:
            self._opened = True
            waiters, self._waiters = self._waiters, []
        if not waiters:
            return
        here = _running_loop()
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
        with self._lock:
            if self.is_open():
                return True
            self._waiters.append(future)
        if alive is None:
            await future
            return True
        while not self.is_open():
            await asyncio.wait((future,), timeout=poll)
            if not self.is_open() and not alive():
                return self.is_open()  # to open it may have been the last that it did
        return True

    def wait_blocking(self, *, alive: Callable[[], bool], poll: float = 0.5) -> bool:
        """Wait in this thread until it is open; false when `alive` said no and it is still closed."""
        event = threading.Event()
        with self._lock:
            if self.is_open():
                return True
            self._waiters.append(event)
        while not self.is_open():
            if not event.wait(poll) and not self.is_open() and not alive():
                return self.is_open()
        return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _resolve(futures: list[asyncio.Future[None]] | tuple[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():  # a cancelled caller has left
            future.set_result(None)
