"""Forgetting, in every layer of a cache. Where a layer fails, the caller must know, as others may still see it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

from ._entry import Entry
from ._first_layer import FirstLayer
from ._guard import Budget, Guard
from ._judging import Judging
from ._leases import Permit
from ._lower_layers import LowerLayers
from ._tags import EVERYTHING
from .exceptions import LayerError


class Removing:
    """Forgets keys, what has a tag, and everything.

    Args:
        timeout: seconds for `clear` in total, unless it is told.
    """

    def __init__(self, first: FirstLayer, lower: LowerLayers, judging: Judging, timeout: float) -> None:
        self._first = first
        self._memory = first.memory
        self._generations = first.generations
        self._lower = lower
        self._judging = judging
        self._timeout = timeout

    async def remove(self, key: str, budget: Budget) -> bool:
        """Forget the key everywhere; true if it was there.

        Raises:
            LayerError: a shared layer could not be reached, so others may still see the value.
        """
        existed = self._first.forget(key)
        problem: LayerError | None = None
        for guard in self._lower.guards:
            try:
                if guard is self._lower.shared:
                    existed |= await self.take(guard, key, budget)
                elif await guard.call("delete", partial(guard.layer.remove, key), budget):
                    guard.invalidated.n += 1
                    existed = True
            except LayerError as error:
                # What lies below the shared layer counts only if that says so, and it was told.
                if guard in self._lower.upper:
                    problem = error
        # A reader may have promoted the value between our forgetting it and the removal below.
        self._first.forget(key)
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
        entry = None if self._memory is None else self._memory.peek(key)
        older = entry is not None and self._lower.shared is not None and entry.generation <= permit.generation
        if self._memory is not None and entry is not None and (older or entry is present):
            self._first.count_removals((key,))
            self._first.lose(key, entry)
        for guard in self._lower.guards:
            try:
                if guard is not self._lower.shared:
                    await guard.call("delete", partial(guard.layer.remove, key), budget)
                    continue
                below = await guard.call("get", partial(self._lower.layer.lookup, key), budget)
                if below is None or below.generation <= permit.generation:
                    await self.take(guard, key, budget)
            except LayerError:
                if guard is self._lower.shared:
                    self._lower.not_removed(key)

    async def invalidate(
        self, tags: Sequence[str], *, soft: bool, budget: Budget, operation: str = "invalidate"
    ) -> None:
        """Make all entries with one of the tags out of date; with `soft` they are stale.

        Raises:
            LayerError: a shared layer could not be reached, so other processes may still see them; this one does not.
        """
        if self._lower.shared is None:
            self._generations.invalidate_here(tags, soft=soft)
            return
        act = partial(self._lower.layer.invalidate, tags, soft=soft, known=self._generations.latest)
        try:
            generation = await self._lower.shared.call(operation, act, budget)
        except LayerError:
            self._generations.invalidate_here(tags, soft=soft)
            self._lower.not_invalidated(tuple(tags), soft=soft)
            raise
        self._generations.invalidated(tags, generation, soft=soft)

    async def clear(self, budget: Budget | None = None) -> None:
        """Forget everything of this cache everywhere.

        Raises:
            LayerError: a shared layer could not be reached.
        """
        problem: LayerError | None = None
        await self._first.forget_all()
        try:
            await self.invalidate((EVERYTHING,), soft=False, budget=budget or Budget(self._timeout), operation="clear")
        except LayerError as error:
            problem = error
        for guard in self._lower.guards:
            if guard is self._lower.shared:
                continue
            try:
                await guard.call("clear", guard.layer.remove_all, None)
            except LayerError as error:
                if guard in self._lower.upper:
                    problem = error
        await self._first.forget_all()
        if problem is not None:
            raise problem

    async def take(self, guard: Guard, key: str, budget: Budget) -> bool:
        """Forget the key in the shared layer; true if it was there and not out of date.

        Raises:
            LayerError: it did not answer, and is told later.
        """
        try:
            entry = await guard.call("delete", partial(self._lower.layer.take, key), budget)
        except LayerError:
            self._lower.not_removed(key)
            raise
        self._lower.settled((key,))
        if entry is None:
            return False
        guard.invalidated.n += 1
        tags = self._first.tags(key, entry)
        with contextlib.suppress(LayerError):  # it is gone in any case
            await self._judging.learn(tags, budget)
        return self._generations.judge(entry.generation, tags) != "invalid"
