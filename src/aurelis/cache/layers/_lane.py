"""A thread that works for event loops, so that none of them waits for a disk.

What several callers hand over while it is busy, it takes together: reads come from one look at the file, writes are one
transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

_TOGETHER: Final = 256
"""Jobs at most that are taken at once."""
_YIELDS: Final = 3 if hasattr(os, "sched_yield") else 0
"""How often a thread lets others run before it sleeps: some microseconds."""
_WAITING: Final = 10_000
"""Jobs at most that wait. More come only while the disk hangs, and nobody waits for them any more."""


class Job:
    """A piece of work for which somebody waits in an event loop.

    Attributes:
        work: called in the thread; `None`: the thread is to end. `Any`: what it takes and gives is its caller's affair.
        context: of who waits for it, for what is logged and traced meanwhile.
        error: what it raised; `None`: nothing.
        result: what it gave.
    """

    __slots__ = ("context", "error", "future", "loop", "result", "work")

    def __init__(self, work: Callable[[Any], Any] | None) -> None:
        self.work = work
        self.context = copy_context()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[Any] | None = None
        self.error: BaseException | None = None
        self.result: Any = None

    def is_given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future is not None and self.future.cancelled()


class Lane:
    """One thread, which begins with the first job and ends with `finish` or `stop`.

    Args:
        name: of the thread.
        run: does jobs that were waiting together; called in the thread, and sets the result or error of each.
        end: called in the thread when it ends.
        rest: called in the thread when the results of jobs have been handed over.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Job]], None],
        end: Callable[[], None],
        rest: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._run = run
        self._end = end
        self._rest = rest
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._paused = False

    def do(self, work: Callable[[Any], Any]) -> asyncio.Future[Any]:
        """Have it done; the future is of the running event loop, and cancelling it gives the work up if it waits still.

        Raises:
            OSError: too much is waiting, since the disk does not answer.
        """
        if self._queue.qsize() >= _WAITING:
            raise OSError("the disk does not answer, and too much waits for it already")
        job = Job(work)
        job.loop = loop = asyncio.get_running_loop()
        job.future = future = loop.create_future()
        self._put(job)
        return future

    def tell(self, work: Callable[[Any], Any]) -> None:
        """Have it done without waiting for it."""
        if self._queue.qsize() < _WAITING:
            self._put(Job(work))

    def _put(self, job: Job) -> None:
        with self._lock:  # so that it comes before the last job of a thread, or is the first of the next one
            self._queue.put(job)
            if self._thread is None and not self._paused:
                self._begin()

    def _begin(self) -> None:
        arguments = (self._queue, self._run, self._end, self._rest)
        self._thread = threading.Thread(target=_serve, args=arguments, name=self._name, daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Whether it has a thread."""
        return self._thread is not None

    async def finish(self) -> bool:
        """End the thread when all that waits is done; whether there was one."""
        last = Job(None)
        last.loop = asyncio.get_running_loop()
        last.future = last.loop.create_future()
        thread = self._take(last)
        if thread is None:
            return False
        await last.future
        thread.join()  # it has nothing left to do
        return True

    def stop(self, patience: float) -> bool:
        """The same for who has no event loop; whether the thread has ended within so many seconds."""
        thread = self._take(Job(None))
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(patience)
        return not thread.is_alive()

    def pause(self, patience: float) -> bool:
        """`stop`, and begin no other thread before `go_on`."""
        with self._lock:
            self._paused = True
        return self.stop(patience)

    def go_on(self) -> None:
        """Do what has been handed over since."""
        with self._lock:
            self._paused = False
            if not self._queue.empty():
                self._begin()

    def _take(self, last: Job) -> threading.Thread | None:
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(last)
                self._queue = queue.SimpleQueue()
        return thread


def _serve(
    waiting: queue.SimpleQueue[Job],
    run: Callable[[list[Job]], None],
    end: Callable[[], None],
    rest: Callable[[], None] | None,
) -> None:
    # Holds on to nothing but the queue and what works: whoever handed something over may be forgotten meanwhile.
    last: Job | None = None
    while last is None:
        jobs = [_next(waiting)]
        with contextlib.suppress(queue.Empty):
            while len(jobs) < _TOGETHER:
                jobs.append(waiting.get_nowait())
        if jobs[-1].work is None:  # nothing comes after it
            last = jobs.pop()
        if jobs := [job for job in jobs if not job.is_given_up()]:
            run(jobs)
            _deliver(jobs)
            if rest is not None:
                rest()
        del jobs
    end()
    _deliver([last])


def _next(waiting: queue.SimpleQueue[Job]) -> Job:
    # Whoever waited for the last result often has the next job at once. A thread that sleeps by then has to be woken
    # twice, for the job and for the interpreter's lock, which costs a hit on the disk a quarter of its time.
    for _ in range(_YIELDS):
        with contextlib.suppress(queue.Empty):
            return waiting.get_nowait()
        os.sched_yield()  # which lets go of the interpreter
    return waiting.get()


def _deliver(jobs: list[Job]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        if job.loop is not None:
            by_loop.setdefault(job.loop, []).append(job)
    for loop, own in by_loop.items():
        with contextlib.suppress(RuntimeError):  # closed since, and nobody waits there any more
            loop.call_soon_threadsafe(_settle, own)


def _settle(jobs: list[Job]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
