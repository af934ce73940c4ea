"""Values that are loaded when they are not there: the whole life of an entry, from its load to its last use as a stale
one.

The rules are those of `TtlPolicy`; this module carries them out: one load for all who ask, refreshes in the background,
stale values in place of failures, timeouts that let go of callers and not of the load, and the lease by which processes
agree who loads.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from . import _loading
from ._decisions import Serve, Store
from ._engine import Engine, result_attributes
from ._entry import NO_DETAILS, Details, Entry
from ._first_layer import Found
from ._flight import Abandoned, Failed, Flight, Settled, enter
from ._forking import renew_in_children
from ._guard import Budget
from ._leases import Permit
from ._options import EntryOptions, seconds
from ._packing import Keep, Packed
from ._ttl_policy import TtlPolicy, ValueRequest
from .exceptions import LoadTimeoutError, UnstorableValueError
from .telemetry import names
from .telemetry.otel import link

_LOG = logging.getLogger("aurelis.cache")

DEFAULT_OPTIONS: Final = EntryOptions()
_MAX_BEHIND: Final = 64
"""Refreshes in the background at once; more would take the origin away from those who wait."""
_MAX_FAILURES: Final = 1024
_FIRST_POLL: Final = 0.025
_LAST_POLL: Final = 0.25
"""Seconds between two looks whether another process has loaded what is waited for."""

Compute = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A value that a flight found or loaded.

    Attributes:
        packed: where followers read it from.
        result: `hit`, `stale` or `miss`.
        layer: the layer that had it; `None` when it was loaded, or is stale.
    """

    packed: Packed
    result: str
    layer: str | None = None


@dataclass(slots=True)
class _Load:
    """One load: what is asked for, and what there is in its place."""

    flight: Flight[_Kept]
    request: ValueRequest
    compute: Compute
    tags: tuple[str, ...]
    given_ttl: float | None
    behind: str
    fallback: Entry | None = None
    begin: float = 0.0
    state: int = 0
    generation: int = 0

    @property
    def memory_ttl(self) -> float:
        """Seconds at most for which memory keeps the value, where a shared layer is below."""
        limit = self.request.options.memory_ttl
        return math.inf if limit is None else seconds(limit)


