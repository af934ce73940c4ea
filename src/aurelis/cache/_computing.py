"""Values that are loaded when they are not there, as seen by those who ask for them.

One load for all who ask, refreshes in the background, and timeouts that let go of callers and not of the load; what a
load does is for `_loader`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final, Literal, TypeVar

from ._bridge import LentThread
from ._decisions import Serve
from ._engine import Engine
from ._entry import Entry
from ._flight import Abandoned, Failed, Flight, Settled, current
from ._forking import renew_in_children
from ._loader import Compute, Kept, Load, Loader
from ._options import EntryOptions, seconds
from ._shared_errors import SharedError
from ._ttl_policy import TtlPolicy, ValueRequest
from .exceptions import LoadTimeoutError, RecursiveLoadError
from .telemetry import names
from .telemetry._spans import described, shared, tell

T = TypeVar("T")

DEFAULT_OPTIONS: Final = EntryOptions()
_BLOCKS: Final = "the event loop that this call blocks loads the same key; call it in another thread"
_MAX_BEHIND: Final = 64
"""Refreshes in the background at once; more would take the origin away from those who wait."""


class Computing:
    """`get_or_compute` of one cache."""

    def __init__(self, engine: Engine, lease: float) -> None:
        self._engine = engine
        self._policy = TtlPolicy()
        self._loader = Loader(engine, self._policy, lease)
        self.after_fork()
        renew_in_children(self)

    def after_fork(self) -> None:
        """Refreshes in the background are the parent's."""
        self._behind: set[asyncio.Task[None]] = set()

    async def get_or_compute(
        self,
        key: str,
        compute: Compute,
        ttl: float | None = None,
        tags: tuple[str, ...] = (),
        options: EntryOptions = DEFAULT_OPTIONS,
        *,
        anew: bool = False,
        told: Callable[[str], None] | None = None,
    ) -> object:
        """The value, loaded by one caller for all. To be called after `read_memory` found nothing.

        Args:
            told: called with the result, as it is counted, where there is one.
            anew: load whatever there is, which stays if that fails; no load that has begun before is shared.
        """
        engine = self._engine
        engine.check(key)
        if ttl is None and options.ttl is not None:
            ttl = seconds(options.ttl)
        request = ValueRequest(key, engine.stack.default_ttl if ttl is None else ttl, options)
        if not anew:
            served = self._from_memory(request, compute, tags, ttl)
            if served is not None:
                if told is not None:
                    told(names.HIT)
                return engine.stack.read(served)
            self._raise_remembered(key)
        engine.telemetry.miss_l1.n += 1
        flight: Flight[Kept] | None = None
        outcome: Settled[Kept] | Failed | Abandoned | None = None
        leads, since = True, engine.flights.last_anew
        with engine.telemetry.spans.around("get", key) as span:
            try:
                while True:
                    joined_at = engine.stack.generations.latest
                    role: Literal["lead", "follow", "wait"] = "follow"
                    overtaken: Flight[Kept] | None = None
                    if anew:
                        flight, role, overtaken = engine.flights.join_anew(key, since)
                        leads = role == "lead"
                    else:
                        flight, leads = engine.flights.join(key)
                    if leads:
                        flight.tags = tags
                        load = Load(flight, request, compute, tags, ttl, "", anew, overtaken)
                        engine.flights.start(flight, self._loader.fill(load))
                    try:
                        outcome = await self._outcome(flight, request)
                    finally:
                        engine.flights.leave(flight, leads=leads)
                    if isinstance(outcome, Abandoned) or role == "wait":
                        engine.check(key)  # its event loop has ended, or the whole cache was closed
                    elif leads or not flight.overtaken or joined_at < flight.overtaken:
                        break  # otherwise it began before an invalidation that this caller comes after
                    self._loader.count_unwaited(flight)
            finally:
                self._count(flight, outcome)
                if flight is not None and not leads:
                    shared(span, flight.link)
            if isinstance(outcome, Failed):
                outcome.again()
            kept = outcome.result
            if told is not None:
                told(kept.result)
            if span is not None:
                collapsed = not leads or kept.collapsed
                tell(
                    span, described(kept.result, kept.layer or "", ttl=kept.ttl, collapsed=collapsed, stale=kept.reason)
                )
            return kept.packed.value if leads else engine.stack.unpack(kept.packed)

    def get_or_compute_blocking(
        self, key: str, compute: Callable[[], T], ttl: float, tags: tuple[str, ...], *, anew: bool = False
    ) -> T:
        """The same for a thread without an event loop, which runs the load itself if it is the one to load."""
        engine = self._engine
        if engine.flights.would_block(key):
            engine.check(key)
            if anew:
                raise RecursiveLoadError(_BLOCKS)
            # Nobody can have the result of that load before this returns.
            engine.telemetry.miss_l1.n += 1
            engine.telemetry.miss.n += 1
            return compute()
        thread = LentThread()

        async def load() -> T:
            flight = current()
            # A refresh in the background is nothing that the caller waits for.
            return await thread.call(compute, elsewhere=flight is not None and not flight.has_callers())

        found = self.get_or_compute(key, load, ttl, tags, anew=anew)
        return engine.bridge.run_lending(found, thread)  # type: ignore[return-value]  # what is stored under the key is what `compute` gives

    def delete_blocking(self, key: str) -> bool:
        """`Engine.delete` for a thread without an event loop.

        Raises:
            RecursiveLoadError: it would wait for what this thread is storing.
        """
        if self._engine.flights.would_block(key):
            raise RecursiveLoadError(_BLOCKS)
        return self._engine.bridge.run(self._engine.delete(key))

    async def _outcome(self, flight: Flight[Kept], request: ValueRequest) -> Settled[Kept] | Failed | Abandoned:
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
            if isinstance(stale, Entry) and self._loader.may_stand_in(request, stale):
                self._let_go(flight, options)
                self._loader.count_refresh(flight, "timeout")
                return Settled(self._loader.stale(stale, "timeout"))
        if options.hard_timeout is None:
            return await flight.wait()
        self._let_go(flight, options)
        error = LoadTimeoutError(f"the load took longer than {options.hard_timeout} s")
        return Failed.of(error)

    def _let_go(self, flight: Flight[Kept], options: EntryOptions) -> None:
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
        ttl = entry.fresh_until - now
        if ttl > 0:
            if engine.count_memory_hit(now):
                engine.telemetry.spans.note(names.HIT, names.L1, request.key, ttl=ttl)
        else:
            engine.telemetry.lookup(names.L1, names.STALE).n += 1
            reason = decision.refresh or "error"
            engine.telemetry.stale(reason).n += 1
            engine.note(names.STALE, names.L1, request.key, ttl=ttl, stale=reason)
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
        load = Load(flight, request, compute, tags, ttl, reason, started_by=self._engine.telemetry.spans.here())
        # What belongs to the request that happens to come first (its session, its span) is over before this is.
        task = self._engine.flights.start(flight, self._loader.fill(load), Context())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard, context=Context())

    def _raise_remembered(self, key: str) -> None:
        found = self._engine.failures.find(key, self._engine.clock.monotonic())
        if found is not None and isinstance(error := found[0], SharedError):
            self._engine.count_negative()
            self._engine.note(names.HIT, names.NEGATIVE, key)
            error.again()

    # Counting

    def _count(self, flight: Flight[Kept] | None, outcome: Settled[Kept] | Failed | Abandoned | None) -> None:
        # Each caller counts itself once, when it leaves, also when it failed or was cancelled. One of those who shared
        # a load counts as the one who loaded, so that loads are misses less coalesced, and refreshes; which one does
        # not matter.
        telemetry = self._engine.telemetry
        if isinstance(outcome, Settled) and outcome.result.result != names.MISS:
            kept = outcome.result
            telemetry.request(kept.result, kept.layer, kept.reason or None).n += 1
            return
        telemetry.miss.n += 1
        if flight is None or not self._engine.flights.claim(flight):
            telemetry.coalesced.n += 1
