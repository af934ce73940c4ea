"""Order between processes that share one Redis: who loads, what is out of date, and word of it.

The clock is one number per namespace, and each change takes the next one. On a cluster the clock, a key and a tag are
on different servers, so there a change is several steps: the number, the change, the word. Whoever dies in between
leaves a number that nobody hears of, which makes the others verify what they have.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from secrets import token_hex
from typing import Any, Final

from redis.exceptions import RedisError

from aurelis.cache import _news, _tags
from aurelis.cache._entry import Entry
from aurelis.cache.typing import Acquired, Kind, Message

from ._link import Link
from ._names import Names
from ._scripts import (
    ACQUIRE,
    ANNOUNCE,
    ASSIGN,
    BEAT,
    BUMP,
    DROP,
    ENSURE,
    INVALIDATE,
    PRESENT,
    PUBLISH,
    RAISE,
    RELEASE,
    REMOVE,
    RENEW,
    TICK,
)

_SCAN_COUNT: Final = 500
_TAG_LIFE: Final = 30 * 86_400_000
"""Milliseconds for which the record of a tag is kept after it was last looked at. Entries that are older go with it."""


class Coordination(ABC):
    """The part of the Redis layer that keeps order."""

    _names: Names
    own_thread = True
    _known = 0
    _node = (0, "")

    @property
    def node(self) -> str:
        """Name of this process among those that share the namespace; a forked child has its own."""
        pid = os.getpid()
        if self._node[0] != pid:
            self._node = (pid, token_hex(8))
        return self._node[1]

    @abstractmethod
    def _link(self) -> Link:
        """The connections of the running event loop."""

    @abstractmethod
    def _frame(self, key: str, entry: Entry) -> tuple[bytes, int | None]:
        """An entry's frame, and its life in milliseconds; `None`: for ever."""

    @abstractmethod
    def _entry(self, key: str, data: bytes, life: int) -> Entry | None:
        """The entry of a frame; `None` where it is damaged or not ours."""

    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        """See `SharedLayer.acquire`."""
        link = self._link()
        entry, lease = self._names.entry_and_lease(key)
        generation = 0 if link.single else await self._now(link)
        keys = (entry, lease, self._names.clock) if link.single else (entry, lease)
        token = self.node.encode() + own
        arguments = (token, _ms(life), int(again), self.node.encode())
        frame, left, holder, clock = await link.script(ACQUIRE, keys, arguments)
        if link.single:
            generation = int(clock)
        self._saw(generation)
        found = self._entry(key, frame, left) if not holder else None
        if found is None and not holder:  # damaged, or not ours
            return await self.acquire(key, own, again=True, life=life)
        return Acquired(found, holder, holder == token, generation)

    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        """See `SharedLayer.renew`."""
        _, name = self._names.entry_and_lease(key)
        return bool(await self._link().script(RENEW, (name,), (lease, _ms(life))))

    async def release(self, key: str, lease: bytes) -> None:
        """See `SharedLayer.release`."""
        _, name = self._names.entry_and_lease(key)
        await self._link().script(RELEASE, (name,), (lease,))

    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        """See `SharedLayer.publish`."""
        link = self._link()
        _, name = self._names.entry_and_lease(key)
        framed = [(self._names.entry(other), *self._frame(other, entry)) for other, entry in entries.items()]
        if not link.single and (len(framed) > 1 or key not in entries):
            # In other slots than the lease, of which only its own can be asked.
            if not await link.script(PUBLISH, (name,), (lease, int(release))):
                return False
            succeeded(await link.pipeline([set_command(*each) for each in framed]))
            return True
        arguments: list[bytes | int] = [lease, int(release)]
        for _, frame, life in framed:
            arguments += [frame, b"" if life is None else life]
        return bool(await link.script(PUBLISH, (name, *(each[0] for each in framed)), arguments))

    async def assign(self, entries: Mapping[str, Entry]) -> int:
        """See `SharedLayer.assign`."""
        link = self._link()
        generation = await self._tick(link)
        keys = tuple(entries)
        for entry in entries.values():
            entry.generation = generation
        framed = [self._frame(key, entry) for key, entry in entries.items()]
        if link.single:
            arguments: list[bytes | int] = [generation, *self._told("keys", keys), _TAG_LIFE]
            for frame, life in framed:
                arguments += [frame, b"" if life is None else life]
            await link.script(ASSIGN, self._records(keys), arguments)
            return generation
        commands: list[tuple[Any, ...]] = []
        for key, each in zip(keys, framed, strict=True):
            name, lease = self._names.entry_and_lease(key)
            commands += [("UNLINK", lease), set_command(name, *each)]
        succeeded(await link.pipeline(commands))
        await self._raise(link, keys, generation)
        await self._tell(link, generation, "keys", keys)
        return generation

    async def take(self, key: str) -> Entry | None:
        """See `SharedLayer.take`."""
        _, data = await self._remove((key,), give=True)
        return self._entry(key, data, -1) if data else None

    async def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        """See `SearchableLayer.keys`."""
        async for names in self._link().scan(self._names.beginning(start), _SCAN_COUNT):
            yield [key for name in names if (key := self._names.key(name)) is not None]

    async def discard(self, keys: Sequence[str]) -> int:
        """See `SearchableLayer.discard`."""
        removed, _ = await self._remove(tuple(keys), give=False)
        return removed

    async def remove(self, key: str) -> bool:
        """Forget the key, end its lease, and tell the others; true if it was there."""
        removed, _ = await self._remove((key,), give=False)
        return removed > 0

    async def announce(self, keys: Sequence[str]) -> int:
        """See `SharedLayer.announce`."""
        link = self._link()
        if link.single:
            names = (self._names.clock, *(self._names.tag(_tags.own(key)) for key in keys))
            arguments = (self._known, *self._told("keys", tuple(keys)), _TAG_LIFE)
            generation = int(await link.script(ANNOUNCE, names, arguments))
            self._saw(generation)
            return generation
        generation = await self._tick(link)
        await self._raise(link, keys, generation)
        await self._tell(link, generation, "keys", tuple(keys))
        return generation

    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        """See `SharedLayer.generations`."""
        link = self._link()
        names = [self._names.tag(tag) for tag in tags]
        if link.single:
            answers = await link.script(ENSURE, (self._names.clock, *names), (0, _TAG_LIFE))
        else:
            now = await self._now(link)
            calls = [((name, name), (now, _TAG_LIFE)) for name in names]  # the first is not looked at
            answers = [answer[0] for answer in succeeded(await link.scripts(ENSURE, calls))]
        records = {tag: _record(answer) for tag, answer in zip(tags, answers, strict=True)}
        self._saw(max(max(record) for record in records.values()))
        return records

    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        """See `SharedLayer.invalidate`."""
        self._saw(known)
        link = self._link()
        names = [self._names.tag(tag) for tag in tags]
        kind: Kind = "soft" if soft else "tags"
        if link.single:
            arguments = (self._known, *self._told(kind, tuple(tags)), int(soft), _TAG_LIFE)
            generation = int(await link.script(INVALIDATE, (self._names.clock, *names), arguments))
        else:
            generation = await self._tick(link)
            succeeded(await link.scripts(BUMP, [((name,), (generation, int(soft), _TAG_LIFE)) for name in names]))
            await self._tell(link, generation, kind, tuple(tags))
        self._saw(generation)
        return generation

    async def beat(self) -> None:
        """Tell the others that this process lives, and the last number."""
        word = _news.encode(self.node, "beat")
        await self._link().script(BEAT, (self._names.clock,), (self._names.channel, word))

    async def news(self) -> AsyncGenerator[Message | None, None]:
        """What the others tell; `None` whenever a subscription begins, so that what came before it may be missing.

        Raises:
            RedisError: the connection is lost.
        """
        subscriber = self._link().pubsub()
        try:
            await subscriber.subscribe(self._names.channel)
            while True:
                frame = await subscriber.get_message(timeout=None)
                if frame is None:
                    continue
                if frame["type"] == "subscribe":
                    yield None
                elif frame["type"] == "message":
                    message = _news.decode(frame["data"])
                    if message is not None:
                        self._saw(message.number)
                        yield message
        finally:
            await subscriber.aclose()  # type: ignore[no-untyped-call]

    async def _now(self, link: Link) -> int:
        return int(await link.script(PRESENT, (self._names.clock,)))

    async def _tick(self, link: Link) -> int:
        generation = int(await link.script(TICK, (self._names.clock,), (self._known,)))
        self._saw(generation)
        return generation

    async def _remove(self, keys: tuple[str, ...], *, give: bool) -> tuple[int, bytes]:
        """Forget keys; how many there were, and the frame of the last if it is wanted."""
        link = self._link()
        if link.single:
            arguments = (self._known, *self._told("keys", keys), _TAG_LIFE, int(give))
            number, removed, frame = await link.script(REMOVE, (self._names.clock, *self._records(keys)), arguments)
            self._saw(int(number))
            return removed, frame
        # Who looks below this layer between two of these steps must be told that what is there is out of date, so the
        # tags come before the entries. What was stored since the number was taken is newer than this, and stays.
        generation = await self._tick(link)
        await self._raise(link, keys, generation)
        calls = [(self._names.entry_and_lease(key), (generation, int(give))) for key in keys]
        answers = succeeded(await link.scripts(DROP, calls))
        await self._tell(link, generation, "keys", keys)
        return sum(removed for removed, _ in answers), answers[-1][1] if answers else b""

    async def _raise(self, link: Link, keys: Sequence[str], generation: int) -> None:
        """Give the number to the keys' own tags."""
        calls = [((self._names.tag(_tags.own(key)),), (generation, _TAG_LIFE)) for key in keys]
        succeeded(await link.scripts(RAISE, calls))

    async def _tell(self, link: Link, generation: int, kind: Kind, names: tuple[str, ...]) -> None:
        channel, word = self._told(kind, names)
        await link.execute("PUBLISH", channel, b"%d %b" % (generation, word))

    def _told(self, kind: Kind, names: tuple[str, ...]) -> tuple[bytes, bytes]:
        """Where a change is told, and the message, which follows its number."""
        return self._names.channel, _news.encode(self.node, kind, names)

    def _records(self, keys: Sequence[str]) -> list[bytes]:
        """The names of entry, lease and own tag of each key."""
        return [name for key in keys for name in (*self._names.entry_and_lease(key), self._names.tag(_tags.own(key)))]

    def _saw(self, generation: int) -> None:
        self._known = max(self._known, generation)


def succeeded(answers: Sequence[Any]) -> list[Any]:
    """The answers.

    Raises:
        RedisError: one of them is an error.
    """
    for answer in answers:
        if isinstance(answer, RedisError):
            raise answer
    return list(answers)


def set_command(name: bytes, frame: bytes, life: int | None) -> tuple[Any, ...]:
    """The command that stores a frame."""
    return ("SET", name, frame) if life is None else ("SET", name, frame, "PX", life)


def _record(answer: bytes) -> tuple[int, int]:
    hard, _, soft = answer.partition(b":")
    return int(hard), int(soft)


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
