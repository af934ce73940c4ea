"""Keeping values in every layer of a cache. Where a layer fails, the entry is missing there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from functools import partial
from itertools import chain
from typing import Final

from ._clock import Clock
from ._entry import Entry
from ._first_layer import FirstLayer
from ._guard import Budget, Guard
from ._judging import Judging
from ._leases import Permit
from ._lower_layers import LowerLayers
from ._packing import Keep, Outcome, Packed
from .exceptions import LayerError
from .telemetry import names

_KEPT: Final = Outcome(names.KEPT)


class Storing:
    """Stores what is given and what was loaded."""

    def __init__(self, first: FirstLayer, lower: LowerLayers, judging: Judging, clock: Clock) -> None:
        self._first = first
        self._generations = first.generations
        self._changes = first.changes
        self._lower = lower
        self._judging = judging
        self._clock = clock

    async def store(self, values: Mapping[str, Packed], keep: Keep, budget: Budget) -> Outcome:
        """Keep what the caller gives, in every layer; returns what became of it."""
        self._first.count_removals(values)
        generation, mark, taken = self._generations.latest, self._generations.mark, True
        last = values
        for guard in self._lower.guards:
            entries = self._entries(values, keep, guard.ttl, generation)
            if guard is not self._lower.shared:
                taken &= await self._store_below(guard, entries, budget)
                continue
            with self._changes.during(values) as changed:
                try:
                    every = dict.fromkeys(
                        chain.from_iterable(self._first.tags(key, entry) for key, entry in entries.items())
                    )
                    await self._judging.learn(tuple(every), budget, keys=entries)
                    generation = await guard.call("set", partial(self._lower.layer.assign, entries), budget)
                except LayerError:
                    taken = False
                    self._changes.note(values, math.inf)  # whether it was stored before or after others is not known
                    self._lower.not_stored(entries)
                    continue
                self._generations.saw(generation)
                guard.stored(entries)
                # Of two changes at once the one with the lower number may have come to the layer after the other. So
                # memory keeps nothing that was changed while the answer was on its way.
                last = {key: packed for key, packed in values.items() if changed[key] == -math.inf}
                self._lower.settled([key for key in values if changed[key] <= generation])
                self._changes.note(values, generation)
        self._first.count_removals(values)
        for key in values.keys() - last.keys():
            self._first.lose(key)
        return self._outcome(values, taken=taken, large=self._first.remember(last, keep, generation, mark))

    async def publish(
        self, values: Mapping[str, Packed], keep: Keep, permit: Permit, budget: Budget, *, anew: bool = False
    ) -> Outcome:
        """Keep what was loaded, unless an invalidation has overtaken the load; returns as `store`.

        Args:
            anew: there may be another value, perhaps fresh, which nobody is to use any more.
        """
        with contextlib.suppress(LayerError):
            await self._judging.learn(keep.details.tags, budget)  # those that the load itself gave
        self._first.count_removals(values)
        # In memory first, where the next to ask finds it while it is on its way to the others.
        large, taken = self._first.remember(values, keep, permit.generation, permit.mark), True
        for guard in self._lower.guards:
            entries = self._entries(values, keep, guard.ttl, permit.generation)
            if guard is not self._lower.shared:
                taken &= await self._store_below(guard, entries, budget)
                continue
            if permit.fence is None:
                taken = False  # the layer was not there when the load began, so it can't say what happened since
                if anew:
                    self._lower.not_removed(permit.key)
                continue
            act = partial(self._lower.layer.publish, permit.key, permit.fence, entries, release=permit.owner)
            with self._changes.during(values) as changed:
                try:
                    if not await guard.call("set", act, budget):
                        for key in values:
                            self._first.forget(key)
                        return Outcome(names.FENCED)
                    guard.stored(entries)
                    if anew:  # others have it in memory
                        await guard.call("set", partial(self._lower.layer.announce, tuple(values)), budget)
                except LayerError:
                    taken = False
                    if anew:
                        self._lower.not_removed(permit.key)
                    continue
                # Unless a `set` failed meanwhile, which may come before or after this.
                self._lower.settled([key for key in values if changed[key] < math.inf])
        return self._outcome(values, taken=taken, large=large)

    def _outcome(self, values: Mapping[str, Packed], *, taken: bool, large: Collection[str]) -> Outcome:
        """What became of values. `taken`: by all layers below memory; `large`: those that do not fit into memory."""
        if not taken:
            return Outcome(names.LAYER_FAILED)
        if not large:
            return _KEPT
        return Outcome(
            names.BEYOND_MEMORY if self._lower.guards else names.TOO_LARGE, large if len(large) < len(values) else ()
        )

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
