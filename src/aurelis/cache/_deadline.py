"""Deadlines around waits, as `asyncio.timeout` gives them, at a fraction of the price.

Each hit in a shared layer pays for one. A timer of its own for each would be a tenth of what a round trip to Redis
takes (see the benchmark `l2_hit`), and nearly all of them are cancelled after a thousandth of their time. So all waits
of an event loop share a timer, set for the earliest deadline, that looks which have passed and is set again.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from contextvars import Context
from types import TracebackType

_GRAIN = 0.002
"""Seconds between two looks at least, by which a deadline may be late: a look goes through all waits."""


class Deadline:
    """Cancels what the current task waits for inside of the block, and raises `TimeoutError` in its place.

    A cancellation from outside is never taken for the deadline's own, also when both come at once: it goes through.

    Args:
        seconds: > 0; `None`: there is no deadline.
    """

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_watch", "when")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._watch: _Watch | None = None

    def __enter__(self) -> None:
        if self._seconds is None:
            return
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "deadlines are for tasks"
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self.when = when = loop.time() + self._seconds
        self._watch = watch = _watches.get(loop) or _new_watch(loop)
        watch.waits.add(self)
        if when < watch.set_for:
            watch.set(loop, when)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._watch is None:
            return
        self._watch.waits.discard(self)
        # As in asyncio: the count says whether somebody else has cancelled the task, too.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """The deadline has passed."""
        self._expired = True
        self._task.cancel()


class _Watch:
    """The waits of one event loop. It does not know the loop, which could otherwise never be forgotten."""

    __slots__ = ("set_for", "waits")

    def __init__(self) -> None:
        self.waits: set[Deadline] = set()
        self.set_for = math.inf

    def set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        """Look at that time, and no longer at another."""
        self.set_for = when
        # In no context: where there is always something to wait for, that of the first who has waited would never end.
        loop.call_at(when, self._look, loop, when, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if when != self.set_for:
            return  # set anew since, for an earlier time
        self.set_for = math.inf
        now = loop.time()
        late = [wait for wait in self.waits if wait.when <= now]
        self.waits.difference_update(late)
        for wait in late:
            wait.expire()
        if self.waits:
            self.set(loop, max(min(wait.when for wait in self.waits), now + _GRAIN))


# Module-level because event loops are. Only the thread of a loop asks for its watch.
_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = weakref.WeakKeyDictionary()


def _new_watch(loop: asyncio.AbstractEventLoop) -> _Watch:
    # The tasks of a loop that was closed under them would keep it alive through their waits.
    for reference in _watches.keyrefs():  # a copy, made in one step: loops of other threads come and go
        other = reference()
        if other is not None and other.is_closed():
            _watches.pop(other, None)
    _watches[loop] = watch = _Watch()
    return watch
