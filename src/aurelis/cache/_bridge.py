"""How synchronous callers reach the one asynchronous engine.

Where nothing has to be waited for, the coroutine is simply run to its end in the calling thread. Otherwise one private
daemon thread runs an event loop of its own, never the app's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from ._forking import renew_in_children
from ._shared_errors import SharedError, detach
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
        return self._result(self._submit(coroutine))

    def run_lending(self, coroutine: Coroutine[Any, Any, T], thread: LentThread) -> T:
        """`run`, and meanwhile this thread runs the functions that the coroutine has for it.

        Raises:
            CacheClosedError: as `run`.
        """
        future = self._submit(coroutine)
        try:
            thread.serve(future)
        except BaseException:  # whoever waits here is interrupted, and so leaves
            future.cancel()
            raise
        return self._result(future)

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("the cache's own thread would wait for itself; a value's type must not call the cache")
        with self._lock:  # so that `close` ends the loop after it has taken the coroutine, or before it is asked to
            return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())

    def _result(self, future: concurrent.futures.Future[T]) -> T:
        try:
            error = future.exception()
        except concurrent.futures.CancelledError:
            raise CacheClosedError("this cache was closed while it was used") from None
        if error is not None:
            SharedError.of(error).again()
        return future.result()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine in the private loop without waiting for it."""
        with self._lock:
            loop = self._running_loop()
            # What belongs to whoever happens to come first is over before this is.
            loop.call_soon_threadsafe(self._begin, loop, coroutine, context=Context())

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
            self._loop = Context().run(asyncio.new_event_loop)  # it keeps the context in which it is made
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name="aurelis-cache", daemon=True)
            self._thread.start()
            # Who forgets a cache without closing it does not keep the thread.
            weakref.finalize(self, _stop, self._loop, self._pid).atexit = False
        return self._loop


class LentThread:
    """A thread without an event loop, which waits for a coroutine and meanwhile runs functions for it.

    What is left when it does not wait any more runs in a thread of the loop's executor.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._gone = False

    async def call(self, function: Callable[[], T], *, elsewhere: bool = False) -> T:
        """What the function returns or raises in that thread, in the context of this coroutine.

        Args:
            elsewhere: in a thread of the executor, because nobody waits for it.
        """
        loop = asyncio.get_running_loop()
        job = _Job(function, copy_context(), loop)
        with self._lock:
            if not self._gone and not elsewhere:
                self._jobs.put(job)
                job.is_taken = True
        if job.is_taken and await job.done is not _DECLINED:
            if job.error is None:
                return job.result  # type: ignore[no-any-return]  # what the function has returned
            if not isinstance(job.error, Exception):
                # The thread is interrupted or ends, which concerns nobody else: those who wait start again.
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            raise job.error
        return await loop.run_in_executor(None, partial(job.context.run, function))

    def serve(self, future: concurrent.futures.Future[Any]) -> None:
        """Run functions in this thread until the future is done.

        Raises:
            BaseException: what a function raised that is no `Exception`, such as `KeyboardInterrupt`.
        """
        future.add_done_callback(lambda _: self._jobs.put(None))
        try:
            while (job := self._jobs.get()) is not None:
                job.run()
        finally:
            with self._lock:
                self._gone = True
            while not self._jobs.empty():
                if (job := self._jobs.get()) is not None:
                    job.conclude(_DECLINED)


_RAN: Final = "ran"
_DECLINED: Final = "declined"


class _Job:
    """A function that a lent thread is to run."""

    def __init__(self, function: Callable[[], Any], context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        self.context = context
        self.done: asyncio.Future[str] = loop.create_future()
        self.is_taken = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        handled = sys.exc_info()[1]
        try:
            self.result = self.context.run(self._function)
        except BaseException as error:
            detach(error, handled)
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.conclude(_RAN)

    def conclude(self, how: str) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed, so nobody waits there any more
            self._loop.call_soon_threadsafe(self._resolve, how)

    def _resolve(self, how: str) -> None:
        if not self.done.done():
            self.done.set_result(how)


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
