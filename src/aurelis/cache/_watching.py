"""Word of answers of models that were stored, for those who find them again in other ways than by their key."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that is in the cache now.

    Attributes:
        model_type: of the model.
        prompt: that it answers.
        parameters: with which it was asked.
        provider: as the caller named it; `None`: not at all.
        namespace: likewise.
        key: under which it is.
        life: seconds that it lives, > 0, perhaps infinite.
        own_tags: those of its model, provider and namespace.
        tags: all that it has.
    """

    model_type: str
    prompt: str = field(repr=False)
    parameters: Mapping[str, object] = field(repr=False)
    provider: str | None
    namespace: str | None
    key: str
    life: float
    own_tags: tuple[str, ...]
    tags: tuple[str, ...]


class Watcher(Protocol):
    """Wants to know of answers."""

    async def answered(self, answer: Answered) -> None:
        """Take note. It must not raise, and it must not take long, since whoever has stored the answer waits."""
        ...


class Watchers:
    """Those of one manager, as long as they live."""

    def __init__(self) -> None:
        self._watchers: tuple[weakref.ref[Watcher], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def add(self, watcher: Watcher) -> None:
        """Tell it from now on."""
        self._watchers = (*(known for known in self._watchers if known() is not None), weakref.ref(watcher))

    def remove(self, watcher: Watcher) -> None:
        """Tell it no more."""
        self._watchers = tuple(known for known in self._watchers if known() not in (None, watcher))

    async def tell(self, answer: Answered) -> None:
        """Tell all."""
        for reference in self._watchers:
            watcher = reference()
            if watcher is not None:
                await watcher.answered(answer)
