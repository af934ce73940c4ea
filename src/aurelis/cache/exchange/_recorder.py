"""Taking one response from its origin, while its caller and others may already read it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, Generic, Protocol, TypeVar

from aurelis.cache._decisions import Confirm, Pass, Record, Serve, Store
from aurelis.cache._engine import Engine
from aurelis.cache._entry import Entry
from aurelis.cache._filling import Filling
from aurelis.cache._flight import Flight, Settled
from aurelis.cache._guard import Budget
from aurelis.cache._leases import Permit
from aurelis.cache._recording import Recording
from aurelis.cache.exceptions import LayerError
from aurelis.cache.http import Fields, LoadedResponse, ResponseHead, StoredResponse
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._spans import close_span, current_in, current_span_context
from aurelis.cache.typing import ExchangePolicy, Terminator

from ._answers import Hit
from ._keeping import announced_length, pack, publish
from ._outcomes import Loading, Seat, Substitute, answer_of
from ._ways import Ways

Q = TypeVar("Q")


class Exchanging(Protocol[Q]):
    """What a recorder needs of its exchange."""

    engine: Engine
    policy: ExchangePolicy[Q, ResponseHead, LoadedResponse]
    max_body_bytes: int

    def note(self, key: str, decision: Record | Pass) -> None:
        """Remember whether responses under this key can be shared."""
        ...


_GONE = frozenset({404, 410})
_MAX_LINGERED: Final = 16 * 1024
"""Bytes that are read of a body at most when nobody is left to read it: its end is short."""
_BROKEN = ConnectionError("the origin has broken off its response")


class Recorder(Generic[Q]):
    """Takes one response from its origin: first `take`, then each `chunk`, then `end`.

    Attributes:
        conditions: fields by which the origin is to be asked whether what is stored still holds, in place of all
            conditions of the caller's own; empty: it is just asked.
        route: template of the route that answers, empty where unknown.
        failed_with: type of the error that the load has met; empty: none.
        found: why the origin is asked in spite of what a lower layer has, a `fwd` token of RFC 9211 §2.2; empty: it has
            nothing.
    """

    def __init__(
        self,
        exchange: Exchanging[Q],
        request: Q,
        flight: Flight[Any],
        key: str,
        stale: Entry | None,
        budget: Budget,
        ways: Ways,
        seat: Seat | None,
        permit: Permit,
        behind: str = "",
        found: str = "",
    ) -> None:
        self._exchange = exchange
        self._engine = exchange.engine
        self._request = request
        self._flight = flight
        self._key = key
        self._stale = stale
        self._budget = budget
        self._ways = ways
        self._seat = seat
        self._permit = permit
        self._behind = behind
        self.found = found
        self.failed_with = ""
        self._reported = False
        self._published = False
        self.conditions: Fields = tuple(exchange.policy.conditions(request, stale))
        # One that loads in a thread has a span of its own; one that runs in a task is inside of the engine's.
        self._span = self._engine.telemetry.spans.open("fill", key) if seat is None else None
        if self._span is not None:
            flight.link = current_span_context(self._span)
        self._filling: Filling | None = None
        self._begin = self._engine.clock.monotonic()
        self._request_time = self._engine.clock.time()
        self._response_time = 0.0
        self._limit = exchange.max_body_bytes
        self._head: ResponseHead | None = None
        self._recording: Recording | None = None
        self._terminator: Terminator | None = None
        self._head_at = 0.0
        self._times: list[float] = []
        self._linger = 0.0
        self._lingered = 0
        self.terminated = False
        self.ended = False
        self.over = False
        self.route = ""

    def timed_by(self, filling: Filling) -> None:
        """Whoever loads may have more to do when the response is there, as an app has with its background tasks."""
        self._filling = filling

    async def take(self, head: ResponseHead, raw: object = None, *, refused: str = "") -> Record | Pass | None:
        """Take the head. On `Pass` nobody shares the body; on `None` nobody wants it, and the load is over.

        Args:
            raw: the framework's response, which on `Pass` is handed over unread to the caller whose load it is. Without
                one its chunks still go through here.
            refused: why the framework cannot give the body in a form to be kept; empty: the policy decides.
        """
        stale = self._stale
        if stale is not None and await self._is_substituted(stale, head):
            return None
        decision = self._open(head, raw, refused)
        if stale is not None and isinstance(decision, Pass) and self._is_outdated(stale, decision, head):
            with suppress(LayerError):  # then it is removed later
                await self._ways.run(self._engine.stack.remove(self._key, self._budget))
        return decision

    def awaits_body(self, head: ResponseHead) -> bool:
        """Whether to `take` the head only once something of the body has come: until then something may stand in."""
        stale, policy = self._stale, self._exchange.policy
        if stale is None:
            return False
        decision = policy.on_response(self._request, head, self._engine.clock.time())
        if not isinstance(decision, Record) or announced_length(head) > self._limit_by(decision):
            return False  # it may be handed over unread
        now = self._engine.clock.monotonic()
        return isinstance(policy.on_error(self._request, stale, _BROKEN, now), Serve)

    def _limit_by(self, decision: Record) -> int:
        """Bytes of a body that are recorded at most."""
        return self._exchange.max_body_bytes if decision.max_body_bytes is None else decision.max_body_bytes

    def _is_outdated(self, stale: Entry, decision: Pass, head: ResponseHead) -> bool:
        """Whether there is a newer response, which cannot take the place of the stored one: that must not come back."""
        newer = decision.lasting or head.status in _GONE
        return newer and self._engine.clock.monotonic() >= stale.fresh_until

    async def _is_substituted(self, stale: Entry, head: ResponseHead) -> bool:
        """Whether what is stored is the answer, because the origin has confirmed it or has failed."""
        engine, policy = self._engine, self._exchange.policy
        if self.conditions:
            now, response_time = engine.clock.monotonic(), engine.clock.time()
            loaded = LoadedResponse(head, (), now - self._begin, self._request_time, response_time, self.route)
            decision = policy.on_validated(self._request, stale, loaded)
            if decision is not None:
                await self._confirm(decision, head)
                return True
        if self._is_gone(stale):
            return False
        stand_in = policy.on_refused(self._request, stale, head, engine.clock.monotonic())
        if stand_in is None:
            return False
        self._stand_in(stand_in, head.status, head.status)
        return True

    def _is_gone(self, stale: Entry | None) -> bool:
        """Whether what was stored has been removed or invalidated while the load went on."""
        return self._flight.fenced or (stale is not None and self._engine.stack.is_invalid(self._key, stale))

    def _stand_in(self, decision: Serve, status: int | None, cause: str | int) -> None:
        """Answer with what is stored, since the origin has failed."""
        self._engine.note_failure(cause, stale=True, unheard=False)
        if decision.retry_in:
            self._engine.stack.rearm(self._key, decision.entry, self._engine.clock.monotonic() + decision.retry_in)
        self._substitute(Substitute(decision.entry, names.STALE, status, found=self.found), "error")

    async def _confirm(self, decision: Confirm, head: ResponseHead) -> None:
        self._flight.keep()  # whoever leaves now, what was confirmed is stored
        store = decision.store
        if store is not None:
            self._flight.tags = store.tags
            with self._flight.storing():
                await self._ways.run(self._store_unless_fenced(store))
        # Where each has to ask, nobody waits for the answer to another one.
        self._exchange.note(self._key, Record(decision.fresh_for, shared=decision.fresh_for > 0))
        fresh_until = self._engine.clock.monotonic() + decision.fresh_for
        entry = Entry(decision.value, None, fresh_until, math.inf, 0)
        shared = store is not None and store.key in (None, self._key)
        substitute = Substitute(entry, names.REVALIDATED, head.status, store is not None, shared, self.found)
        self._substitute(substitute, "validated")

    def _substitute(self, substitute: Substitute, reason: str) -> None:
        self._flight.keep()  # callers leave with what is stored, and the origin may have more to do after its answer
        self._answered()
        # No request counts as a miss for this load, so it is counted as a refresh.
        self._engine.telemetry.refresh(self._behind or reason)
        if self._seat is not None:
            self._seat.loads = False
        self.ended = self.over = True
        self._flight.settle(substitute)
        self._engine.flights.land(self._flight)

    def _open(self, head: ResponseHead, raw: object, refused: str) -> Record | Pass:
        self._head = head
        self._count_load()
        self._response_time = self._engine.clock.time()
        policy = self._exchange.policy
        decision: Record | Pass = (
            Pass(refused) if refused else policy.on_response(self._request, head, self._response_time)
        )
        limit = self._exchange.max_body_bytes
        if isinstance(decision, Record):
            self._limit = limit = self._limit_by(decision)
            if announced_length(head) > limit:
                decision = Pass("too-large", lasting=True)
        self._exchange.note(self._key, decision)
        if isinstance(decision, Record):
            self._flight.tags = decision.tags
            self._terminator = policy.terminator(self._request, head)
            self._linger = decision.linger
            self._head_at = self._engine.clock.monotonic()
            self._recording = Recording(limit, self._flight.alive, self._flight.loop)
        else:
            self._engine.telemetry.store(decision.reason)
            self._engine.flights.land(self._flight)
            if raw is None:
                self._stop_behind()
                self._recording = Recording(0, self._flight.alive, self._flight.loop)
            else:
                self.over = True  # whoever loads hands it over, or closes it
                self._flight.keep()  # its caller has left the load with it, and reads it, while older ones are removed
        if self._seat is not None and self._recording is not None:
            self._seat.reserve(self._recording)
        self._flight.settle(
            Loading(
                head,
                decision,
                self._recording,
                None if isinstance(decision, Record) else raw,
                self._request,
                self._response_time,
                self.route,
                self.found,
            )
        )
        return decision

    async def chunk(self, data: bytes, *, last: bool = False) -> None:
        """Take the next piece of the body. Waits only when nothing is recorded and readers are behind.

        Args:
            last: nothing follows but `end`. Readers learn it with the chunk, before it is stored.
        """
        recording = self._recording
        assert recording is not None, "head() comes first"
        if self._terminator is not None and not self.terminated and recording.kept and data:
            self._times.append(self._engine.clock.monotonic() - self._head_at)
            if self._terminator.feed(data):
                # The protocol's own end: callers that stop reading here must find the answer stored. What may follow is
                # for those who read it now.
                self.terminated = True
                await self._store_if_kept(recording, data)
                self._flight.linger = 0.0  # who leaves from now on leaves nothing behind that is worth it
            elif self._linger and self._terminator.is_near:
                self._flight.linger, self._linger = self._linger, 0.0
        if self._flight.lingering is not None:
            self._lingered += len(data)
            if self._lingered > _MAX_LINGERED:
                self.linger_no_more()
        if last:
            self._flight.keep()  # readers may leave once they have it
        recording.append(data, last=last)
        if not recording.kept:
            if not recording.has_readers():
                self._stop_behind()
            await self._ways.room(recording)

    async def end(self) -> None:
        """The body is complete: store it, then let readers see the end. Twice is harmless."""
        recording = self._recording
        if self.ended or recording is None:
            return
        self.ended = self.over = True
        self._answered()
        # Whoever leaves now, what has come whole is stored.
        self._flight.keep()
        if not self.terminated:
            await self._store_if_kept(recording)
        recording.finish()
        self._engine.flights.land(self._flight)

    def linger_no_more(self) -> None:
        """What it was read on for has not come soon."""
        self._engine.flights.linger_no_more(self._flight)

    def forgo(self) -> None:
        """Whoever loads cannot go on once nobody reads any more."""
        self._linger = self._flight.linger = 0.0

    def fail(self, error: BaseException) -> None:
        """The load failed: callers get a stale response where the policy allows it, or the error.

        That is for the one whose load it is and those who share it. Where that one has left, its client may be closed,
        so the others ask for themselves.
        """
        self.over = True
        cause, unheard = type(error).__qualname__, not self._flight.has_callers()
        self.failed_with = cause
        if self._recording is not None:
            self._recording.fail(error)
            self._engine.note_failure(cause, stale=False, unheard=unheard)
        elif self._flight.outcome is None:
            policy, now = self._exchange.policy, self._engine.clock.monotonic()
            stale = None if self._is_gone(self._stale) else self._stale
            decision = policy.on_error(self._request, stale, error, now)
            if isinstance(decision, Serve):
                ended = self.ended
                self._stand_in(decision, None, cause)
                self.ended = ended  # nothing of the error is left to be raised
            elif self._is_for_others():
                self._engine.note_failure(cause, stale=False, unheard=True)
                self._count_load()
                self._flight.abandon()
            else:
                if decision.remember_for and not self._flight.fenced:
                    failures = self._engine.failures
                    failures.note(self._key, bare(error), now + decision.remember_for, decision.patience)
                self._engine.note_failure(cause, stale=False, unheard=unheard)
                self._count_load()
                self._flight.fail(error)
        self._engine.flights.land(self._flight)

    def _is_for_others(self) -> bool:
        """Whether those who wait are none of those by whose means the origin was asked, so that they can ask again."""
        deserted = bool(self._behind) if self._seat is None else self._seat.left
        return deserted and self._flight.has_callers()

    def abort(self) -> None:
        """The load was cancelled, because nobody waits for it or its event loop ends."""
        self.over = True
        if self._recording is not None:
            self._recording.fail(ConnectionAbortedError("the load of this response was cancelled"))
        elif self._flight.outcome is None:
            self._count_load()
        self._engine.flights.land(self._flight)

    def stand_in(self, reason: str) -> Hit | None:
        """What takes the place of the response, for a caller that does not wait on the flight, counted as its answer.

        In the background there is no caller, and nothing is counted.

        Args:
            reason: why the origin was asked.
        """
        outcome = self._flight.outcome
        if not isinstance(outcome, Settled) or not isinstance(outcome.result, Substitute):
            return None
        if self._behind:  # nobody is answered, so there is nothing to count
            stored: StoredResponse = outcome.result.entry.value  # type: ignore[assignment]  # that is what stands in
            return Hit(stored, outcome.result.result, 0, 0.0)
        return answer_of(outcome.result, reason, self._engine)

    def report(self, error: BaseException | None = None) -> None:
        """Record how long a blocking load took, once; one that runs in a task is timed by the engine."""
        if self._reported:
            return
        self._reported = True
        elapsed = self._engine.clock.monotonic() - self._begin
        error_type = None if error is None else type(error).__qualname__
        with self.asking():
            self._engine.telemetry.duration(elapsed, "fill", error_type=error_type)
        span, self._span = self._span, None
        close_span(span, error_type)

    def lose(self) -> None:
        """A blocking load was dropped before its end. Takes no lock: a garbage collector calls this."""
        span, self._span = self._span, None  # what is in a cycle with it may close it yet
        if span is not None:
            self._engine.telemetry.spans.lose(span, ConnectionAbortedError.__qualname__)

    def asking(self) -> AbstractContextManager[object]:
        """Around asking the origin in a thread: its spans are inside that of the load."""
        return current_in(self._span)

    async def release(self) -> None:
        """End the lease of a response that was not stored."""
        if not self._published and self._permit.owner:
            self._published = True
            await self._ways.run(self._engine.release(self._permit, self._budget))

    def _answered(self) -> None:
        if self._filling is not None:
            self._filling.end()

    def _count_load(self) -> None:
        if self._behind:
            self._engine.telemetry.refresh(self._behind)
        else:
            self._engine.telemetry.miss.n += 1

    def _stop_behind(self) -> None:
        """What nobody reads and nobody keeps need not be loaded to its end."""
        if self._behind and self._flight.task is not None and not self._flight.has_callers():
            self._flight.task.cancel()

    def _flight_recorded(self) -> bool:
        outcome = self._flight.outcome
        return isinstance(outcome, Settled) and isinstance(outcome.result.decision, Record)

    async def _store_if_kept(self, recording: Recording, last: bytes = b"") -> None:
        """Store the body, with `last` at its end, unless it is too large or nobody wanted to keep it."""
        if recording.kept and recording.size + len(last) <= self._limit:
            await self._ways.run(self._store((*recording.chunks(), last) if last else recording.chunks()))
        elif self._flight_recorded():
            self._engine.telemetry.store("too_large")

    async def _store(self, chunks: tuple[bytes, ...]) -> None:
        engine = self._engine
        assert self._head is not None
        loaded = LoadedResponse(
            self._head,
            chunks,
            engine.clock.monotonic() - self._begin,
            self._request_time,
            self._response_time,
            self.route,
            tuple(self._times[: len(chunks)]),
        )
        decision = self._exchange.policy.on_loaded(self._request, loaded)
        if not isinstance(decision, Store):
            engine.telemetry.store(decision.reason)
            if decision.remember_for and not self._flight.fenced:
                until = engine.clock.monotonic() + decision.remember_for
                engine.failures.note(self._key, decision.failure, until)
            return
        stored = decision.value
        if isinstance(stored, StoredResponse) and stored.source == "model":
            engine.telemetry.expect_savings(stored.model)
        engine.failures.forget(self._key)
        with self._flight.storing():
            await self._store_unless_fenced(decision)

    async def _store_unless_fenced(self, decision: Store) -> None:
        engine = self._engine
        if self._flight.fenced:
            engine.telemetry.store("fenced")
            return
        packed = pack(engine, self._exchange.policy, self._request, decision, self._key)
        self._published = True
        await publish(engine, packed, decision, self._permit, self._budget)


def bare(error: BaseException) -> BaseException:
    """The error without what hangs on it: tracebacks and requests, which may be large and are of one caller."""
    try:
        return type(error)(*error.args)
    except Exception:  # noqa: BLE001  # not every class can be called like that
        return error
