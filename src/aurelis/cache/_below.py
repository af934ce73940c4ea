"""Layers below the one that is shared: what that has lost they may still have, and they may have what is long gone.

Whoever changes a key or a tag tells the shared layer, and need not have heard of this machine's disk. So an entry from
there counts only if the shared layer says so: for its tags, for all that lies below, and for the key itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from secrets import token_hex

from . import _tags
from ._clock import Clock
from ._entry import Entry
from ._first_layer import FirstLayer, Found
from ._guard import Budget, Guard
from ._judging import Judging
from .exceptions import LayerError, LayerUnavailableError
from .typing import SharedLayer


class Below:
    """Looks below the shared layer.

    Args:
        guards: in front of the layers, in the order in which they are asked.
        shared: in front of the shared layer.
        layer: the shared layer.
        trust: seconds after it was stored for which an entry may be served while the shared layer is silent.
        lease: seconds that it may take to put an entry into the shared layer.
    """

    def __init__(
        self,
        first: FirstLayer,
        judging: Judging,
        guards: Sequence[Guard],
        shared: Guard,
        layer: SharedLayer,
        clock: Clock,
        *,
        trust: float,
        lease: float,
    ) -> None:
        self._first = first
        self._generations = first.generations
        self._judging = judging
        self._guards = guards
        self._shared = shared
        self._layer = layer
        self._clock = clock
        self._trust = trust
        self._lease = lease

    async def lookup(
        self, key: str, budget: Budget, removals: int, mark: int, memory_ttl: float = math.inf
    ) -> Found | None:
        """An entry that counts, which goes into the layers above if it is fresh. See `FirstLayer.promote`."""
        for guard in self._guards:
            try:
                entry = await guard.call("get", partial(guard.layer.lookup, key), budget)
            except LayerUnavailableError:
                guard.skipped.n += 1
                continue
            except LayerError:
                guard.error.n += 1
                continue
            judged, confirmed = ({}, True) if entry is None else await self._judge({key: entry}, budget)
            if entry is None or key not in judged:
                guard.miss.n += 1
                continue
            guard.hit.n += 1
            if not confirmed:
                # Not into memory: it would be served for longer than anything that nobody has confirmed may be.
                return self._first.in_need(key) or Found(judged[key], guard.name)
            if judged[key] is entry and entry.fresh_until > self._clock.monotonic():
                await self._lift(key, entry, budget)
            self._first.promote(key, judged[key], removals, mark, memory_ttl)
            return Found(judged[key], guard.name)
        return None

    async def lookup_many(
        self, keys: Sequence[str], budget: Budget, removals: Mapping[str, int], mark: int
    ) -> dict[str, Found]:
        """The same for many keys, in one round trip for each layer. They go into memory only."""
        found: dict[str, Found] = {}
        for guard in self._guards:
            missing = [key for key in keys if key not in found]
            if not missing:
                break
            try:
                entries = await guard.call("get", partial(guard.layer.lookup_many, missing), budget)
            except LayerUnavailableError:
                guard.skipped.add(len(missing))
                continue
            except LayerError:
                guard.error.add(len(missing))
                continue
            judged, confirmed = await self._judge(entries, budget)
            guard.hit.add(len(judged))
            guard.miss.add(len(missing) - len(judged))
            for key, entry in judged.items():
                found[key] = Found(entry, guard.name)
                if confirmed:
                    self._first.promote(key, entry, removals[key], mark)
                else:
                    found[key] = self._first.in_need(key) or found[key]
        return found

    async def _judge(self, entries: Mapping[str, Entry], budget: Budget) -> tuple[Mapping[str, Entry], bool]:
        """Those that count, and whether the shared layer has said so."""
        if not entries:
            return {}, True
        self._generations.saw(max(entry.generation for entry in entries.values()))
        tags = {key: (*self._first.tags(key, entry), _tags.BELOW) for key, entry in entries.items()}
        every = list(dict.fromkeys(chain.from_iterable(tags.values())))
        kept: dict[str, Entry] = {}
        try:
            records = await self._judging.learn(every, budget, keys=entries)
            for key, entry in entries.items():
                if records[_tags.own(key)][0] <= entry.generation:
                    judged = await self._judging.one(entry, tags[key], budget)
                    if judged is not None:
                        kept[key] = judged
        except LayerError:
            return {
                key: judged for key, entry in entries.items() if (judged := self._in_need(entry, tags[key])) is not None
            }, False
        return kept, True

    def _in_need(self, entry: Entry, tags: Sequence[str]) -> Entry | None:
        """The shared layer is silent, as for what is in memory: then what was stored a short while ago has to do."""
        if entry.stored <= self._clock.monotonic() - self._trust:
            return None
        verdict = self._generations.judge(entry.generation, tags, in_need=True)
        if verdict == "invalid":
            return None
        return self._first.aged(entry) if verdict == "soft" else entry

    async def _lift(self, key: str, entry: Entry, budget: Budget) -> None:
        """Put it into the shared layer again, unless it is changed meanwhile."""
        with contextlib.suppress(LayerError):  # then it stays where it is
            act = partial(self._layer.acquire, key, token_hex(16).encode(), again=False, life=self._lease)
            answer = await self._shared.call("acquire", act, budget)
            if not answer.own:
                return  # there is one again, or somebody loads
            # A change before the lease is seen now, and one after it ends the lease.
            judged, confirmed = await self._judge({key: entry}, budget)
            if confirmed and judged.get(key) is entry:
                store = partial(self._layer.publish, key, answer.lease, {key: entry}, release=True)
                await self._shared.call("set", store, budget)
            else:
                await self._shared.call("release", partial(self._layer.release, key, answer.lease), budget)
