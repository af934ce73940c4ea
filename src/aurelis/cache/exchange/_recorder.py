"""Taking one response from its origin, while its caller and others may already read it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from aurelis.cache._bridge import run_inline
from aurelis.cache._decisions import Pass, Record, Serve, Store
from aurelis.cache._engine import Engine
from aurelis.cache._entry import NO_DETAILS, Details, Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._flight import Flight, Settled
from aurelis.cache._guard import Budget
from aurelis.cache._leases import Permit
from aurelis.cache._packing import Keep
from aurelis.cache._recording import Reader, Recording
from aurelis.cache.http import LoadedResponse, ResponseHead
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry.otel import close_span, current_in, current_span_context
from aurelis.cache.typing import ExchangePolicy, Terminator

from ._answers import Hit, hit_of
from ._ways import Ways

Q = TypeVar("Q")


class _Exchange(Protocol[Q]):
    """What a recorder needs of its exchange."""

    engine: Engine
    policy: ExchangePolicy[Q, ResponseHead, LoadedResponse]
    max_body_bytes: int

    def note(self, key: str, decision: Record | Pass) -> None:
        """Remember whether responses under this key can be shared."""
        ...


@dataclass(slots=True)
class Loading:
    """Outcome of a flight: a response is coming."""

    head: ResponseHead
    decision: Record | Pass
    recording: Recording | None
    raw: object
    request: Any
    response_time: float


class Seat:
    """Where the caller whose load runs in a task finds its reader, which is there before the first chunk comes.

    Attributes:
        reader: `None`: no body comes this way.
        loads: the origin is asked, which counts the caller's request.
    """

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self.loads = False
        self._left = False

    def reserve(self, recording: Recording) -> None:
        """Have the caller read the body from its start, unless it has left."""
        if not self._left:
            self.reader = recording.reader()

    def leave(self) -> None:
        """The caller has left without taking its reader."""
        self._left = True
        if self.reader is not None:
            self.reader.close()


class Recorder(Generic[Q]):
    """Takes one response from its origin: first `head`, then each `chunk`, then `end`."""

    def __init__(
        self,
        exchange: _Exchange[Q],
        request: Q,
        flight: Flight[Any],
        key: str,
        stale: Entry | None,
        budget: Budget,
        ways: Ways,
        seat: Seat | None,
        permit: Permit,
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
        self._published = False
        # One that loads in a thread has a span of its own; one that runs in a task is inside of the engine's.
        self._span = self._engine.telemetry.open_span("fill") if seat is None else None
        if self._span is not None:
            flight.link = current_span_context(self._span)
        self._begin = self._engine.clock.monotonic()
        self._request_time = self._engine.clock.time()
        self._response_time = 0.0
        self._head: ResponseHead | None = None
        self._recording: Recording | None = None
        self._terminator: Terminator | None = None
        self._head_at = 0.0
        self._times: list[float] = []
        self.terminated = False
        self.ended = False
        self.over = False
        self.route = ""

    def head(self, head: ResponseHead, raw: object = None, *, refused: str = "") -> Record | Pass:
        """Take the head. On `Pass` nobody shares the body.

        Args:
            raw: the framework's response, which on `Pass` is handed over unread to the caller whose load it is. Without
                one its chunks still go through here.
            refused: why the framework cannot give the body in a form to be kept; empty: the policy decides.
        """
        self._head = head
        self._engine.telemetry.miss.n += 1
        self._response_time = self._engine.clock.time()
        policy = self._exchange.policy
        decision: Record | Pass = (
            Pass(refused) if refused else policy.on_response(self._request, head, self._response_time)
        )
        if isinstance(decision, Record) and _announced(head) > self._exchange.max_body_bytes:
            decision = Pass("too-large", lasting=True)
        self._exchange.note(self._key, decision)
        if isinstance(decision, Record):
            self._flight.tags = decision.tags
            self._terminator = policy.terminator(self._request, head)
            self._head_at = self._engine.clock.monotonic()
            self._recording = Recording(self._exchange.max_body_bytes, self._flight.alive, self._flight.loop)
        else:
            self._engine.telemetry.store(decision.reason)
            self._engine.flights.land(self._flight)
            if raw is None:
                self._recording = Recording(0, self._flight.alive, self._flight.loop)
            else:
                self.over = True
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
        if last:
            self._flight.keep()  # readers may leave once they have it
        recording.append(data, last=last)
        if not recording.kept:
            await self._ways.room(recording)

    async def end(self) -> None:
        """The body is complete: store it, then let readers see the end. Twice is harmless."""
        recording = self._recording
        if self.ended or recording is None:
            return
        self.ended = self.over = True
        # Whoever leaves now, what has come whole is stored.
        self._flight.keep()
        if not self.terminated:
            await self._store_if_kept(recording)
        recording.finish()
        self._engine.flights.land(self._flight)

    def fail(self, error: BaseException) -> None:
        """The load failed: callers get a stale response where the policy allows it, or the error."""
        self.over = True
        if self._recording is not None:
            self._recording.fail(error)
        elif self._flight.outcome is None:
            policy = self._exchange.policy
            decision = policy.on_error(self._request, self._stale, error, self._engine.clock.monotonic())
            if isinstance(decision, Serve):
                self._flight.settle(Found(decision.entry, names.STALE))
            else:
                self._engine.telemetry.miss.n += 1
                self._flight.fail(error)
        self._engine.flights.land(self._flight)

    def abort(self) -> None:
        """The load was cancelled, because nobody waits for it or its event loop ends."""
        self.over = True
        if self._recording is not None:
            self._recording.fail(ConnectionAbortedError("the load of this response was cancelled"))
        elif self._flight.outcome is None:
            self._engine.telemetry.miss.n += 1
        self._engine.flights.land(self._flight)

    def stand_in(self) -> Hit | None:
        """After `fail`: the stale response for a caller that does not wait on the flight, counted as its answer."""
        outcome = self._flight.outcome
        if not isinstance(outcome, Settled) or not isinstance(outcome.result, Found):
            return None
        self._engine.telemetry.request(names.STALE).n += 1
        return hit_of(outcome.result.entry, names.STALE, self._engine.clock.monotonic(), self._engine.telemetry)

    def report(self, error: BaseException | None = None) -> None:
        """Record how long a blocking load took; one that runs in a task is timed by the engine."""
        elapsed = self._engine.clock.monotonic() - self._begin
        error_type = None if error is None else type(error).__qualname__
        self._engine.telemetry.duration(elapsed, "fill", error_type=error_type)
        close_span(self._span, error_type)

    def asking(self) -> AbstractContextManager[object]:
        """Around asking the origin in a thread: its spans are inside that of the load."""
        return current_in(self._span)

    async def release(self) -> None:
        """End the lease of a response that was not stored."""
        if not self._published and self._permit.owner:
            self._published = True
            await self._ways.run(self._engine.release(self._permit, self._budget))

    def _flight_recorded(self) -> bool:
        outcome = self._flight.outcome
        return isinstance(outcome, Settled) and isinstance(outcome.result.decision, Record)

    async def _store_if_kept(self, recording: Recording, last: bytes = b"") -> None:
        """Store the body, with `last` at its end, unless it is too large or nobody wanted to keep it."""
        if recording.kept and recording.size + len(last) <= self._exchange.max_body_bytes:
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
            return
        with self._flight.storing():
            await self._store_unless_fenced(decision)

    async def _store_unless_fenced(self, decision: Store) -> None:
        engine = self._engine
        if self._flight.fenced:
            engine.telemetry.store("fenced")
            return
        values = {decision.key or self._key: engine.stack.pack(decision.value, trusted=True)}
        if decision.index is not None:
            index_key, index = decision.index
            values[index_key] = engine.stack.pack(index, trusted=True)
        self._published = True
        details = Details(decision.tags) if decision.tags else NO_DETAILS
        keep = Keep(decision.fresh_for, decision.stale_for, details=details)
        engine.telemetry.store(await engine.stack.publish(values, keep, self._permit, self._budget))


@dataclass(slots=True)
class Lead:
    """A blocking caller has to load the response itself, in its own thread, and record it.

    First `head`, then each `chunk`, then `end`; or `fail`. `close` in any case.

    Attributes:
        recorder: takes the response; not to be called directly.
        reason: the `fwd` token of RFC 9211 §2.2.
    """

    recorder: Recorder[Any]
    reason: str
    _leave: Callable[[], None]
    _flight: Flight[Any]
    _left: bool = field(default=False)

    def asking(self) -> AbstractContextManager[object]:
        """To be held while the origin is asked."""
        return self.recorder.asking()

    def head(self, head: ResponseHead, raw: object, *, refused: str = "") -> Record | Pass:
        """Take the head, as `Recorder.head`. On `Pass` the load is over, and `raw` is the caller's."""
        decision = self.recorder.head(head, raw, refused=refused)
        if self.recorder.over:
            self.recorder.report()
            run_inline(self.recorder.release())
        return decision

    def chunk(self, data: bytes) -> None:
        """Record the next piece of the body. Waits only when nothing is recorded and other readers are behind."""
        self._flight.take_over()  # a body may be read by another thread than asked for it
        run_inline(self.recorder.chunk(data))

    def end(self) -> None:
        """The body is complete: store it. Twice is harmless."""
        if not self.recorder.over:
            run_inline(self.recorder.end())
            self.recorder.report()
            run_inline(self.recorder.release())

    def fail(self, error: BaseException) -> Hit | None:
        """The load failed: others get the error, or what stands in for the response.

        Returns:
            What stands in for the response; `None`: raise the error.
        """
        if self.recorder.over:
            return None
        self.recorder.report(error)
        if not isinstance(error, Exception):
            # The thread is being interrupted. The origin has not failed, so those who wait ask it again.
            self.recorder.abort()
            self._flight.abandon()
            return None
        self.recorder.fail(error)
        run_inline(self.recorder.release())
        return self.recorder.stand_in()

    def close(self) -> bool:
        """Let go of the load. Calling it again is harmless.

        Returns:
            Whether others still read what has not come yet: then load on, and ask again after each chunk. Otherwise the
            load is over, and nothing is stored of a body that has not reached its end.
        """
        if not self._left:
            self._left = True
            self._leave()
        if self.recorder.terminated:
            self.end()  # what follows the protocol's own end is of no use to anybody
        if self.recorder.over:
            return False
        # Once nobody is left nobody can come: the last to leave took the flight out of the map.
        if self._flight.has_callers():
            return True
        self.recorder.report(ConnectionAbortedError())
        self.recorder.abort()
        run_inline(self.recorder.release())
        return False

    def lose(self) -> None:
        """The caller has dropped the response unread and unclosed. Takes no lock: a garbage collector calls this."""
        self._flight.lose()


def _announced(head: ResponseHead) -> int:
    for name, value in head.headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else 0
    return 0
