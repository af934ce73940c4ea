"""What keys have failed with, for as long as that is to be the answer without asking again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ._shared_errors import SharedError

_MAX_FAILURES: Final = 1024


class Failures:
    """The failures of one cache, in this process alone.

    Not an LRU cache, whose steps threads would have to take one after the other: here each is atomic.

    Args:
        state: of a key; changes when it is changed or invalidated, by which its failure is forgotten.
    """

    __slots__ = ("_known", "_state")

    def __init__(self, state: Callable[[str], object]) -> None:
        self._state = state
        self._known: dict[str, tuple[object, float, float | None, object]] = {}

    def note(self, key: str, failure: object, until: float, patience: float | None = None) -> None:
        """Remember what the key has failed with.

        Args:
            failure: an exception, or what else stands for it.
            until: monotonic instant from which it is forgotten.
            patience: seconds that whoever met it would have waited at most, where it is that it took longer; then it
                says nothing to those who wait longer. `None`: it is for all.
        """
        if len(self._known) >= _MAX_FAILURES:
            self._known.clear()
        if isinstance(failure, BaseException):
            failure = SharedError.of(failure, traceback=False)
        self._known[key] = failure, until, patience, self._state(key)

    def find(self, key: str, now: float, patience: float | None = None) -> tuple[object, float] | None:
        """The failure and until when it is remembered; `None`: there is none, or it says nothing to the caller.

        An exception comes as a `SharedError`.

        Args:
            now: monotonic.
            patience: seconds that the caller waits at most; `None`: as long as it takes.
        """
        if not self._known or (found := self._known.get(key)) is None:
            return None
        failure, until, limit, state = found
        if now >= until or state != self._state(key):
            self._known.pop(key, None)
            return None
        if limit is not None and (math.inf if patience is None else patience) > limit:
            return None
        return failure, until

    def forget(self, key: str) -> None:
        """The key has been loaded."""
        self._known.pop(key, None)
