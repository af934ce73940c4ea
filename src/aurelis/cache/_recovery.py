"""What could not be told to the shared layer yet, and is told as soon as it answers again.

Until then this process treats what is waiting as told: it does not read such a key from the shared layer, and nothing
with such a tag is valid. The last intent for a key wins.

A value that could not be stored is stored later only if nothing at all was changed by anybody since, which the clock of
the shared layer says; otherwise its key is removed, so that nobody reads what is older. Both leave no wrong value.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Any, Final, TypeVar

from ._clock import Clock
from ._entry import Entry
from ._forking import renew_in_children
from ._generations import Generations
from ._guard import Budget, Guard
from ._tags import EVERYTHING
from .exceptions import LayerError
from .telemetry._spans import Made, mark_failed
from .telemetry.otel import Telemetry
from .typing import SharedLayer

T = TypeVar("T")

_MAX_VALUES: Final = 1_000
_MAX_INTENTS: Final = 100_000
_FIRST_PAUSE: Final = 0.1
_LAST_PAUSE: Final = 5.0
_LONGEST_ATTEMPT: Final = 30.0


@dataclass(slots=True, eq=False)
class _KeyIntent:
    """What is to become of a key. `entry`: to be stored; `None`: the key is to be removed."""

    entry: Entry | None


@dataclass(slots=True, eq=False)
class _TagIntent:
    """A tag is to be invalidated."""

    soft: bool


class Recovery:
    """The intents of one cache.

    One that has been told is done with, unless a later one of the same key or tag has taken its place meanwhile.

    Args:
        guard: in front of the shared layer.
        timeout: seconds for each attempt, if that is not longer than any answer takes.
        spawn: runs something in the background.
        forget: forgets a key in memory, as the shared layer has now.
    """

    def __init__(
        self,
        guard: Guard,
        generations: Generations,
        telemetry: Telemetry,
        clock: Clock,
        timeout: float,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        forget: Callable[[str], object],
    ) -> None:
        assert isinstance(guard.layer, SharedLayer)
        self._guard = guard
        self._layer: SharedLayer = guard.layer
        self._generations = generations
        self._telemetry = telemetry
        self._clock = clock
        self._timeout = min(timeout, _LONGEST_ATTEMPT)
        self._spawn = spawn
        self._forget_in_memory = forget
        self._lock = threading.Lock()
        self._running = False
        self.closed = False
        self.keys: dict[str, _KeyIntent] = {}
        self.tags: dict[str, _TagIntent] = {}
        self._values = 0
        renew_in_children(self)

    def after_fork(self) -> None:
        """The parent tells what it could not."""
        self._lock = threading.Lock()
        self._running = False
        self.keys, self.tags, self._values = {}, {}, 0
        self._generations.pending = frozenset()

    @property
    def pending(self) -> int:
        """Intents that wait."""
        return len(self.keys) + len(self.tags)

    def not_stored(self, entries: Mapping[str, Entry]) -> None:
        """These values could not be stored."""
        with self._lock:
            for key, entry in entries.items():
                # Too many to keep: the key is removed later, so that nobody reads an older value.
                self._intend(key, entry if self._values < _MAX_VALUES else None)
        self._wake()

    def not_removed(self, key: str) -> None:
        """This key could not be removed."""
        with self._lock:
            self._intend(key, None)
        self._wake()

    def not_invalidated(self, tags: tuple[str, ...], *, soft: bool) -> None:
        """These tags could not be invalidated."""
        with self._lock:
            for tag in tags:
                self.tags[tag] = _TagIntent(soft and (tag not in self.tags or self.tags[tag].soft))
            if len(self.tags) > _MAX_INTENTS:
                self._intend_everything()
            self._generations.pending = frozenset(self.tags)
        self._wake()

    def settled(self, keys: Iterable[str]) -> None:
        """Something later has been told about these keys."""
        if self.keys:
            with self._lock:
                for key in keys:
                    self._forget(key)

    def _intend(self, key: str, entry: Entry | None) -> None:
        self._forget(key)
        self.keys[key] = _KeyIntent(entry)
        self._values += entry is not None
        if len(self.keys) > _MAX_INTENTS:
            self._intend_everything()

    def _forget(self, key: str) -> None:
        if key in self.keys:
            self._values -= self.keys.pop(key).entry is not None

    def _intend_everything(self) -> None:
        # One intent that says more than all of them.
        self.keys.clear()
        self.tags = {EVERYTHING: _TagIntent(False)}
        self._values = 0
        self._generations.pending = frozenset(self.tags)

    # Telling

    def _wake(self) -> None:
        with self._lock:
            if self._running or self.closed:
                return
            self._running = True
        self._spawn(self._run())

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        try:
            while self.pending and not self.closed:
                # Not all processes at once, when the layer has just come back.
                await asyncio.sleep(pause * (0.5 + random.random()))
                with self._telemetry.spans.apart("recover", None) as span:
                    told = await self._attempt(span)
                pause = _FIRST_PAUSE if told else min(pause * 2, _LAST_PAUSE)
        finally:
            with self._lock:
                self._running = False
        if self.pending and not self.closed:  # something came between the last look and the end
            self._wake()

    async def _attempt(self, span: Made) -> bool:
        """Tell what waits, until something fails; whether something was told."""
        told = 0
        try:
            # Values first: storing them changes no clock, and removing the others does.
            waiting = [(key, intent) for key, intent in self.keys.items() if intent.entry is not None]
            stored = {key: intent for key, intent in waiting if await self._tell_value(key, intent)}
            if stored:
                await self._call("set", partial(self._layer.announce, tuple(stored)))
                for key, intent in stored.items():
                    self._told(key, intent, "stored")
                told += len(stored)
            for key, intent in list(self.keys.items()):
                if intent.entry is None and self.keys.get(key) is intent:
                    await self._call("delete", partial(self._layer.take, key))
                    self._told(key, intent, "removed")
                    self._forget_in_memory(key)
                    told += 1
            for soft in (False, True):
                tags = {tag: intent for tag, intent in self.tags.items() if intent.soft is soft}
                if tags:
                    known = self._generations.latest
                    act = partial(self._layer.invalidate, tuple(tags), soft=soft, known=known)
                    self._generations.invalidated(tags, await self._call("invalidate", act), soft=soft)
                    self._told_tags(tags)
                    told += len(tags)
        except LayerError as error:
            mark_failed(span, type(error.__cause__ or error).__qualname__)
            return told > 0
        return True

    async def _tell_value(self, key: str, intent: _KeyIntent) -> bool:
        entry = intent.entry
        if entry is not None and entry.expires > self._clock.monotonic():
            life = max(1.0, self._timeout * 4)
            token = token_hex(16).encode()
            answer = await self._call("acquire", partial(self._layer.acquire, key, token, again=True, life=life))
            if answer.own and answer.generation <= entry.generation:
                act = partial(self._layer.publish, key, answer.lease, {key: entry}, release=True)
                if await self._call("set", act):
                    return True
        with self._lock:
            if self.keys.get(key) is intent:
                self._intend(key, None)
        return False

    async def _call(self, operation: str, act: Callable[[], Awaitable[T]]) -> T:
        return await self._guard.call(operation, act, Budget(self._timeout))

    def _told(self, key: str, intent: _KeyIntent, result: str) -> None:
        with self._lock:
            if self.keys.get(key) is intent:
                self._forget(key)
        self._telemetry.recovered(result)

    def _told_tags(self, tags: Mapping[str, _TagIntent]) -> None:
        with self._lock:
            for tag, intent in tags.items():
                if self.tags.get(tag) is intent:
                    del self.tags[tag]
            self._generations.pending = frozenset(self.tags)
        self._telemetry.recovered("invalidated", len(tags))
