"""The layers of one cache, from the fastest to the most lasting, each remote one behind a guard.

The stack decides what the failure of a layer means: reading, it is a miss; storing, the entry is missing in that layer;
removing, the caller must know. It also decides what of an entry still counts after invalidations.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from secrets import token_hex
from typing import Literal

from ._changes import Changes
from ._clock import Clock
from ._entry import NO_DETAILS, Details, Entry
from ._generations import Generations
from ._guard import Budget, Guard
from ._recovery import Recovery
from ._tags import EVERYTHING, implied
from ._ttl_policy import refresh_from
from .codecs import ValueCodec, is_immutable, size_of
from .exceptions import LayerError, LayerUnavailableError
from .layers.memory import MemoryBackend
from .telemetry import names
from .typing import SearchableLayer, SharedLayer

_STRIPES = 256
_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Packed:
    """A value ready for every layer.

    Attributes:
        value: the object itself.
        payload: its packed form; `None` where no layer needs it, since the object is shared and stays in the process.
        shared: the object may be handed to several callers.
    """

    value: object
    payload: bytes | None
    shared: bool


@dataclass(slots=True)
class Found:
    """An entry found below memory, and the layer that had it."""

    entry: Entry
    layer: str


@dataclass(slots=True)
class Permit:
    """What a load must show when its result is to be stored.

    Attributes:
        key: what is loaded.
        generation: the highest that was known before the load began.
        fence: the value of the lease then; the result is stored only while it is the same. `None`: there was none,
            because no layer is shared or the shared one did not answer.
        owner: the lease is this load's own.
        mark: that of the generations then: when word is lost while it loads, its result must be verified, too.
    """

    key: str
    generation: int
    fence: bytes | None = None
    owner: bool = False
    mark: int = -1


@dataclass(frozen=True, slots=True)
class Keep:
    """How values are to be kept.

    Attributes:
        ttl: seconds > 0; `None`: each layer's own.
        stale_for: seconds after that in which they may still be served in need.
        memory_ttl: seconds at most in memory, where a shared layer is below; `None`: the layer's own.
        details: what else is known of them.
        chance: in (0, 1], for the random part of an early refresh.
    """

    ttl: float | None
    stale_for: float = 0.0
    memory_ttl: float | None = None
    details: Details = NO_DETAILS
    chance: float = 1.0


class Stack:
    """All layers of one cache.

    Args:
        memory: the layer in the process, or `None`.
        memory_ttl: seconds that memory keeps a value when the caller gives no ttl.
        lower: guarded layers, in the order in which they are asked.
        timeout: seconds that one request may wait for them in total.
        generations: what is known of invalidations.
        prefix: what the keys of this namespace begin with.
    """

    def __init__(
        self,
        memory: MemoryBackend | None,
        memory_ttl: float,
        lower: Sequence[Guard],
        *,
        codec: ValueCodec,
        copy: bool,
        clock: Clock,
        timeout: float,
        generations: Generations | None = None,
        prefix: str = "",
    ) -> None:
        self.memory = memory
        self.lower = tuple(lower)
        self.shared = next((guard for guard in self.lower if isinstance(guard.layer, SharedLayer)), None)
        # Found once: to ask whether something has a protocol's methods is slow.
        self._shared_layer = next((guard.layer for guard in self.lower if isinstance(guard.layer, SharedLayer)), None)
        self._memory_ttl = memory_ttl
        self.default_ttl = max([guard.ttl for guard in self.lower] or [memory_ttl])
        self._codec = codec
        self._copy = copy
        self._clock = clock
        self.timeout = timeout
        self.generations = generations or Generations(clock, shared=self.shared is not None, trust=memory_ttl)
        self._prefix = prefix
        self.recovery: Recovery | None = None
        # A removal changes the number of its stripe. A value that was read below before it is not promoted after it.
        self._removals = [0] * _STRIPES
        self._changes = Changes()

    def budget(self) -> Budget:
        """A fresh budget for one request."""
        return Budget(self.timeout)

    # Reading

    def state(self, key: str) -> object:
        """Changes when the key, or anything by a tag, is changed or invalidated."""
        return self.removals(key), self.generations.mark

    def removals(self, key: str) -> int:
        """Changes when the key is changed or removed."""
        return self._removals[hash(key) % _STRIPES]

    def is_invalid(self, key: str, entry: Entry) -> bool:
        """Whether an invalidation has overtaken the entry, as far as is known."""
        return self.generations.judge(entry.generation, self._tags(key, entry)) == "invalid"

    def peek(self, key: str, now: float | None = None) -> Entry | None:
        """What memory holds and no invalidation has overtaken, without waiting. It may be stale.

        Args:
            now: the caller's, if it will compare with it.
        """
        if self.memory is None:
            return None
        entry = self.memory.peek(key)
        if entry is None or entry.mark == self.generations.mark:
            return entry
        mark = self.generations.mark
        if self.generations.must_verify(entry.mark):
            return None
        verdict = self.generations.judge(entry.generation, self._tags(key, entry))
        if verdict == "valid":
            entry.mark = mark
            return entry
        if verdict == "soft":
            return self._aged(entry, now)
        if verdict == "invalid":
            self.memory.drop(key, entry)
        return None

    def read(self, entry: Entry) -> object:
        """The value for one reader: the shared object, or a copy of its own."""
        return entry.value if entry.payload is None else self._codec.loads(entry.payload)

    async def lookup(self, key: str, budget: Budget, memory_ttl: float = math.inf) -> Found | None:
        """Ask the layers below memory, and promote what is found with its remaining life.

        Args:
            memory_ttl: seconds at most for which memory keeps it.
        """
        removals = self._removals[hash(key) % _STRIPES]
        mark = self.generations.mark
        answered = False
        for guard in self.lower:
            if guard is self.shared and self._is_waiting(key):
                continue
            try:
                entry = await guard.call("get", partial(guard.layer.lookup, key), budget)
                if entry is not None:
                    if entry.generation > self.generations.latest:
                        self.generations.saw(entry.generation)
                    tags = implied(key, self._prefix) + entry.details.tags
                    verdict = self.generations.judge(entry.generation, tags)
                    if verdict != "valid":
                        entry = await self._judged(entry, tags, budget)
            except LayerUnavailableError:
                guard.skipped.n += 1
                continue
            except LayerError:
                guard.error.n += 1
                continue
            answered = True
            if entry is None:
                guard.miss.n += 1
                continue
            guard.hit.n += 1
            self._promote(key, entry, removals, mark, memory_ttl)
            return Found(entry, guard.name)
        return None if answered else self._in_need(key)

    async def lookup_many(self, keys: Iterable[str], budget: Budget) -> dict[str, Found]:
        """The same for many keys, in one round trip for each layer."""
        wanted = list(keys)
        before = {key: self._removals[hash(key) % _STRIPES] for key in wanted}
        mark = self.generations.mark
        found: dict[str, Found] = {}
        answered = False
        for guard in self.lower:
            missing = [key for key in wanted if key not in found]
            if guard is self.shared:
                missing = [key for key in missing if not self._is_waiting(key)]
            if not missing:
                break
            entries: Mapping[str, Entry]
            try:
                entries = await guard.call("get", partial(guard.layer.lookup_many, missing), budget)
                tags = {key: self._tags(key, entry) for key, entry in entries.items()}
                every = list(dict.fromkeys(chain.from_iterable(tags.values())))
                await self._learn(every, budget)
                judged = {key: await self._judged(entry, tags[key], budget) for key, entry in entries.items()}
                hits = {key: entry for key, entry in judged.items() if entry is not None}
            except LayerUnavailableError:
                guard.skipped.n += len(missing)
                continue
            except LayerError:
                guard.error.n += len(missing)
                continue
            answered = True
            guard.hit.n += len(hits)
            guard.miss.n += len(missing) - len(hits)
            for key, entry in hits.items():
                found[key] = Found(entry, guard.name)
                self._promote(key, entry, before[key], mark)
        for key in wanted:
            if key not in found and (not answered or self._is_waiting(key)):
                in_need = self._in_need(key)
                if in_need is not None:
                    found[key] = in_need
        return found

    # Loading

    async def acquire(
        self,
        key: str,
        token: bytes,
        budget: Budget,
        *,
        tags: tuple[str, ...] = (),
        again: bool,
        life: float,
        memory_ttl: float = math.inf,
    ) -> tuple[Found | None, Permit]:
        """Ask to load the key for all processes.

        Args:
            token: of this load, unlike any other; becomes the lease if there is none.
            tags: of what is loaded, beside those that follow from the key.
            again: load although there is an entry, which is stale.
            life: seconds that the lease lasts unless it is renewed.

        Returns:
            What another process has stored meanwhile, and what the result must show. A lease that is not the load's own
            means that another process loads.
        """
        guard = self.shared
        if guard is None:
            return None, self.permit(key)
        layer = self._layer
        removals = self._removals[hash(key) % _STRIPES]
        mark = self.generations.mark
        try:
            again = again or self._is_waiting(key)
            # First, as a tag without a record begins with what is known then.
            await self._learn((*self.implied(key), *tags), budget)
            answer = await guard.call("acquire", partial(layer.acquire, key, token, again=again, life=life), budget)
            self.generations.saw(answer.generation)
            permit = Permit(key, answer.generation, answer.lease, answer.own, mark)
            if answer.entry is None:
                return None, permit
            entry = await self._judged(answer.entry, self._tags(key, answer.entry), budget)
        except LayerError:
            return None, self.permit(key)
        if entry is None:  # out of date, and so no reason not to load
            return await self.acquire(key, token, budget, tags=tags, again=True, life=life, memory_ttl=memory_ttl)
        self._promote(key, entry, removals, mark, memory_ttl)
        return Found(entry, guard.name), permit

    def permit(self, key: str) -> Permit:
        """The permit of a load that begins now, without a lease."""
        return Permit(key, self.generations.latest, mark=self.generations.mark)

    async def renew(self, permit: Permit, life: float) -> bool:
        """Keep the lease of a load that is still running; false if it is lost."""
        guard = self.shared
        if guard is None or permit.fence is None:
            return False
        try:
            return await guard.call("renew", partial(self._layer.renew, permit.key, permit.fence, life), self.budget())
        except LayerError:
            return True  # not known

    async def holds(self, permit: Permit, tags: Sequence[str], life: float) -> bool:
        """Whether nothing is known to have overtaken a load that is still running, after asking the shared layer.

        Args:
            life: as for `renew`, which this does.
        """
        if self.shared is None:
            return True
        try:
            act = partial(self._layer.generations, tags)
            self.generations.learn(await self.shared.call("tags", act, self.budget()))
        except LayerError:
            return True  # not known
        if self.generations.judge(permit.generation, tags, in_need=True) != "valid":
            return False
        return not permit.owner or await self.renew(permit, life)

    async def release(self, permit: Permit, budget: Budget) -> None:
        """Let another process load, since this load has nothing to store."""
        guard = self.shared
        if guard is None or not permit.owner or permit.fence is None:
            return
        with contextlib.suppress(LayerError):  # it ends by itself
            await guard.call("release", partial(self._layer.release, permit.key, permit.fence), budget)

    # Storing

    def pack(self, value: object, *, trusted: bool = False) -> Packed:
        """Make a value ready for every layer.

        Args:
            trusted: a record of ours, known to be immutable and storable, which needs no check.

        Raises:
            UnstorableValueError: it holds a type that is neither built in nor registered. Also what could be shared
                without packing is checked: otherwise a program works until its cache gets a second layer.
        """
        if not self._copy or (trusted and not self.lower):
            return Packed(value, None, True)
        payload = self._codec.dumps(value)
        return Packed(value, payload, trusted or is_immutable(value))

    def unpack(self, packed: Packed) -> object:
        """The value for one more reader."""
        if packed.shared or packed.payload is None:
            return packed.value
        return self._codec.loads(packed.payload)

    async def store(self, values: Mapping[str, Packed], keep: Keep, budget: Budget) -> bool:
        """Keep what the caller gives, in every layer; true if each took it all."""
        self._count_removals(values)
        generation, mark, complete = self.generations.latest, self.generations.mark, True
        last = values
        for guard in self.lower:
            entries = self._entries(values, keep, guard.ttl, generation)
            if guard is not self.shared:
                complete &= await self._store_below(guard, entries, budget)
                continue
            with self._changes.during(values) as changed:
                try:
                    every = dict.fromkeys(chain.from_iterable(self._tags(key, entry) for key, entry in entries.items()))
                    await self._learn(tuple(every), budget)
                    generation = await guard.call("set", partial(self._layer.assign, entries), budget)
                except LayerError:
                    complete = False
                    self._changes.note(values, math.inf)  # whether it was stored before or after others is not known
                    if self.recovery is not None:
                        self.recovery.not_stored(entries)
                    continue
                self.generations.saw(generation)
                # What was changed later, while the answer was on its way, is not to be replaced in memory.
                last = {key: packed for key, packed in values.items() if changed[key] <= generation}
                self._changes.note(values, generation)
                if self.recovery is not None:
                    self.recovery.settled(last)
        self._count_removals(values)
        for key in values.keys() - last.keys():
            # What others have read below in the meantime may still be the value before this one.
            if (
                self.memory is not None
                and (entry := self.memory.peek(key)) is not None
                and entry.generation < generation
            ):
                self.memory.drop(key, entry)
        return self._remember(last, keep, generation, mark) and complete

    async def publish(
        self, values: Mapping[str, Packed], keep: Keep, permit: Permit, budget: Budget
    ) -> Literal["stored", "incomplete", "fenced"]:
        """Keep what was loaded, unless an invalidation has overtaken the load."""
        with contextlib.suppress(LayerError):
            await self._learn(keep.details.tags, budget)  # those that the load itself gave
        self._count_removals(values)
        # In memory first, where the next to ask finds it while it is on its way to the others.
        complete = self._remember(values, keep, permit.generation, permit.mark)
        for guard in self.lower:
            entries = self._entries(values, keep, guard.ttl, permit.generation)
            if guard is not self.shared:
                complete &= await self._store_below(guard, entries, budget)
                continue
            if permit.fence is None:
                complete = False  # the layer was not there when the load began, so it can't say what happened since
                continue
            act = partial(self._layer.publish, permit.key, permit.fence, entries, release=permit.owner)
            with self._changes.during(values) as changed:
                try:
                    if not await guard.call("set", act, budget):
                        for key in values:
                            self.forget(key)
                        return "fenced"
                except LayerError:
                    complete = False
                    continue
                if self.recovery is not None:  # unless a `set` failed meanwhile, which may come before or after this
                    self.recovery.settled([key for key in values if changed[key] < math.inf])
        return "stored" if complete else "incomplete"

    def rearm(self, key: str, entry: Entry, retry_at: float) -> None:
        """Keep a stale entry in memory, and don't try to refresh it before that instant."""
        if self.memory is not None:
            expires = min(entry.expires, self._clock.monotonic() + self._memory_ttl)
            details = replace(entry.details, retry_at=retry_at)
            mark = self.generations.mark
            verdict = self.generations.judge(entry.generation, self._tags(key, entry))
            if verdict == "invalid":
                return
            if verdict == "soft":
                entry = self._aged(entry)
            until = min(retry_at, entry.fresh_until, expires)
            self.memory.put(key, replace(entry, expires=expires, details=details, until=until, mark=mark))

    # Removing

    async def remove(self, key: str, budget: Budget) -> bool:
        """Forget the key everywhere; true if it was there.

        Raises:
            LayerError: a shared layer could not be reached, so others may still see the value.
        """
        existed = self.forget(key)
        problem: LayerError | None = None
        for guard in self.lower:
            try:
                if guard is self.shared:
                    existed |= await self._take(guard, key, budget)
                else:
                    existed |= await guard.call("delete", partial(guard.layer.remove, key), budget)
            except LayerError as error:
                problem = error
        # A reader may have promoted the value between our forgetting it and the removal below.
        self.forget(key)
        if problem is not None:
            raise problem
        return existed

    async def soften(self, key: str, budget: Budget) -> bool:
        """Make what is stored under the key stale; true if there was something.

        Under a lease, so that whatever else changes the key meanwhile counts. What somebody loads, or has changed, is
        forgotten, which is never wrong.

        Raises:
            LayerError: a shared layer could not be reached, so others may still see it fresh; here it is gone.
        """
        guard = self.shared
        if guard is None:
            return await self._soften_own(key, budget)
        existed = self.forget(key)
        try:
            act = partial(self._layer.acquire, key, token_hex(16).encode(), again=True, life=self.timeout)
            acquired = await guard.call("acquire", act, budget)
            softened = await self._put_back(key, acquired.lease, budget) if acquired.own else None
            if softened is None:
                return await self._take(guard, key, budget) or existed
            await guard.call("delete", partial(self._layer.announce, (key,)), budget)
        except LayerError:
            if self.recovery is not None:
                self.recovery.not_removed(key)
            raise
        finally:
            self.forget(key)  # a reader may have promoted it
        if self.recovery is not None:
            self.recovery.settled((key,))
        return existed or softened

    async def _put_back(self, key: str, lease: bytes, budget: Budget) -> bool | None:
        """Replace what the shared layer has by the same, but stale; whether there was something. `None`: overtaken."""
        guard, layer = self.shared, self._layer
        assert guard is not None
        entry = await guard.call("get", partial(layer.lookup, key), budget)
        if entry is None:
            await guard.call("release", partial(layer.release, key, lease), budget)
            return False
        entry = await self._judged(entry, self._tags(key, entry), budget)
        if entry is None:  # out of date, but others may not know that yet
            return None
        act = partial(layer.publish, key, lease, {key: self._aged(entry)}, release=True)
        return True if await guard.call("set", act, budget) else None

    async def _soften_own(self, key: str, budget: Budget) -> bool:
        entry = self.peek(key)
        self._removals[hash(key) % _STRIPES] += 1
        if self.memory is not None and entry is not None:
            self.memory.put(key, self._aged(entry))
        existed = entry is not None
        for guard in self.lower:
            below = await guard.call("get", partial(guard.layer.lookup, key), budget)
            if below is not None:
                existed = True
                await guard.call("set", partial(guard.layer.store, key, self._aged(below)), budget)
        return existed

    async def invalidate(
        self, tags: Sequence[str], *, soft: bool, budget: Budget, operation: str = "invalidate"
    ) -> None:
        """Make all entries with one of the tags out of date; with `soft` they are stale.

        Raises:
            LayerError: a shared layer could not be reached, so other processes may still see them; this one does not.
        """
        if self.shared is None:
            self.generations.invalidate_here(tags, soft=soft)
            return
        act = partial(self._layer.invalidate, tags, soft=soft, known=self.generations.latest)
        try:
            generation = await self.shared.call(operation, act, budget)
        except LayerError:
            self.generations.invalidate_here(tags, soft=soft)
            if self.recovery is not None:
                self.recovery.not_invalidated(tuple(tags), soft=soft)
            raise
        self.generations.invalidated(tags, generation, soft=soft)

    async def clear(self, budget: Budget | None = None) -> None:
        """Forget everything of this cache everywhere.

        Raises:
            LayerError: a shared layer could not be reached.
        """
        problem: LayerError | None = None
        await self._forget_all()
        try:
            await self.invalidate((EVERYTHING,), soft=False, budget=budget or self.budget(), operation="clear")
        except LayerError as error:
            problem = error
        for guard in self.lower:
            if guard is self.shared:
                continue
            try:
                await guard.call("clear", guard.layer.remove_all, None)
            except LayerError as error:
                problem = error
        await self._forget_all()
        if problem is not None:
            raise problem

    async def remove_matching(
        self, matches: Callable[[str], bool], start: str, progress: Callable[[int, int], None] | None
    ) -> int:
        """Forget all keys that match, in memory and in layers that can be searched; returns how many entries that were.

        Args:
            start: what their `category:identifier` begins with.
            progress: told, after each batch, how many keys were looked at and how many of them matched.

        Raises:
            LayerError: a layer failed; what it had found until then is gone.
        """
        own = self._forget_matching(matches)
        removed = seen = 0
        for guard in self.lower:
            layer = guard.layer
            if not isinstance(layer, SearchableLayer):
                continue
            async with contextlib.aclosing(layer.keys(start)) as batches:
                while True:
                    batch = await guard.call("scan", partial(anext, batches, None), self.budget())
                    if batch is None:
                        break
                    found = [key for key in batch if matches(key)]
                    seen += len(batch)
                    if found:
                        removed += await guard.call("delete", partial(layer.discard, found), self.budget())
                    if progress is not None:
                        progress(seen, removed)
        return max(removed, len(own | self._forget_matching(matches)))

    async def matching(self, matches: Callable[[str], bool], start: str) -> AsyncGenerator[str, None]:
        """The keys that match, in memory and in layers that can be searched; some may come twice.

        Args:
            start: what their `category:identifier` begins with.

        Raises:
            LayerError: a layer failed.
        """
        own = set() if self.memory is None else {key for key in list(self.memory.entries) if matches(key)}
        for key in own:
            yield key
        for guard in self.lower:
            if not isinstance(guard.layer, SearchableLayer):
                continue
            async with contextlib.aclosing(guard.layer.keys(start)) as batches:
                while (batch := await guard.call("scan", partial(anext, batches, None), self.budget())) is not None:
                    for key in batch:
                        if key not in own and matches(key):
                            yield key

    async def stored(self, key: str) -> list[Found]:
        """What each layer holds under the key that no invalidation has overtaken. Nothing is counted or promoted.

        Raises:
            LayerError: a layer failed.
        """
        found = [] if (entry := self.peek(key)) is None else [Found(entry, names.L1)]
        for guard in self.lower:
            below = await guard.call("get", partial(guard.layer.lookup, key), self.budget())
            if below is not None:
                below = await self._judged(below, self._tags(key, below), self.budget())
            if below is not None:
                found.append(Found(below, guard.name))
        return found

    def _forget_matching(self, matches: Callable[[str], bool]) -> set[str]:
        keys = [] if self.memory is None else [key for key in list(self.memory.entries) if matches(key)]
        return {key for key in keys if self.forget(key)}

    def forget(self, key: str, before: float = math.inf) -> bool:
        """Forget the key in memory; true if it was there.

        Args:
            before: the generation of a change; what began to be loaded with it or later stays.
        """
        self._changes.note((key,), before)
        if before < math.inf and (entry := self.peek(key)) is not None and entry.generation >= before:
            return False
        self._removals[hash(key) % _STRIPES] += 1
        return self.memory is not None and self.memory.drop(key)

    async def aclose(self) -> None:
        """Forget what memory holds, and give back the connections of this event loop."""
        if self.memory is not None:
            await self.memory.remove_all()
        for guard in self.lower:
            await guard.layer.aclose()

    # Inside

    @property
    def _layer(self) -> SharedLayer:
        assert self._shared_layer is not None
        return self._shared_layer

    def implied(self, key: str) -> tuple[str, ...]:
        """The tags that follow from a key of this namespace."""
        return implied(key, self._prefix)

    def _tags(self, key: str, entry: Entry) -> tuple[str, ...]:
        return implied(key, self._prefix) + entry.details.tags

    async def _judged(self, entry: Entry, tags: tuple[str, ...], budget: Budget) -> Entry | None:
        """The entry, if it is not out of date; stale if it was made so."""
        verdict = self.generations.judge(entry.generation, tags)
        if verdict == "unknown":
            await self._learn(tags, budget)
            verdict = self.generations.judge(entry.generation, tags)
        if verdict == "valid":
            return entry
        return self._aged(entry) if verdict == "soft" else None

    def _aged(self, entry: Entry, now: float | None = None) -> Entry:
        now = self._clock.monotonic() if now is None else now
        return replace(entry, fresh_until=min(entry.fresh_until, now), until=_NEVER)

    def _is_waiting(self, key: str) -> bool:
        """Whether the shared layer has not been told the last about this key."""
        return self.recovery is not None and key in self.recovery.keys

    async def _take(self, guard: Guard, key: str, budget: Budget) -> bool:
        try:
            entry = await guard.call("delete", partial(self._layer.take, key), budget)
        except LayerError:
            if self.recovery is not None:
                self.recovery.not_removed(key)
            raise
        if self.recovery is not None:
            self.recovery.settled((key,))
        if entry is None:
            return False
        tags = self._tags(key, entry)
        with contextlib.suppress(LayerError):  # it is gone in any case
            await self._learn(tags, budget)
        return self.generations.judge(entry.generation, tags) != "invalid"

    def _in_need(self, key: str) -> Found | None:
        # No shared layer can say whether it was invalidated elsewhere. Its life in memory is the bound for that.
        entry = None if self.memory is None else self.memory.peek(key)
        if entry is None:
            return None
        verdict = self.generations.judge(entry.generation, self._tags(key, entry), in_need=True)
        if verdict == "invalid":
            return None
        return Found(self._aged(entry) if verdict == "soft" else entry, names.L1)

    async def _learn(self, tags: Sequence[str], budget: Budget) -> None:
        unknown = self.generations.unknown(tags)
        if self.shared is not None and unknown:
            act = partial(self._layer.generations, unknown)
            self.generations.learn(await self.shared.call("tags", act, budget))

    def _entries(self, values: Mapping[str, Packed], keep: Keep, layer_ttl: float, generation: int) -> dict[str, Entry]:
        now = self._clock.monotonic()
        life = layer_ttl if keep.ttl is None else keep.ttl
        return {
            key: Entry(
                packed.value, packed.payload, now + life, now + life + keep.stale_for, 0, generation, keep.details
            )
            for key, packed in values.items()
        }

    def _remember(self, values: Mapping[str, Packed], keep: Keep, generation: int, mark: int) -> bool:
        if self.memory is None:
            return True
        now = self._clock.monotonic()
        fresh_until = now + (self.default_ttl if keep.ttl is None else keep.ttl)
        expires = min(fresh_until + keep.stale_for, now + self._memory_life(keep))
        until = min(expires, refresh_from(fresh_until, keep.details.lead, keep.details.spread, keep.chance))
        complete = True
        for key, packed in values.items():
            entry = _memory_entry(key, packed, fresh_until, expires)
            entry.generation, entry.details, entry.until, entry.mark = generation, keep.details, until, mark
            if self.generations.judge(generation, self._tags(key, entry)) != "valid":
                entry.mark = -1  # overtaken meanwhile, or a tag that must be asked for: the first reader finds out
            complete &= self.memory.put(key, entry)
        return complete

    def _memory_life(self, keep: Keep) -> float:
        if not self.lower:
            return (self._memory_ttl if keep.ttl is None else keep.ttl) + keep.stale_for
        cap = self._memory_ttl if keep.memory_ttl is None else min(keep.memory_ttl, self._memory_ttl)
        return cap if keep.ttl is None else min(keep.ttl + keep.stale_for, cap)

    def _promote(self, key: str, entry: Entry, removals: int, mark: int, memory_ttl: float = math.inf) -> None:
        details = entry.details
        until = entry.fresh_until
        if details is not NO_DETAILS:
            until = refresh_from(until, details.lead, details.spread, 1.0 - random.random())
        entry.until = until
        if self.memory is None:
            return
        stripe = hash(key) % _STRIPES
        now = self._clock.monotonic()
        expires = min(entry.expires, now + min(memory_ttl, self._memory_ttl))
        value = entry.value if entry.payload is None else None
        until = min(until, expires)
        before = self.memory.peek(key)
        if (
            before is not None
            and before.mark >= 0
            and ((usable := self.peek(key, now)) is None or usable.fresh_until <= now < until)
        ):
            self.memory.drop(key, before)  # otherwise each request would go below until it expires
        # If absent: what a concurrent `set` put there is newer than what was read below.
        promoted = Entry(
            value, entry.payload, entry.fresh_until, expires, entry.size, entry.generation, details, until, mark
        )
        self.memory.put_if_absent(key, promoted, valid=lambda: self._removals[stripe] == removals)

    async def _store_below(self, guard: Guard, entries: Mapping[str, Entry], budget: Budget) -> bool:
        try:
            if len(entries) == 1:
                ((key, entry),) = entries.items()
                await guard.call("set", partial(guard.layer.store, key, entry), budget)
            else:
                await guard.call("set", partial(guard.layer.store_many, entries), budget)
        except LayerError:
            return False
        return True

    def _count_removals(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._removals[hash(key) % _STRIPES] += 1

    async def _forget_all(self) -> None:
        for stripe in range(_STRIPES):
            self._removals[stripe] += 1
        if self.memory is not None:
            await self.memory.remove_all()


def _memory_entry(key: str, packed: Packed, fresh_until: float, expires: float) -> Entry:
    if packed.shared or packed.payload is None:
        return Entry(packed.value, None, fresh_until, expires, len(key) + size_of(packed.value))
    return Entry(None, packed.payload, fresh_until, expires, len(key) + len(packed.payload))
