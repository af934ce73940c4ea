"""The layers of one cache, from the fastest to the most lasting, each remote one behind a guard.

Reading is done here: a layer that fails has nothing. What its failure means for changes is for `_storing` and
`_removing`, and what of an entry still counts after invalidations for `_first_layer` and `_judging`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from ._below import Below
from ._clock import Clock
from ._entry import Entry
from ._first_layer import FirstLayer, Found
from ._generations import Generations
from ._guard import Budget, Guard
from ._judging import Judging
from ._leases import Leases
from ._lower_layers import LowerLayers
from ._packing import Packing
from ._recovery import Recovery
from ._removing import Removing
from ._storing import Storing
from .codecs import ValueCodec
from .exceptions import LayerError, LayerUnavailableError
from .layers.memory import MemoryBackend
from .typing import SharedLayer

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

    Attributes:
        first: memory.
        lower_layers: the others, behind their guards.
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
        self.lower_layers = layers = LowerLayers(lower)
        self.lower, self.shared, self.is_waiting = layers.guards, layers.shared, layers.is_waiting
        self._upper = layers.upper
        self.default_ttl = max([guard.ttl for guard in self.lower] or [memory_ttl])
        self.timeout = timeout
        self.generations = generations or Generations(clock, shared=self.shared is not None, trust=memory_ttl)
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
        self.judging = Judging(first, layers.shared, layers.shared_layer, below=bool(layers.below))
        self.below: Below | None = None
        if layers.below and layers.shared is not None:
            self.below = Below(
                first,
                self.judging,
                layers.below,
                layers.shared,
                layers.layer,
                clock,
                trust=memory_ttl,
                lease=max(1.0, min(timeout, _LONGEST_LIFT) * 4),
            )
        leases = Leases(first, self.judging, layers.shared, layers.shared_layer, timeout, layers.is_waiting)
        packing = Packing(codec, copy=copy, alone=alone)
        storing = Storing(first, layers, self.judging, clock)
        removing = Removing(first, layers, self.judging, timeout)
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
        self.store, self.publish = storing.store, storing.publish
        self.remove, self.remove_older, self.take = removing.remove, removing.remove_older, removing.take
        self.invalidate, self.clear = removing.invalidate, removing.clear

    def budget(self) -> Budget:
        """A fresh budget for one request."""
        return Budget(self.timeout)

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

    async def aclose(self) -> None:
        """Forget what memory holds, and give back the connections of this event loop."""
        if self.memory is not None:
            await self.memory.remove_all()
        for guard in self.lower:
            await guard.aclose()

    @property
    def layer(self) -> SharedLayer:
        """The shared layer, where there is one."""
        return self.lower_layers.layer

    @property
    def recovery(self) -> Recovery | None:
        """Tells the shared layer later what it could not be told."""
        return self.lower_layers.recovery
