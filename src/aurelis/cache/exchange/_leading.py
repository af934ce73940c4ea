"""What a caller without an event loop gets who has to load a response in its own thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from aurelis.cache._bridge import run_inline
from aurelis.cache._decisions import Pass, Record
from aurelis.cache._flight import Flight
from aurelis.cache._shared_errors import detach
from aurelis.cache.http import Fields, ResponseHead

from ._answers import Hit
from ._recorder import Recorder


@dataclass(slots=True)
class Lead:
    """A blocking caller has to load the response itself, in its own thread, and record it.

    First `take`, then each `chunk`, then `end`; or `fail`. `close` in any case.

    Attributes:
        recorder: takes the response; not to be called directly.
        reason: the `fwd` token of RFC 9211 §2.2.
    """

    recorder: Recorder[Any]
    reason: str
    _leave: Callable[[], None]
    _flight: Flight[Any]
    _left: bool = field(default=False)
    _is_late: bool = field(default=False)

    def asking(self) -> AbstractContextManager[object]:
        """To be held while the origin is asked."""
        return self.recorder.asking()

    @property
    def conditions(self) -> Fields:
        """Fields by which the origin is to be asked, as those of `Recorder`."""
        return self.recorder.conditions

    def awaits_body(self, head: ResponseHead) -> bool:
        """As that of `Recorder`."""
        return self.recorder.awaits_body(head)

    def take(self, head: ResponseHead, raw: object, *, refused: str = "") -> Record | Pass | Hit:
        """Take the head, as `Recorder.take`. On `Pass` the load is over, and `raw` is the caller's.

        Returns:
            Instead of `None` what takes the place of the response.
        """
        with self.asking():
            decision = run_inline(self.recorder.take(head, raw, refused=refused))
            if self.recorder.over:
                run_inline(self.recorder.release())
        if self.recorder.over:
            self.recorder.report()
        if decision is not None:
            return decision
        hit = self.recorder.stand_in(self.reason)
        assert hit is not None
        return hit

    def chunk(self, data: bytes) -> None:
        """Record the next piece of the body. Waits only when nothing is recorded and other readers are behind."""
        self._flight.take_over()  # a body may be read by another thread than asked for it
        with self.asking():
            run_inline(self.recorder.chunk(data))

    def end(self) -> None:
        """The body is complete: store it. Twice is harmless."""
        if self._is_late and not self.recorder.terminated:
            self.close()  # a connection that was cut off here looks like the end of a body that has no other
        elif not self.recorder.over:
            with self.asking():
                run_inline(self.recorder.end())
                run_inline(self.recorder.release())
            self.recorder.report()

    def fail(self, error: BaseException, handled: BaseException | None) -> Hit | None:
        """The load failed: others get the error, or what stands in for the response.

        Args:
            handled: what the thread was handling before it asked the origin; it is no concern of the others.

        Returns:
            What stands in for the response; `None`: raise the error.
        """
        if self.recorder.over:
            return None
        if self._left and not self._flight.has_callers():
            self.linger_no_more()
            self.close()  # nobody is left whom it concerns
            return None
        detach(error, handled)
        if not isinstance(error, Exception):
            # The thread is being interrupted. The origin has not failed, so those who wait ask it again.
            self.recorder.report(error)
            self.recorder.abort()
            self._flight.abandon()
            return None
        try:
            with self.asking():
                self.recorder.fail(error)
                run_inline(self.recorder.release())
        finally:
            self.recorder.report(error)
        return self.recorder.stand_in(self.reason)

    def close(self) -> bool:
        """Let go of the load. Calling it again is harmless.

        Returns:
            Whether others still read what has not come yet, or it lingers: then load on, and ask again after each
            chunk. Otherwise the load is over, and nothing is stored of a body that has not reached its end.
        """
        if not self._left:
            self._left = True
            self._leave()
        if self.recorder.terminated:
            self.end()  # what follows the protocol's own end is of no use to anybody
        if self.recorder.over:
            self.recorder.report(ConnectionAbortedError())  # unless it was: a thread may be interrupted while it stores
            return False
        # Once nobody is left nobody can come: the last to leave took the flight out of the map.
        if self._flight.has_callers() or self._flight.lingers():
            return True
        self.recorder.report(ConnectionAbortedError())
        self.recorder.abort()
        run_inline(self.recorder.release())
        return False

    def lingers(self) -> float:
        """Seconds for which the body may be read on once nobody reads it; 0: it may not, or there is no need."""
        is_over = self._left or self.recorder.over or self.recorder.terminated
        return 0.0 if is_over else self._flight.linger

    def hand_over(self, thread: Thread) -> None:
        """From now on another thread, which runs, takes what comes, and closes this. The caller leaves."""
        self._flight.take_over(thread)
        self._left = True
        self._leave()

    def forgo(self) -> None:
        """Nobody can read on: when no reader is left the load is over."""
        self.recorder.forgo()

    def linger_no_more(self) -> bool:
        """The time is up; whether there are readers nevertheless. Otherwise what ends from now on has no end."""
        self.recorder.linger_no_more()
        wanted = self._flight.has_callers()
        self._is_late = not wanted
        return wanted

    def lose(self) -> None:
        """The caller has dropped the response unread and unclosed. Takes no lock: a garbage collector calls this."""
        self.recorder.lose()
        self._flight.lose()
