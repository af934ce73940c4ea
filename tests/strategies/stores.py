"""Data stores for tests, and write-behinds on both journals."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from aurelis.cache import CacheManager, WriteBehind
from tests.managers import configuration


class Table:
    """Keeps rows in memory, notes each call, and does what it is told: wait, or fail."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.reads: list[str] = []
        self.writes: list[tuple[str, Any]] = []
        self.refuses: set[str] = set()
        self.down = False
        self.open = asyncio.Event()
        self.open.set()
        self.entered = 0

    async def get(self, key: str) -> Any:
        """Returns the row."""
        self.reads.append(key)
        await self._pass(key)
        return self.rows.get(key)

    async def set(self, key: str, value: Any) -> None:
        """Keeps the row."""
        await self._pass(key)
        self.rows[key] = value
        self.writes.append((key, value))

    async def delete(self, key: str) -> None:
        """Forgets the row."""
        await self._pass(key)
        self.rows.pop(key, None)
        self.writes.append((key, None))

    async def _pass(self, key: str) -> None:
        self.entered += 1
        await self.open.wait()
        if self.down or key in self.refuses:
            raise ConnectionError("secret: the table is not there")


class Batches(Table):
    """The same, with `set_many`."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[dict[str, Any]] = []

    async def set_many(self, values: Mapping[str, Any]) -> None:
        """Keeps the rows, or none."""
        for key in values:
            await self._pass(key)
        self.batches.append(dict(values))
        for key, value in values.items():
            self.rows[key] = value
            self.writes.append((key, value))


class Journals:
    """Where the journals of one test are, and makes caches and write-behinds on them.

    Args:
        options: of `CacheConfig`, for the cache; its Redis or folder has the journal, too.
    """

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        self.kind = kind
        self.options = dict(options)

    @contextlib.asynccontextmanager
    async def behind(self, store: Any, **options: Any) -> AsyncIterator[WriteBehind[Any]]:
        """A write-behind and a cache, as of one more process, which are closed; attempts follow each other fast."""
        cache = CacheManager(configuration(timeout=5, **self.options))
        behind = WriteBehind(cache, store, **{"flush_interval": 3600, **options})
        behind._draining.first_delay = 0.01
        try:
            yield behind
        finally:
            await behind.aclose(0)
            await cache.aclose()


def on_disk(folder: Path) -> Journals:
    """Returns journals in a folder."""
    return Journals("embedded", {"cache_dir": folder})
