"""The layer on the disk, which lasts longer than a process: framed values in SQLite, shared by all processes here.

On its own, and in a cache without Redis, it keeps order among these processes as Redis does: numbers of changes,
leases, tags and messages are rows in the same file, and each change is one transaction. So it is simpler than Redis:
nothing is half done, and a message is seen as soon as its change is.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Final, TypeVar

from aurelis.cache import _news, _tags
from aurelis.cache._clock import SYSTEM_CLOCK, Clock
from aurelis.cache._deadline import Deadline
from aurelis.cache._entry import Entry
from aurelis.cache._options import Duration, seconds
from aurelis.cache.codecs import Framing, Keys, Method, ValueCodec, make_framing, to_bytes
from aurelis.cache.exceptions import ConfigurationError, FrameError, LayerError, LayerTimeout
from aurelis.cache.typing import Acquired, Kind, Message

from . import _disk_rows as rows
from ._database import Database
from ._disk_entries import DiskEntries
from ._sqlite_file import Connection

T = TypeVar("T")

_LISTEN: Final = 0.1
"""Seconds between two looks for messages: as much later, at most, they are heard."""
_DAY: Final = 86_400_000

FramedEntry = tuple[bytes, bytes, int | None]
"""Key, frame and life in milliseconds."""


class DiskBackend(DiskEntries):
    """Keeps entries in a SQLite database in a folder, the least recently used go first.

    Usable on its own (`get`, `set`, `delete`, `clear`, which contain failures) and as a layer of a manager, which it
    raises failures for. Works from several event loops, threads and processes at once. No event loop waits for the
    disk: two threads do, which begin with the first use and end with `aclose`.

    Args:
        cache_dir: the folder; made, for nobody else's eyes, when it is not there.
        max_size: entries at most, ≥ 1.
        ttl: seconds (or timedelta) that a value lives when `set` is given none.
        max_bytes: bytes at most for keys and values, approximately; the file is a little larger.
        timeout: seconds that `get`, `set` and `delete` take at most, and that one process waits for another.
        namespace: caches with one namespace in one folder share their entries; others do not see them.
        types: as in `CacheConfig`.
        compression: as in `CacheConfig`, for what has 1024 bytes or more.
        encryption_key: as in `CacheConfig`.
        damaged: called with the error for each frame that is damaged or not ours.

    Raises:
        ConfigurationError: an argument is out of range, or this Python's SQLite is too old.
        MissingExtraError: compression or encryption needs a package that is not installed.
    """

    own_thread = True

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] = "./cache",
        max_size: int = 1000,
        ttl: Duration = 3600.0,
        *,
        max_bytes: int = 2**30,
        timeout: Duration = 1.0,
        namespace: str = "aurelis",
        types: Sequence[type] = (),
        compression: Method | None = None,
        encryption_key: Keys | None = None,
        codec: ValueCodec | None = None,
        framing: Framing | None = None,
        clock: Clock = SYSTEM_CLOCK,
        damaged: Callable[[FrameError], None] | None = None,
    ) -> None:
        if max_size < 1 or max_bytes < 1:
            raise ConfigurationError("DiskBackend: max_size and max_bytes must be 1 or more")
        try:
            self.ttl, self._timeout = seconds(ttl), seconds(timeout, "timeout")
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"DiskBackend: {error}") from None
        if self._timeout == 0:
            raise ConfigurationError("DiskBackend: timeout must be more than 0 seconds")
        framing = framing or make_framing(namespace, compression=compression, encryption_key=encryption_key)
        database = Database(cache_dir, max_size, max_bytes, self._timeout, clock)
        super().__init__(database, f"own {namespace}", codec or ValueCodec(types), clock, damaged, framing)
        self._node = (0, "")
        self._known = 0

    # Values

    async def get(self, key: str, default: object = None) -> object:
        """The value, or `default`, also when the disk does not answer in time."""
        try:
            entry = await self._contained("get", self.lookup(key))
        except LayerError:
            return default
        return default if entry is None else entry.value

    async def set(self, key: str, value: object, ttl: Duration | None = None) -> bool:
        """Keep the value; false when the disk did not take it in time, or it is larger than all room.

        Raises:
            UnstorableValueError: the value holds a type that is neither built in nor registered.
            ValueError: the ttl is negative or not a number.
        """
        life = self.ttl if ttl is None else seconds(ttl)
        payload = self._codec.dumps(value)
        expires = self._clock.monotonic() + life
        try:
            if life == 0:
                await self._contained("set", self.remove(key))
                return True
            return await self._contained("set", self._keep(key, Entry(None, payload, expires, expires, len(payload))))
        except LayerError:
            return False

    async def delete(self, key: str) -> bool:
        """Forget the key; true if it was there.

        Raises:
            LayerError: the disk did not answer in time, so the value may still be there.
        """
        return await self._contained("delete", self.remove(key))

    async def clear(self) -> bool:
        """Forget everything in this namespace.

        Raises:
            LayerError: the disk failed.
        """
        await self._contained("clear", self.remove_all(), timeout=None)
        return True

    async def _keep(self, key: str, entry: Entry) -> bool:
        return await self.database.write(partial(self._put, to_bytes(key), *self._frame(key, entry)))

    async def _contained(self, operation: str, call: Awaitable[T], timeout: float | None = -1) -> T:
        try:
            with Deadline(self._timeout if timeout == -1 else timeout):
                return await call
        except TimeoutError:
            self._incidents.met(f"{operation}: timeout", self._clock.monotonic())
            raise LayerTimeout(self.name, operation) from None
        except (sqlite3.Error, OSError) as error:
            self._incidents.met(f"{operation}: {type(error).__qualname__}", self._clock.monotonic())
            raise LayerError(self.name, operation) from error

    # Shared layer

    @property
    def node(self) -> str:
        """Name of this process among those that share the namespace; a forked child has its own."""
        pid = os.getpid()
        if self._node[0] != pid:
            self._node = (pid, token_hex(8))
        return self._node[1]

    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        """See `SharedLayer.acquire`."""
        node = self.node.encode()
        token = node + own
        work = partial(self._elect, to_bytes(key), token, node, max(1, int(life * 1000)), again)
        found, holder, generation = await self.database.write(work)
        self._saw(generation)
        if found is None:
            return Acquired(None, holder, holder == token, generation)
        entry = self._found(key, found)
        if entry is None:  # damaged, or not ours
            return await self.acquire(key, own, again=True, life=life)
        return Acquired(entry, b"", False, generation)

    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        """See `SharedLayer.renew`."""
        return await self.database.write(partial(self._renew, to_bytes(key), lease, max(1, int(life * 1000))))

    async def release(self, key: str, lease: bytes) -> None:
        """See `SharedLayer.release`."""
        await self.database.write(partial(self._release, to_bytes(key), lease))

    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        """See `SharedLayer.publish`."""
        framed = [(to_bytes(other), *self._frame(other, entry)) for other, entry in entries.items()]
        return await self.database.write(partial(self._publish, to_bytes(key), lease, framed, release))

    async def assign(self, entries: Mapping[str, Entry]) -> int:
        """See `SharedLayer.assign`."""
        generation = await self.database.write(partial(self._assign, entries, self._known))
        self._saw(generation)
        return generation

    async def take(self, key: str) -> Entry | None:
        """See `SharedLayer.take`."""
        found, generation = await self.database.write(partial(self._take, key, self._known))
        self._saw(generation)
        return None if found is None else self._found(key, found)

    async def remove(self, key: str) -> bool:
        """Forget the key, end its lease, and tell the others; true if it was there and not expired."""
        found, generation = await self.database.write(partial(self._take, key, self._known))
        self._saw(generation)
        return found is not None

    async def discard(self, keys: Sequence[str]) -> int:
        """See `SearchableLayer.discard`."""
        removed, generation = await self.database.write(partial(self._discard, tuple(keys), self._known))
        self._saw(generation)
        return removed

    async def announce(self, keys: Sequence[str]) -> int:
        """See `SharedLayer.announce`."""
        generation = await self.database.write(partial(self._change, "keys", tuple(keys), self._known))
        self._saw(generation)
        return generation

    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """See `SharedLayer.generations`."""
        names = [to_bytes(tag) for tag in tags]
        found = await self.database.read(partial(self._records, names))
        if found is None:
            found = await self.database.write(partial(self._ensure, names))
        records = {tag: found[name][:2] for tag, name in zip(tags, names, strict=True)}
        self._saw(max((max(record) for record in records.values()), default=0))
        return records

    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        """See `SharedLayer.invalidate`."""
        self._saw(known)
        generation = await self.database.write(partial(self._invalidate, tuple(tags), soft, self._known))
        self._saw(generation)
        return generation

    # Newsroom

    async def beat(self) -> None:
        """Tell the others that this process lives, and the last number."""
        await self.database.write(self._beat)

    async def news(self) -> AsyncGenerator[Message | None, None]:
        """What the others tell; `None` when the subscription begins.

        Raises:
            ConnectionError: messages are gone that were not seen, or the whole file is.
            OSError: the disk cannot be used.
            sqlite3.Error: likewise.
        """
        file, last = await self.database.read(_position)
        yield None
        seen = (-1, -1)
        while True:
            look = await self.database.read(partial(_words, seen=seen, last=last))
            if look.file != file or look.newest < last or (look.found and look.found[0][0] != last + 1):
                raise ConnectionError("messages are gone that this process has not seen")
            if not look.found and look.newest > last:
                raise ConnectionError("messages are gone that this process has not seen")
            for n, scope, word in look.found:
                last = n
                if scope == self._scope and (message := _news.decode(word)) is not None:
                    self._saw(message.number)
                    yield message
            seen = look.version if last >= look.newest else (-1, -1)
            if last >= look.newest:
                await asyncio.sleep(_LISTEN)

    # In the threads

    def _elect(
        self, key: bytes, token: bytes, node: bytes, life: int, again: bool, connection: Connection
    ) -> tuple[rows.Found | None, bytes, int]:
        now = self.database.now()
        generation = rows.present(connection, self._scope, now)
        if not again and (found := self._find(key, connection)) is not None:
            return found, b"", generation
        holder = rows.lease(connection, self._scope, key, now)
        if not holder or holder.startswith(node):
            rows.grant(connection, self._scope, key, token, life, now)
            holder = token
        return None, holder, generation

    def _renew(self, key: bytes, lease: bytes, life: int, connection: Connection) -> bool:
        now = self.database.now()
        if rows.lease(connection, self._scope, key, now) != lease:
            return False
        rows.grant(connection, self._scope, key, lease, life, now)
        return True

    def _release(self, key: bytes, lease: bytes, connection: Connection) -> None:
        if rows.lease(connection, self._scope, key, self.database.now()) == lease:
            rows.end_lease(connection, self._scope, key)

    def _publish(
        self, key: bytes, lease: bytes, framed: Sequence[FramedEntry], release: bool, connection: Connection
    ) -> bool:
        if rows.lease(connection, self._scope, key, self.database.now()) != lease:
            return False
        self._put_many(framed, connection)
        if release:
            rows.end_lease(connection, self._scope, key)
        return True

    def _assign(self, entries: Mapping[str, Entry], known: int, connection: Connection) -> int:
        generation = self._change("keys", tuple(entries), known, connection)
        leased = rows.are_there_leases(connection)
        for key, entry in entries.items():
            entry.generation = generation
            name = to_bytes(key)
            if leased:
                rows.end_lease(connection, self._scope, name)
            self._put(name, *self._frame(key, entry), connection)
        return generation

    def _take(self, key: str, known: int, connection: Connection) -> tuple[rows.Found | None, int]:
        name, now = to_bytes(key), self.database.now()
        found = rows.find(connection, self._scope, name, now)
        rows.unlink(connection, self._scope, name, now)
        rows.end_lease(connection, self._scope, name)
        return found, self._change("keys", (key,), known, connection)

    def _discard(self, keys: tuple[str, ...], known: int, connection: Connection) -> tuple[int, int]:
        removed = 0
        for key in keys:
            name = to_bytes(key)
            removed += self._unlink(name, connection)
            rows.end_lease(connection, self._scope, name)
        return removed, self._change("keys", keys, known, connection)

    def _records(self, tags: Sequence[bytes], connection: Connection) -> dict[bytes, tuple[int, int, int]] | None:
        """`None`: a record is missing, or is to be noted as used."""
        found = rows.records(connection, self._scope, tags)
        since = self.database.now() - _DAY
        return found if len(found) == len(set(tags)) and all(row[2] > since for row in found.values()) else None

    def _ensure(self, tags: Sequence[bytes], connection: Connection) -> dict[bytes, tuple[int, int, int]]:
        return rows.ensure(connection, self._scope, tags, self.database.now())

    def _invalidate(self, tags: tuple[str, ...], soft: bool, known: int, connection: Connection) -> int:
        generation = self._change("soft" if soft else "tags", tags, known, connection)
        names = [to_bytes(tag) for tag in tags]
        rows.bump(connection, self._scope, names, generation, soft, self.database.now())
        return generation

    def _change(self, kind: Kind, names: tuple[str, ...], known: int, connection: Connection) -> int:
        now = self.database.now()
        generation = rows.tick(connection, self._scope, known, now)
        if kind == "keys":
            rows.outdate(connection, self._scope, [to_bytes(_tags.own(key)) for key in names], generation)
        rows.tell(connection, self._scope, b"%d %b" % (generation, _news.encode(self.node, kind, names)), now)
        return generation

    def _beat(self, connection: Connection) -> None:
        now = self.database.now()
        generation = rows.present(connection, self._scope, now)
        rows.tell(connection, self._scope, b"%d %b" % (generation, _news.encode(self.node, "beat")), now)

    def _saw(self, generation: int) -> None:
        self._known = max(self._known, generation)


@dataclass(slots=True)
class _Look:
    """What a look for messages has found.

    Attributes:
        version: changes when somebody else changes the file.
        newest: row of the last message of all.
    """

    file: tuple[int, int]
    version: tuple[int, int]
    newest: int
    found: list[tuple[int, int, bytes]]


def _position(connection: Connection) -> tuple[tuple[int, int], int]:
    return connection.file, rows.last_word(connection)


def _words(connection: Connection, seen: tuple[int, int], last: int) -> _Look:
    """The messages after the last one; looks no further if nothing has changed."""
    (data_version,) = connection.execute("PRAGMA data_version").fetchone()
    version = (connection.number, data_version)
    if version == seen:
        return _Look(connection.file, version, last, [])
    # Not in one transaction: what comes in between is seen the next time.
    newest = rows.last_word(connection)
    return _Look(connection.file, version, newest, rows.words_after(connection, last))
