"""What the integrations stand on: requests answered by responses with a head and a body, through the one engine.

An integration translates its framework's request into a record that a policy understands, asks `peek` (which never
waits) and, when nothing is at hand, `open` or `open_blocking`. It gets one of a few answers and translates back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ._bridge import run_inline
from ._decisions import Bypass, Follow, Load, Lookup, Pass, Record, Refuse, Serve, Store
from ._engine import Engine
from ._entry import Entry
from ._flight import Abandoned, Failed, Flight, Settled, enter
from ._recording import Reader, ReaderClosed, Recording
from ._stack import Budget, Found
from .exceptions import CacheClosedError, RecursiveLoadError
from .http import LoadedResponse, ResponseHead, StoredResponse
from .manager import AnyManager, manager_of
from .telemetry import names
from .typing import ExchangePolicy, Terminator

Q = TypeVar("Q")
T = TypeVar("T")

DEFAULT_MAX_BODY_BYTES = 4 * 2**20
_NOBODY = threading.Thread()  # never started, so never alive
_MAX_HOPS = 4
_MISSES = frozenset({"miss", "uri-miss", "vary-miss", "stale", "partial"})


@dataclass(slots=True)
class Hit:
    """Answer from the cache.

    Not frozen: one is built for each hit in memory, and a frozen dataclass costs several times as much to build.

    Attributes:
        response: what is stored.
        layer: `l1` or `l2`.
        age: whole seconds since the origin made it (RFC 9111 §4.2.3), ≥ 0.
        ttl: seconds of freshness left; negative when it is stale, may be infinite.
        key: where memory has it; empty: it came from elsewhere.
    """

    response: StoredResponse
    layer: str
    age: int
    ttl: float
    key: str = ""


@dataclass(frozen=True, slots=True)
class Alone:
    """Ask the origin, for this caller alone and as if there were no cache.

    Attributes:
        reason: the `fwd` token of RFC 9211 §2.2.
        detail: short token for people.
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is stored and the client wanted nothing else (RFC 9111 §5.2.1.7): answer 504."""


@dataclass(slots=True)
class Live:
    """A response that is being loaded, by this caller or another one.

    Attributes:
        head: of the response.
        decision: whether it is being recorded.
        reason: the `fwd` token of RFC 9211 §2.2.
        collapsed: another caller's load is shared.
        reader: the body; `None` when `raw` is there.
        raw: the framework's own response, handed over unread to the caller whose load it is.
    """

    head: ResponseHead
    decision: Record | Pass
    reason: str
    collapsed: bool
    reader: Reader | None
    raw: object
    _leave: Callable[[], None]
    _flight: Flight[Any]
    _left: bool = field(default=False)

    def close(self) -> None:
        """Let go of the response. The last caller to let go before the end aborts the load. Twice is harmless."""
        if not self._left:
            self._left = True
            if self.reader is not None:
                self.reader.close()
            self._leave()

    async def finished(self) -> None:
        """Wait until the load itself has ended, for instance an app's background tasks; raise what it raised."""
        await self._flight.landed()
        error = self._flight.error()
        if error is not None:
            raise error


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

    def head(self, head: ResponseHead, raw: object, *, refused: str = "") -> Record | Pass:
        """Take the head, as `Recorder.head`. On `Pass` the load is over, and `raw` is the caller's."""
        decision = self.recorder.head(head, raw, refused=refused)
        if self.recorder.over:
            self.recorder.report()
        return decision

    def chunk(self, data: bytes) -> None:
        """Record the next piece of the body. Waits only when nothing is recorded and other readers are behind."""
        self._flight._thread = threading.current_thread()  # a body may be read by another thread than asked for it
        run_inline(self.recorder.chunk(data))

    def end(self) -> None:
        """The body is complete: store it. Twice is harmless."""
        if not self.recorder.over:
            run_inline(self.recorder.end())
            self.recorder.report()

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
        if self._flight._refs > 0:
            return True
        self.recorder.report(ConnectionAbortedError())
        self.recorder.abort()
        return False

    def lose(self) -> None:
        """The caller has dropped the response unread and unclosed. Takes no lock: a garbage collector calls this."""
        self._flight._thread = _NOBODY


Answer = Hit | Alone | Refused | Live


@dataclass(slots=True)
class Pending(Generic[Q]):
    """Nothing at hand: what `peek` already knows, for `open` to go on with."""

    request: Q
    key: str
    entry: Entry | None
    decision: Lookup


