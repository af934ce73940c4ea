"""Keys whose responses are not for sharing, remembered for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aurelis.cache._decisions import Pass, Record

_SECONDS: Final = 30.0
_MAX_KEYS: Final = 4096


class Unshareable:
    """Such keys of one exchange.

    Otherwise each burst of requests for one would wait for the first response before it is loaded for each.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._until: dict[int, float] = {}  # by hash, as a stranger chooses how long a key is

    def has(self, key: str) -> bool:
        """Whether a response under this key was lately not for sharing."""
        return bool(self._until) and self._until.get(hash(key), 0.0) > self._monotonic()

    def note(self, key: str, decision: Record | Pass) -> None:
        """Remember what was decided about a response under this key."""
        if not decision.shared if isinstance(decision, Record) else decision.lasting:
            if len(self._until) >= _MAX_KEYS:
                self._until.clear()
            self._until[hash(key)] = self._monotonic() + _SECONDS
        elif self._until:
            self._until.pop(hash(key), None)
