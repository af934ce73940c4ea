"""The layers of one cache, from the fastest to the most lasting, each remote one behind a guard.

The stack decides what the failure of a layer means: reading, it is a miss; storing, the entry is missing in that layer;
removing, the caller must know. What of an entry still counts after invalidations is for `_first_layer` and `_judging`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final

from ._below import Below
from ._clock import Clock
from ._entry import Entry
from ._first_layer import FirstLayer, Found
from ._generations import Generations
from ._guard import Budget, Guard
from ._judging import Judging
from ._leases import Leases, Permit
from ._packing import Keep, Outcome, Packed, Packing
from ._recovery import Recovery
from ._tags import EVERYTHING
from .codecs import ValueCodec
from .exceptions import LayerError, LayerUnavailableError
from .layers.memory import MemoryBackend
from .telemetry import names
from .typing import SharedLayer

_KEPT: Final = Outcome(names.KEPT)
_LONGEST_LIFT: Final = 30.0
"""Seconds that putting something into the shared layer again may take."""


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
        self.codec = codec
        self.lower = tuple(lower)
        self.shared = next((guard for guard in self.lower if isinstance(guard.layer, SharedLayer)), None)
        # Found once: to ask whether something has a protocol's methods is slow.
        self._shared_layer = next((guard.layer for guard in self.lower if isinstance(guard.layer, SharedLayer)), None)
        self.default_ttl = max([guard.ttl for guard in self.lower] or [memory_ttl])
        self._clock = clock
        self.timeout = timeout
        self.generations = generations or Generations(clock, shared=self.shared is not None, trust=memory_ttl)
        self.recovery: Recovery | None = None
        alone = not self.lower
        self.first = first = FirstLayer(
            memory,
            self.generations,
            clock,
            ttl=memory_ttl,
            default_ttl=self.default_ttl,
            alone=alone,
            prefix=prefix,
        )
        self._changes = first.changes
        # What lies below the shared layer may be out of date, and is judged by what that says.
        above = len(self.lower) if self.shared is None else self.lower.index(self.shared) + 1
        self._upper = self.lower[:above]
        below = self.lower[above:]
        self.judging = Judging(first, self.shared, self._shared_layer, below=bool(below))
        self.below: Below | None = None
        if below and self.shared is not None and self._shared_layer is not None:
            self.below = Below(
                first,
                self.judging,
                below,
                self.shared,
                self._shared_layer,
                clock,
                trust=memory_ttl,
                lease=max(1.0, min(timeout, _LONGEST_LIFT) * 4),
            )
        leases = Leases(first, self.judging, self.shared, self._shared_layer, timeout, self.is_waiting)
        packing = Packing(codec, copy=copy, alone=alone)
        # One object for those who use it, whichever part does it, and no further call on the way to a hit.
        self.peek, self.state, self.removals, self.is_invalid = (
            first.peek,
            first.state,
            first.removals,
            first.is_invalid,
        )
        self.rearm, self.forget, self.implied = first.rearm, first.forget, first.implied
        self.pack, self.unpack, self.read = packing.pack, packing.unpack, packing.read
        self.acquire = leases.acquire
        self.permit, self.renew, self.holds, self.release = leases.permit, leases.renew, leases.holds, leases.release

    def budget(self) -> Budget:
        """A fresh budget for one request."""
        return Budget(self.timeout)

    # Reading

    async def lookup(self, key: str, budget: Budget, memory_ttl: float = math.inf) -> Found | None:
        """Ask the layers below memory, and promote what is found with its remaining life.

        Args:
            memory_ttl: seconds at most for which memory keeps it.
        """
        removals = self.removals(key)
        mark = self.generations.mark
        answered = False
        for guard in self._upper:
            if guard is self.shared and self.is_waiting(key):
                continue
            try:
                entry = await guard.call("get", partial(guard.layer.lookup, key), budget)
                if entry is not None:
                    if entry.generation > self.generations.latest:
                        self.generations.saw(entry.generation)
                    tags = self.first.tags(key, entry)
                    verdict = self.generations.judge(entry.generation, tags)
                    if verdict != "valid":
                        entry = await self.judging.one(entry, tags, budget)
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
            self.first.promote(key, entry, removals, mark, memory_ttl)
            return Found(entry, guard.name)
        if self.below is not None and not self.is_waiting(key):
            found = await self.below.lookup(key, budget, removals, mark, memory_ttl)
            if found is not None:
                return found
        return None if answered else self.first.in_need(key)

    async def lookup_many(self, keys: Iterable[str], budget: Budget) -> list[tuple[str, Mapping[str, Entry]]]:
        """The same for many keys, in one round trip for each layer.

        Returns:
            What was found, by the layer that had it. Not a `Found` for each key, which a hundred keys would feel.
        """
        wanted = list(keys)
        before = {key: self.removals(key) for key in wanted} if self.memory is not None or self.below else {}
        mark = self.generations.mark
        found: list[tuple[str, Mapping[str, Entry]]] = []
        answered = False
        left = wanted
        for guard in self._upper:
            asked = [key for key in left if not self.is_waiting(key)] if guard is self.shared else left
            if not asked:
                break
            try:
                entries = await guard.call("get", partial(guard.layer.lookup_many, asked), budget)
                hits = await self.judging.many(entries, budget)
            except LayerUnavailableError:
                guard.skipped.add(len(asked))
                continue
            except LayerError:
                guard.error.add(len(asked))
                continue
            answered = True
            guard.hit.add(len(hits))
            guard.miss.add(len(asked) - len(hits))
            if self.memory is not None:
                for key, entry in hits.items():
                    self.first.promote(key, entry, before[key], mark)
            if hits:
                found.append((guard.name, hits))
                left = [key for key in left if key not in hits] if len(hits) < len(left) else []
        if self.below is not None and left:
            asked = [key for key in left if not self.is_waiting(key)]
            lower = await self.below.lookup_many(asked, budget, before, mark)
            found += [(hit.layer, {key: hit.entry}) for key, hit in lower.items()]
            left = [key for key in left if key not in lower]
        for key in left:
            if (not answered or self.is_waiting(key)) and (hit := self.first.in_need(key)) is not None:
                found.append((hit.layer, {key: hit.entry}))
        return found

    # Storing

    async def store(self, values: Mapping[str, Packed], keep: Keep, budget: Budget) -> Outcome:
        """Keep what the caller gives, in every layer; returns what became of it."""
        self.first.count_removals(values)
        generation, mark, taken = self.generations.latest, self.generations.mark, True
        last = values
        for guard in self.lower:
            entries = self._entries(values, keep, guard.ttl, generation)
            if guard is not self.shared:
                taken &= await self._store_below(guard, entries, budget)
                continue
            with self._changes.during(values) as changed:
                try:
                    every = dict.fromkeys(
                        chain.from_iterable(self.first.tags(key, entry) for key, entry in entries.items())
                    )
                    await self.judging.learn(tuple(every), budget, keys=entries)
                    generation = await guard.call("set", partial(self.layer.assign, entries), budget)
                except LayerError:
                    taken = False
                    self._changes.note(values, math.inf)  # whether it was stored before or after others is not known
                    if self.recovery is not None:
                        self.recovery.not_stored(entries)
                    continue
                self.generations.saw(generation)
                guard.stored(entries)
                # Of two changes at once the one with the lower number may have come to the layer after the other. So
                # memory keeps nothing that was changed while the answer was on its way.
                last = {key: packed for key, packed in values.items() if changed[key] == -math.inf}
                if self.recovery is not None:
                    self.recovery.settled([key for key in values if changed[key] <= generation])
                self._changes.note(values, generation)
        self.first.count_removals(values)
        for key in values.keys() - last.keys():
            self.first.lose(key)
        return self._outcome(values, taken=taken, large=self.first.remember(last, keep, generation, mark))

    async def publish(
        self, values: Mapping[str, Packed], keep: Keep, permit: Permit, budget: Budget, *, anew: bool = False
    ) -> Outcome:
        """Keep what was loaded, unless an invalidation has overtaken the load; returns as `store`.

        Args:
            anew: there may be another value, perhaps fresh, which nobody is to use any more.
        """
        with contextlib.suppress(LayerError):
            await self.judging.learn(keep.details.tags, budget)  # those that the load itself gave
        self.first.count_removals(values)
        # In memory first, where the next to ask finds it while it is on its way to the others.
        large, taken = self.first.remember(values, keep, permit.generation, permit.mark), True
        for guard in self.lower:
            entries = self._entries(values, keep, guard.ttl, permit.generation)
            if guard is not self.shared:
                taken &= await self._store_below(guard, entries, budget)
                continue
            if permit.fence is None:
                taken = False  # the layer was not there when the load began, so it can't say what happened since
                if anew:
                    self._not_replaced(permit.key)
                continue
            act = partial(self.layer.publish, permit.key, permit.fence, entries, release=permit.owner)
            with self._changes.during(values) as changed:
                try:
                    if not await guard.call("set", act, budget):
                        for key in values:
                            self.forget(key)
                        return Outcome(names.FENCED)
                    guard.stored(entries)
                    if anew:  # others have it in memory
                        await guard.call("set", partial(self.layer.announce, tuple(values)), budget)
                except LayerError:
                    taken = False
                    if anew:
                        self._not_replaced(permit.key)
                    continue
                if self.recovery is not None:  # unless a `set` failed meanwhile, which may come before or after this
                    self.recovery.settled([key for key in values if changed[key] < math.inf])
        return self._outcome(values, taken=taken, large=large)

    def _outcome(self, values: Mapping[str, Packed], *, taken: bool, large: Collection[str]) -> Outcome:
        """What became of values. `taken`: by all layers below memory; `large`: those that do not fit into memory."""
        if not taken:
            return Outcome(names.LAYER_FAILED)
        if not large:
            return _KEPT
        return Outcome(
            names.BEYOND_MEMORY if self.lower else names.TOO_LARGE, large if len(large) < len(values) else ()
        )

    def _not_replaced(self, key: str) -> None:
        """The shared layer may still have, or others in memory, what was to be replaced; it must not come back."""
        if self.recovery is not None:
            self.recovery.not_removed(key)

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
                    existed |= await self.take(guard, key, budget)
                elif await guard.call("delete", partial(guard.layer.remove, key), budget):
                    guard.invalidated.n += 1
                    existed = True
            except LayerError as error:
                # What lies below the shared layer counts only if that says so, and it was told.
                if guard in self._upper:
                    problem = error
        # A reader may have promoted the value between our forgetting it and the removal below.
        self.forget(key)
        if problem is not None:
            raise problem
        return existed

    async def remove_older(self, permit: Permit, present: Entry | None, budget: Budget) -> None:
        """Forget what a load was to replace, whose result something has overtaken; leave what is newer.

        Args:
            permit: of that load.
            present: what memory had when it began.
        """
        key = permit.key
        entry = None if self.memory is None else self.memory.peek(key)
        older = entry is not None and self.shared is not None and entry.generation <= permit.generation
        if self.memory is not None and entry is not None and (older or entry is present):
            self.first.count_removals((key,))
            self.first.lose(key, entry)
        for guard in self.lower:
            try:
                if guard is not self.shared:
                    await guard.call("delete", partial(guard.layer.remove, key), budget)
                    continue
                below = await guard.call("get", partial(self.layer.lookup, key), budget)
                if below is None or below.generation <= permit.generation:
                    await self.take(guard, key, budget)
            except LayerError:
                if guard is self.shared:
                    self._not_replaced(key)

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
        act = partial(self.layer.invalidate, tags, soft=soft, known=self.generations.latest)
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
        await self.first.forget_all()
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
                if guard in self._upper:
                    problem = error
        await self.first.forget_all()
        if problem is not None:
            raise problem

    async def aclose(self) -> None:
        """Forget what memory holds, and give back the connections of this event loop."""
        if self.memory is not None:
            await self.memory.remove_all()
        for guard in self.lower:
            await guard.aclose()

    # Inside

    @property
    def layer(self) -> SharedLayer:
        """The shared layer, where there is one."""
        assert self._shared_layer is not None
        return self._shared_layer

    def is_waiting(self, key: str) -> bool:
        """Whether the shared layer has not been told the last about this key."""
        return self.recovery is not None and key in self.recovery.keys

    async def take(self, guard: Guard, key: str, budget: Budget) -> bool:
        """Forget the key in the shared layer; true if it was there and not out of date.

        Raises:
            LayerError: it did not answer, and is told later.
        """
        try:
            entry = await guard.call("delete", partial(self.layer.take, key), budget)
        except LayerError:
            if self.recovery is not None:
                self.recovery.not_removed(key)
            raise
        if self.recovery is not None:
            self.recovery.settled((key,))
        if entry is None:
            return False
        guard.invalidated.n += 1
        tags = self.first.tags(key, entry)
        with contextlib.suppress(LayerError):  # it is gone in any case
            await self.judging.learn(tags, budget)
        return self.generations.judge(entry.generation, tags) != "invalid"

    def _entries(self, values: Mapping[str, Packed], keep: Keep, layer_ttl: float, generation: int) -> dict[str, Entry]:
        now = self._clock.monotonic()
        life = layer_ttl if keep.ttl is None else keep.ttl
        fresh_until, expires = now + life, now + life + keep.stale_for
        return {
            key: Entry(
                packed.value, packed.payload, fresh_until, expires, packed.size + len(key), generation, keep.details
            )
            for key, packed in values.items()
        }

    async def _store_below(self, guard: Guard, entries: Mapping[str, Entry], budget: Budget) -> bool:
        try:
            if len(entries) == 1:
                ((key, entry),) = entries.items()
                await guard.call("set", partial(guard.layer.store, key, entry), budget)
            else:
                await guard.call("set", partial(guard.layer.store_many, entries), budget)
        except LayerError:
            return False
        guard.stored(entries)
        return True
