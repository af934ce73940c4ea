"""The layers of one cache, from the fastest to the most lasting, each remote one behind a guard.

The guard gives every call a deadline, stops asking a layer that keeps failing, counts what happens and turns whatever a
layer raises into a `LayerError`. The stack then decides what a failure means: reading, it is a miss; storing, the entry
is missing in that layer; removing, the caller must know.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from . import _breaker
from ._clock import Clock
from ._deadline import Deadline
from ._entry import Entry
from .codecs import ValueCodec, is_immutable, size_of
from .exceptions import LayerError, LayerTimeout, LayerUnavailableError
from .layers.memory import MemoryBackend
from .telemetry import names
from .telemetry.otel import Telemetry
from .typing import Layer

T = TypeVar("T")

_STRIPES = 256
_PAUSE_JITTER = 0.2


class Budget:
    """Seconds that one request may still spend waiting for shared layers."""

    __slots__ = ("left",)

    def __init__(self, left: float) -> None:
        self.left = left


class Guard:
    """Stands in front of one remote layer."""

    def __init__(
        self, layer: Layer, ttl: float, clock: Clock, telemetry: Telemetry, *, threshold: int, pause: float
    ) -> None:
        self.layer = layer
        self.name = layer.name
        self.ttl = ttl
        self._clock = clock
        self._telemetry = telemetry
        self._threshold = threshold
        self._pause = pause
        self._breaker = _breaker.CLOSED
        self._lock = threading.Lock()
        self.hit = telemetry.lookup(layer.name, names.HIT)
        self.miss = telemetry.lookup(layer.name, names.MISS)
        self.error = telemetry.lookup(layer.name, "error")
        self.skipped = telemetry.lookup(layer.name, "skipped")

    async def call(self, operation: str, act: Callable[[], Awaitable[T]], budget: Budget | None) -> T:
        """Do it within the budget (`None`: the layer has deadlines of its own), and charge the time to it.

        Raises:
            LayerUnavailableError: the breaker is open.
            LayerTimeout: the budget was spent.
            LayerError: the layer failed; the cause is attached.
        """
        if budget is not None and budget.left <= 0:
            raise LayerTimeout(self.name, operation)
        begin = self._clock.monotonic()
        probe = self._breaker.kind != "closed"
        if probe and not self._admit(begin, budget):
            raise LayerUnavailableError(self.name, operation)
        problem: LayerError
        try:
            with Deadline(None if budget is None else budget.left):
                result = await act()
        except TimeoutError as error:
            problem = LayerTimeout(self.name, operation)
            problem.__cause__ = error
        except Exception as error:  # noqa: BLE001  # whatever a layer raises is contained here: that is the guard's task
            problem = LayerError(self.name, operation)
            problem.__cause__ = error
        except BaseException:  # cancelled, or its event loop is gone
            self._change(partial(_breaker.released, now=self._clock.monotonic(), probe=probe))
            raise
        else:
            elapsed = self._clock.monotonic() - begin
            if budget is not None:
                budget.left -= elapsed
            if self._breaker is not _breaker.CLOSED:
                self._change(partial(_breaker.succeeded, probe=probe))
            self._telemetry.duration(elapsed, operation, self.name)
            return result
        self._failed(problem, operation, begin, budget, probe)
        raise problem

    def _failed(self, problem: LayerError, operation: str, begin: float, budget: Budget | None, probe: bool) -> None:
        now = self._clock.monotonic()
        if budget is not None:
            budget.left -= now - begin
        pause = self._pause * (1 + _PAUSE_JITTER * (2 * random.random() - 1))
        self._change(partial(_breaker.failed, now=now, probe=probe, threshold=self._threshold, pause=pause))
        kind = "timeout" if isinstance(problem, LayerTimeout) else type(problem.__cause__).__qualname__
        self._telemetry.error(self.name, operation, kind)
        self._telemetry.duration(now - begin, operation, self.name, kind)

    def _admit(self, now: float, budget: Budget | None) -> bool:
        longest = self._pause if budget is None else max(self._pause, budget.left)
        with self._lock:  # of all threads exactly one becomes the probe
            state, admitted = _breaker.admit(self._breaker, now, pause=longest)
            self._note(state)
        return admitted

    def _change(self, step: Callable[[_breaker.Breaker], _breaker.Breaker]) -> None:
        with self._lock:
            self._note(step(self._breaker))

    def _note(self, state: _breaker.Breaker) -> None:
        if state.kind != self._breaker.kind:
            self._telemetry.breaker(self.name, state.kind)
        self._breaker = state


@dataclass(frozen=True, slots=True)
class Packed:
    """A value ready for every layer.

    Attributes:
        value: the object itself.
        payload: its packed form; `None` where no layer needs it, since the object is shared and stays in the process.
        shared: the object may be handed to several callers.
    """

    value: object
    payload: bytes | None
    shared: bool


@dataclass(slots=True)
class Found:
    """An entry found below memory, and the layer that had it."""

    entry: Entry
    layer: str


class Stack:
    """All layers of one cache.

    Args:
        memory: the layer in the process, or `None`.
        memory_ttl: seconds that memory keeps a value when the caller gives no ttl.
        lower: guarded layers, in the order in which they are asked.
        timeout: seconds that one request may wait for them in total.
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
    ) -> None:
        self.memory = memory
        self.lower = tuple(lower)
        self._memory_ttl = memory_ttl
        self.default_ttl = max([guard.ttl for guard in self.lower] or [memory_ttl])
        self._codec = codec
        self._copy = copy
        self._clock = clock
        self.timeout = timeout
        # A removal changes the number of its stripe. A value that was read below before it is not promoted after it.
        self._removals = [0] * _STRIPES

    def budget(self) -> Budget:
        """A fresh budget for one request."""
        return Budget(self.timeout)

    def peek(self, key: str) -> Entry | None:
        """What memory holds, without waiting."""
        return None if self.memory is None else self.memory.peek(key)

    def read(self, entry: Entry) -> object:
        """The value for one reader: the shared object, or a copy of its own."""
        return entry.value if entry.payload is None else self._codec.loads(entry.payload)

    async def lookup(self, key: str, budget: Budget) -> Found | None:
        """Ask the layers below memory, and promote what is found with its remaining life."""
        removals = self._removals[hash(key) % _STRIPES]
        for guard in self.lower:
            try:
                entry = await guard.call("get", partial(guard.layer.lookup, key), budget)
            except LayerUnavailableError:
                guard.skipped.n += 1
                continue
            except LayerError:
                guard.error.n += 1
                continue
            if entry is None:
                guard.miss.n += 1
                continue
            guard.hit.n += 1
            self._promote(key, entry, removals)
            return Found(entry, guard.name)
        return None

    async def lookup_many(self, keys: Iterable[str], budget: Budget) -> dict[str, Found]:
        """The same for many keys, in one round trip for each layer."""
        wanted = list(keys)
        before = {key: self._removals[hash(key) % _STRIPES] for key in wanted}
        found: dict[str, Found] = {}
        for guard in self.lower:
            missing = [key for key in wanted if key not in found]
            if not missing:
                break
            entries: Mapping[str, Entry]
            try:
                entries = await guard.call("get", partial(guard.layer.lookup_many, missing), budget)
            except LayerUnavailableError:
                guard.skipped.n += len(missing)
                continue
            except LayerError:
                guard.error.n += len(missing)
                continue
            guard.hit.n += len(entries)
            guard.miss.n += len(missing) - len(entries)
            for key, entry in entries.items():
                found[key] = Found(entry, guard.name)
                self._promote(key, entry, before[key])
        return found

    def pack(self, value: object, *, trusted: bool = False) -> Packed:
        """Make a value ready for every layer.

        Args:
            trusted: a record of ours, known to be immutable and storable, which needs no check.

        Raises:
            UnstorableValueError: it holds a type that is neither built in nor registered. Also what could be shared
                without packing is checked: otherwise a program works until its cache gets a second layer.
        """
        if not self._copy or (trusted and not self.lower):
            return Packed(value, None, True)
        payload = self._codec.dumps(value)
        return Packed(value, payload, trusted or is_immutable(value))

    def unpack(self, packed: Packed) -> object:
        """The value for one more reader."""
        if packed.shared or packed.payload is None:
            return packed.value
        return self._codec.loads(packed.payload)

    async def store(
        self, values: Mapping[str, Packed], ttl: float | None, budget: Budget, *, stale_for: float = 0.0
    ) -> bool:
        """Keep the values in every layer; true if each took them all.

        Args:
            ttl: seconds > 0; `None`: each layer's own.
            stale_for: seconds after that in which they may still be served in need.
        """
        now = self._clock.monotonic()
        fresh_until = now + (self.default_ttl if ttl is None else ttl)
        complete = True
        for key in values:
            self._removals[hash(key) % _STRIPES] += 1
        if self.memory is not None:
            expires = min(fresh_until + stale_for, now + self._memory_life(ttl, stale_for))
            for key, packed in values.items():
                complete &= self.memory.put(key, _memory_entry(key, packed, fresh_until, expires))
        for guard in self.lower:
            life = guard.ttl if ttl is None else ttl
            entries = {
                key: Entry(packed.value, packed.payload, now + life, now + life + stale_for, 0)
                for key, packed in values.items()
            }
            complete &= await self._store_below(guard, entries, budget)
        return complete

    async def remove(self, key: str, budget: Budget) -> bool:
        """Forget the key everywhere; true if it was there.

        Raises:
            LayerError: a shared layer could not be reached, so others may still see the value.
        """
        existed = self._forget(key)
        problem: LayerError | None = None
        for guard in self.lower:
            try:
                existed |= await guard.call("delete", partial(guard.layer.remove, key), budget)
            except LayerError as error:
                problem = error
        # A reader may have promoted the value between our forgetting it and the removal below.
        self._forget(key)
        if problem is not None:
            raise problem
        return existed

    async def clear(self) -> None:
        """Forget everything of this cache everywhere.

        Raises:
            LayerError: a shared layer could not be reached.
        """
        problem: LayerError | None = None
        await self._forget_all()
        for guard in self.lower:
            try:
                await guard.call("clear", guard.layer.remove_all, None)
            except LayerError as error:
                problem = error
        await self._forget_all()
        if problem is not None:
            raise problem

    async def aclose(self) -> None:
        """Forget what memory holds, and give back the connections of this event loop."""
        if self.memory is not None:
            await self.memory.remove_all()
        for guard in self.lower:
            await guard.layer.aclose()

    def _memory_life(self, ttl: float | None, stale_for: float) -> float:
        if ttl is None:
            return self._memory_ttl
        return min(ttl + stale_for, self._memory_ttl) if self.lower else ttl + stale_for

    def _promote(self, key: str, entry: Entry, removals: int) -> None:
        if self.memory is None:
            return
        stripe = hash(key) % _STRIPES
        expires = min(entry.expires, self._clock.monotonic() + self._memory_ttl)
        value = entry.value if entry.payload is None else None
        # If absent: what a concurrent `set` put there is newer than what was read below.
        promoted = Entry(value, entry.payload, entry.fresh_until, expires, entry.size)
        self.memory.put_if_absent(key, promoted, valid=lambda: self._removals[stripe] == removals)

    async def _store_below(self, guard: Guard, entries: Mapping[str, Entry], budget: Budget) -> bool:
        try:
            if len(entries) == 1:
                ((key, entry),) = entries.items()
                await guard.call("set", partial(guard.layer.store, key, entry), budget)
            else:
                await guard.call("set", partial(guard.layer.store_many, entries), budget)
        except LayerError:
            return False
        return True

    def _forget(self, key: str) -> bool:
        self._removals[hash(key) % _STRIPES] += 1
        return self.memory is not None and self.memory.drop(key)

    async def _forget_all(self) -> None:
        for stripe in range(_STRIPES):
            self._removals[stripe] += 1
        if self.memory is not None:
            await self.memory.remove_all()


def _memory_entry(key: str, packed: Packed, fresh_until: float, expires: float) -> Entry:
    if packed.shared or packed.payload is None:
        return Entry(packed.value, None, fresh_until, expires, len(key) + size_of(packed.value))
    return Entry(None, packed.payload, fresh_until, expires, len(key) + len(packed.payload))
