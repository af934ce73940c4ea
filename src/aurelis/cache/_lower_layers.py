"""The layers below memory, each behind a guard, and what the shared one of them has not been told yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ._entry import Entry
from ._guard import Guard
from ._recovery import Recovery
from .typing import SharedLayer


class LowerLayers:
    """The guarded layers of one cache.

    Args:
        guards: in the order in which they are asked.

    Attributes:
        guards: all of them.
        shared: the one in front of the layer that processes share, or `None`.
        shared_layer: that layer, or `None`.
        upper: those down to the shared one, or all; what they say counts by itself.
        below: the others. What they have may be out of date, and is judged by what the shared layer says.
        recovery: tells the shared layer later what it could not be told; `None`: nothing does.
    """

    def __init__(self, guards: Sequence[Guard]) -> None:
        self.guards = tuple(guards)
        # Found once: to ask whether something has a protocol's methods is slow.
        self.shared: Guard | None = None
        self.shared_layer: SharedLayer | None = None
        for guard in self.guards:
            if isinstance(guard.layer, SharedLayer):
                self.shared, self.shared_layer = guard, guard.layer
                break
        above = len(self.guards) if self.shared is None else self.guards.index(self.shared) + 1
        self.upper, self.below = self.guards[:above], self.guards[above:]
        self.recovery: Recovery | None = None

    @property
    def layer(self) -> SharedLayer:
        """The shared layer, where there is one."""
        assert self.shared_layer is not None
        return self.shared_layer

    def is_waiting(self, key: str) -> bool:
        """Whether the shared layer has not been told the last about this key."""
        return self.recovery is not None and key in self.recovery.keys

    def not_stored(self, entries: Mapping[str, Entry]) -> None:
        """The shared layer did not take these values, and is told later."""
        if self.recovery is not None:
            self.recovery.not_stored(entries)

    def not_removed(self, key: str) -> None:
        """The shared layer may still have the key, or others in memory; it must not come back."""
        if self.recovery is not None:
            self.recovery.not_removed(key)

    def not_invalidated(self, tags: tuple[str, ...], *, soft: bool) -> None:
        """The shared layer has not heard of this invalidation, and is told later."""
        if self.recovery is not None:
            self.recovery.not_invalidated(tags, soft=soft)

    def settled(self, keys: Iterable[str]) -> None:
        """The shared layer has been told something later about these keys."""
        if self.recovery is not None:
            self.recovery.settled(keys)
