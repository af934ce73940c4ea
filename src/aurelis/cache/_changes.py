"""What was changed while something was on its way to the shared layer and back."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator


class Changes:
    """The last change of each key that is being stored."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[int, float]] = {}  # how many store it now, and the generation of the change

    @contextlib.contextmanager
    def during(self, keys: Iterable[str]) -> Iterator[Callable[[str], float]]:
        """While these keys are stored. Gives a function that says which generation the last change of a key has."""
        with self._lock:
            for key in keys:
                stores, last = self._last.get(key, (0, -math.inf))
                self._last[key] = stores + 1, last
        try:
            yield lambda key: self._last[key][1]
        finally:
            with self._lock:
                for key in keys:
                    stores, last = self._last.pop(key)
                    if stores > 1:
                        self._last[key] = stores - 1, last

    def note(self, keys: Iterable[str], generation: float) -> None:
        """These keys have changed; infinite: it is not known in which order with what is being stored."""
        if not self._last:
            return
        with self._lock:
            for key in keys:
                if key in self._last:
                    stores, last = self._last[key]
                    self._last[key] = stores, max(last, generation)
