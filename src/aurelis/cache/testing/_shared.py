"""A layer that several managers share, in the place of Redis: with the same order, leases, fences and messages."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from aurelis.cache import _news, _tags
from aurelis.cache._clock import SYSTEM_CLOCK, Clock
from aurelis.cache._entry import Entry
from aurelis.cache.codecs import ValueCodec, generation_of
from aurelis.cache.exceptions import FrameError
from aurelis.cache.http import StoredPart, StoredResponse, VariantIndex
from aurelis.cache.layers._framed import Framed
from aurelis.cache.typing import Acquired, Message

from ._records import Records

_TAG_LIFE: Final = 30 * 86_400_000
_BATCH: Final = 500


class SharedMemory:
    """What several managers of one event loop share: a Redis for tests, without a server.

    It keeps frames of bytes, leases, the generations of tags and the number of the last change, and carries messages,
    with the same rules as `RedisBackend`. Each manager gets a node of its own. Nothing is lost unless it is told to.

    Args:
        clock: by which records expire; its wall clock starts the numbers of changes.
        types: as in `CacheConfig`.
        cluster: be like a Redis Cluster, where a change is several steps; otherwise like a single server.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import CacheManager
        >>> async def main() -> object:
        ...     shared = SharedMemory()
        ...     async with CacheManager(lower=[shared.node()]) as one, CacheManager(lower=[shared.node()]) as other:
        ...         await one.set("greeting", "hello")
        ...         return await other.get("greeting")
        >>> asyncio.run(main())
        'hello'
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, types: Sequence[type] = (), cluster: bool = False) -> None:
        self._clock = clock
        self._codec = ValueCodec((*types, StoredPart, StoredResponse, VariantIndex))
        self._cluster = cluster
        self._records = Records(clock)
        self._numbers = itertools.count(1)

    def node(self, clock: Clock | None = None, *, name: str = "l2") -> SharedNode:
        """A layer for one more manager.

        Args:
            clock: that of the manager; `None`: the one of the shared memory.
            name: of the layer in telemetry.
        """
        node = f"node-{next(self._numbers)}."
        return SharedNode(self._records, clock or self._clock, self._codec, node, name, cluster=self._cluster)

    def keys(self) -> list[str]:
        """The keys of all entries."""
        return self._records.keys()

    def tags(self) -> list[str]:
        """The internal names of the tags that have a record."""
        return self._records.tags()

    def leases(self) -> list[str]:
        """The keys that somebody loads."""
        return list(self._records.leases())

    # What a server with too little memory does, or one that was restarted

    def lose_entries(self, *keys: str) -> None:
        """Forget entries, as an eviction does: nobody is told."""
        for key in keys:
            self._records.unlink(key)

    def lose_leases(self, *keys: str) -> None:
        """Forget who loads these keys."""
        for key in keys:
            self._records.release(key)

    def lose_tags(self, *tags: str) -> None:
        """Forget the generations of tags, given by their internal names; see `tags`."""
        self._records.forget_tags(tags)

    def lose_clock(self) -> None:
        """Forget the number of the last change."""
        self._records.number = 0

    def lose_everything(self) -> None:
        """Be restarted without any data, which ends all connections, too."""
        self._records.forget_entries()
        self.lose_leases(*self.leases())
        self.lose_tags(*self.tags())
        self.lose_clock()
        self.disconnect()

    def disconnect(self) -> None:
        """End all connections on which nodes listen."""
        subscribers, self._records.subscribers = self._records.subscribers, []
        for subscriber in subscribers:
            subscriber.put_nowait(ConnectionError("the connection was ended"))


