"""One load: what there is in its place, who of all processes does it, and what becomes of the result.

The rules are those of `TtlPolicy`; this module carries them out.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from . import _loading
from ._decisions import Serve, Store
from ._engine import Engine
from ._entry import NO_DETAILS, Details, Entry
from ._first_layer import Found
from ._flight import Flight, enter
from ._guard import Budget
from ._leases import Permit
from ._options import seconds
from ._packing import Keep, Packed
from ._trouble import warn
from ._ttl_policy import TtlPolicy, ValueRequest
from .exceptions import UnstorableValueError
from .telemetry import names
from .telemetry._bounded import is_type
from .telemetry._spans import Made, mark_failed

_FIRST_POLL: Final = 0.025
_LAST_POLL: Final = 0.25
"""Seconds between two looks whether another process has loaded what is waited for."""
_MAX_WARNED: Final = 100
"""Types that cannot be stored of which the log is told: some apps make them while they run."""

Compute = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that a flight found or loaded.

    Attributes:
        packed: where followers read it from.
        result: `hit`, `stale` or `miss`.
        layer: the layer that had it; `None` when it was loaded, or is stale.
        ttl: seconds of freshness that were left; infinite: not known, or for ever.
        collapsed: another process has loaded it, while this one waited.
        reason: why it is stale, by the names of telemetry; empty: it is not.
    """

    packed: Packed
    result: str
    layer: str | None = None
    ttl: float = math.inf
    collapsed: bool = False
    reason: str = ""


@dataclass(slots=True)
class Load:
    """One load: what is asked for, and what there is in its place.

    Attributes:
        behind: why it is a refresh in the background; empty: somebody waits for it.
        started_by: where that was begun, as `Spans.here` says it.
        span: of the refresh; `None`: it is none, or has none.
        anew: whatever there is, however fresh, is no reason not to load, and takes the place of no error.
        overtaken: the load of the same key whose place this one takes.
        present: what memory has when a load begins that is to replace it.
    """

    flight: Flight[Kept]
    request: ValueRequest
    compute: Compute
    tags: tuple[str, ...]
    given_ttl: float | None
    behind: str
    anew: bool = False
    overtaken: Flight[Kept] | None = None
    present: Entry | None = None
    fallback: Entry | None = None
    begin: float = 0.0
    state: int = 0
    generation: int = 0
    started_by: object = None
    span: Made = None

    @property
    def memory_ttl(self) -> float:
        """Seconds at most for which memory keeps the value, where a shared layer is below."""
        limit = self.request.options.memory_ttl
        return math.inf if limit is None else seconds(limit)


