"""The engine: carries out what policies decide, with one load per key at a time.

This module reads, keeps and removes Python values; `_computing` loads them, and `exchange` serves messages with a head
and a body, all on the same flights and layers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from secrets import token_hex
from typing import Any, Final, TypeVar

from ._bridge import Bridge, run_inline
from ._clock import Clock
from ._entry import NO_DETAILS, Details, Entry
from ._failures import Failures
from ._filling import Filling, filling
from ._first_layer import Found
from ._flight import Flight
from ._flights import Flights
from ._forking import renew_in_children
from ._gate import Gate
from ._guard import Budget
from ._leases import Permit
from ._listening import Listening
from ._packing import Keep, Packed
from ._searching import remove_matching
from ._softening import soften
from ._stack import Stack
from ._trouble import Incidents
from ._writes import Writes
from .exceptions import CacheClosedError, CacheError, LayerError
from .telemetry import names
from .telemetry._spans import Attributes, described, get_current_context, tell
from .telemetry.otel import SAMPLE_MASK, Telemetry

T = TypeVar("T")


_APART_BITS: Final = 2**16


class _Missing:
    """Says that nothing was found, where `None` is a value like any other."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class Engine:
    """Layers, flights and counts of one cache.

    Attributes:
        stack: the layers.
        flights: the loads under way.
        failures: what keys have failed with lately, where that is to be remembered.
        writes: those to a data store that the cache follows.
        telemetry: the counts.
    """

    def __init__(self, stack: Stack, telemetry: Telemetry, clock: Clock) -> None:
        self.stack = stack
        self.telemetry = telemetry
        self.clock = clock
        self.flights = Flights()
        self.failures = Failures(stack.state)
        self.bridge = Bridge()
        self.writes = Writes()
        self.listening: Listening | None = None
        self.closed = False
        self._closer: asyncio.AbstractEventLoop | None = None
        self._ended = Gate()
        self._apart = bytearray(_APART_BITS // 8)
        self._stood_in = Incidents("a load failed, and what is stale stands in")
        self._unheard = Incidents("a load that nobody waits for failed")
        # The fast path reads these directly: each attribute hop would show in its budget.
        self._entries = {} if stack.memory is None else stack.memory.entries
        self._loads = stack.read
        self._generations = stack.generations
        self._monotonic = clock.monotonic
        self._hit = telemetry.hit_l1
        self._observes_hits = telemetry.spans.attributes or telemetry.spans.on_hit
        self._makes_spans = telemetry.spans.on_hit
        renew_in_children(self)

    # The fast path

    def read_memory(self, key: str) -> object:
        """The value that memory holds, or `MISSING`; counts a hit. Never waits, takes no lock, makes no span."""
        now = self._monotonic()
        try:
            entry = self._entries[key]
        except KeyError:
            return MISSING
        if entry.until <= now:
            return MISSING
        if entry.mark != self._generations.mark:
            known = self.stack.peek(key)  # looks whether an invalidation has overtaken it
            if known is None or known.until <= now:
                return MISSING
            entry = known
        hit = self._hit
        hit.n = count = hit.n + 1
        if not count & SAMPLE_MASK:
            self.telemetry.duration(self._monotonic() - now, "get", names.L1)
        if self._observes_hits and (get_current_context() or self._makes_spans):
            self.telemetry.spans.note(names.HIT, names.L1, key, ttl=entry.fresh_until - now)
        return entry.value if entry.payload is None else self._loads(entry)

    def peek(self, key: str, now: float) -> Entry | None:
        """The entry that memory holds, uncounted, perhaps stale. `now`: monotonic, seconds. Never waits."""
        try:
            entry = self._entries[key]
        except KeyError:
            return None
        # The stack lets go of what has expired, and looks whether an invalidation has overtaken it.
        return entry if now < entry.expires and entry.mark == self._generations.mark else self.stack.peek(key, now)

    def count_memory_hit(self, begin: float) -> object:
        """The counting of `read_memory`, for a hit that was found otherwise.

        Args:
            begin: monotonic, seconds.

        Returns:
            Something true if spans are to be told.
        """
        hit = self._hit
        hit.n = count = hit.n + 1
        if not count & SAMPLE_MASK:
            self.telemetry.duration(self._monotonic() - begin, "get", names.L1)
        return self._observes_hits and (get_current_context() or self._makes_spans)

    def note(
        self,
        result: str,
        layer: str = "",
        key: str | None = None,
        *,
        ttl: float = math.inf,
        age: int | None = None,
        fwd: str = "",
        stale: str = "",
    ) -> None:
        """`Spans.note`, where there may be a span to tell."""
        if self._observes_hits and (get_current_context() or self._makes_spans):
            self.telemetry.spans.note(result, layer, key, ttl=ttl, age=age, fwd=fwd, stale=stale)

    def note_failure(self, cause: str | int, *, stale: bool, unheard: bool) -> None:
        """Tell the log of a load that has failed, if none of those who wait would hear of it.

        Args:
            cause: the type of an error, or a status of HTTP.
            stale: what is stale takes the place of the error.
            unheard: nobody waits for it.
        """
        if stale or unheard:
            cause = f"status {cause}" if isinstance(cause, int) else self.telemetry.error_kind(cause)
            (self._stood_in if stale else self._unheard).met(cause, self._monotonic())

    def count_negative(self) -> None:
        """Count a request that was answered with a failure that is remembered."""
        self.telemetry.lookup(names.L1, names.NEGATIVE).n += 1
        self.telemetry.request(names.HIT, names.NEGATIVE).n += 1

    # Values

    async def get(self, key: str) -> object:
        """The value from the layers below memory, or `MISSING`. To be called after `read_memory` found nothing."""
        self.check(key)
        telemetry = self.telemetry
        if key in self._entries:  # to be refreshed, perhaps, but there is nobody here who could
            now = self._monotonic()
            entry = self.peek(key, now)
            if entry is not None and now < entry.fresh_until:
                if self.count_memory_hit(now):
                    telemetry.spans.note(names.HIT, names.L1, key, ttl=entry.fresh_until - now)
                return self.stack.read(entry)
        telemetry.miss_l1.n += 1
        if not self.stack.lower:
            telemetry.miss.n += 1
            self.note(names.MISS, key=key)
            return MISSING
        with telemetry.spans.around("get", key) as span:
            found = None
            try:
                known = self.listening is None or self.listening.started
                found = self._fresh(await self.stack.lookup(key, self.stack.budget() if known else await self.ready()))
            finally:  # a caller that leaves before there is an answer had none
                if found is None:
                    telemetry.miss.n += 1
                else:
                    telemetry.request(names.HIT, found.layer).n += 1
            if span is not None:
                tell(span, self.result_of(found))
        return MISSING if found is None else self.value(found)

    async def get_many(self, keys: list[str]) -> dict[str, object]:
        """The values found, each key counted as one request."""
        values: dict[str, object] = {}
        keys = list(dict.fromkeys(keys))
        if self._entries:
            for key in keys:
                if key in self._entries:
                    now = self._monotonic()
                    entry = self.peek(key, now)
                    if entry is not None and now < entry.fresh_until:
                        self.count_memory_hit(now)
                        values[key] = self.stack.read(entry)
        missing = [key for key in keys if key not in values] if values else keys
        only = keys[0] if len(keys) == 1 else None
        if missing:
            for key in missing:
                self.check(key)
            self.telemetry.miss_l1.add(len(missing))
            before = len(values)
            layers = {names.L1} if values else set()
            found: list[tuple[str, Mapping[str, Entry]]] = []
            try:
                if self.stack.lower:
                    with self.telemetry.spans.around("get", only) as span:
                        found = await self.stack.lookup_many(missing, await self.ready())
                        now = self._monotonic()
                        for layer, entries in found:
                            own = layer == names.L1
                            fresh = {
                                key: self.stack.read(entry) if own else entry.value
                                for key, entry in entries.items()
                                if now < entry.fresh_until
                            }
                            if fresh:
                                layers.add(layer)
                            self.telemetry.request(names.HIT, layer).add(len(fresh))
                            values.update(fresh)
                        if span is not None:
                            tell(span, _result_of_many(layers, complete=len(values) == len(keys)))
            finally:  # as in `get`
                self.telemetry.miss.add(len(missing) - (len(values) - before))
            if not self.stack.lower:
                self.note(names.MISS, key=only)
            if len(found) == 1 and not before:
                return values  # in the order asked
        elif keys:
            self.note(names.HIT, names.L1, only)
        return {key: values[key] for key in keys if key in values}

    async def set_many(self, values: dict[str, object], ttl: float | None, tags: tuple[str, ...] = ()) -> bool:
        """Keep the values; true if every layer took them all."""
        for key in values:
            self.check(key)
        return await self.keep({key: self.stack.pack(value) for key, value in values.items()}, ttl, tags)

    async def keep(self, values: dict[str, Packed], ttl: float | None, tags: tuple[str, ...] = ()) -> bool:
        """`set_many` of what is ready for the layers."""
        # A load that began before must not replace what is set now.
        budget = await self.after([self.flights.fence(key) for key in values])
        try:
            if ttl == 0:
                removed = True
                for key in values:
                    try:
                        await self.stack.remove(key, budget)
                    except LayerError:
                        removed = False
                return removed
            keep = Keep(ttl, details=Details(tags) if tags else NO_DETAILS)
            outcome = await self.stack.store(values, keep, budget)
        finally:
            for key in values:
                self.flights.fence(key)  # a load that found the old value while the new one was on its way
        for key in values:
            self.telemetry.store(outcome.of(key))
        return outcome.result == names.KEPT

    async def delete(self, key: str) -> bool:
        """Forget the key; true if it was there."""
        self.check(key)
        self.telemetry.deleted.n += 1  # from here on it counts for loads, whatever becomes of the caller
        budget = await self.after([self.flights.fence(key)])
        try:
            return await self.stack.remove(key, budget)
        finally:
            self.flights.fence(key)  # a load that joined the old value while it was being removed

    async def soften(self, key: str) -> bool:
        """Make the key stale; true if it was there. A load under way is not stored."""
        self.check(key)
        self.telemetry.invalidated("key", mode="soft")
        budget = await self.after([self.flights.fence(key)])
        try:
            return await soften(self.stack, key, budget)
        finally:
            self.flights.fence(key)  # as in `delete`

    async def clear(self) -> None:
        """Forget everything of this cache."""
        self.check("")
        self.telemetry.invalidated("everything")
        budget = await self.after(self.flights.fence_all())
        try:
            await self.stack.clear(budget)
        finally:
            self.flights.fence_all()

    async def invalidate(self, tags: tuple[str, ...], *, soft: bool) -> None:
        """Make all entries with one of the tags out of date, in time that does not depend on how many there are."""
        self.check("")
        self.telemetry.invalidated_tags(tags, soft=soft)
        budget = await self.after(self.flights.fence_tagged(tags, self.stack.implied))
        try:
            await self.stack.invalidate(tags, soft=soft, budget=budget)
        finally:
            self.flights.fence_tagged(tags, self.stack.implied)

    async def invalidate_matching(
        self, matches: Callable[[str], bool], start: str, progress: Callable[[int, int], None] | None
    ) -> int:
        """Forget all keys that match; returns how many."""
        self.check("")
        self.telemetry.invalidated("pattern")
        await self.after(self.flights.fence_matching(matches))
        try:
            return await remove_matching(self.stack, matches, start, progress)
        finally:
            self.flights.fence_matching(matches)

    def value(self, found: Found) -> object:
        """The value for one reader. What a remote layer decoded is the reader's own copy already."""
        return self.stack.read(found.entry) if found.layer == names.L1 else found.entry.value

    def result_of(self, found: Found | None) -> Attributes:
        """What the span of a request says that has found this."""
        if found is None:
            return described(names.MISS)
        return described(names.HIT, found.layer, ttl=found.entry.fresh_until - self._monotonic())

    def _fresh(self, found: Found | None) -> Found | None:
        return found if found is not None and self._monotonic() < found.entry.fresh_until else None

    # Shared with `_computing` and `exchange`

    def note_apart(self, keys: Iterable[str]) -> None:
        """Remember of keys with params that there are such of their identifiers."""
        for key in keys:
            tags = self.stack.implied(key)
            if len(tags) == 3:
                bit = hash(tags[2]) % _APART_BITS
                self._apart[bit >> 3] |= 1 << (bit & 7)

    def may_be_apart(self, tag: str) -> bool:
        """Whether there may be keys with params of an identifier, whose tag this is.

        Each invalidation of a tag has all entries compared with it once more, and a record is kept of it. Most unsafe
        requests are for what nobody has stored with params, so that is found out first, as far as this process alone
        can know it.
        """
        bit = hash(tag) % _APART_BITS
        return self.stack.shared is not None or bool(self._apart[bit >> 3] & 1 << (bit & 7))

    def check(self, key: str) -> None:
        """Refuse what cannot be served.

        Raises:
            CacheClosedError: the cache was closed.
            TypeError: the key is not a string.
        """
        if self.closed:
            raise CacheClosedError("this cache was closed; make a new manager")
        if not isinstance(key, str):
            raise TypeError(f"a key must be a str, not {type(key).__name__}")

    async def load(
        self,
        flights: Iterable[Flight[Any]],
        load: Awaitable[T],
        key: str | None,
        begun: Callable[[Filling], None] | None = None,
    ) -> T:
        """Run a load in the running task, as `filling`. `begun`: is told before it begins."""
        task = asyncio.current_task()
        with self.filling(flights, key) as fill:
            if begun is not None:
                begun(fill)
            try:
                return await load
            except asyncio.CancelledError as error:
                if task is not None and not task.cancelling():
                    # Nobody cancelled this load: something inside it was cancelled. To the callers, who were not, that
                    # is a failure like any other.
                    raise CacheError("the load was cancelled from within") from error
                raise

    def filling(self, flights: Iterable[Flight[Any]], key: str | None) -> AbstractContextManager[Filling]:
        """Around a load: its span, to which those link who wait, and how long it took.

        Args:
            key: of what is loaded; `None`: several.
        """
        return filling(self.telemetry, self._monotonic, flights, key)

    async def acquire(
        self,
        key: str,
        budget: Budget,
        *,
        tags: tuple[str, ...] = (),
        again: bool,
        life: float,
        memory_ttl: float = math.inf,
    ) -> tuple[Found | None, Permit]:
        """`Stack.acquire`, which leaves no lease behind when its caller is cancelled."""
        token = token_hex(16).encode()
        act = self.stack.acquire(key, token, budget, tags=tags, again=again, life=life, memory_ttl=memory_ttl)
        if self.stack.shared is None:
            return await act
        asking = asyncio.create_task(act)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # The layer may be giving it just now, and then nobody else would load for as long as a lease lasts.
            self.flights.run_to_its_end(self._decline(asking))
            raise

    async def _decline(self, asking: asyncio.Task[tuple[Found | None, Permit]]) -> None:
        _, permit = await asking
        await self.stack.release(permit, self.stack.budget())

    async def release(self, permit: Permit, budget: Budget) -> None:
        """End the lease of a load that has nothing to store, within the request's budget or without the request."""
        if budget.left > 0:
            await self.stack.release(permit, budget)
        else:
            self.flights.run_to_its_end(self.stack.release(permit, self.stack.budget()))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the engine for a caller without an event loop."""
        return self.bridge.run(coroutine) if self.stack.lower else run_inline(coroutine)

    async def ready(self) -> Budget:
        """Hear of what other processes change, before the first thing is read from a layer that is shared with them.

        Returns:
            What is left for the request.
        """
        budget = self.stack.budget()
        if self.listening is not None and not self.listening.started:
            begin = self._monotonic()
            await self.listening.start(budget.left)
            budget.left -= self._monotonic() - begin
        return budget

    async def aclose(self, timeout: float) -> None:
        """Let loads end within `timeout` seconds, cancel the rest, give back connections.

        Who comes while another one does so waits until that is done.
        """
        loop = asyncio.get_running_loop()
        if self.closed:
            closer = self._closer
            await self._ended.wait(alive=None if closer is None else closer.is_running)
            return
        self._closer, self.closed = loop, True  # in this order, since a thread may look in between
        try:
            await self._close(loop, timeout)
        finally:
            self._ended.open()
            self._closer = None

    def after_fork(self) -> None:
        """Whoever was closing it does so in the parent."""
        if self.closed:
            self._ended = Gate()
            self._ended.open()

    async def _close(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        if self.listening is not None:
            self.listening.closed = True
        if self.stack.recovery is not None:
            self.stack.recovery.closed = True
        self._entries = {}
        self.telemetry.spans.end_lost()
        try:
            await self.flights.aclose(timeout)
        except BaseException:  # who closes is cancelled, and so is what else is under way
            await self.flights.aclose(0)
            raise
        finally:
            try:
                # Who listens would take the end of its connection for a loss, and open another one.
                await loop.run_in_executor(None, self.bridge.end_spawned)
                await self.stack.aclose()
            finally:
                self.telemetry.closed()
                await loop.run_in_executor(None, self.bridge.close, self.stack.aclose())

    async def after(self, flights: Iterable[Flight[Any] | None]) -> Budget:
        """Wait until what these flights loaded is stored, so that what comes next comes after it; charge the time."""
        budget = await self.ready()
        begin = self._monotonic()
        for flight in flights:
            if flight is not None:
                await flight.stored()
        budget.left -= self._monotonic() - begin
        return budget


def _result_of_many(layers: set[str], *, complete: bool) -> Attributes:
    """What the span of a request for several keys says: a hit if all were there, in the lowest layer of them."""
    return described(names.HIT, max(layers)) if complete else described(names.MISS)
