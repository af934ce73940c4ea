"""What still goes on through an inner transport when its client is closed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Final

from aurelis.cache._clock import SYSTEM_CLOCK
from aurelis.cache._forking import renew_in_children
from aurelis.cache._gate import Gate
from aurelis.cache._trouble import Incidents
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._bounded import is_type

_MOMENT: Final = 1.0
"""Seconds for which closing waits at most for loads that have been cancelled."""

_UNCLOSED: Final = Incidents("an inner transport could not be closed")

Close = Callable[[], Any]


def tell_unclosed(error: Exception) -> None:
    """Tell the log of an inner transport that could not be closed, by the type of its error alone."""
    kind = type(error).__qualname__
    _UNCLOSED.met(kind if is_type(kind) else names.OTHER, SYSTEM_CLOCK.monotonic())


class Ongoing:
    """The loads of one transport that may outlive the calls of its client: others wait for them, or nobody does.

    Clients that live for one request would never see a refresh in the background end, and would take their answer from
    those who share it; and closing a connection does not even wake the thread that reads from it. So who closes the
    transport while there are such loads leaves that to the last of them.

    Args:
        run: runs something in this event loop to its end, whoever waits for that.

    Attributes:
        closing: closes the inner transport, which is left to the last load; `None`: it is not to be closed.
    """

    def __init__(self, run: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._run = run
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """A child has none of its parent's loads."""
        self._lock = threading.RLock()  # a garbage collector may close a client at any moment, as those of SDKs do
        self._loads: dict[object, asyncio.Task[Any] | None] = {}
        self.closing: Close | None = None
        self._free = Gate()

    def begin(self, load: object) -> None:
        """One more, of a thread."""
        with self._lock:
            self._loads[load] = None

    def end(self, load: object) -> Close | None:
        """One less. Returns what the thread is to close now."""
        return self._take() if self._ended(load) else None

    def watch(self, task: asyncio.Task[Any] | None) -> None:
        """A task loads, or will; `None`: the running one. Twice is harmless."""
        task = task or asyncio.current_task()
        assert task is not None
        with self._lock:
            if task in self._loads:
                return
            self._loads[task] = task
        task.add_done_callback(self._ended, context=Context())

    def _ended(self, load: object) -> bool:
        """Whether it was the last."""
        with self._lock:
            self._loads.pop(load, None)
            if self._is_used():
                return False
            free, self._free = self._free, Gate()
        free.open()
        return True

    def use(self) -> None:
        """There is a new request on a transport that was closed: whoever makes it will close that once more."""
        self._take()

    def close(self, close: Close, later: Close | None = None) -> None:
        """Close the inner transport, or leave that to the last load, which does it by `later` if that is given."""
        if self._waits(later or close) is None:
            close()

    async def aclose(
        self, close: Callable[[], Awaitable[object]], later: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """The same in an event loop. Loads that are cancelled already, as nobody waits for them, are waited for."""
        try:
            await self._leaving()
        finally:
            later = later or close
            free = self._waits(later)
            if free is None:
                await close()
            else:
                self._run(self._close_when(free, later))
                await asyncio.sleep(0)  # what is cancelled before it has begun could close nothing

    async def _leaving(self) -> None:
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        with self._lock:
            tasks = [task for task in list(self._loads.values()) if task is not None and task is not own]
        if tasks := [task for task in tasks if task.cancelling() and task.get_loop() is loop]:
            await asyncio.wait(tasks, timeout=_MOMENT)

    async def _close_when(self, free: Gate, close: Close) -> None:
        try:
            await free.wait(alive=self._is_used)
        except asyncio.CancelledError:
            # The event loop ends, and whatever loads in it: then there is no later.
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_MOMENT):
                    await free.wait(alive=self._is_used)
            await self._close_quietly(close)
            raise
        await self._close_quietly(close)

    async def _close_quietly(self, close: Close) -> None:
        with self._lock:
            if self.closing is not close:  # it is in use again, or was closed once more
                return
            self.closing = None
        try:
            await close()
        except Exception as error:  # noqa: BLE001  # whoever wanted it closed has gone
            tell_unclosed(error)

    def _waits(self, close: Close) -> Gate | None:
        """What is opened when the inner transport can be closed; `None`: it can be now."""
        with self._lock:
            used = self._is_used()
            self.closing = close if used else None
            return self._free if used else None

    def _take(self) -> Close | None:
        with self._lock:
            close, self.closing = self.closing, None
            return close

    def _is_used(self) -> bool:
        """Whether there are loads. Those of event loops that are gone never end, and are none any more."""
        with self._lock:
            for task in list(self._loads.values()):
                if task is not None and task.get_loop().is_closed():
                    self._loads.pop(task, None)
            return bool(self._loads)
