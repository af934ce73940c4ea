"""Requests for which nothing is stored: they wait for a load that is under way, or one begins for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

from aurelis.cache._decisions import Bypass, Follow, Load, Pass, Serve
from aurelis.cache._engine import Engine
from aurelis.cache._entry import Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._flight import Abandoned, Failed, Flight
from aurelis.cache.exceptions import CacheClosedError, RecursiveLoadError
from aurelis.cache.http import LoadedResponse, ResponseHead
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._spans import Made, link, shared
from aurelis.cache.typing import ExchangePolicy

from ._answers import Alone, Hit, Live
from ._judgements import is_for_its_leader, result_alone, waits_longer, why, would_block_itself
from ._leading import Lead
from ._loads import Loads, Wanted
from ._outcomes import Loading, Seat, Substitute, answer_of
from ._recorder import Recorder
from ._unshareable import Unshareable
from ._ways import Ways

Q = TypeVar("Q")

_MAX_LEADERS: Final = 3
"""Loads of others that a request waits for, one after the other, before it asks for itself."""
_FAILURE: Final = ConnectionError("the origin has failed")


class Joining(Generic[Q]):
    """Joins the flights of one exchange.

    Args:
        loads: begins loads.
        unshareable: says which keys are not worth waiting for.
    """

    def __init__(
        self,
        engine: Engine,
        policy: ExchangePolicy[Q, ResponseHead, LoadedResponse],
        loads: Loads[Q],
        unshareable: Unshareable,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._loads = loads
        self._unshareable = unshareable

    async def join(
        self,
        request: Q,
        key: str,
        entry: Entry | None,
        decision: Load,
        ways: Ways,
        load: Callable[[Recorder[Q]], Awaitable[None]] | None,
        patience: float | None,
        span: Made,
    ) -> Found | Follow | Hit | Alone | Live | Lead:
        """What the request gets, or by which key or entry its answer is to be looked for.

        Args:
            load: as for `Exchange.open`; `None`: its caller is a thread, which on `Lead` loads by itself.
            patience: as for `Exchange.open`.
            span: around the request.

        Raises:
            CacheClosedError: the event loop or the cache was closed during its own load.
            Exception: what the load raised before the head came.
        """
        engine = self._engine
        flights = engine.flights
        tries = _MAX_LEADERS
        while True:
            if (lingering := flights.lingering(key, blocking=load is None)) is not None:
                try:
                    await ways.lingered(lingering)
                except BaseException:
                    self.count_absent()
                    raise
            try:
                flight, leads = (flights.apart(key), True) if self._unshareable.has(key) else flights.join(key)
            except RecursiveLoadError:
                # The origin asks through this cache for what is being loaded: it gets what it would get without one.
                return self.alone(decision.reason, "recursive")

            def leave(flight: Flight[Any] = flight, leads: bool = leads) -> None:
                flights.leave(flight, leads=leads)

            if not leads and would_block_itself(flight, blocking=load is None):
                leave()
                return self.alone(decision.reason, "recursive")
            stays = counted = False
            seat = Seat()
            try:
                if leads:
                    flight.patience = patience
                    below = bool(engine.stack.lower) and decision.reason != "request"
                    wanted = Wanted(flight, request, key, entry, below)
                    if load is not None:
                        flights.start(flight, self._loads.run(wanted, load, seat))
                    else:
                        lead = await self._loads.begin(wanted, ways)
                        if lead is not None:
                            stays = counted = True
                            return Lead(lead, why(decision, lead.found), leave, flight)
                try:
                    outcome = await ways.outcome(flight, None if leads else patience)
                    if isinstance(outcome, Failed):
                        if not leads and waits_longer(patience, flight, outcome) and (tries := tries - 1):
                            counted = True
                            continue
                        outcome.again()
                except BaseException:
                    if not leads:
                        shared(span, flight.link)
                    raise
                counted = not (leads and isinstance(outcome, Abandoned))
                if isinstance(outcome, Abandoned):
                    if leads:
                        raise CacheClosedError("the event loop or the cache was closed during the load")
                    continue
                result: Found | Substitute | Loading = outcome.result
                if isinstance(result, Found):
                    return result
                if isinstance(result, Substitute):
                    if leads or self._fits(request, result):
                        own = flight if leads and load is not None else None
                        reason = why(decision, result.found)
                        if not leads:
                            link(span, flight.link)
                        return answer_of(result, reason, engine, collapsed=not leads, flight=own)
                    if tries := tries - 1:
                        continue
                    return self.alone(decision.reason)
                if leads:
                    stays = True
                    reason = why(decision, result.found)
                    return Live(result.head, result.decision, reason, False, seat.reader, result.raw, leave, flight)
                if is_for_its_leader(result.decision) and (tries := tries - 1):
                    continue
                followed = self._share(request, result, decision, leave, flight)
                stays = isinstance(followed, Live)
                if stays:
                    link(span, flight.link)
                return followed
            finally:
                if not stays:
                    seat.leave()
                    leave()
                # Only the end of its task tells whether the origin is asked, and then the load is counted in its place.
                if not counted and leads and flight.task is not None and not flight.task.done():
                    flight.task.add_done_callback(partial(self._count_unless_loaded, seat))
                elif not counted:
                    self._count_unless_loaded(seat, None)

    def alone(self, reason: str, detail: str = "") -> Alone:
        """Count a request that asks the origin for itself alone."""
        telemetry = self._engine.telemetry
        (telemetry.miss if result_alone(reason) == names.MISS else telemetry.bypass).n += 1
        return Alone(reason, detail)

    def count_absent(self) -> None:
        """Count a request whose load failed, or whose caller left before there was an answer."""
        self._engine.telemetry.miss.n += 1
        self._engine.telemetry.coalesced.n += 1

    def _count_unless_loaded(self, seat: Seat, _: object) -> None:
        if not seat.loads:
            self.count_absent()

    def _fits(self, request: Q, substitute: Substitute) -> bool:
        """Whether what took the place of a response that was loaded for another is an answer to this request."""
        now = self._engine.clock.monotonic()
        if not substitute.shared:
            return False
        if substitute.result == names.REVALIDATED:
            return isinstance(self._policy.on_lookup(request, substitute.entry, now), Serve)
        return isinstance(self._policy.on_error(request, substitute.entry, _FAILURE, now), Serve)

    def _share(
        self, request: Q, loading: Loading, decision: Load, leave: Callable[[], None], flight: Flight[Any]
    ) -> Live | Follow | Alone:
        if isinstance(loading.decision, Pass) or loading.recording is None:
            return self.alone(decision.reason, loading.decision.reason if isinstance(loading.decision, Pass) else "")
        if not loading.recording.is_complete() and not flight.alive():
            # The thread that loaded it has ended or dropped the response, so the rest will never come.
            self._engine.flights.land(flight)
            return self.alone(decision.reason, "abandoned")
        verdict = self._policy.on_shared(request, loading.request, loading.head, loading.response_time)
        if isinstance(verdict, Follow):
            return verdict
        if isinstance(verdict, Bypass):
            return self.alone(verdict.reason, verdict.detail)
        reader = loading.recording.reader()
        if reader is None:  # too large to keep, and its start is gone
            return self.alone(decision.reason, "too-large")
        self._engine.telemetry.miss.n += 1
        self._engine.telemetry.coalesced.n += 1
        reason, route = why(decision, loading.found), loading.route
        return Live(loading.head, loading.decision, reason, True, reader, None, leave, flight, route)