class Loader:
    """Runs the loads of one cache.

    Args:
        policy: decides.
        lease: seconds that a lease lasts without being renewed.
    """

    def __init__(self, engine: Engine, policy: TtlPolicy, lease: float) -> None:
        self._engine = engine
        self._policy = policy
        self._lease = lease
        self._warned: set[str] = set()

    async def fill(self, load: Load) -> None:
        flight = load.flight
        enter(flight)
        try:
            if load.overtaken is not None:
                await load.overtaken.stored()  # otherwise it could be stored over what is loaded now
            if load.behind:
                with self._apart(load, load.behind, load.started_by) as load.span:
                    await self._find_or_run(load)
            else:
                await self._find_or_run(load)
        except (asyncio.CancelledError, GeneratorExit):
            flight.abandon()
            raise
        except BaseException as error:
            flight.fail(error)
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt and SystemExit are for the event loop, too
        finally:
            self._engine.flights.land(flight)

    def _apart(self, load: Load, reason: str, started_by: object) -> AbstractContextManager[Made]:
        """Around a refresh in the background, which is no part of the trace that began it."""
        spans = self._engine.telemetry.spans
        return spans.apart("revalidate", started_by, load.request.key, {names.REFRESH_REASON: reason})

    async def _find_or_run(self, load: Load) -> None:
        budget = await self._engine.ready()
        found, permit = await self._find(load, budget)
        if found is None and permit is not None:
            await self._run(load, permit, budget)

    async def _find(self, load: Load, budget: Budget) -> tuple[Found | None, Permit | None]:
        """What has become known since the caller looked; or else the permit to load. Neither: the flight is settled."""
        engine, stack, request, flight = self._engine, self._engine.stack, load.request, load.flight
        load.state = stack.removals(request.key)
        load.present = stack.memory.peek(request.key) if load.anew and stack.memory is not None else None
        # Between a caller's look into memory and its turn to load, one in another loop or thread may have loaded.
        entry = stack.peek(request.key)
        found = Found(entry, names.L1) if entry is not None else None
        if (found is None or not self._settles(load, found)) and stack.lower:
            found = await stack.lookup(request.key, budget, load.memory_ttl) or found
        if found is not None and self._settles(load, found):
            self._settle(load, found)
            return found, None
        load.fallback = flight.stale = found.entry if found is not None else None
        if stack.shared is None:
            return None, stack.permit(request.key)
        return await self._elect(load, budget, engine.clock.monotonic())

    def _settles(self, load: Load, found: Found) -> bool:
        """Whether the caller need not wait for a load."""
        if load.anew:
            return False
        decision = self._policy.on_lookup(load.request, found.entry, self._engine.clock.monotonic())
        if not isinstance(decision, Serve):
            return False
        return decision.refresh == "" or (decision.refresh == "early" and not load.behind)

    async def _elect(self, load: Load, budget: Budget, begin: float) -> tuple[Found | None, Permit | None]:
        """Agree with other processes who loads."""
        engine, stack, request = self._engine, self._engine.stack, load.request
        patience = request.options.lease_wait
        pause, waited = _FIRST_POLL, False
        while True:
            found, permit = await engine.acquire(
                request.key,
                budget,
                tags=load.tags,
                again=load.fallback is not None,
                life=self._lease,
                memory_ttl=load.memory_ttl,
            )
            if found is not None:
                if self._settles(load, found):
                    self._settle(load, found, collapsed=waited)
                    return found, None
                load.fallback = load.flight.stale = found.entry
                budget = stack.budget()
                continue
            if permit.owner and load.fallback is not None:
                # The lease was not asked for in place of an entry. Another process may just have stored a newer one.
                found = await stack.lookup(request.key, budget, load.memory_ttl)
                if found is not None and self._settles(load, found):
                    await engine.release(permit, budget)
                    self._settle(load, found, collapsed=waited)
                    return found, None
            if permit.fence is None or permit.owner:
                return None, permit
            if load.behind:
                return None, None  # another process refreshes it
            if load.fallback is not None and not load.anew and self._stand_in(load, load.fallback, "lease"):
                return None, None
            if patience is not None and engine.clock.monotonic() - begin >= seconds(patience):
                return None, permit
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause, waited = min(pause * 2, _LAST_POLL), True
            budget = stack.budget()

    async def _run(self, load: Load, permit: Permit, budget: Budget) -> None:
        engine, flight = self._engine, load.flight
        load.begin = engine.clock.monotonic()
        load.generation = flight.generation = permit.generation
        if engine.stack.shared is not None:
            tags = (*engine.stack.implied(load.request.key), *load.tags)
            flight.holds = partial(engine.stack.holds, permit, tags, self._lease)
        flight.unclaimed = True
        if load.behind:
            self.count_refresh(flight, load.behind)
        elif load.fallback is not None and not load.anew and self._is_due(load):
            # Stale, and to be refreshed in the background: this caller has it, and the load goes on for the next.
            flight.keep()
            if self._stand_in(load, load.fallback, "revalidate"):
                with self._apart(load, "revalidate", engine.telemetry.spans.here()) as load.span:
                    await self._load(load, permit, budget)
                return
        await self._load(load, permit, budget)

    async def _load(self, load: Load, permit: Permit, budget: Budget) -> None:
        engine, flight, options = self._engine, load.flight, load.request.options
        context = self._context(load)
        _loading.begin(context)
        heartbeat = _Heartbeat(self, permit) if permit.owner else None
        released = False
        try:
            value = await engine.load((flight,), load.compute(), load.request.key)
            flight.keep()  # whoever leaves now, what was loaded is stored
            kept, stored = await self._keep(load, permit, context, value, budget)
            if not stored:
                await engine.release(permit, budget)  # before anybody hears of the result, who may then ask again
            released = True
            flight.settle(kept)
        except Exception as error:
            await engine.release(permit, budget)
            released = True
            unheard = flight.outcome is not None or not flight.has_callers()
            survives = self._survives(load, error)
            mark_failed(load.span, type(error).__qualname__)
            engine.note_failure(type(error).__qualname__, stale=survives, unheard=unheard)
            if not survives:
                if options.negative_ttl:
                    until = engine.clock.monotonic() + seconds(options.negative_ttl)
                    if not flight.fenced:
                        engine.failures.note(load.request.key, error, until)
                raise
        finally:
            context._tagged = None  # the task's context outlives the load by a moment
            if heartbeat is not None:
                heartbeat.stop()
            self.count_unwaited(flight)
            if not released:
                await engine.release(permit, budget)

    def _context(self, load: Load) -> _loading.LoadContext:
        entry = load.fallback
        flight = load.flight

        def tagged(tags: tuple[str, ...]) -> None:
            # An invalidation of one of them overtakes the load from now on, and one since it began has overtaken it.
            flight.tags = (*load.tags, *tags)
            if self._engine.stack.generations.newest(tags) > load.generation:
                flight.overtaken = load.generation + 1  # the last invalidation is known, and not the first

        if entry is None:
            return _loading.LoadContext(_tagged=tagged)
        stale, details = self._engine.stack.read(entry), entry.details
        return _loading.LoadContext(
            True, stale, details.etag, details.last_modified, _stale_tags=details.tags, _tagged=tagged
        )

    async def _keep(
        self, load: Load, permit: Permit, context: _loading.LoadContext, value: object, budget: Budget
    ) -> tuple[Kept, bool]:
        engine, request = self._engine, load.request
        try:
            packed = engine.stack.pack(value)
        except UnstorableValueError as error:
            self._refuse(error)
            context.outcome = "unstorable"
            return Kept(Packed(value, None, True), names.MISS), False
        engine.failures.forget(request.key)
        if context._ttl is not None:
            request = replace(request, ttl=context._ttl)
        decision = self._policy.on_loaded(request, value)
        kept = Kept(packed, names.MISS)
        if context._skipped or not isinstance(decision, Store):
            context.outcome = "skipped" if isinstance(decision, Store) else decision.reason
            engine.telemetry.store(context.outcome)
            return kept, False
        keep = self._how(load, context, decision)
        with load.flight.storing():
            result = "fenced"
            if not load.flight.fenced:
                if budget.left < engine.stack.timeout:
                    budget = Budget(engine.stack.timeout) if load.behind else budget
                publishing = engine.stack.publish({request.key: packed}, keep, permit, budget, anew=load.anew)
                result = (await publishing).result
            if load.anew and result == "fenced":
                await engine.stack.remove_older(permit, load.present, budget)
            engine.telemetry.store(result)
        context.outcome = result
        return kept, result != "fenced"

    def _how(self, load: Load, context: _loading.LoadContext, decision: Store) -> Keep:
        options = load.request.options
        ttl: float | None = decision.fresh_for
        if context._ttl is None and load.given_ttl is None and not options.jitter:
            ttl = None
        elif options.jitter:
            ttl = max(decision.fresh_for - seconds(options.jitter) * random.random(), decision.fresh_for / 2)
        lead = 0.0
        if options.early_refresh is not None and decision.fresh_for < math.inf:
            lead = (1 - options.early_refresh) * decision.fresh_for
        cost = self._engine.clock.monotonic() - load.begin
        details = Details(
            tuple(dict.fromkeys((*load.tags, *context._tags))),
            lead,
            0.0 if options.early_beta is None else cost * options.early_beta,
            context.etag,
            context.last_modified,
        )
        memory_ttl = None if options.memory_ttl is None else seconds(options.memory_ttl)
        chance = 1.0 - random.random()
        return Keep(ttl, decision.stale_for, memory_ttl, details if details != NO_DETAILS else NO_DETAILS, chance)

    def _is_due(self, load: Load) -> bool:
        entry = load.fallback
        decision = self._policy.on_lookup(load.request, entry, self._engine.clock.monotonic())
        return isinstance(decision, Serve) and decision.refresh == "revalidate"

    def _stand_in(self, load: Load, entry: Entry, reason: str) -> bool:
        """Give those who wait the stale value, if it may be served; whether it may.

        Args:
            reason: why they do not get what is being loaded.
        """
        if not self.may_stand_in(load.request, entry):
            return False
        self.count_refresh(load.flight, reason)
        load.flight.settle(self.stale(entry, reason))
        return True

    def may_stand_in(self, request: ValueRequest, entry: Entry) -> bool:
        if self._engine.clock.monotonic() >= entry.fresh_until + request.options.stale_for:
            return False
        return not self._engine.stack.is_invalid(request.key, entry)

    def stale(self, entry: Entry, reason: str) -> Kept:
        packed = Packed(self._engine.stack.read(entry), entry.payload, entry.payload is None)
        ttl = entry.fresh_until - self._engine.clock.monotonic()
        return Kept(packed, names.STALE, reason=reason, ttl=ttl)

    def _survives(self, load: Load, error: Exception) -> bool:
        """After a failed load: whether a stale value takes the place of the error."""
        engine, entry = self._engine, load.fallback
        if load.anew:
            return False
        if load.behind:
            entry = entry or engine.stack.peek(load.request.key)
        now = engine.clock.monotonic()
        decision = self._policy.on_error(load.request, entry, error, now)
        if not isinstance(decision, Serve) or entry is None:
            return False
        if load.state != engine.stack.removals(load.request.key) or engine.stack.is_invalid(load.request.key, entry):
            return False  # gone by now
        if not load.flight.fenced:
            engine.stack.rearm(load.request.key, entry, now + seconds(load.request.options.throttle))
        self._stand_in(load, entry, "error")
        return True

    def _settle(self, load: Load, found: Found, *, collapsed: bool = False) -> None:
        entry = found.entry
        ttl = entry.fresh_until - self._engine.clock.monotonic()
        fresh = ttl > 0
        value = self._engine.value(found)
        packed = Packed(value, entry.payload, entry.payload is None)
        result = names.HIT if fresh else names.STALE
        # What is stale settles a flight only where a load has failed a moment ago.
        reason, layer = ("", found.layer) if fresh else ("error", None)
        load.flight.settle(Kept(packed, result, layer, ttl, collapsed, reason))

    def count_refresh(self, flight: Flight[Kept], reason: str) -> None:
        # A load that no request is counted for. Where none has begun, there is none to count.
        if self._engine.flights.claim(flight):
            self._engine.telemetry.refresh(reason)

    def count_unwaited(self, flight: Flight[Kept]) -> None:
        """Count a load whose callers had all left before it began, so that none of them could count for it."""
        if not flight.has_callers():
            self.count_refresh(flight, "timeout")

    def _refuse(self, error: UnstorableValueError) -> None:
        self._engine.telemetry.store("unstorable")
        if error.type_name not in self._warned and len(self._warned) < _MAX_WARNED:
            self._warned.add(error.type_name)
            # Without the place in it, which keys of the value may name, and without a name that is none.
            name = error.type_name if is_type(error.type_name) else names.OTHER
            told = UnstorableValueError(name, "value" if error.path == "value" else "a part of it", error.reason)
            warn("a loaded value is not cached: %s", told)

    async def keep_lease(self, permit: Permit) -> None:
        """Renew a lease until cancelled."""
        while await self._engine.stack.renew(permit, self._lease):  # noqa: ASYNC110  # Redis has no event to wait for
            await asyncio.sleep(self._lease / 3)

    @property
    def lease(self) -> float:
        """Seconds that a lease lasts without being renewed."""
        return self._lease


class _Heartbeat:
    """Renews the lease of a load that takes longer than a part of it. Most loads end before, and cost a timer only."""

    def __init__(self, loader: Loader, permit: Permit) -> None:
        self._task: asyncio.Task[None] | None = None
        # The loop keeps a timer that is cancelled until its time, and its context with it: that of the load, in which
        # are its request and its result, goes with the arguments, which it does not keep.
        begin = partial(self._begin, loader, permit, copy_context())
        self._timer = asyncio.get_running_loop().call_later(loader.lease / 3, begin, context=Context())

    def _begin(self, loader: Loader, permit: Permit, context: Context) -> None:
        self._task = asyncio.get_running_loop().create_task(loader.keep_lease(permit), context=context)

    def stop(self) -> None:
        """The load has ended."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
