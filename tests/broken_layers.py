"""Layers that break one promise each, and the right ones that they are made of."""

import asyncio
import json
import unicodedata
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from aurelis.cache.codecs import ValueCodec
from aurelis.cache.http import StoredResponse, VariantIndex
from aurelis.cache.testing import Chaos, ChaosSharedLayer, SharedNode
from aurelis.cache.typing import Acquired, Clock, Details, Entry, Message
from tests.shared_layers import SilentLayer, Truth

CODEC = ValueCodec((StoredResponse, VariantIndex))

Kept = dict[tuple[str, str], Entry]


class Plain:
    """A layer over a dict, which is right."""

    name = "plain"

    def __init__(self, clock: Clock, kept: Kept | None = None, namespace: str = "own") -> None:
        self.clock = clock
        self.kept: Kept = {} if kept is None else kept
        self.namespace = namespace

    def keep(self, key: str, entry: Entry) -> None:
        """Keeps an entry."""
        payload = CODEC.dumps(entry.value) if entry.payload is None else entry.payload
        self.kept[self.namespace, key] = replace(entry, value=None, payload=payload, size=len(key) + len(payload))

    def find(self, key: str) -> Entry | None:
        """Returns what is alive."""
        entry = self.kept.get((self.namespace, key))
        if entry is None or entry.payload is None or entry.expires <= self.clock.monotonic():
            return None
        return replace(entry, value=CODEC.loads(entry.payload))

    async def lookup(self, key: str) -> Entry | None:
        await asyncio.sleep(0)
        return self.find(key)

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        await asyncio.sleep(0)
        return {key: entry for key in keys if (entry := self.find(key)) is not None}

    async def store(self, key: str, entry: Entry) -> None:
        await asyncio.sleep(0)
        self.keep(key, entry)

    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        await asyncio.sleep(0)
        for key, entry in entries.items():
            self.keep(key, entry)

    async def remove(self, key: str) -> bool:
        await asyncio.sleep(0)
        there = self.find(key) is not None
        self.kept.pop((self.namespace, key), None)
        return there

    async def remove_all(self) -> None:
        await asyncio.sleep(0)
        for name in [name for name in self.kept if name[0] == self.namespace]:
            del self.kept[name]

    async def aclose(self) -> None:
        await asyncio.sleep(0)


# --- lives


class ForgetsExpiry(Plain):
    def find(self, key: str) -> Entry | None:
        entry = self.kept.get((self.namespace, key))
        return entry and replace(entry, value=CODEC.loads(entry.payload or b""))


class ExpiresWhenStale(Plain):
    def find(self, key: str) -> Entry | None:
        entry = super().find(key)
        return None if entry is None or entry.fresh_until <= self.clock.monotonic() else entry


class LivesAnewWhenFound(Plain):
    def find(self, key: str) -> Entry | None:
        entry = super().find(key)
        if entry is not None:
            self.keep(key, replace(entry, expires=entry.expires + 1.5))
        return entry


