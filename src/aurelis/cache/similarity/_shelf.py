"""Entries of a cache that belong to the cache: read without counting as requests of anybody."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aurelis.cache import _tags
from aurelis.cache.manager import CacheManager
from aurelis.cache.telemetry import names


@dataclass(frozen=True, slots=True)
class Shelved:
    """What was found under a key.

    Attributes:
        value: a copy, if it can be changed.
        expires: monotonic instant at which it is out of date; may be infinite.
        tags: that the caller gave.
    """

    value: object = field(repr=False)
    expires: float
    tags: tuple[str, ...]


class Shelf:
    """What one manager holds."""

    def __init__(self, manager: CacheManager) -> None:
        self._manager = manager
        self._engine = manager._engine

    def now(self) -> float:
        """Monotonic, seconds."""
        return self._engine.clock.monotonic()

    async def read(self, keys: Iterable[str]) -> dict[str, Shelved]:
        """What is there and fresh, in one round trip for what memory does not have. A failing layer has nothing."""
        engine, now = self._engine, self.now()
        engine.check("")
        found: dict[str, Shelved] = {}
        missing = []
        for key in keys:
            entry = engine.peek(key, now)
            if entry is not None and now < entry.fresh_until:
                tags = _tags.names(entry.details.tags)
                found[key] = Shelved(engine.stack.read(entry), entry.fresh_until, tags)
            else:
                missing.append(key)
        if not missing or not engine.stack.lower:
            return found
        below = await engine.stack.lookup_many(missing, await engine.ready())
        now = self.now()
        for layer, entries in below:
            for key, entry in entries.items():
                if now < entry.fresh_until:
                    value = engine.stack.read(entry) if layer == names.L1 else entry.value
                    found[key] = Shelved(value, entry.fresh_until, _tags.names(entry.details.tags))
        return found

    async def keep(self, key: str, value: object, life: float, tags: Sequence[str]) -> None:
        """Store it, for as many seconds."""
        if life > 0:
            await self._manager.set(key, value, min(math.inf, life), tags)
