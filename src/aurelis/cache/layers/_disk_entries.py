"""Entries on the disk, for a process alone or below a layer that keeps order among processes."""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from aurelis.cache._clock import Clock
from aurelis.cache._entry import Entry
from aurelis.cache._trouble import Incidents
from aurelis.cache.codecs import Framing, ValueCodec, to_bytes
from aurelis.cache.exceptions import FrameError

from . import _disk_rows as rows
from ._database import Database
from ._framed import Framed, note_damage
from ._sqlite_file import Connection

_PAUSE: Final = 0.001
"""Seconds between two steps of removing everything, for other processes to write meanwhile."""


class DiskEntries(Framed):
    """Keeps framed entries in a database.

    Args:
        database: closed with this layer.
        scope: whose entries these are; those of others in the same file are not seen.
        damaged: called with the error for each frame that is damaged or not ours.
        framing: how frames are written; `None`: neither compressed nor encrypted.
    """

    name = "l3"

    def __init__(
        self,
        database: Database,
        scope: str,
        codec: ValueCodec,
        clock: Clock,
        damaged: Callable[[FrameError], None] | None = None,
        framing: Framing | None = None,
    ) -> None:
        self.database = database
        self._scope = int.from_bytes(hashlib.blake2b(to_bytes(scope), digest_size=8).digest(), "big", signed=True)
        self._codec = codec
        self._framing = framing or self._framing
        self._clock = clock
        self._incidents = Incidents("disk: something failed")
        # Not a method of its own, which would keep it alive until the garbage collector comes.
        self._damaged = damaged or partial(note_damage, self._incidents, clock)
        # Who forgets a cache without closing it keeps no thread, and a program that ends leaves its file in order.
        weakref.finalize(self, database.close)

    # Layer

    async def lookup(self, key: str) -> Entry | None:
        """The entry, or `None`."""
        found = await self.database.read(partial(self._find, to_bytes(key)))
        return None if found is None else self._found(key, found)

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """The entries found; one step of the thread that reads."""
        if not keys:
            return {}
        found = await self.database.read(partial(self._find_many, [to_bytes(key) for key in keys]))
        now = self._clock.monotonic()
        entries: dict[str, Entry] = {}
        for key, row in zip(keys, found, strict=True):
            if row is not None and (entry := self._found(key, row, now)) is not None:
                entries[key] = entry
        return entries

    async def store(self, key: str, entry: Entry) -> None:
        """Keep the entry until it expires. One that is larger than all room is not kept, and nothing under its key."""
        frame, life = self._frame(key, entry)
        await self.database.write(partial(self._put, to_bytes(key), frame, life))

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """Keep them all, in one transaction."""
        if entries:
            framed = [(to_bytes(key), *self._frame(key, entry)) for key, entry in entries.items()]
            await self.database.write(partial(self._put_many, framed))

    async def remove(self, key: str) -> bool:
        """Forget the key; true if it was there and not expired."""
        return await self.database.write(partial(self._unlink, to_bytes(key)))

    async def remove_all(self) -> None:
        """Forget everything of this scope, some at a time, since others want to write."""
        removed = -1
        while removed:
            removed = await self.database.write(partial(rows.unlink_some, scope=self._scope))
            await asyncio.sleep(_PAUSE)

    async def aclose(self) -> None:
        """End the threads and close the file, once all that was handed over is done."""
        await self.database.aclose()

    # Searchable layer

    async def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        """See `SearchableLayer.keys`."""
        last: bytes | None = None
        while found := await self.database.read(partial(self._keys_after, last)):
            last = found[-1]
            yield [key.decode("utf-8", "surrogatepass") for key in found]

    async def discard(self, keys: Sequence[str]) -> int:
        """See `SearchableLayer.discard`."""
        names = [to_bytes(key) for key in keys]
        return await self.database.write(lambda connection: sum(self._unlink(name, connection) for name in names))

    # In the threads

    def _find(self, key: bytes, connection: Connection) -> rows.Found | None:
        now = self.database.now()
        found = rows.find(connection, self._scope, key, now)
        if found is not None and found[4]:
            self.database.touch(found[0], now)
        return found

    def _find_many(self, keys: Sequence[bytes], connection: Connection) -> list[rows.Found | None]:
        connection.execute("BEGIN")  # that all are of one moment
        try:
            return [self._find(key, connection) for key in keys]
        finally:
            connection.execute("COMMIT")

    def _put(self, key: bytes, frame: bytes, life: int | None, connection: Connection) -> bool:
        now = self.database.now()
        if rows.size_of(key, frame) > self.database.max_bytes:
            rows.unlink(connection, self._scope, key, now)
            return False
        rows.put(connection, self._scope, key, frame, life, now)
        self.database.wrote(len(frame))
        return True

    def _put_many(self, framed: Sequence[tuple[bytes, bytes, int | None]], connection: Connection) -> bool:
        return sum(self._put(*each, connection) for each in framed) == len(framed)

    def _unlink(self, key: bytes, connection: Connection) -> bool:
        return rows.unlink(connection, self._scope, key, self.database.now())

    def _keys_after(self, last: bytes | None, connection: Connection) -> list[bytes]:
        return rows.keys_after(connection, self._scope, last)

    # Inside

    def _found(self, key: str, found: rows.Found, now: float | None = None) -> Entry | None:
        _, frame, life, age, _ = found
        now = self._clock.monotonic() if now is None else now
        entry = self._entry(key, frame, life, now)
        if entry is not None:
            entry.stored = now - age / 1000
        return entry
