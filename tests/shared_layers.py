"""A shared layer without a server that carries no word of changes: what processes learn of each other, they have asked.

What several processes share is an object, and each of them has a layer over it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aurelis.cache import _tags
from aurelis.cache._clock import Clock
from aurelis.cache._entry import Entry
from aurelis.cache.codecs import ValueCodec
from aurelis.cache.http import StoredResponse, VariantIndex
from aurelis.cache.typing import Acquired

CODEC = ValueCodec((StoredResponse, VariantIndex))


class Truth:
    """What all processes share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.number = 100
        self.entries: dict[str, Entry] = {}
        self.leases: dict[str, tuple[bytes, float, object]] = {}
        self.tags: dict[str, tuple[int, int]] = {}

    def tick(self, known: int = 0) -> int:
        """Returns the next generation."""
        self.number = max(self.number, known) + 1
        return self.number

    def change(self, keys: Sequence[str]) -> int:
        """Returns the next generation, which outdates what layers below hold of these keys."""
        number = self.tick()
        for tag in map(_tags.own, keys):
            if tag in self.tags:
                self.tags[tag] = (number, self.tags[tag][1])
        return number

    def entry(self, key: str) -> Entry | None:
        """Returns what is stored and alive."""
        entry = self.entries.get(key)
        if entry is None or entry.expires <= self.clock.monotonic():
            return None
        payload = CODEC.dumps(entry.value) if entry.payload is None else entry.payload
        return replace(entry, value=CODEC.loads(payload), payload=payload, size=len(key) + len(payload))

    def lease(self, key: str) -> tuple[bytes, object]:
        """Returns the lease that lasts, and who has it; empty if there is none."""
        token, until, holder = self.leases.get(key, (b"", 0.0, None))
        return (token, holder) if until > self.clock.monotonic() else (b"", None)


class SilentLayer:
    """The layer of one process: a `SharedLayer` that carries no word of changes.

    Attributes:
        error: what every call raises.
        calls: their names.
    """

    def __init__(self, truth: Truth, name: str = "l2") -> None:
        self.name = name
        self.truth = truth
        self.error: Exception | None = None
        self.calls: list[str] = []

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    # Layer

    async def lookup(self, key: str) -> Entry | None:
        await self._call("lookup")
        return self.truth.entry(key)

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        await self._call("lookup_many")
        return {key: entry for key in keys if (entry := self.truth.entry(key)) is not None}

    async def store(self, key: str, entry: Entry) -> None:
        await self.store_many({key: entry})

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        await self._call("store_many")
        self.truth.entries.update({key: replace(entry) for key, entry in entries.items()})

    async def remove(self, key: str) -> bool:
        return await self.take(key) is not None

    async def remove_all(self) -> None:
        await self._call("remove_all")
        self.truth.entries.clear()

    async def aclose(self) -> None:
        self.calls.append("aclose")

    # Shared layer

    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        await self._call("acquire")
        truth = self.truth
        entry = None if again else truth.entry(key)
        if entry is not None:
            return Acquired(entry, b"", False, truth.number)
        if truth.lease(key)[1] in (None, self):
            truth.leases[key] = (own, truth.clock.monotonic() + life, self)
        lease, _ = truth.lease(key)
        return Acquired(None, lease, lease == own, truth.number)

    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        await self._call("renew")
        token, holder = self.truth.lease(key)
        if token != lease:
            return False
        self.truth.leases[key] = (lease, self.truth.clock.monotonic() + life, holder)
        return True

    async def release(self, key: str, lease: bytes) -> None:
        await self._call("release")
        if self.truth.lease(key)[0] == lease:
            del self.truth.leases[key]

    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        await self._call("publish")
        if self.truth.lease(key)[0] != lease:
            return False
        self.truth.entries.update({name: replace(entry) for name, entry in entries.items()})
        if release:
            del self.truth.leases[key]
        return True

    async def assign(self, entries: Mapping[str, Entry]) -> int:
        await self._call("assign")
        generation = self.truth.change(tuple(entries))
        for key, entry in entries.items():
            entry.generation = generation
            self.truth.entries[key] = replace(entry)
            self.truth.leases.pop(key, None)
        return generation

    async def take(self, key: str) -> Entry | None:
        await self._call("take")
        entry = self.truth.entry(key)
        self.truth.entries.pop(key, None)
        self.truth.leases.pop(key, None)
        self.truth.change((key,))
        return entry

    async def announce(self, keys: Sequence[str]) -> int:
        await self._call("announce")
        return self.truth.change(keys)

    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        await self._call("generations")
        return {tag: self.truth.tags.setdefault(tag, (self.truth.number, 0)) for tag in tags}

    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        await self._call("invalidate")
        generation = self.truth.tick(known)
        for tag in tags:
            hard, soft_before = self.truth.tags.get(tag, (0, 0))
            self.truth.tags[tag] = (hard or generation, generation) if soft else (generation, soft_before)
        return generation