class SharedNode(Framed):
    """The layer of one manager over a `SharedMemory`, made by `SharedMemory.node`.

    Each command takes one step of the event loop on its way and another one back, so others come in between, and a
    caller that is cancelled may have changed something or not.
    """

    own_thread = False

    def __init__(
        self, records: Records, clock: Clock, codec: ValueCodec, node: str, name: str, *, cluster: bool
    ) -> None:
        self._records = records
        self._clock = clock
        self._codec = codec
        self._damaged = _ignore
        self._node = node
        self._name = name
        self._cluster = cluster
        self._known = 0

    @property
    def name(self) -> str:
        """See `Layer.name`."""
        return self._name

    @property
    def node(self) -> str:
        """Name of this node among those that share the memory."""
        return self._node

    # Layer

    async def lookup(self, key: str) -> Entry | None:
        """See `Layer.lookup`."""
        await _trip()
        found = self._records.get(key)
        await _trip()
        return None if found is None else self._entry(key, *found)

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """See `Layer.lookup_many`."""
        await _trip()
        found = {key: self._records.get(key) for key in keys}
        await _trip()
        entries = {key: self._entry(key, *each) for key, each in found.items() if each is not None}
        return {key: entry for key, entry in entries.items() if entry is not None}

    async def store(self, key: str, entry: Entry) -> None:
        """See `Layer.store`."""
        await self.store_many({key: entry})

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        """See `Layer.store_many`."""
        framed = [(key, *self._frame(key, entry)) for key, entry in entries.items()]
        await _trip()
        for each in framed:
            self._records.set(*each)
        await _trip()

    async def remove(self, key: str) -> bool:
        """See `Layer.remove`."""
        return await self.take(key) is not None

    async def remove_all(self) -> None:
        """See `Layer.remove_all`."""
        await _trip()
        self._records.forget_entries()
        await _trip()

    async def aclose(self) -> None:
        """Nothing to give back."""

    # Searchable layer

    async def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        """See `SearchableLayer.keys`."""
        await _trip()
        keys = self._records.keys()
        for begin in range(0, len(keys), _BATCH):
            yield keys[begin : begin + _BATCH]
            await _trip()

    async def discard(self, keys: Sequence[str]) -> int:
        """See `SearchableLayer.discard`."""
        return sum(found is not None for found in await self._remove(tuple(keys)))

    # Shared layer

    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        """See `SharedLayer.acquire`."""
        generation = await self._now() if self._cluster else 0
        token = self._node.encode() + own
        await _trip()
        answer = self._records.elect(key, token, _ms(life), self._node.encode(), again=again)
        generation = generation or self._records.present()
        await _trip()
        self._saw(generation)
        if isinstance(answer, bytes):
            return Acquired(None, answer, answer == token, generation)
        found = self._entry(key, *answer)
        if found is None:  # damaged, or not ours
            return await self.acquire(key, own, again=True, life=life)
        return Acquired(found, b"", False, generation)

    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        """See `SharedLayer.renew`."""
        await _trip()
        renewed = self._records.renew(key, lease, _ms(life))
        await _trip()
        return renewed

    async def release(self, key: str, lease: bytes) -> None:
        """See `SharedLayer.release`."""
        await _trip()
        self._records.release(key, lease)
        await _trip()

    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        """See `SharedLayer.publish`."""
        framed = [(other, *self._frame(other, entry)) for other, entry in entries.items()]
        await _trip()
        if self._records.lease(key) != lease:
            await _trip()
            return False
        if self._cluster and (len(framed) > 1 or key not in entries):
            # In other slots than the lease, of which only its own can be asked.
            if release:
                self._records.release(key, lease)
            await _trip()
            await _trip()
            release = False
        for each in framed:
            self._records.set(*each)
        if release:
            self._records.release(key, lease)
        await _trip()
        return True

    async def assign(self, entries: Mapping[str, Entry]) -> int:
        """See `SharedLayer.assign`."""
        generation = await self._tick()
        framed = []
        for key, entry in entries.items():
            entry.generation = generation
            framed.append((key, *self._frame(key, entry)))
        await _trip()
        for key, frame, life in framed:
            # First the lease: whoever loads may not store after this.
            self._records.release(key)
            await self._amid()
            self._records.set(key, frame, life)
            await self._amid()
        await self._raise(tuple(entries), generation)
        await self._tell(generation, tuple(entries))
        return generation

    async def take(self, key: str) -> Entry | None:
        """See `SharedLayer.take`."""
        (found,) = await self._remove((key,))
        return None if found is None else self._entry(key, *found)

    async def announce(self, keys: Sequence[str]) -> int:
        """See `SharedLayer.announce`."""
        await _trip()
        generation = self._next()
        await self._amid()
        await self._raise(tuple(keys), generation)
        await self._tell(generation, tuple(keys))
        return generation

    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """See `SharedLayer.generations`."""
        now = await self._now() if self._cluster else 0
        await _trip()
        now = now or self._records.present()
        records = {}
        for tag in tags:
            records[tag] = self._records.ensure(tag, now, _TAG_LIFE)
            await self._amid()
        await _trip()
        self._saw(max(max(record) for record in records.values()))
        return records

    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        """See `SharedLayer.invalidate`."""
        self._saw(known)
        await _trip()
        generation = self._records.tick(self._known)
        for tag in tags:
            await self._amid()
            self._records.bump(tag, generation, soft, _TAG_LIFE)
        await self._amid()
        self._records.tell(generation, _news.encode(self._node, "soft" if soft else "tags", tuple(tags)))
        await _trip()
        self._saw(generation)
        return generation

    # Messages

    async def beat(self) -> None:
        """Tell the others that this node lives, and the last number."""
        await _trip()
        self._records.tell(self._records.number, _news.encode(self._node, "beat"))
        await _trip()

    async def news(self) -> AsyncGenerator[Message | None, None]:
        """What the others tell; `None` when the subscription begins.

        Raises:
            ConnectionError: the connection was ended.
        """
        await _trip()
        queue: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._records.subscribers.append(queue)
        try:
            await _trip()
            yield None
            while True:
                word = await queue.get()
                if isinstance(word, Exception):
                    raise word
                message = _news.decode(word)
                if message is not None:
                    self._saw(message.number)
                    yield message
        finally:
            if queue in self._records.subscribers:
                self._records.subscribers.remove(queue)

    # Inside

    async def _amid(self) -> None:
        # On a cluster the records of a change are on several servers, so others may see some of them changed.
        if self._cluster:
            await _trip()

    async def _now(self) -> int:
        await _trip()
        number = self._records.present()
        await _trip()
        return number

    async def _tick(self) -> int:
        await _trip()
        generation = self._next()
        await _trip()
        return generation

    def _next(self) -> int:
        generation = self._records.tick(self._known)
        self._saw(generation)
        return generation

    async def _remove(self, keys: tuple[str, ...]) -> list[tuple[bytes, int] | None]:
        """What was there under each key and is gone now."""
        await _trip()
        generation = self._next()
        await self._amid()
        # Who looks below this layer in between must be told that what is there is out of date.
        await self._raise(keys, generation)
        answers = []
        for key in keys:
            self._records.release(key)
            found = self._records.get(key)
            if found is not None and self._cluster and generation_of(found[0]) >= generation:
                found = None  # stored since the number was taken: newer than this removal
            if found is not None:
                self._records.unlink(key)
            answers.append(found)
            await self._amid()
        await self._tell(generation, keys)
        return answers

    async def _raise(self, keys: tuple[str, ...], generation: int) -> None:
        for key in keys:
            known = self._records.generation(_tags.own(key))
            if known is not None and known[0] < generation:
                self._records.bump(_tags.own(key), generation, False, _TAG_LIFE)
            await self._amid()

    async def _tell(self, generation: int, keys: tuple[str, ...]) -> None:
        await self._amid()
        self._records.tell(generation, _news.encode(self._node, "keys", keys))
        await _trip()

    def _saw(self, generation: int) -> None:
        self._known = max(self._known, generation)


async def _trip() -> None:
    """On its way to the shared memory, or back."""
    await asyncio.sleep(0)


def _ignore(error: FrameError) -> None:
    """A damaged frame counts as missing."""


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
