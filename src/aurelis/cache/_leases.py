"""Who loads a key, agreed with other processes, and what a load must show when its result is to be stored."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ._first_layer import FirstLayer, Found
from ._guard import Budget, Guard
from ._judging import Judging
from .exceptions import LayerError
from .typing import SharedLayer


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


class Leases:
    """Leases of the shared layer; without one, every load may begin and be stored.

    Args:
        guard: in front of the shared layer, or `None`.
        layer: the shared layer.
        timeout: seconds for what no request waits for.
        is_waiting: whether the shared layer has not been told the last about a key.
    """

    def __init__(
        self,
        first: FirstLayer,
        judging: Judging,
        guard: Guard | None,
        layer: SharedLayer | None,
        timeout: float,
        is_waiting: Callable[[str], bool],
    ) -> None:
        self._first = first
        self._generations = first.generations
        self._judging = judging
        self._guard = guard
        self._shared_layer = layer
        self._timeout = timeout
        self._is_waiting = is_waiting

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
        guard = self._guard
        if guard is None:
            return None, self.permit(key)
        layer = self._layer
        removals = self._first.removals(key)
        mark = self._generations.mark
        again = again or self._is_waiting(key)
        try:
            # First, as a tag without a record begins with what is known then.
            await self._judging.learn((*self._first.implied(key), *tags), budget, keys=(key,))
            answer = await guard.call("acquire", partial(layer.acquire, key, token, again=again, life=life), budget)
            self._generations.saw(answer.generation)
            permit = Permit(key, answer.generation, answer.lease, answer.own, mark)
            if answer.entry is None:
                return None, permit
            entry = await self._judging.one(answer.entry, self._first.tags(key, answer.entry), budget)
        except LayerError:
            return None, self.permit(key)
        if entry is None:  # out of date, and so no reason not to load
            return await self.acquire(key, token, budget, tags=tags, again=True, life=life, memory_ttl=memory_ttl)
        self._first.promote(key, entry, removals, mark, memory_ttl)
        return Found(entry, guard.name), permit

    def permit(self, key: str) -> Permit:
        """The permit of a load that begins now, without a lease."""
        return Permit(key, self._generations.latest, mark=self._generations.mark)

    async def renew(self, permit: Permit, life: float) -> bool:
        """Keep the lease of a load that is still running; false if it is lost."""
        guard = self._guard
        if guard is None or permit.fence is None:
            return False
        try:
            return await guard.call(
                "renew", partial(self._layer.renew, permit.key, permit.fence, life), Budget(self._timeout)
            )
        except LayerError:
            return True  # not known

    async def holds(self, permit: Permit, tags: Sequence[str], life: float) -> bool:
        """Whether nothing is known to have overtaken a load that is still running, after asking the shared layer.

        Args:
            life: as for `renew`, which this does.
        """
        if self._guard is None:
            return True
        try:
            act = partial(self._layer.generations, tags)
            self._generations.learn(await self._guard.call("tags", act, Budget(self._timeout)))
        except LayerError:
            return True  # not known
        if self._generations.judge(permit.generation, tags, in_need=True) != "valid":
            return False
        return not permit.owner or await self.renew(permit, life)

    async def release(self, permit: Permit, budget: Budget) -> None:
        """Let another process load, since this load has nothing to store."""
        guard = self._guard
        if guard is None or not permit.owner or permit.fence is None:
            return
        with contextlib.suppress(LayerError):  # it ends by itself
            await guard.call("release", partial(self._layer.release, permit.key, permit.fence), budget)

    @property
    def _layer(self) -> SharedLayer:
        assert self._shared_layer is not None
        return self._shared_layer
