"""Whether entries that were found below still count, for which the shared layer may have to be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

from ._entry import NO_DETAILS, Entry
from ._first_layer import FirstLayer
from ._guard import Budget, Guard
from .typing import SharedLayer


class Judging:
    """Judges entries by their tags.

    Args:
        guard: in front of the shared layer; `None`: there is none, and what is known here is the truth.
        layer: the shared layer.
    """

    def __init__(self, first: FirstLayer, guard: Guard | None, layer: SharedLayer | None) -> None:
        self._first = first
        self._generations = first.generations
        self._guard = guard
        self._layer = layer

    async def one(self, entry: Entry, tags: tuple[str, ...], budget: Budget) -> Entry | None:
        """The entry, if it is not out of date; stale if it was made so."""
        verdict = self._generations.judge(entry.generation, tags)
        if verdict == "unknown":
            await self.learn(tags, budget)
            verdict = self._generations.judge(entry.generation, tags)
        if verdict == "valid":
            return entry
        return self._first.aged(entry) if verdict == "soft" else None

    async def many(self, entries: Mapping[str, Entry], budget: Budget) -> Mapping[str, Entry]:
        """Those that are not out of date; one question for all tags that are not known."""
        judge, implied = self._generations.judge, self._first.implied
        others: dict[str, tuple[str, ...]] = {}
        self._generations.saw(max((entry.generation for entry in entries.values()), default=0))
        for key, entry in entries.items():
            tags = implied(key)
            if entry.details is not NO_DETAILS:
                tags += entry.details.tags
            if judge(entry.generation, tags) != "valid":
                others[key] = tags
        if not others:
            return entries
        await self.learn(list(dict.fromkeys(chain.from_iterable(others.values()))), budget)
        judged = {key: await self.one(entries[key], tags, budget) for key, tags in others.items()}
        found = {key: judged.get(key, entry) for key, entry in entries.items()}
        return {key: entry for key, entry in found.items() if entry is not None}

    async def learn(self, tags: Sequence[str], budget: Budget) -> None:
        """Ask for those tags that are not known.

        Raises:
            LayerError: nobody answers.
        """
        unknown = self._generations.unknown(tags)
        if self._guard is not None and self._layer is not None and unknown:
            act = partial(self._layer.generations, unknown)
            self._generations.learn(await self._guard.call("tags", act, budget))
