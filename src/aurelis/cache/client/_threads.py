"""Threads that go on with what no caller waits for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from threading import BoundedSemaphore, Thread

from aurelis.cache._forking import renew_in_children

from ._ongoing import Ongoing, tell_unclosed


class Threads:
    """Those of one purpose: daemons, so many at once at most.

    Args:
        name: of each of them.
        limit: how many there may be, > 0.
        ongoing: of the transport through which they ask the origin.
    """

    def __init__(self, name: str, limit: int, ongoing: Ongoing) -> None:
        self._name = name
        self._limit = limit
        self._ongoing = ongoing
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
                self._end(run)

        # A context of its own: what belongs to whoever happens to begin it is over before this is.
        thread = Thread(target=Context().run, args=(run,), name=self._name, daemon=True)
        self._ongoing.begin(run)  # before the caller can close its client
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or the system gives no more
            free.release()
            self._end(run)
            return None
        return thread

    def _end(self, work: Callable[[], None]) -> None:
        close = self._ongoing.end(work)
        if close is not None:
            try:
                close()
            except Exception as error:  # noqa: BLE001  # whoever wanted it closed has gone
                tell_unclosed(error)
