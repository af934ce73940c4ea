"""What was changed while something was on its way to the shared layer and back."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Mapping

from ._forking import renew_in_children


class Changes:
    """Who stores a key now, and the last change of it since they began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stores: dict[str, list[dict[str, float]]] = {}
        renew_in_children(self)

    def after_fork(self) -> None:
        """What is being stored the parent stores."""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def during(self, keys: Iterable[str]) -> Iterator[Mapping[str, float]]:
        """While these keys are stored. Gives the generation of the last change of each since then; -inf: none."""
        own = dict.fromkeys(keys, -math.inf)
        with self._lock:
            for key in own:
                self._stores.setdefault(key, []).append(own)
        try:
            yield own
        finally:
            with self._lock:
                for key in own:
                    if others := [each for each in self._stores[key] if each is not own]:
                        self._stores[key] = others
                    else:
                        del self._stores[key]

    def note(self, keys: Iterable[str], generation: float) -> None:
        """These keys have changed; inf: in which order with what is being stored is not known."""
        if not self._stores:
            return
        with self._lock:
            for key in keys:
                for store in self._stores.get(key, ()):
                    store[key] = max(store[key], generation)
