"""What is ready in a simulated event loop, and which of it runs next."""

from __future__ import annotations

import asyncio
import random
from bisect import insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

_STEP_OF_TASK = {"TaskStepMethWrapper", "__step"}  # the callback that runs a task on, in C and in Python


@dataclass(order=True, slots=True)
class _Ready:
    """A handle that may run next. They are kept in this order, so that no choice depends on addresses in memory."""

    owner: int
    number: int
    weight: float = field(compare=False)
    handle: asyncio.Handle = field(compare=False)


class Order:
    """Chooses at random, with a seed, within what asyncio promises.

    `call_soon` promises to keep the order of its callbacks: of these only the first may be chosen. Whatever belongs to
    a task, to a future that is done, or to a timer competes with all others.

    Tasks and futures have numbers. A task also has a weight, its speed: one that is slow throughout shows what a walk
    with even chances would hardly ever try.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._spread = self.random.choice((0.0, 0.5, 1.0))  # powers of ten by which the speed of tasks differs
        self._free: list[_Ready] = []
        self._queue: deque[asyncio.Handle] = deque()
        self._numbers: WeakKeyDictionary[Any, tuple[int, float]] = WeakKeyDictionary()
        self._count = 0

    def number(self, owner: object) -> int:
        """Returns the number of a task or future; it gets the next one at first sight."""
        return self._describe(owner)[0]

    def tasks(self) -> Iterator[asyncio.Task[Any]]:
        """The tasks that still exist, in the order in which they were made."""
        known = sorted(
            (described, owner) for owner, described in self._numbers.items() if isinstance(owner, asyncio.Task)
        )
        return iter([task for _, task in known])

    def add_free(self, handle: asyncio.Handle) -> None:
        """Adds what may overtake, and be overtaken by, everything."""
        insort(self._free, _Ready(self._next(), 0, 1.0, handle))

    def add(self, handle: asyncio.Handle) -> None:
        """Adds what was given to `call_soon`, by the user or by asyncio itself."""
        callback, arguments = getattr(handle, "_callback", None), handle._args or ()
        bound = getattr(callback, "__self__", None)
        task = bound if isinstance(bound, asyncio.Task) else None
        if len(arguments) == 1 and asyncio.isfuture(arguments[0]) and arguments[0].done():
            self._add_owned(task or arguments[0], handle)  # called because that future is done
        elif task is not None and getattr(callback, "__name__", type(callback).__name__) in _STEP_OF_TASK:
            self._add_owned(task, handle)
        else:
            self._queue.append(handle)

    def drop_cancelled(self) -> bool:
        """Forgets what is not to run; returns whether anything is left."""
        self._free = [ready for ready in self._free if not ready.handle.cancelled()]
        while self._queue and self._queue[0].cancelled():
            self._queue.popleft()
        return bool(self._free or self._queue)

    def choose(self) -> tuple[str, asyncio.Handle]:
        """Takes out what runs next; returns the number of its task or future, if it has one, and the handle."""
        weights = [ready.weight for ready in self._free]
        if self._queue:
            weights.append(1.0)
        (chosen,) = self.random.choices(range(len(weights)), weights)
        if chosen == len(self._free):
            return "-", self._queue.popleft()
        ready = self._free.pop(chosen)
        return str(ready.owner), ready.handle

    def _add_owned(self, owner: object, handle: asyncio.Handle) -> None:
        number, weight = self._describe(owner)
        insort(self._free, _Ready(number, self._next(), weight, handle))

    def _describe(self, owner: object) -> tuple[int, float]:
        # A task is first seen when it is made, because its constructor schedules its first step.
        if owner not in self._numbers:
            spread = self._spread if isinstance(owner, asyncio.Task) else 0.0
            self._numbers[owner] = self._next(), 10 ** self.random.uniform(-spread, spread)
        return self._numbers[owner]

    def _next(self) -> int:
        self._count += 1
        return self._count
