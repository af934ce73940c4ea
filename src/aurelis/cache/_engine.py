"""The engine: carries out what policies decide, with one load per key at a time.

This module serves Python values; `exchange` serves messages with a head and a body, on the same flights and layers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ._bridge import Bridge, run_inline
from ._clock import Clock
from ._decisions import Serve, Store
from ._entry import Entry
from ._flight import Abandoned, Failed, Flight, Flights, Settled, enter
from ._stack import Budget, Found, Packed, Stack
from ._ttl_policy import TtlPolicy, ValueRequest
from .exceptions import CacheClosedError, CacheError, LayerError, UnstorableValueError
from .telemetry import names
from .telemetry.otel import SAMPLE_MASK, Telemetry, current_span_context, get_current_context, get_current_span, link

_LOG = logging.getLogger("aurelis.cache")
T = TypeVar("T")


class _Missing:
    """Says that nothing was found, where `None` is a value like any other."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A value that a flight found or loaded.

    Attributes:
        packed: where followers read it from.
        layer: the layer that had it; `None` when it was loaded.
    """

    packed: Packed
    layer: str | None


class Engine:
    """Layers, flights and counts of one cache.

    Attributes:
        stack: the layers.
        flights: the loads under way.
        telemetry: the counts.
    """

    def __init__(self, stack: Stack, telemetry: Telemetry, clock: Clock) -> None:
        self.stack = stack
        self.telemetry = telemetry
        self.clock = clock
        self.flights = Flights()
        self.bridge = Bridge()
        self.closed = False
        self._values = TtlPolicy()
        self._warned: set[str] = set()
        # The fast path reads these directly: each attribute hop would show in its budget.
        self._entries = {} if stack.memory is None else stack.memory.entries
        self._loads = stack.read
        self._monotonic = clock.monotonic
        self._hit = telemetry.hit_l1
        self._observes_hits = telemetry.span_attributes or telemetry.span_on_hit
        self._makes_spans = telemetry.span_on_hit
        self._hit_attributes = {names.NAME: telemetry.name, names.RESULT: names.HIT, names.LAYER: names.L1}

    # The fast path

    def read_memory(self, key: str) -> object:
        """The value that memory holds, or `MISSING`; counts a hit. Never waits, takes no lock, makes no span."""
        now = self._monotonic()
        try:
            entry = self._entries[key]
        except KeyError:
            return MISSING
        if entry.expires <= now:
            return MISSING
        hit = self._hit
        hit.n = count = hit.n + 1
        if not count & SAMPLE_MASK:
            self.telemetry.duration(self._monotonic() - now, "get", names.L1)
        if self._observes_hits and (get_current_context() or self._makes_spans):
            self._observe_hit()
        return entry.value if entry.payload is None else self._loads(entry)

    def peek(self, key: str, now: float) -> Entry | None:
        """The entry that memory holds, uncounted. `now`: monotonic, seconds. Never waits."""
        try:
            entry = self._entries[key]
        except KeyError:
            return None
        return entry if now < entry.expires else self.stack.peek(key)  # which lets go of what has expired

    def count_memory_hit(self, begin: float) -> None:
        """The counting of `read_memory`, for a hit that `exchange` found. `begin`: monotonic, seconds."""
        hit = self._hit
        hit.n = count = hit.n + 1
        if not count & SAMPLE_MASK:
            self.telemetry.duration(self._monotonic() - begin, "get", names.L1)
        if self._observes_hits and (get_current_context() or self._makes_spans):
            self._observe_hit()

    def _observe_hit(self) -> None:
        if self.telemetry.span_attributes:
            span = get_current_span()
            if span.is_recording():
                span.set_attributes(self._hit_attributes)
        if self._makes_spans:
            with self.telemetry.span("get") as own:
                if own is not None:
                    own.set_attributes(self._hit_attributes)

    # Values

    async def get(self, key: str) -> object:
        """The value from the layers below memory, or `MISSING`. To be called after `read_memory` found nothing."""
        self.check(key)
        telemetry = self.telemetry
        telemetry.miss_l1.n += 1
        if not self.stack.lower:
            telemetry.miss.n += 1
            return MISSING
        with telemetry.span("get") as span:
            found = None
            try:
                found = await self.stack.lookup(key, self.stack.budget())
            finally:  # a caller that leaves before there is an answer had none
                if found is None:
                    telemetry.miss.n += 1
                else:
                    telemetry.request(names.HIT, found.layer).n += 1
            if span is not None:
                span.set_attributes(_result(found.layer if found else None))
        # What `lookup` decoded is this caller's own copy.
        return MISSING if found is None else found.entry.value

    async def get_many(self, keys: list[str]) -> dict[str, object]:
        """The values found, each key counted as one request."""
        values: dict[str, object] = {}
        keys = list(dict.fromkeys(keys))
        for key in keys:
            if (value := self.read_memory(key)) is not MISSING:
                values[key] = value
        missing = [key for key in keys if key not in values]
        if missing:
            for key in missing:
                self.check(key)
            self.telemetry.miss_l1.n += len(missing)
            found: dict[str, Found] = {}
            try:
                if self.stack.lower:
                    with self.telemetry.span("get"):
                        found = await self.stack.lookup_many(missing, self.stack.budget())
            finally:  # as in `get`
                self.telemetry.miss.n += len(missing) - len(found)
            for key, hit in found.items():
                self.telemetry.request(names.HIT, hit.layer).n += 1
                values[key] = hit.entry.value
        return {key: values[key] for key in keys if key in values}

    async def set_many(self, values: dict[str, object], ttl: float | None) -> bool:
        """Keep the values; true if every layer took them all."""
        for key in values:
            self.check(key)
        packed = {key: self.stack.pack(value) for key, value in values.items()}
        # A load that began before must not replace what is set now.
        budget = await self._after([self.flights.fence(key) for key in values])
        if ttl == 0:
            removed = True
            for key in values:
                try:
                    await self.stack.remove(key, budget)
                except LayerError:
                    removed = False
            return removed
        stored = await self.stack.store(packed, ttl, budget)
        self.telemetry.store("stored", len(values))
        return stored

    async def delete(self, key: str) -> bool:
        """Forget the key; true if it was there."""
        self.check(key)
        budget = await self._after([self.flights.fence(key)])
        try:
            return await self.stack.remove(key, budget)
        finally:
            self.flights.fence(key)  # a load that joined the old value while it was being removed

    async def clear(self) -> None:
        """Forget everything of this cache."""
        self.check("")
        await self._after(self.flights.fence_all())
        try:
            await self.stack.clear()
        finally:
            self.flights.fence_all()

    async def get_or_compute(self, key: str, compute: Callable[[], Awaitable[object]], ttl: float | None) -> object:
        """The value, loaded by one caller for all. To be called after `read_memory` found nothing."""
        self.check(key)
        self.telemetry.miss_l1.n += 1
        request = ValueRequest(key, self.stack.default_ttl if ttl is None else ttl)
        flight: Flight[_Kept] | None = None
        outcome: Settled[_Kept] | Failed | Abandoned | None = None
        with self.telemetry.span("get") as span:
            try:
                while True:
                    flight, leads = self.flights.join(key)
                    if leads:
                        self.flights.start(flight, self._fill(flight, request, ttl, compute))
                    try:
                        outcome = await flight.wait()
                    finally:
                        self.flights.leave(flight, leads=leads)
                    if not isinstance(outcome, Abandoned):
                        break
                    self.check(key)  # its event loop has ended, or the whole cache was closed
            finally:
                self._count(flight, outcome)
            if isinstance(outcome, Failed):
                raise outcome.again()
            kept = outcome.result
            if span is not None:
                span.set_attributes({**_result(kept.layer), names.COLLAPSED: not leads})
                if not leads:
                    link(span, flight.link)
            return kept.packed.value if leads else self.stack.unpack(kept.packed)

    async def _fill(
        self,
        flight: Flight[_Kept],
        request: ValueRequest,
        ttl: float | None,
        compute: Callable[[], Awaitable[object]],
    ) -> None:
        enter(flight)
        budget = self.stack.budget()
        try:
            found = await self._find(request.key, budget)
            if found is not None and isinstance(self._values.on_lookup(request, found.entry, self._monotonic()), Serve):
                entry = found.entry
                value = self.stack.read(entry) if found.layer == names.L1 else entry.value
                flight.settle(_Kept(Packed(value, entry.payload, entry.payload is None), found.layer))
                return
            flight.unclaimed = True
            value = await self.load(flight, compute())
            flight.keep()  # whoever leaves now, what was loaded is stored
            flight.settle(await self._keep(flight, request, ttl, value, budget))
        except (asyncio.CancelledError, GeneratorExit):
            flight.abandon()
            raise
        except BaseException as error:
            flight.fail(error)
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt and SystemExit are for the event loop, too
        finally:
            self.flights.land(flight)

    async def _find(self, key: str, budget: Budget) -> Found | None:
        # Between a caller's look into memory and its turn to load, one in another loop or thread may have loaded.
        entry = self.stack.peek(key)
        if entry is not None:
            return Found(entry, names.L1)
        return await self.stack.lookup(key, budget) if self.stack.lower else None

    async def _keep(
        self, flight: Flight[_Kept], request: ValueRequest, ttl: float | None, value: object, budget: Budget
    ) -> _Kept:
        try:
            packed = self.stack.pack(value)
        except UnstorableValueError as error:
            self._refuse(error)
            return _Kept(Packed(value, None, True), None)
        decision = self._values.on_loaded(request, value)
        if not isinstance(decision, Store):
            self.telemetry.store(decision.reason)
            return _Kept(packed, None)
        with flight.storing():
            if flight.fenced:
                self.telemetry.store("fenced")
            else:
                await self.stack.store({request.key: packed}, ttl, budget)
                self.telemetry.store("stored")
        return _Kept(packed, None)

    # Shared with `exchange`

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

    async def load(self, flight: Flight[Any], load: Awaitable[T]) -> T:
        """Run a load under its span, and record how long it took."""
        begin = self._monotonic()
        error_type: str | None = None
        task = asyncio.current_task()
        with self.telemetry.span("fill"):
            flight.link = current_span_context()
            try:
                return await load
            except asyncio.CancelledError as error:
                error_type = "CancelledError"
                if task is not None and not task.cancelling():
                    # Nobody cancelled this load: something inside it was cancelled. To the callers, who were not, that
                    # is a failure like any other.
                    raise CacheError("the load was cancelled from within") from error
                raise
            except BaseException as error:
                error_type = type(error).__qualname__
                raise
            finally:
                self.telemetry.duration(self._monotonic() - begin, "fill", error_type=error_type)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the engine for a caller without an event loop."""
        return self.bridge.run(coroutine) if self.stack.lower else run_inline(coroutine)

    async def aclose(self, timeout: float) -> None:
        """Let loads end within `timeout` seconds, cancel the rest, give back connections."""
        if self.closed:
            return
        self.closed = True
        self._entries = {}
        await self.flights.aclose(timeout)
        await self.stack.aclose()
        await asyncio.get_running_loop().run_in_executor(None, self.bridge.close, self.stack.aclose())

    async def _after(self, flights: Iterable[Flight[Any] | None]) -> Budget:
        """Wait until what these flights loaded is stored, so that what comes next comes after it; charge the time."""
        budget = self.stack.budget()
        begin = self._monotonic()
        for flight in flights:
            if flight is not None:
                await flight.stored()
        budget.left -= self._monotonic() - begin
        return budget

    def _count(self, flight: Flight[_Kept] | None, outcome: Settled[_Kept] | Failed | Abandoned | None) -> None:
        # Each caller counts itself once, when it leaves, also when it failed or was cancelled. One of those who shared
        # a load counts as the one who loaded, so that loads are misses less coalesced; which one does not matter.
        if isinstance(outcome, Settled) and outcome.result.layer is not None:
            self.telemetry.request(names.HIT, outcome.result.layer).n += 1
            return
        self.telemetry.miss.n += 1
        if flight is None or not self.flights.claim(flight):
            self.telemetry.coalesced.n += 1

    def _refuse(self, error: UnstorableValueError) -> None:
        self.telemetry.store("unstorable")
        if error.type_name not in self._warned:
            self._warned.add(error.type_name)
            _LOG.warning("a loaded value is not cached: %s", error)


def _result(layer: str | None) -> dict[str, str]:
    return {names.RESULT: names.MISS} if layer is None else {names.RESULT: names.HIT, names.LAYER: layer}
