"""How synchronous callers reach the one asynchronous engine.

Where nothing has to be waited for, the coroutine is simply run to its end in the calling thread. Otherwise one private
daemon thread runs an event loop of its own, never the app's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from ._forking import renew_in_children
from .exceptions import CacheClosedError

T = TypeVar("T")

_PATIENCE: Final = 5.0
"""Seconds that closing waits for what is under way in the private loop."""


class Bridge:
    """Runs coroutines for threads that have no event loop. The thread begins with the first call that needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._spawned: set[asyncio.Task[None]] = set()
        renew_in_children(self)

    def after_fork(self) -> None:
        """The thread is the parent's, and so is what runs in it."""
        self._lock = threading.Lock()
        self._spawned = set()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine in the private loop and wait for its result. Not to be called from that loop.

        Raises:
            CacheClosedError: `close` was called meanwhile.
        """
        with self._lock:  # so that `close` ends the loop after it has taken the coroutine, or before it is asked to
            future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise CacheClosedError("this cache was closed while it was used") from None

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine in the private loop without waiting for it."""
        with self._lock:
            loop = self._running_loop()
            loop.call_soon_threadsafe(self._begin, loop, coroutine)

    def _begin(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(coroutine)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    def end_spawned(self) -> None:
        """Cancel what was spawned, and wait until it has ended. Not to be called from the private loop."""
        with self._lock:
            loop = self._loop if self._pid == os.getpid() else None
            ending = None if loop is None else asyncio.run_coroutine_threadsafe(self._end_spawned(), loop)
        if ending is not None:
            with contextlib.suppress(TimeoutError):
                ending.result(_PATIENCE)

    async def _end_spawned(self) -> None:
        tasks = list(self._spawned)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Run `last`, cancel what else runs, and end the thread; it is gone then, unless something in it hangs.

        Closing twice is harmless. Not to be called from the private loop.
        """
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None or self._pid != os.getpid():
            if last is not None:
                last.close()
            return
        try:
            if last is not None:
                with contextlib.suppress(TimeoutError):
                    asyncio.run_coroutine_threadsafe(last, loop).result(_PATIENCE)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_PATIENCE)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._pid != os.getpid():  # a forked child has the object but not the thread
            self._pid = os.getpid()
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name="aurelis-cache", daemon=True)
            self._thread.start()
            # Who forgets a cache without closing it does not keep the thread.
            weakref.finalize(self, _stop, self._loop, self._pid).atexit = False
        return self._loop


def _stop(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if pid == os.getpid():
        with contextlib.suppress(RuntimeError):  # it is closed by now
            loop.call_soon_threadsafe(loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_others())  # threads wait for them
        loop.run_until_complete(loop.shutdown_asyncgens())  # connections end with their loop
    finally:
        loop.close()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run_inline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, in this thread and without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine that must not wait has waited")
