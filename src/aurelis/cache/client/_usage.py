"""What still goes on through an inner transport when its client is closed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import Context
from typing import Any, Final

from aurelis.cache._forking import renew_in_children

_MOMENT: Final = 1.0
"""Seconds for which closing waits at most for loads that have been cancelled."""

Close = Callable[[], Any]


class Usage:
    """The loads of one transport that may outlive the calls of its client: others wait for them, or nobody does.

    Clients that live for one request would never see a refresh in the background end, and would take their answer from
    those who share it; and closing a connection does not even wake the thread that reads from it. So who closes the
    transport while there are such loads leaves that to the last of them.
    """

    def __init__(self) -> None:
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """A child has none of its parent's loads."""
        self._lock = threading.RLock()  # a garbage collector may end a load of a loop that is gone, at any moment
        self._loads: dict[object, asyncio.Task[Any] | None] = {}
        self._close: Close | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def begin(self, load: object) -> None:
        """One more."""
        with self._lock:
            self._loads[load] = None

    def end(self, load: object) -> Close | None:
        """One less, unless it is none of them any more. Returns what is to be closed now."""
        with self._lock:
            self._loads.pop(load, None)
            if self._loads:
                return None
            close, self._close = self._close, None
            return close

    def watch(self, task: asyncio.Task[Any]) -> None:
        """A load will begin in a task, which its caller does not wait for."""
        self.begin(task)
        task.add_done_callback(self._ended, context=Context())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        close = self.end(task)
        if close is not None and not task.cancelled():  # otherwise its event loop ends before anything could be closed
            closing = asyncio.get_running_loop().create_task(_quietly(close), context=Context())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard, context=Context())

    @contextlib.asynccontextmanager
    async def of(self, load: object) -> AsyncGenerator[None]:
        """Around a load in the running task, and in its place, if that is watched."""
        task = asyncio.current_task()
        with self._lock:
            self._loads.pop(task, None)
            self._loads[load] = task
        try:
            yield
        finally:
            close = self.end(load)
            if close is not None:
                await _quietly(close)

    def close(self, close: Close) -> None:
        """Close the inner transport, or leave that to the last load."""
        if self._is_free(close):
            close()

    async def aclose(self, close: Callable[[], Awaitable[object]]) -> None:
        """The same in an event loop. Loads that are cancelled already, as nobody waits for them, are waited for."""
        with self._lock:
            tasks: set[Any] = {task for task in self._loads.values() if task is not None and task.cancelling()}
        tasks -= {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=_MOMENT)
        if self._is_free(close):
            await close()

    def _is_free(self, close: Close) -> bool:
        with self._lock:
            if self._loads:
                self._close = close
            return not self._loads


async def _quietly(close: Close) -> None:
    with contextlib.suppress(Exception):  # whoever wanted it closed has gone
        await close()
