"""The layer in the process: a `cachetools` LRU bounded by entries and by bytes.

Reads take no lock: `LRUCache` finds the value and touches its recency with single calls into C dictionaries, which the
interpreter lock makes atomic, and it tolerates an entry that goes away in between. Writes take a lock, since they keep
several structures in step.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from cachetools import LRUCache

from aurelis.cache._clock import SYSTEM_CLOCK, Clock
from aurelis.cache._entry import Entry
from aurelis.cache._forking import renew_in_children
from aurelis.cache._options import Duration, seconds, whole, yes_or_no
from aurelis.cache.codecs import ValueCodec, is_immutable, size_of
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.telemetry._cells import Cell

_SWEPT_PER_WRITE = 4
_NOTHING = Entry(None, None, -math.inf, -math.inf, 0)


class Entries(LRUCache[str, Entry]):
    """The mapping itself. `entries[key]` is the fast path of the whole cache: it may return an expired entry.

    It does so for a key that is not there, too: an error, raised and caught, would cost a miss as much as all the rest.

    Attributes:
        evicted: entries that went for want of room.
        written: the key that is being written. Where its old entry has to make room for its new one, nothing is lost.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, attrgetter("size"))
        self.evicted = Cell()
        self.written = ""

    def __missing__(self, key: str) -> Entry:
        return _NOTHING

    def begin_anew(self) -> None:
        """Forget everything, also where a change was left half done."""
        super().__init__(int(self.maxsize), attrgetter("size"))

    def popitem(self) -> tuple[str, Entry]:
        """Drop the least recently used entry."""
        while True:
            try:
                item = super().popitem()
            except RuntimeError:
                continue  # a reader in another thread moved an entry between making and reading the iterator
            if item[0] != self.written:
                self.evicted.n += 1
            return item


