"""Loads of responses: in a task or in a thread, for those who wait or behind those who have an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from aurelis.cache._bridge import run_inline
from aurelis.cache._decisions import Load
from aurelis.cache._entry import Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._flight import Flight, enter
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._spans import Made, mark_failed

from ._answers import Hit
from ._judgements import answers
from ._leading import Lead
from ._outcomes import Seat
from ._recorder import Exchanging, Recorder
from ._ways import Async, Blocking, Ways

Q = TypeVar("Q")

MAX_REFRESHES: Final = 64
"""Refreshes in the background at once; more would take the origin away from those who wait."""

LONGEST_LOAD: Final = 3600.0
"""Seconds after which a response that is still being loaded is not stored in a shared layer any more."""


@dataclass(frozen=True, slots=True, repr=False)
class Wanted(Generic[Q]):
    """A response that the origin is to be asked for, unless it is found on the way there.

    Attributes:
        flight: of those who wait for it.
        stale: what is known of it, and is no answer.
        below: lower layers are looked into before the origin is asked.
        behind: why it is loaded in the background; empty: somebody waits for it.
    """

    flight: Flight[Any]
    request: Q
    key: str
    stale: Entry | None
    below: bool
    behind: str = ""


class Loads(Generic[Q]):
    """The loads of one exchange.

    Args:
        on_refresh: as of `Exchange`.

    Attributes:
        refreshes: tasks of those in the background.
    """

    def __init__(
        self, exchange: Exchanging[Q], on_refresh: Callable[[asyncio.Task[None]], object] | None = None
    ) -> None:
        self._exchange = exchange
        self._on_refresh = on_refresh
        self._engine = exchange.engine
        self.refreshes: set[asyncio.Task[None]] = set()

    async def run(self, wanted: Wanted[Q], load: Callable[[Recorder[Q]], Awaitable[None]], seat: Seat) -> None:
        """Load in the running task, and end the flight."""
        await self._run(wanted, load, seat)

    async def _run_behind(
        self,
        wanted: Wanted[Q],
        hit: Hit,
        load: Callable[[Recorder[Q]], Awaitable[None]],
        seat: Seat,
        started_by: object,
    ) -> None:
        with self._apart(hit, started_by) as span:
            error = await self._run(wanted, load, seat)
            if error is not None:
                mark_failed(span, type(error).__qualname__)

    def _apart(self, hit: Hit, started_by: object) -> AbstractContextManager[Made]:
        """Around a refresh in the background, which is no part of the trace that began it."""
        spans = self._engine.telemetry.spans
        return spans.apart("revalidate", started_by, hit.key, {names.REFRESH_REASON: hit.refresh})

    async def _run(
        self, wanted: Wanted[Q], load: Callable[[Recorder[Q]], Awaitable[None]], seat: Seat
    ) -> Exception | None:
        """The same; what the load raised, which those who wait get."""
        flight = wanted.flight
        enter(flight)
        recorder: Recorder[Q] | None = None
        try:
            recorder = await self._look_below(wanted, Async(), seat)
            if recorder is not None:
                seat.loads = True
                await self._engine.load((flight,), load(recorder), wanted.key, recorder.timed_by)
                await recorder.end()
        except asyncio.CancelledError:
            if recorder is not None:
                recorder.abort()
            flight.abandon()
            raise
        except BaseException as error:
            if recorder is None:
                flight.fail(error)
            else:
                recorder.fail(error)
            if not isinstance(error, Exception) or (recorder is not None and recorder.ended):
                raise  # what an app raises after its response belongs to whoever runs the app
            return error
        finally:
            self._engine.flights.land(flight)
            if recorder is not None:
                await recorder.release()
        return None

    async def begin(self, wanted: Wanted[Q], ways: Ways) -> Recorder[Q] | None:
        """The recorder for a thread that loads by itself; `None`: there is nothing to load, and the flight is over."""
        try:
            return await self._look_below(wanted, ways, None)
        except BaseException as error:
            wanted.flight.fail(error)
            self._engine.flights.land(wanted.flight)
            raise

    async def _look_below(self, wanted: Wanted[Q], ways: Ways, seat: Seat | None) -> Recorder[Q] | None:
        """Settle the flight with what has been stored meanwhile or what lower layers have, or give the recorder."""
        flight, request, key, stale, behind = wanted.flight, wanted.request, wanted.key, wanted.stale, wanted.behind
        budget = self._engine.stack.budget()
        entry = self._engine.stack.peek(key)
        if entry is not None and entry is not stale:
            # Between a caller's look into memory and its turn to load, one in another loop or thread may have loaded.
            if answers(self._exchange.policy.on_lookup(request, entry, self._engine.clock.monotonic()), behind):
                flight.settle(Found(entry, names.L1))
                self._engine.flights.land(flight)
                return None
            stale = entry
        reason = ""
        if wanted.below:
            found = await ways.run(self._engine.stack.lookup(key, budget))
            if found is not None:
                decision = self._exchange.policy.on_lookup(request, found.entry, self._engine.clock.monotonic())
                if answers(decision, behind):
                    flight.settle(found)
                    self._engine.flights.land(flight)
                    return None
                stale = found.entry
                reason = decision.reason if isinstance(decision, Load) else ""
        # Processes do not wait for each other here, as a stream cannot be shared between them. The permit only says
        # whether an invalidation has overtaken the load.
        _, permit = await ways.run(self._engine.acquire(key, budget, again=True, life=LONGEST_LOAD))
        flight.generation = permit.generation
        flight.holds = partial(self._engine.stack.holds, permit, self._engine.stack.implied(key), LONGEST_LOAD)
        return Recorder(self._exchange, request, flight, key, stale, budget, ways, seat, permit, behind, reason)

    def refresh(self, request: Q, hit: Hit, load: Callable[[Recorder[Q]], Awaitable[None]]) -> None:
        """As `Exchange.refresh`."""
        flight = self.behind(hit.key)
        if flight is None:
            return
        seat = Seat()
        seat.leave()
        work = self._run_behind(self._anew(flight, request, hit), hit, load, seat, self._engine.telemetry.spans.here())
        # What belongs to the request that happens to come first (its span, its context) is over before this is.
        self.watch(self._engine.flights.start(flight, work, Context()))

    def refresh_blocking(self, request: Q, hit: Hit, load: Callable[[Lead], object], started_by: object) -> None:
        """As `Exchange.refresh_blocking`."""
        flight = self.behind(hit.key)
        if flight is None:
            return
        ways = Blocking(self._engine)
        with self._apart(hit, started_by) as span:
            recorder = run_inline(self.begin(self._anew(flight, request, hit), ways))
            if recorder is not None:
                load(Lead(recorder, "stale", _nothing, flight))
                if recorder.failed_with:  # what is stored stands in for it once more
                    mark_failed(span, recorder.failed_with)

    def _anew(self, flight: Flight[Any], request: Q, hit: Hit) -> Wanted[Q]:
        return Wanted(flight, request, hit.key, None, bool(self._engine.stack.lower), hit.refresh)

    def watch(self, task: asyncio.Task[None]) -> None:
        """As `Exchange.watch`."""
        if self._on_refresh is not None:
            self._on_refresh(task)
        self.refreshes.add(task)
        task.add_done_callback(self.refreshes.discard, context=Context())

    def behind(self, key: str) -> Flight[Any] | None:
        """As `Exchange.load_behind`."""
        if self._engine.closed or not key:
            return None
        if len(self.refreshes) >= MAX_REFRESHES:
            self.refreshes -= {task for task in self.refreshes if task.get_loop().is_closed()}
            if len(self.refreshes) >= MAX_REFRESHES:
                return None
        return self._engine.flights.behind(key)


def _nothing() -> None:
    pass
