"""Memory, Redis and the disk, one above the other, keep what a single layer promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from aurelis.cache import CacheConfig, CacheManager
from aurelis.cache._entry import Entry
from aurelis.cache._packing import Keep
from aurelis.cache.testing import LayerContract
from aurelis.cache.typing import Clock
from tests.managers import configuration


class Stacked:
    """All layers of a manager, seen as one."""

    name = "all"

    def __init__(self, config: CacheConfig, clock: Clock) -> None:
        self._manager = CacheManager(config, clock=clock)
        self._engine = self._manager._engine
        self._clock = clock

    async def lookup(self, key: str) -> Entry | None:
        """The first layer that has it gives it."""
        found = await self._engine.stack.lookup(key, self._engine.stack.budget())
        return None if found is None else self._own(found.entry)

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """The same for many."""
        found = await self._engine.stack.lookup_many(keys, self._engine.stack.budget())
        return {key: self._own(entry) for _, entries in found for key, entry in entries.items()}

    async def store(self, key: str, entry: Entry) -> None:
        """Every layer keeps it."""
        await self.store_many({key: entry})

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """The same for many, those of one life together. What is over already takes the place of what was there."""
        now, stack = self._clock.monotonic(), self._engine.stack
        together: dict[tuple[float, float], dict[str, Entry]] = {}
        for key, entry in entries.items():
            together.setdefault((entry.fresh_until, entry.expires), {})[key] = entry
        for (fresh_until, expires), group in together.items():
            if expires <= now:
                for key in group:
                    await self.remove(key)
                continue
            keep = Keep(fresh_until - now, expires - fresh_until)
            packed = {key: stack.pack(entry.value) for key, entry in group.items()}
            assert (await stack.store(packed, keep, stack.budget())).result == "stored"

    async def remove(self, key: str) -> bool:
        """Every layer forgets it."""
        return await self._manager.delete(key)

    async def remove_all(self) -> None:
        """Every layer forgets everything."""
        await self._manager.clear()

    async def aclose(self) -> None:
        """Close them all."""
        await self._manager.aclose()

    def _own(self, entry: Entry) -> Entry:
        return replace(entry, value=self._engine.stack.read(entry))


class TestAllStacked(LayerContract):
    """One manager over the three of them; another namespace in the same stores is its neighbour."""

    real_time = True

    @pytest.fixture(autouse=True)
    def _stores(self, redis_url: str, tmp_path: Path) -> None:
        self.url, self.folder = redis_url, tmp_path

    async def make_layer(self, clock: Clock) -> Stacked:
        return self._stacked("own", clock)

    async def make_neighbour(self, clock: Clock) -> Stacked:
        return self._stacked("ow", clock)

    def _stacked(self, namespace: str, clock: Clock) -> Stacked:
        config = configuration(
            redis_url=self.url, cache_dir=self.folder, namespace=namespace, timeout=10, max_bytes=2**30
        )
        return Stacked(config, clock)

    # Whoever stores does not choose these: the stack gives each change the next generation.
    test_an_entry_comes_back_with_all_that_is_known_of_it = None  # type: ignore[assignment]
    test_storing_again_replaces_everything = None  # type: ignore[assignment]


class TestBelowAnEmptyMemory(TestAllStacked):
    """The same, as another process sees it, whose memory has nothing yet."""

    def _stacked(self, namespace: str, clock: Clock) -> Stacked:
        return Forgetful(super()._stacked(namespace, clock)._manager.config, clock)


class Forgetful(Stacked):
    """Memory forgets everything before each look."""

    async def lookup(self, key: str) -> Entry | None:
        """From Redis."""
        self._forget()
        return await super().lookup(key)

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """From Redis."""
        self._forget()
        return await super().lookup_many(keys)

    def _forget(self) -> None:
        memory = self._engine.stack.memory
        assert memory is not None
        for key in list(memory.entries):
            memory.drop(key)
