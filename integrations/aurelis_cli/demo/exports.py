"""What the catalogue knows about a package, as a file to download. Files that were made are kept by what is in them."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

from aurelis.cache import CacheManager, FileCacheManager

from .catalog import Catalog, normalised

_CATEGORY: Final = "exports"
_MAX_BYTES: Final = 64 * 2**20


class Exports:
    """Makes a file once, and finds it again. Workers share the folder."""

    def __init__(self, folder: Path, catalog: Catalog, cache: CacheManager) -> None:
        """Make nothing yet."""
        self._catalog = catalog
        self._files = FileCacheManager(folder / "files", max_bytes=_MAX_BYTES, cache=cache)
        self._keys: dict[str, str] = {}  # of packages that there are

    async def of(self, name: str) -> bytes | None:
        """The file about one package; `None`: there is no such package."""
        known = self._keys.get(normalised(name))
        file = None if known is None else await self._files.open_cached_file(known)
        if file is not None:
            return await asyncio.to_thread(_read, file)
        found = await asyncio.to_thread(self._catalog.detail, name)
        if found is None:
            return None
        content = json.dumps(found, indent=1).encode()
        self._keys[normalised(name)] = await self._keep(content)
        return content

    async def _keep(self, content: bytes) -> str:
        with tempfile.NamedTemporaryFile() as draft:
            draft.write(content)
            draft.flush()
            return await self._files.cache_file(draft.name, _CATEGORY)


def _read(file: BinaryIO) -> bytes:
    with file:
        return file.read()
