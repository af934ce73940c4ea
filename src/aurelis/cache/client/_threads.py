"""Threads that go on with what no caller waits for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from threading import BoundedSemaphore, Thread

from aurelis.cache._forking import renew_in_children


class Threads:
    """Those of one purpose: daemons, so many at once at most.

    Args:
        name: of each of them.
        limit: how many there may be, > 0.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """A child has none of its parent's."""
        self._free = BoundedSemaphore(self._limit)

    def begin(self, work: Callable[[], None]) -> Thread | None:
        """Run something in a thread of its own; `None`: it is not run, as there are too many, or can be no more.

        Args:
            work: raises nothing.
        """
        free = self._free
        if not free.acquire(blocking=False):
            return None

        def run() -> None:
            try:
                work()
            finally:
                free.release()

        # A context of its own: what belongs to whoever happens to begin it is over before this is.
        thread = Thread(target=Context().run, args=(run,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or the system gives no more
            free.release()
            return None
        return thread
