"""Who writes a key of this process now, so that of two at once neither leaves the older value in the cache."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from ._forking import renew_in_children


class Write:
    """One that is under way.

    Attributes:
        overlapped: another one of the same key was under way at some time.
    """

    __slots__ = ("overlapped",)

    def __init__(self) -> None:
        self.overlapped = False


class Writes:
    """Those of one cache."""

    def __init__(self) -> None:
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """What is being written the parent writes."""
        self._lock = threading.Lock()
        self._under_way: dict[str, list[Write]] = {}

    @contextlib.contextmanager
    def during(self, key: str) -> Iterator[Write]:
        """While the key is written."""
        own = Write()
        with self._lock:
            others = self._under_way.setdefault(key, [])
            for other in others:
                other.overlapped = own.overlapped = True
            others.append(own)
        try:
            yield own
        finally:
            with self._lock:
                if left := [each for each in self._under_way.get(key, ()) if each is not own]:
                    self._under_way[key] = left
                else:
                    self._under_way.pop(key, None)