@dataclass(slots=True)
class _Loading:
    """Outcome of a flight: a response is coming."""

    head: ResponseHead
    decision: Record | Pass
    recording: Recording | None
    raw: object
    request: Any
    response_time: float


class _Seat:
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


class _Ways(Protocol):
    """How one kind of caller waits. The steps around it are the same for all."""

    async def run(self, step: Coroutine[Any, Any, T]) -> T: ...

    async def outcome(self, flight: Flight[Any]) -> Settled[Any] | Failed | Abandoned: ...

    async def room(self, recording: Recording) -> None: ...


class _Async:
    async def run(self, step: Coroutine[Any, Any, T]) -> T:
        return await step

    async def outcome(self, flight: Flight[Any]) -> Settled[Any] | Failed | Abandoned:
        return await flight.wait()

    async def room(self, recording: Recording) -> None:
        await recording.room()


class _Blocking:
    """Blocks the thread where others wait, so its coroutines never suspend and run inline."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self._engine.run(step)

    async def outcome(self, flight: Flight[Any]) -> Settled[Any] | Failed | Abandoned:
        return flight.wait_blocking()

    async def room(self, recording: Recording) -> None:
        recording.room_blocking()


class Recorder(Generic[Q]):
    """Takes one response from its origin: first `head`, then each `chunk`, then `end`."""

    def __init__(
        self,
        exchange: Exchange[Q],
        request: Q,
        flight: Flight[Any],
        key: str,
        stale: Entry | None,
        budget: Budget,
        ways: _Ways,
        seat: _Seat | None,
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
        self._begin = self._engine.clock.monotonic()
        self._request_time = self._engine.clock.time()
        self._response_time = 0.0
        self._head: ResponseHead | None = None
        self._recording: Recording | None = None
        self._terminator: Terminator | None = None
        self._stored_bytes = -1
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
            decision = Pass("too-large")
        if isinstance(decision, Record):
            self._terminator = policy.terminator(self._request, head)
            self._recording = Recording(self._exchange.max_body_bytes, self._flight.alive, self._flight._loop)
        else:
            self._engine.telemetry.store(decision.reason)
            self._engine.flights.land(self._flight)
            if raw is None:
                self._recording = Recording(0, self._flight.alive, self._flight._loop)
            else:
                self.over = True
        if self._seat is not None and self._recording is not None:
            self._seat.reserve(self._recording)
        self._flight.settle(
            _Loading(
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
        if self._terminator is not None and not self.terminated and recording.kept and self._terminator.feed(data):
            # The protocol's own end: callers that stop reading here must find the answer stored.
            self.terminated = True
            await self._ways.run(self._store((*recording.chunks(), data)))
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
        if recording.kept and recording.size != self._stored_bytes:
            await self._ways.run(self._store(recording.chunks()))
        elif not recording.kept and self._flight_recorded():
            self._engine.telemetry.store("too_large")
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
        return self._exchange._hit(outcome.result.entry, names.STALE, self._engine.clock.monotonic())

    def report(self, error: BaseException | None = None) -> None:
        """Record how long a blocking load took; one that runs in a task is timed by the engine."""
        elapsed = self._engine.clock.monotonic() - self._begin
        self._engine.telemetry.duration(elapsed, "fill", error_type=None if error is None else type(error).__qualname__)

    def _flight_recorded(self) -> bool:
        outcome = self._flight.outcome
        return isinstance(outcome, Settled) and isinstance(outcome.result.decision, Record)

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
        )
        self._stored_bytes = sum(map(len, chunks))
        decision = self._exchange.policy.on_loaded(self._request, loaded)
        if not isinstance(decision, Store):
            engine.telemetry.store(decision.reason)
            return
        if self._flight.fenced:
            engine.telemetry.store("fenced")
            return
        values = {decision.key or self._key: engine.stack.pack(decision.value, trusted=True)}
        if decision.index is not None:
            index_key, index = decision.index
            values[index_key] = engine.stack.pack(index, trusted=True)
        await engine.stack.store(values, decision.fresh_for, self._budget, stale_for=decision.stale_for)
        engine.telemetry.store("stored")


class Exchange(Generic[Q]):
    """One kind of request served through a manager's engine.

    Args:
        cache: manager; `None` means the process's.
        policy: the rules.
        max_body_bytes: larger bodies pass through and are not stored.
    """

    def __init__(
        self,
        cache: AnyManager | None,
        policy: ExchangePolicy[Q, ResponseHead, LoadedResponse],
        *,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> None:
        self.manager = manager_of(cache)
        self.engine = self.manager._engine
        self.policy = policy
        # The hot path: each attribute hop would show in its budget.
        self._telemetry = self.engine.telemetry
        self._monotonic = self.engine.clock.monotonic
        self.max_body_bytes = max_body_bytes

    def fresh(self, key: str) -> Hit | None:
        """The answer from memory to a request that any fresh response under its key answers. Never waits.

        The hot path: whoever knows that nothing in a request speaks against a fresh response need not ask the policy,
        nor make a record of the request. `None`: there is no such response, so `peek`.
        """
        now = self._monotonic()
        entry = self.engine.peek(key, now)
        if entry is None or now >= entry.fresh_until or type(entry.value) is not StoredResponse:
            return None
        self.engine.count_memory_hit(now)
        return self._hit(entry, names.L1, now, key)

    def peek(self, request: Q) -> Hit | Pending[Q]:
        """Answer from memory, or say what is known so far. Never waits."""
        engine = self.engine
        now = self._monotonic()
        policy = self.policy
        key = policy.key(request)
        entry = engine.peek(key, now)
        decision = policy.on_lookup(request, entry, now)
        if type(decision) is Follow:
            key = decision.key
            entry = engine.peek(key, now)
            decision = _of_variant(policy.on_lookup(request, entry, now))
        if type(decision) is Serve:
            engine.count_memory_hit(now)
            return self._hit(decision.entry, names.L1, now, key)
        return Pending(request, key, entry, decision)

    async def open(
        self, pending: Pending[Q], load: Callable[[Recorder[Q]], Awaitable[None]]
    ) -> Hit | Alone | Refused | Live:
        """Answer a request for which memory had nothing.

        Args:
            load: asks the origin and gives the response to the recorder. Runs in a task of its own, at most once.

        Raises:
            Exception: what `load` raised before the head came.
        """
        answer = await self._open(pending, _Async(), load)
        assert not isinstance(answer, Lead)
        return answer

    def bypass(self, decision: Bypass) -> Alone:
        """Count a request that the cache could have answered and must not."""
        return self._alone(decision.reason, decision.detail)

    def open_blocking(self, pending: Pending[Q]) -> Hit | Alone | Refused | Live | Lead:
        """The same for a caller without an event loop, who on `Lead` loads in its own thread."""
        return run_inline(self._open(pending, _Blocking(self.engine), None))

    async def _open(
        self, pending: Pending[Q], ways: _Ways, load: Callable[[Recorder[Q]], Awaitable[None]] | None
    ) -> Hit | Alone | Refused | Live | Lead:
        engine = self.engine
        engine.check(pending.key)
        request, key, entry, decision = pending.request, pending.key, pending.entry, pending.decision
        layer = names.L1
        with engine.telemetry.span("get") as span:
            for _ in range(_MAX_HOPS):
                now = engine.clock.monotonic()
                if entry is None and engine.stack.lower and _may_be_below(decision):
                    try:
                        found = await ways.run(engine.stack.lookup(key, engine.stack.budget()))
                    except BaseException:
                        self._count_absent()
                        raise
                    if found is not None:
                        entry, layer = found.entry, found.layer
                        decision = self.policy.on_lookup(request, entry, now)
                if isinstance(decision, Follow):
                    key, layer = decision.key, names.L1
                    entry = engine.stack.peek(key)
                    decision = _of_variant(self.policy.on_lookup(request, entry, now))
                    continue
                if isinstance(decision, Serve):
                    engine.telemetry.request(names.HIT, layer).n += 1
                    hit = self._hit(decision.entry, layer, now)
                    if span is not None:
                        span.set_attributes(
                            {names.RESULT: names.HIT, names.LAYER: layer, names.AGE: hit.age, names.TTL: hit.ttl}
                        )
                    return hit
                if isinstance(decision, Refuse):
                    engine.telemetry.bypass.n += 1
                    return Refused()
                if isinstance(decision, Bypass):
                    return self._alone(decision.reason, decision.detail)
                engine.telemetry.miss_l1.n += 1
                answer = await self._join(request, key, entry, decision, ways, load)
                if span is not None:
                    span.set_attributes(_described(answer))
                match answer:
                    case Follow():
                        decision = answer
                    case Found():
                        entry, layer = answer.entry, answer.layer
                        decision = self.policy.on_lookup(request, entry, now)
                        if layer == names.STALE:
                            engine.telemetry.request(names.STALE).n += 1
                            return self._hit(entry, names.STALE, now)
                        if isinstance(decision, Load):
                            # What the flight found does not suit this request, which wants something fresher.
                            return self._alone(decision.reason)
                    case _:
                        return answer
            return self._alone("miss")

    async def _join(
        self,
        request: Q,
        key: str,
        entry: Entry | None,
        decision: Load,
        ways: _Ways,
        load: Callable[[Recorder[Q]], Awaitable[None]] | None,
    ) -> Found | Follow | Alone | Live | Lead:
        engine = self.engine
        flights = engine.flights
        while True:
            try:
                flight, leads = flights.join(key)
            except RecursiveLoadError:
                # The origin asks through this cache for what is being loaded: it gets what it would get without one.
                return self._alone(decision.reason, "recursive")

            def leave(flight: Flight[Any] = flight, leads: bool = leads) -> None:
                flights.leave(flight, leads=leads)

            if not leads and _would_block_itself(flight, blocking=load is None):
                leave()
                return self._alone(decision.reason, "recursive")
            stays = False
            counted = leads and load is None
            seat = _Seat()
            try:
                if leads:
                    below = bool(engine.stack.lower) and decision.reason != "request"
                    if load is not None:
                        flights.start(flight, self._lead(flight, request, key, entry, below, load, seat))
                    else:
                        lead = await self._lead_blocking(flight, request, key, entry, below, ways)
                        if lead is not None:
                            stays = True
                            return Lead(lead, decision.reason, leave, flight)
                outcome = await ways.outcome(flight)
                if isinstance(outcome, Failed):
                    raise outcome.again()
                counted = not (leads and isinstance(outcome, Abandoned))
                if isinstance(outcome, Abandoned):
                    if leads:
                        raise CacheClosedError("the event loop or the cache was closed during the load")
                    continue
                result: Found | _Loading = outcome.result
                if isinstance(result, Found):
                    return result
                if leads:
                    stays = True
                    return Live(
                        result.head, result.decision, decision.reason, False, seat.reader, result.raw, leave, flight
                    )
                followed = self._share(request, result, decision, leave, flight)
                stays = isinstance(followed, Live)
                return followed
            finally:
                if not stays:
                    seat.leave()
                    leave()
                if not counted and leads and flight._task is not None:
                    # Only its end tells whether the origin is asked, and then the load is counted in its place.
                    flight._task.add_done_callback(partial(self._count_unless_loaded, seat))
                elif not counted:
                    self._count_absent()

    def _count_absent(self) -> None:
        """Count a request whose load failed, or whose caller left before there was an answer."""
        self.engine.telemetry.miss.n += 1
        self.engine.telemetry.coalesced.n += 1

    def _count_unless_loaded(self, seat: _Seat, _: object) -> None:
        if not seat.loads:
            self._count_absent()

    def _share(
        self, request: Q, loading: _Loading, decision: Load, leave: Callable[[], None], flight: Flight[Any]
    ) -> Live | Follow | Alone:
        if isinstance(loading.decision, Pass) or loading.recording is None:
            return self._alone(decision.reason, loading.decision.reason if isinstance(loading.decision, Pass) else "")
        if not loading.recording._complete and not flight.alive():
            # The thread that loaded it has ended or dropped the response, so the rest will never come.
            self.engine.flights.land(flight)
            return self._alone(decision.reason, "abandoned")
        verdict = self.policy.on_shared(request, loading.request, loading.head, loading.response_time)
        if isinstance(verdict, Follow):
            return verdict
        if isinstance(verdict, Bypass):
            return self._alone(verdict.reason, verdict.detail)
        reader = loading.recording.reader()
        if reader is None:  # too large to keep, and its start is gone
            return self._alone(decision.reason, "too-large")
        self.engine.telemetry.miss.n += 1
        self.engine.telemetry.coalesced.n += 1
        return Live(loading.head, loading.decision, decision.reason, True, reader, None, leave, flight)

    async def _lead(
        self,
        flight: Flight[Any],
        request: Q,
        key: str,
        stale: Entry | None,
        below: bool,
        load: Callable[[Recorder[Q]], Awaitable[None]],
        seat: _Seat,
    ) -> None:
        enter(flight)
        recorder: Recorder[Q] | None = None
        try:
            budget = self.engine.stack.budget()
            recorder = await self._look_below(flight, request, key, stale, below, budget, _Async(), seat)
            if recorder is not None:
                seat.loads = True
                await self.engine.load(flight, load(recorder))
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
        finally:
            self.engine.flights.land(flight)

    async def _lead_blocking(
        self, flight: Flight[Any], request: Q, key: str, stale: Entry | None, below: bool, ways: _Ways
    ) -> Recorder[Q] | None:
        try:
            budget = self.engine.stack.budget()
            return await self._look_below(flight, request, key, stale, below, budget, ways, None)
        except BaseException as error:
            flight.fail(error)
            self.engine.flights.land(flight)
            raise

    async def _look_below(
        self,
        flight: Flight[Any],
        request: Q,
        key: str,
        stale: Entry | None,
        below: bool,
        budget: Budget,
        ways: _Ways,
        seat: _Seat | None,
    ) -> Recorder[Q] | None:
        """Settle the flight with what lower layers have, or give the recorder for a load."""
        if below:
            found = await ways.run(self.engine.stack.lookup(key, budget))
            if found is not None:
                decision = self.policy.on_lookup(request, found.entry, self.engine.clock.monotonic())
                if isinstance(decision, (Serve, Follow)):
                    flight.settle(found)
                    self.engine.flights.land(flight)
                    return None
                stale = found.entry
        return Recorder(self, request, flight, key, stale, budget, ways, seat)

    def _alone(self, reason: str, detail: str = "") -> Alone:
        if reason in _MISSES or reason == "request":
            self.engine.telemetry.miss.n += 1
        else:
            self.engine.telemetry.bypass.n += 1
        return Alone(reason, detail)

    def _hit(self, entry: Entry, layer: str, now: float, key: str = "") -> Hit:
        response: StoredResponse = entry.value  # type: ignore[assignment]  # that is what the policy serves
        telemetry = self._telemetry
        telemetry.saved_seconds.n += response.load_seconds
        if response.source == "model":
            if response.input_tokens is None or response.output_tokens is None:
                telemetry.saved_unknown.n += 1
            else:
                telemetry.saved_input.n += response.input_tokens
                telemetry.saved_output.n += response.output_tokens
        ttl = entry.fresh_until - now
        age = response.lifetime - ttl
        return Hit(response, layer, int(age) if age > 0 else 0, ttl, key)


def _may_be_below(decision: Lookup) -> bool:
    """Whether a request that nobody loads for could still be answered by a lower layer."""
    return isinstance(decision, Refuse) or (isinstance(decision, Bypass) and decision.reason in _MISSES)


def _of_variant(decision: Lookup) -> Lookup:
    """What the rules say about the key of a variant; they don't know that an index led there (RFC 9211 §2.2)."""
    if type(decision) is Serve:  # a hit: this is its hot path
        return decision
    if isinstance(decision, Load) and decision.reason == "uri-miss":
        return Load("vary-miss")
    if isinstance(decision, Bypass) and decision.reason == "uri-miss":
        return Bypass("vary-miss", decision.detail)
    return decision


def _would_block_itself(flight: Flight[Any], *, blocking: bool) -> bool:
    """Whether the load goes on only when this very thread does something else than wait for it.

    Another response of the same thread that is not read yet, or a task of the event loop which a blocking call stops.
    """
    return flight._thread is threading.current_thread() and (blocking or flight._task is None)


def _announced(head: ResponseHead) -> int:
    for name, value in head.headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else 0
    return 0


def _described(answer: Found | Follow | Alone | Live | Lead) -> dict[str, str | bool]:
    match answer:
        case Live():
            return {
                names.RESULT: names.MISS,
                names.FWD: answer.reason,
                names.COLLAPSED: answer.collapsed,
                names.STORED: isinstance(answer.decision, Record),
            }
        case Lead():
            return {names.RESULT: names.MISS, names.FWD: answer.reason}
        case Alone():
            result = names.MISS if answer.reason in _MISSES else names.BYPASS
            return {names.RESULT: result, names.FWD: answer.reason}
        case _:
            return {}


__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "Alone",
    "Exchange",
    "Hit",
    "Lead",
    "Live",
    "Pending",
    "Reader",
    "ReaderClosed",
    "Recorder",
    "Refused",
]
