"""Whether entries that were found below still count, for which the shared layer may have to be asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain

from . import _tags
from ._entry import NO_DETAILS, Entry
from ._first_layer import FirstLayer
from ._guard import Budget, Guard
from .typing import SharedLayer


class Judging:
    """Judges entries by their tags.

    Args:
        guard: in front of the shared layer; `None`: there is none, and what is known here is the truth.
        layer: the shared layer.
        below: there are layers below it, where what it says of keys themselves counts.
    """

    def __init__(self, first: FirstLayer, guard: Guard | None, layer: SharedLayer | None, *, below: bool) -> None:
        self._first = first
        self._generations = first.generations
        self._guard = guard
        self._layer = layer
        self._below = below

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

    async def learn(
        self, tags: Sequence[str], budget: Budget, *, keys: Iterable[str] = ()
    ) -> Mapping[str, tuple[int, int]]:
        """Ask for those tags that are not known, and for those of keys themselves if there are layers below.

        Returns:
            What was asked for. What is said of keys is not kept: it would be as much as all else that is known.

        Raises:
            LayerError: nobody answers.
        """
        own = [_tags.own(key) for key in keys] if self._below else []
        # Before a load too, since a tag without a record begins with what is known then.
        unknown = self._generations.unknown((*tags, _tags.BELOW) if own else tags)
        if self._guard is None or self._layer is None or not (unknown or own):
            return {}
        records = await self._guard.call("tags", partial(self._layer.generations, [*unknown, *own]), budget)
        self._generations.learn({tag: records[tag] for tag in unknown})
        return records