class MemoryBackend:
    """Keeps entries in this process, the least recently used go first.

    Usable on its own (`get`, `set`, `delete`, `clear`) and as a layer of a manager. Safe to use from any thread.

    Args:
        max_size: entries at most, ≥ 1.
        ttl: seconds (or timedelta) that a value lives when `set` is given none.
        max_bytes: bytes at most for keys and values, approximately.
        copy: `False` hands out the very object that was set, whatever its type.
        codec: packs mutable values, so that callers cannot change what is cached.

    Raises:
        ConfigurationError: a bound is out of range.
    """

    name = "l1"

    def __init__(
        self,
        max_size: int = 1000,
        ttl: Duration = 3600.0,
        *,
        max_bytes: int = 64 * 2**20,
        copy: bool = True,
        codec: ValueCodec | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        whole("MemoryBackend: max_size", max_size)
        whole("MemoryBackend: max_bytes", max_bytes)
        yes_or_no("MemoryBackend: copy", copy)
        self.max_size = max_size
        self.max_bytes = max_bytes
        try:
            self.ttl = seconds(ttl)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"MemoryBackend: {error}") from None
        self.entries = Entries(max_bytes)
        self.expired = Cell()
        self._copy = copy
        self._codec = codec or ValueCodec()
        self._clock = clock
        self._lock = threading.Lock()
        self._to_sweep: list[str] = []
        self._writes = 0
        renew_in_children(self)

    def after_fork(self) -> None:
        """What a thread of the parent was just changing may be half done in the child, so it begins with nothing."""
        if self._lock.locked():
            self.entries.begin_anew()
            self._to_sweep = []
        self._lock = threading.Lock()

    # Values

    async def get(self, key: str, default: object = None) -> object:
        """The value, or `default`."""
        entry = self.peek(key)
        if entry is None:
            return default
        return entry.value if entry.payload is None else self._codec.loads(entry.payload)

    async def set(self, key: str, value: object, ttl: Duration | None = None) -> bool:
        """Keep the value; true if it fits.

        Raises:
            UnstorableValueError: the value holds a type that is neither built in nor registered.
            ValueError: the ttl is negative or not a number.
        """
        life = self.ttl if ttl is None else seconds(ttl)
        if life == 0:
            await self.remove(key)
            return True
        expires = self._clock.monotonic() + life
        return self.put(key, pack(key, value, self._codec, copy=self._copy, fresh_until=expires, expires=expires))

    async def delete(self, key: str) -> bool:
        """Forget the key; true if it was there."""
        return await self.remove(key)

    async def clear(self) -> bool:
        """Forget everything."""
        await self.remove_all()
        return True

    # Entries, without waiting

    def peek(self, key: str) -> Entry | None:
        """The entry, unless it is expired."""
        entry = self.entries[key]
        if entry is _NOTHING:
            return None
        if entry.expires > self._clock.monotonic():
            return entry
        with self._lock:
            self._drop_if_expired(key)
        return None

    def put(self, key: str, entry: Entry) -> bool:
        """Keep the entry; false if it is larger than the whole layer, and then nothing stays under the key."""
        with self._lock:
            return self._put(key, entry)

    def put_if_absent(self, key: str, entry: Entry, *, valid: Callable[[], bool]) -> bool:
        """Keep the entry unless a live one is there already; true if it was kept.

        Args:
            valid: asked under the lock whether it still may be kept.
        """
        with self._lock:
            if key in self.entries:
                self._drop_if_expired(key)
                if key in self.entries:
                    return False
            return valid() and self._put(key, entry)

    def drop(self, key: str, only: Entry | None = None) -> bool:
        """Forget the key; true if it was there and alive.

        Args:
            only: the entry to forget; another one that has taken its place stays.
        """
        with self._lock:
            if only is not None and (key not in self.entries or self.entries[key] is not only):
                return False
            entry = self.entries.pop(key, None)
        if entry is None:
            return False
        if entry.expires > self._clock.monotonic():
            return True
        self.expired.n += 1
        return False

    def drop_all(self) -> int:
        """Forget everything; returns how many entries there were."""
        with self._lock:
            gone = len(self.entries)
            self.entries.clear()
            self._to_sweep.clear()
        return gone

    # Layer

    async def lookup(self, key: str) -> Entry | None:
        """The entry, or `None`. Its value is the caller's own, or one that nobody can change.

        Raises:
            FrameError: the value is of a type that the codec does not know.
        """
        entry = self.peek(key)
        return None if entry is None else self._given(entry)

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """The entries found; raises as `lookup`."""
        return {key: self._given(entry) for key in keys if (entry := self.peek(key)) is not None}

    async def store(self, key: str, entry: Entry) -> None:
        """Keep the entry if it fits."""
        self.put(key, self._kept(key, entry))

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """Keep those that fit."""
        for key, entry in entries.items():
            self.put(key, self._kept(key, entry))

    async def remove(self, key: str) -> bool:
        """Forget the key; true if it was there and alive."""
        return self.drop(key)

    async def remove_all(self) -> None:
        """Forget everything."""
        self.drop_all()

    async def aclose(self) -> None:
        """Nothing to give back."""

    def _kept(self, key: str, entry: Entry) -> Entry:
        if entry.payload is not None and (entry.value is None or (self._copy and not is_immutable(entry.value))):
            return replace(entry, value=None, size=len(entry.payload) + len(key))
        return replace(entry, payload=None, size=size_of(entry.value) + len(key))

    def _given(self, entry: Entry) -> Entry:
        return replace(entry, value=entry.value if entry.payload is None else self._codec.loads(entry.payload))

    def _put(self, key: str, entry: Entry) -> bool:
        if entry.until == -math.inf:
            entry.until = min(entry.fresh_until, entry.expires)
        self.entries.written = key
        try:
            self.entries[key] = entry
        except ValueError:  # larger than max_bytes: cachetools refuses it and keeps what was there
            self.entries.pop(key, None)
            return False
        while len(self.entries) > self.max_size:
            self.entries.popitem()
        self._sweep()
        return True

    def _sweep(self) -> None:
        # Expired entries that nobody asks for would otherwise stay until capacity pushes them out. One round over the
        # keys begins after as many writes as there are entries, so the cost of a write stays constant.
        self._writes += 1
        if not self._to_sweep and self._writes > len(self.entries):
            self._writes = 0
            self._to_sweep = list(self.entries)
        if self._to_sweep:
            for _ in range(min(_SWEPT_PER_WRITE, len(self._to_sweep))):
                self._drop_if_expired(self._to_sweep.pop())

    def _drop_if_expired(self, key: str) -> None:
        # `LRUCache.__getitem__` would make the entry recent, so a live one is looked at without it.
        entry = super(LRUCache, self.entries).__getitem__(key) if key in self.entries else None
        if entry is not None and entry.expires <= self._clock.monotonic():
            del self.entries[key]
            self.expired.n += 1


def pack(key: str, value: object, codec: ValueCodec, *, copy: bool, fresh_until: float, expires: float) -> Entry:
    """The entry for a value: shared as it is when nobody can change it (or `copy` is off), packed otherwise.

    Raises:
        UnstorableValueError: the value holds a type that is neither built in nor registered. Values that could be
            shared are packed for this check, too: otherwise a program would work until it gets a second layer.
    """
    if not copy:
        return Entry(value, None, fresh_until, expires, size_of(value) + len(key))
    payload = codec.dumps(value)
    if is_immutable(value):
        return Entry(value, None, fresh_until, expires, size_of(value) + len(key))
    return Entry(None, payload, fresh_until, expires, len(payload) + len(key))