class LosesTimeToBeStale(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        super().keep(key, replace(entry, expires=min(entry.expires, entry.fresh_until)))


class IsFreshUntilItExpires(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        super().keep(key, replace(entry, fresh_until=entry.expires))


class LivesForAnHourAtMost(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        latest = self.clock.monotonic() + 3600
        super().keep(
            key, replace(entry, fresh_until=min(entry.fresh_until, latest), expires=min(entry.expires, latest))
        )


class LeavesTheOldForWhatIsShort(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        if entry.expires - self.clock.monotonic() >= 0.001:
            super().keep(key, entry)


# --- what is kept


class LosesTags(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        super().keep(key, replace(entry, details=replace(entry.details, tags=())))


class LosesGenerations(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        super().keep(key, replace(entry, generation=0))


class KeepsDetailsOfTheOld(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        before = self.kept.get((self.namespace, key))
        details = before.details if before is not None and entry.details == Details() else entry.details
        super().keep(key, replace(entry, details=details))


class SharesValues(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        self.kept[self.namespace, key] = replace(entry, size=len(entry.payload or b""))

    def find(self, key: str) -> Entry | None:
        entry = self.kept.get((self.namespace, key))
        return None if entry is None or entry.expires <= self.clock.monotonic() else entry


class LosesThePackedForm(Plain):
    def find(self, key: str) -> Entry | None:
        entry = super().find(key)
        return entry and replace(entry, payload=None)


class HasNoSizes(Plain):
    def find(self, key: str) -> Entry | None:
        entry = super().find(key)
        return entry and replace(entry, size=0)


class KeepsJson(Plain):
    def find(self, key: str) -> Entry | None:
        entry = super().find(key)
        try:
            return entry and replace(entry, value=json.loads(json.dumps(entry.value)))
        except TypeError:
            return entry


class StoresAHundredAtOnce(Plain):
    async def store_many(self, entries: Mapping[str, Entry]) -> None:
        await super().store_many(dict(list(entries.items())[:100]))


# --- keys


class TruncatesKeys(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        super().keep(key[:250], entry)

    def find(self, key: str) -> Entry | None:
        return super().find(key[:250])


class FoldsKeys(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        super().keep(key.lower(), entry)

    def find(self, key: str) -> Entry | None:
        return super().find(key.lower())


class NormalisesKeys(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        super().keep(unicodedata.normalize("NFC", key), entry)

    def find(self, key: str) -> Entry | None:
        return super().find(unicodedata.normalize("NFC", key))


class RefusesKeys(Plain):
    def keep(self, key: str, entry: Entry) -> None:
        key.encode()
        super().keep(key, entry)


# --- removing


class SaysThatAllWasThere(Plain):
    async def remove(self, key: str) -> bool:
        await super().remove(key)
        return True


class RemovesNothing(Plain):
    async def remove(self, key: str) -> bool:
        return await self.lookup(key) is not None


class RemovesNotAll(Plain):
    async def remove_all(self) -> None:
        for key in list(self.kept)[:500]:
            del self.kept[key]


class RemovesItsNeighbours(Plain):
    async def remove_all(self) -> None:
        self.kept.clear()


class ReadsItsNeighbours(Plain):
    def find(self, key: str) -> Entry | None:
        self.namespace, own = next((name for name, found in self.kept if found == key), self.namespace), self.namespace
        found = super().find(key)
        self.namespace = own
        return found


# --- use


class MixesUpAnswers(Plain):
    asked: Sequence[str] = ()

    async def lookup_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        self.asked = keys
        await asyncio.sleep(0)
        return {key: entry for key in self.asked if (entry := self.find(key)) is not None}


class GoesOnWhenCancelled(Plain):
    async def lookup(self, key: str) -> Entry | None:
        try:
            return await super().lookup(key)
        except asyncio.CancelledError:
            return None


class RaisesWhenCancelled(Plain):
    async def store(self, key: str, entry: Entry) -> None:
        try:
            await super().store(key, entry)
        except asyncio.CancelledError:
            raise ConnectionError("interrupted") from None


class HangsAfterACancellation(Plain):
    busy = False

    async def store(self, key: str, entry: Entry) -> None:
        while self.busy:
            await asyncio.sleep(0)
        self.busy = True
        await super().store(key, entry)
        self.busy = False


class ClosesOnce(Plain):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1
        if self.closed == 2:
            raise RuntimeError("closed already")


class HasNoName(Plain):
    name = ""


# --- shared


class IgnoresTheFence(SilentLayer):
    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        await self.store_many(entries)
        return await super().publish(key, lease, entries, release=release)


class SaysThatItWasStored(SilentLayer):
    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        await super().publish(key, lease, entries, release=release)
        return True


class StoresForWhoHasTheLeaseOnly(SilentLayer):
    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        own = self.truth.lease(key)[1] is self
        return own and await super().publish(key, lease, entries, release=release)


class KeepsTheLeaseOfWhatIsPublished(SilentLayer):
    async def publish(self, key: str, lease: bytes, entries: Mapping[str, Entry], *, release: bool) -> bool:
        return await super().publish(key, lease, entries, release=False)


class AssignLeavesTheLease(SilentLayer):
    async def assign(self, entries: Mapping[str, Entry]) -> int:
        leases = dict(self.truth.leases)
        number = await super().assign(entries)
        self.truth.leases = leases
        return number


class TakeLeavesTheLease(SilentLayer):
    async def take(self, key: str) -> Entry | None:
        leases = dict(self.truth.leases)
        taken = await super().take(key)
        self.truth.leases = leases
        return taken


class HasAStoreOfItsOwn(SilentLayer):
    def __init__(self, truth: Truth) -> None:
        super().__init__(Truth(truth.clock))


class GivesTheSameLeaseAgain(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        return await super().acquire(key, key.encode("utf-8", "surrogatepass"), again=again, life=life)


class ChangesKeysAlone(SilentLayer):
    async def take(self, key: str) -> Entry | None:
        tags = dict(self.truth.tags)
        entry = await super().take(key)
        self.truth.tags = tags
        return entry


class FoldsKeysOfLeases(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        return await super().acquire(key.lower(), own, again=again, life=life)

    async def release(self, key: str, lease: bytes) -> None:
        await super().release(key.lower(), lease)


class LetsAllLoad(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        answer = await super().acquire(key, own, again=again, life=life)
        return answer if answer.entry is not None else replace(answer, lease=own, own=True)


class LeasesLastForEver(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        return await super().acquire(key, own, again=again, life=1e9)


class KeepsTheLeaseOfALoadGivenUp(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        held = self.truth.leases.get(key)
        answer = await super().acquire(key, own, again=again, life=life)
        if answer.own and held is not None and held[1] > self.truth.clock.monotonic():
            self.truth.leases[key] = held
            return replace(answer, lease=held[0], own=False)
        return answer


class LoadsWhatIsStored(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        return await super().acquire(key, own, again=True, life=life)


class RenewsNothing(SilentLayer):
    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        return self.truth.lease(key)[0] == lease


class RenewsAnything(SilentLayer):
    async def renew(self, key: str, lease: bytes, life: float) -> bool:
        self.truth.leases[key] = (lease, self.truth.clock.monotonic() + life, self)
        return True


class ReleasesAnything(SilentLayer):
    async def release(self, key: str, lease: bytes) -> None:
        self.truth.leases.pop(key, None)


class ReleasesNothing(SilentLayer):
    async def release(self, key: str, lease: bytes) -> None:
        pass


class TellsAPastNumber(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        answer = await super().acquire(key, own, again=again, life=life)
        return replace(answer, generation=answer.generation - 1)


class NumbersGoBack(SilentLayer):
    async def announce(self, keys: Sequence[str]) -> int:
        self.truth.number -= 2
        return await super().announce(keys)


class AnnouncesWithoutANumber(SilentLayer):
    async def announce(self, keys: Sequence[str]) -> int:
        return self.truth.number


class TakesWithoutANumber(SilentLayer):
    async def take(self, key: str) -> Entry | None:
        number = self.truth.number
        taken = await super().take(key)
        self.truth.number = number
        return taken


class LoadsTakeNumbers(SilentLayer):
    async def acquire(self, key: str, own: bytes, *, again: bool, life: float) -> Acquired:
        self.truth.tick()
        return await super().acquire(key, own, again=again, life=life)


class NumbersTwice(SilentLayer):
    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        number = max(self.truth.number, known)
        await asyncio.sleep(0)  # as when it is read and written in two steps
        self.truth.number = number
        return await super().invalidate(tags, soft=soft, known=known)


class ForgetsWhatTheAskerKnows(SilentLayer):
    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        return await super().invalidate(tags, soft=soft, known=0)


class AssignsUnderTheOldNumber(SilentLayer):
    async def assign(self, entries: Mapping[str, Entry]) -> int:
        number = await super().assign(entries)
        await self.store_many({key: replace(entry, generation=0) for key, entry in entries.items()})
        return number


class UnknownTagsBeginAtZero(SilentLayer):
    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        return {tag: self.truth.tags.get(tag, (0, 0)) for tag in tags}


class UnknownTagsBeginAnew(SilentLayer):
    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        return {tag: self.truth.tags.get(tag, (self.truth.number, 0)) for tag in tags}


class InvalidatesOneTag(SilentLayer):
    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        return await super().invalidate(tags[:1], soft=soft, known=known)


class FoldsTags(SilentLayer):
    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        return await super().invalidate([tag.lower() for tag in tags], soft=soft, known=known)

    async def generations(self, tags: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        found = await super().generations([tag.lower() for tag in tags])
        return {tag: found[tag.lower()] for tag in tags}


class SoftIsHard(SilentLayer):
    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        return await super().invalidate(tags, soft=False, known=known)


class SoftStaysSoft(SilentLayer):
    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        for tag in tags:
            self.truth.tags.setdefault(tag, (1, 0))
        return await super().invalidate(tags, soft=soft, known=known)


class HardForgetsSoft(SilentLayer):
    async def invalidate(self, tags: Sequence[str], *, soft: bool, known: int) -> int:
        number = await super().invalidate(tags, soft=soft, known=known)
        if not soft:
            self.truth.tags.update(dict.fromkeys(tags, (number, number)))
        return number


class TakesWhatIsExpired(SilentLayer):
    async def take(self, key: str) -> Entry | None:
        there = self.truth.entries.get(key)
        await super().take(key)
        return there and replace(there, value=CODEC.loads(there.payload or b""))


class TakesAndLeavesIt(SilentLayer):
    async def take(self, key: str) -> Entry | None:
        there = self.truth.entries.get(key)
        taken = await super().take(key)
        if there is not None:
            self.truth.entries[key] = there
        return taken


class ClosesForAll(SilentLayer):
    async def aclose(self) -> None:
        self.truth.leases.clear()


# --- messages and keys


class Loud(ChaosSharedLayer):
    """A layer with all that there is, which is right."""

    has_neighbours_apart = True

    def __init__(self, node: SharedNode) -> None:
        super().__init__(node, Chaos())
        self.inner = node


class HearsItsNeighbours(Loud):
    has_neighbours_apart = False


class CannotBeUsedInAThread(Loud):
    own_thread = True


class IsBusyUntilAllKeysWereSeen(Loud):
    busy = False

    async def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        if self.busy:
            raise RuntimeError("another search is under way")
        self.busy = True
        async for batch in super().keys(start):
            yield batch
        self.busy = False


class TakesInSilence(Loud):
    async def take(self, key: str) -> Entry | None:
        listeners, self.inner._records.subscribers = self.inner._records.subscribers, []
        taken = await super().take(key)
        self.inner._records.subscribers = listeners
        return taken


class TellsBeforeItIsDone(Loud):
    async def assign(self, entries: Mapping[str, Entry]) -> int:
        records = self.inner._records
        number = await super().assign(entries)
        for key in entries:
            records.unlink(key)
        await asyncio.sleep(0.001)
        await self.inner.store_many(entries)
        return number


class TellsWithoutNames(Loud):
    async def news(self) -> AsyncGenerator[Message | None, None]:
        async for message in super().news():
            yield message and replace(message, names=message.names[:1])


class TellsAllAsHard(Loud):
    async def news(self) -> AsyncGenerator[Message | None, None]:
        async for message in super().news():
            yield message and replace(message, kind="tags" if message.kind == "soft" else message.kind)


class HearsNotItself(Loud):
    async def news(self) -> AsyncGenerator[Message | None, None]:
        async for message in super().news():
            if message is None or message.node != self.node:
                yield message


class BeginsInSilence(Loud):
    async def news(self) -> AsyncGenerator[Message | None, None]:
        async for message in super().news():
            if message is not None:
                yield message


class HasOneNameForAll(Loud):
    @property
    def node(self) -> str:
        return "node"


class BeatsWithANumber(Loud):
    async def beat(self) -> None:
        self.inner._records.tick(0)
        await super().beat()


class BeatsWithThePast(Loud):
    async def news(self) -> AsyncGenerator[Message | None, None]:
        async for message in super().news():
            yield message and replace(message, number=message.number - (message.kind == "beat"))


class FindsTheFirstKeysOnly(Loud):
    async def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        async for batch in super().keys(start):
            yield batch
            break


class FindsNoKeysWithParams(Loud):
    async def keys(self, start: str) -> AsyncGenerator[list[str], None]:
        async for batch in super().keys(start):
            yield [key for key in batch if key.count(":") < 4]


class CountsWhatItWasGiven(Loud):
    async def discard(self, keys: Sequence[str]) -> int:
        await super().discard(keys)
        return len(keys)


class DiscardLeavesTheLeases(Loud):
    async def discard(self, keys: Sequence[str]) -> int:
        leases = dict(self.inner._records._leases)
        removed = await super().discard(keys)
        self.inner._records._leases.update(leases)
        return removed