class Computing:
    """`get_or_compute` of one cache."""

    def __init__(self, engine: Engine, lease: float) -> None:
        self._engine = engine
        self._lease = lease
        self._policy = TtlPolicy()
        self._warned: set[str] = set()
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Refreshes in the background are the parent's."""
        self._behind: set[asyncio.Task[None]] = set()
        # Not an LRU cache, whose steps threads would have to take one after the other.
        self._failures: dict[str, tuple[BaseException, float, object]] = {}

    async def get_or_compute(
        self,
        key: str,
        compute: Compute,
        ttl: float | None = None,
        tags: tuple[str, ...] = (),
        options: EntryOptions = DEFAULT_OPTIONS,
    ) -> object:
        """The value, loaded by one caller for all. To be called after `read_memory` found nothing."""
        engine = self._engine
        engine.check(key)
        if ttl is None and options.ttl is not None:
            ttl = seconds(options.ttl)
        request = ValueRequest(key, engine.stack.default_ttl if ttl is None else ttl, options)
        served = self._from_memory(request, compute, tags, ttl)
        if served is not None:
            return engine.stack.read(served)
        self._raise_remembered(key)
        engine.telemetry.miss_l1.n += 1
        flight: Flight[_Kept] | None = None
        outcome: Settled[_Kept] | Failed | Abandoned | None = None
        with engine.telemetry.span("get") as span:
            try:
                while True:
                    joined_at = engine.stack.generations.latest
                    flight, leads = engine.flights.join(key)
                    if leads:
                        flight.tags = tags
                        load = _Load(flight, request, compute, tags, ttl, "")
                        engine.flights.start(flight, self._fill(load))
                    try:
                        outcome = await self._outcome(flight, request)
                    finally:
                        engine.flights.leave(flight, leads=leads)
                    if isinstance(outcome, Abandoned):
                        engine.check(key)  # its event loop has ended, or the whole cache was closed
                    elif leads or not flight.overtaken or joined_at < flight.overtaken:
                        break  # otherwise it began before an invalidation that this caller comes after
            finally:
                self._count(flight, outcome)
            if isinstance(outcome, Failed):
                raise outcome.again()
            kept = outcome.result
            if span is not None:
                span.set_attributes({**result_attributes(kept.layer), names.RESULT: kept.result})
                span.set_attribute(names.COLLAPSED, not leads)
                if not leads:
                    link(span, flight.link)
            return kept.packed.value if leads else engine.stack.unpack(kept.packed)

    async def _outcome(self, flight: Flight[_Kept], request: ValueRequest) -> Settled[_Kept] | Failed | Abandoned:
        """Wait as long as this caller wants to, whoever has begun the load."""
        options = request.options
        if options.soft_timeout is None and options.hard_timeout is None:
            return await flight.wait()
        waited = 0.0
        for timeout in (options.soft_timeout, options.hard_timeout):
            if timeout is None:
                continue
            try:
                async with asyncio.timeout(seconds(timeout) - waited):
                    return await flight.wait()
            except TimeoutError:
                waited = seconds(timeout)
            stale = flight.stale
            if isinstance(stale, Entry) and self._may_stand_in(request, stale):
                self._let_go(flight, options)
                self._count_refresh(flight, "timeout")
                return Settled(self._stale(stale))
        if options.hard_timeout is None:
            return await flight.wait()
        self._let_go(flight, options)
        error = LoadTimeoutError(f"the load took longer than {options.hard_timeout} s")
        return Failed(error, error.__traceback__)

    def _let_go(self, flight: Flight[_Kept], options: EntryOptions) -> None:
        if options.background_completion:
            flight.keep()

    # From memory

    def _from_memory(
        self, request: ValueRequest, compute: Compute, tags: tuple[str, ...], ttl: float | None
    ) -> Entry | None:
        engine = self._engine
        now = engine.clock.monotonic()
        entry = engine.peek(request.key, now)
        if entry is None:
            return None
        decision = self._policy.on_lookup(request, entry, now)
        if not isinstance(decision, Serve):
            return None
        if decision.refresh in ("early", "revalidate"):
            self._refresh(request, compute, tags, ttl, decision.refresh)
        if now < entry.fresh_until:
            engine.count_memory_hit(now)
        else:
            engine.telemetry.lookup(names.L1, names.STALE).n += 1
            engine.telemetry.request(names.STALE).n += 1
        return decision.entry

    def _refresh(
        self, request: ValueRequest, compute: Compute, tags: tuple[str, ...], ttl: float | None, reason: str
    ) -> None:
        if self._engine.closed:
            return
        if len(self._behind) >= _MAX_BEHIND:
            self._behind -= {task for task in self._behind if task.get_loop().is_closed()}
            if len(self._behind) >= _MAX_BEHIND:
                return
        flight = self._engine.flights.behind(request.key)
        if flight is None:
            return
        flight.tags = tags
        load = _Load(flight, request, compute, tags, ttl, reason)
        # What belongs to the request that happens to come first (its session, its span) is over before this is.
        task = self._engine.flights.start(flight, self._fill(load), Context())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    def _raise_remembered(self, key: str) -> None:
        failure = self._failures.get(key) if self._failures else None
        if failure is None:
            return
        error, until, state = failure
        if self._engine.clock.monotonic() < until and state == self._engine.stack.state(key):
            self._engine.telemetry.lookup(names.L1, "negative").n += 1
            self._engine.telemetry.request(names.HIT, "negative").n += 1
            raise error.with_traceback(None)
        self._failures.pop(key, None)

    # One load

    async def _fill(self, load: _Load) -> None:
        flight = load.flight
        enter(flight)
        permit: Permit | None = None
        try:
            budget = await self._engine.ready()
            found, permit = await self._find(load, budget)
            if found is None and permit is not None:
                await self._run(load, permit, budget)
        except (asyncio.CancelledError, GeneratorExit):
            flight.abandon()
            raise
        except BaseException as error:
            flight.fail(error)
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt and SystemExit are for the event loop, too
        finally:
            self._engine.flights.land(flight)

    async def _find(self, load: _Load, budget: Budget) -> tuple[Found | None, Permit | None]:
        """What has become known since the caller looked; or else the permit to load. Neither: the flight is settled."""
        engine, stack, request, flight = self._engine, self._engine.stack, load.request, load.flight
        load.state = stack.removals(request.key)
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

    def _settles(self, load: _Load, found: Found) -> bool:
        """Whether the caller need not wait for a load."""
        decision = self._policy.on_lookup(load.request, found.entry, self._engine.clock.monotonic())
        if not isinstance(decision, Serve):
            return False
        return decision.refresh == "" or (decision.refresh == "early" and not load.behind)

    async def _elect(self, load: _Load, budget: Budget, begin: float) -> tuple[Found | None, Permit | None]:
        """Agree with other processes who loads."""
        engine, stack, request = self._engine, self._engine.stack, load.request
        patience = request.options.lease_wait
        pause = _FIRST_POLL
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
                    self._settle(load, found)
                    return found, None
                load.fallback = load.flight.stale = found.entry
                budget = stack.budget()
                continue
            if permit.owner and load.fallback is not None:
                # The lease was not asked for in place of an entry. Another process may just have stored a newer one.
                found = await stack.lookup(request.key, budget, load.memory_ttl)
                if found is not None and self._settles(load, found):
                    await engine.release(permit, budget)
                    self._settle(load, found)
                    return found, None
            if permit.fence is None or permit.owner:
                return None, permit
            if load.behind:
                return None, None  # another process refreshes it
            if load.fallback is not None and self._stand_in(load, load.fallback, "lease"):
                return None, None
            if patience is not None and engine.clock.monotonic() - begin >= seconds(patience):
                return None, permit
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, _LAST_POLL)
            budget = stack.budget()

    async def _run(self, load: _Load, permit: Permit, budget: Budget) -> None:
        engine, flight, options = self._engine, load.flight, load.request.options
        load.begin = engine.clock.monotonic()
        load.generation = flight.generation = permit.generation
        if engine.stack.shared is not None:
            tags = (*engine.stack.implied(load.request.key), *load.tags)
            flight.holds = partial(engine.stack.holds, permit, tags, self._lease)
        flight.unclaimed = True
        if load.behind:
            self._count_refresh(flight, load.behind)
        elif load.fallback is not None and self._is_due(load):
            # Stale, and to be refreshed in the background: this caller has it, and the load goes on for the next.
            flight.keep()
            self._stand_in(load, load.fallback, "revalidate")
        context = self._context(load)
        _loading.begin(context)
        heartbeat = _Heartbeat(self, permit) if permit.owner else None
        released = False
        try:
            value = await engine.load(flight, load.compute())
            flight.keep()  # whoever leaves now, what was loaded is stored
            kept, stored = await self._keep(load, permit, context, value, budget)
            if not stored:
                await engine.release(permit, budget)  # before anybody hears of the result, who may then ask again
            released = True
            flight.settle(kept)
        except Exception as error:
            await engine.release(permit, budget)
            released = True
            if not self._survives(load, error):
                if options.negative_ttl:
                    until = engine.clock.monotonic() + seconds(options.negative_ttl)
                    if not flight.fenced:
                        if len(self._failures) >= _MAX_FAILURES:
                            self._failures.clear()
                        self._failures[load.request.key] = (error, until, engine.stack.state(load.request.key))
                raise
        finally:
            context._tagged = None  # the task's context outlives the load by a moment
            if heartbeat is not None:
                heartbeat.stop()
            if not released:
                await engine.release(permit, budget)

    def _context(self, load: _Load) -> _loading.LoadContext:
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
        self, load: _Load, permit: Permit, context: _loading.LoadContext, value: object, budget: Budget
    ) -> tuple[_Kept, bool]:
        engine, request = self._engine, load.request
        try:
            packed = engine.stack.pack(value)
        except UnstorableValueError as error:
            self._refuse(error)
            return _Kept(Packed(value, None, True), names.MISS), False
        self._failures.pop(request.key, None)
        if context._ttl is not None:
            request = replace(request, ttl=context._ttl)
        decision = self._policy.on_loaded(request, value)
        kept = _Kept(packed, names.MISS)
        if context._skipped or not isinstance(decision, Store):
            engine.telemetry.store("skipped" if isinstance(decision, Store) else decision.reason)
            return kept, False
        keep = self._how(load, context, decision)
        with load.flight.storing():
            result = "fenced"
            if not load.flight.fenced:
                if budget.left < engine.stack.timeout:
                    budget = Budget(engine.stack.timeout) if load.behind else budget
                result = await engine.stack.publish({request.key: packed}, keep, permit, budget)
            engine.telemetry.store(result)
        return kept, result != "fenced"

    def _how(self, load: _Load, context: _loading.LoadContext, decision: Store) -> Keep:
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

    # Stale values

    def _is_due(self, load: _Load) -> bool:
        entry = load.fallback
        decision = self._policy.on_lookup(load.request, entry, self._engine.clock.monotonic())
        return isinstance(decision, Serve) and decision.refresh == "revalidate"

    def _stand_in(self, load: _Load, entry: Entry, reason: str) -> bool:
        """Give those who wait the stale value, if it may be served; whether it may.

        Args:
            reason: why they do not get what is being loaded.
        """
        if not self._may_stand_in(load.request, entry):
            return False
        self._count_refresh(load.flight, reason)
        load.flight.settle(self._stale(entry))
        return True

    def _may_stand_in(self, request: ValueRequest, entry: Entry) -> bool:
        if self._engine.clock.monotonic() >= entry.fresh_until + request.options.stale_for:
            return False
        return not self._engine.stack.is_invalid(request.key, entry)

    def _stale(self, entry: Entry) -> _Kept:
        return _Kept(Packed(self._engine.stack.read(entry), entry.payload, entry.payload is None), names.STALE)

    def _survives(self, load: _Load, error: Exception) -> bool:
        """After a failed load: whether a stale value takes the place of the error."""
        engine, entry = self._engine, load.fallback
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

    # Counting

    def _settle(self, load: _Load, found: Found) -> None:
        entry = found.entry
        fresh = self._engine.clock.monotonic() < entry.fresh_until
        value = self._engine.value(found)
        packed = Packed(value, entry.payload, entry.payload is None)
        result = names.HIT if fresh else names.STALE
        load.flight.settle(_Kept(packed, result, found.layer if fresh else None))

    def _count_refresh(self, flight: Flight[_Kept], reason: str) -> None:
        # A load that no request is counted for. Where none has begun, there is none to count.
        if self._engine.flights.claim(flight):
            self._engine.telemetry.refresh(reason)

    def _count(self, flight: Flight[_Kept] | None, outcome: Settled[_Kept] | Failed | Abandoned | None) -> None:
        # Each caller counts itself once, when it leaves, also when it failed or was cancelled. One of those who shared
        # a load counts as the one who loaded, so that loads are misses less coalesced, and refreshes; which one does
        # not matter.
        telemetry = self._engine.telemetry
        if isinstance(outcome, Settled) and outcome.result.result != names.MISS:
            telemetry.request(outcome.result.result, outcome.result.layer).n += 1
            return
        telemetry.miss.n += 1
        if flight is None or not self._engine.flights.claim(flight):
            telemetry.coalesced.n += 1

    def _refuse(self, error: UnstorableValueError) -> None:
        self._engine.telemetry.store("unstorable")
        if error.type_name not in self._warned:
            self._warned.add(error.type_name)
            _LOG.warning("a loaded value is not cached: %s", error)

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

    def __init__(self, computing: Computing, permit: Permit) -> None:
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(computing.lease / 3, self._begin, computing, permit)

    def _begin(self, computing: Computing, permit: Permit) -> None:
        self._task = asyncio.get_running_loop().create_task(computing.keep_lease(permit))

    def stop(self) -> None:
        """The load has ended."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
