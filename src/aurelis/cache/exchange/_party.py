"""One load of several items: what is asked for, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Generic, TypeVar

from aurelis.cache._decisions import Discard, Reraise, Serve, Store
from aurelis.cache._entry import NO_DETAILS, Details, Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._flight import Failed, Flight, Party, enter
from aurelis.cache._guard import Budget
from aurelis.cache._leases import Permit
from aurelis.cache._packing import Keep, Packed
from aurelis.cache._shared_errors import detach
from aurelis.cache.http import LoadedResponse, ResponseHead, StoredResponse
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._spans import mark_failed

from ._board import Board
from ._exchange import Exchange
from ._loads import LONGEST_LOAD
from ._outcomes import Substitute
from ._recorder import bare
from ._ways import Ways

Q = TypeVar("Q")

ITEMS: Final = "items"
"""Why there is one more load for a request that counts for one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the origin has answered for each of several items.

    Attributes:
        head: of its response.
        bodies: each as the request for that item alone is answered.
    """

    head: ResponseHead
    bodies: Sequence[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Declined:
    """The origin has answered something that is for no single item.

    Attributes:
        head: of its response.
        body: whole.
        own: it is for its caller alone.
        collapsed: it was asked by another caller.
    """

    head: ResponseHead
    body: bytes = field(repr=False)
    own: bool = False
    collapsed: bool = False


Asked = Parts | Declined


@dataclass(frozen=True, slots=True)
class Ask:
    """How the origin is asked.

    Attributes:
        items: asks for some of the items, by their places.
        frame: all answers so far as one, and the same without what answers single items.
        behind: how it is asked in the background, when the caller has its answer; `None`: in the same way.
    """

    items: Callable[[Sequence[int]], Awaitable[Asked]]
    frame: Callable[[], tuple[bytes, bytes]]
    behind: Ask | None = None


class PartyLoad(Generic[Q]):
    """Loads items that nobody loads yet, in as few requests as the origin allows.

    Args:
        led: their flights by key.
        behind: why it runs in the background; empty: its caller waits.
        started_by: where that was begun, as `Spans.here` says it.

    Attributes:
        party: the flights.
        asked: how often the origin was asked.
        first: the request counts for what it asks first.
        frames: what the answers have in common is kept, too.
        head: of the last answer.
        failed_with: status of the one that something stands in for.
    """

    def __init__(
        self,
        exchange: Exchange[Q],
        board: Board[Q],
        ask: Ask,
        ways: Ways,
        limit: int,
        led: Mapping[str, Flight[Any]],
        *,
        blocking: bool,
        behind: str = "",
        started_by: object = None,
    ) -> None:
        self._exchange = exchange
        self._engine = exchange.engine
        self._policy = exchange.policy
        self._board = board
        self._ask = ask
        self._ways = ways
        self._limit = limit
        self._led = led
        self._blocking = blocking
        self._behind = behind
        self._started_by = started_by
        self._error = ""
        self._stores: dict[str, Store] = {}
        self._begin = self._request_time = self._response_time = 0.0
        self.party = Party(tuple(led.values()))
        for flight in self.party.flights:
            flight.party = self.party
        self.party.deserted = bool(behind)
        self.asked = 0
        self.first = False
        self.frames = False
        self.head: ResponseHead | None = None
        self.failed_with: int | None = None

    async def fill(self) -> None:
        """Load. What the origin raises is left to those who wait, by the party."""
        if not self._behind:
            await self._fill()
            return
        reason = {names.REFRESH_REASON: self._behind}
        with self._engine.telemetry.spans.apart("revalidate", self._started_by, self._only(self._led), reason) as span:
            await self._fill()
            if self._error:
                mark_failed(span, self._error)

    def _only(self, keys: Collection[str]) -> str | None:
        return next(iter(keys)) if len(keys) == 1 else None

    async def _fill(self) -> None:
        engine, led = self._engine, self._led
        handled = sys.exc_info()[1]  # by the thread that this blocks
        if not self._blocking:
            enter(self.party.flights[0])
        permit: Permit | None = None
        budget = engine.stack.budget()
        missing: list[str] = []
        try:
            missing = [key for key, flight in led.items() if not self._is_there(key, flight)]
            if missing:
                permit = await self._permit(missing, budget)
            while missing:
                part = missing[: self._limit]
                answer, seconds = await self._timed(part)
                self.head = answer.head
                if isinstance(answer, Declined):
                    self._decline(missing, answer, seconds)
                    break
                for key, body in zip(part, answer.bodies, strict=True):
                    one = self._loaded((body,), seconds / len(part))
                    self._judge(key, one if len(part) == 1 else replace(one, part=True))
                missing = missing[self._limit :]
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # it is for those who wait
            detach(error, handled)
            self._fail(missing, error)
        finally:
            try:
                if permit is not None and not (self._stores and await self._keep(permit, budget)):
                    await self._ways.run(engine.release(permit, budget))
            finally:
                for flight in led.values():
                    flight.abandon()  # unless it has an outcome
                    engine.flights.land(flight)

    async def _permit(self, missing: Iterable[str], budget: Budget) -> Permit:
        """One permit for all items: what it says of invalidations holds for each, and changes of keys fence flights."""
        stack = self._engine.stack
        act = self._engine.acquire(self._board.key, budget, again=True, life=LONGEST_LOAD)
        _, permit = await self._ways.run(act)
        for key in missing:
            self._led[key].generation = permit.generation
            self._led[key].holds = partial(stack.holds, permit, stack.implied(key), LONGEST_LOAD)
        return permit

    def _is_there(self, key: str, flight: Flight[Any]) -> bool:
        """Whether the item was stored since it was looked for."""
        board = self._board
        entry = self._engine.stack.peek(key)
        if entry is None or entry is board.stale.get(key):
            return False
        if self._behind and board.now() >= entry.fresh_until:
            board.stale[key] = entry
            return False
        if not board.take(key, entry, names.L1):
            return False
        flight.settle(Found(entry, names.L1))
        return True

    async def _timed(self, part: Sequence[str]) -> tuple[Asked, float]:
        """Ask the origin once. Returns how long it took."""
        engine = self._engine
        self.asked += 1
        if self._behind and self.asked == 1:
            engine.telemetry.refresh(self._behind)
        elif not self.first or self.asked > 1:
            engine.telemetry.refresh(ITEMS)
        begin, self._request_time = self._board.now(), engine.clock.time()
        asking = self._ask.items([self._board.places[key] for key in part])
        flights, only = [self._led[key] for key in part], self._only(part)
        if not self._blocking:
            answer = await engine.load(flights, asking, only)
        else:
            with engine.filling(flights, only):
                answer = await asking
        self._response_time = engine.clock.time()
        return answer, self._board.now() - begin

    def _loaded(self, chunks: tuple[bytes, ...], seconds: float) -> LoadedResponse:
        assert self.head is not None
        return LoadedResponse(self.head, chunks, seconds, self._request_time, self._response_time)

    def _judge(self, key: str, loaded: LoadedResponse) -> None:
        """Decide whether what was loaded for an item is kept. Its caller gets it in any case."""
        decision = self._policy.on_loaded(self._board.request(key), loaded)
        self._engine.failures.forget(key)
        now = self._board.now()
        if isinstance(decision, Store) and isinstance(decision.value, StoredResponse):
            self._board.found[key] = Entry(decision.value, None, now + decision.fresh_for, math.inf, 0)
            if sum(map(len, loaded.chunks)) <= self._exchange.max_body_bytes:
                self._stores[key] = decision
            else:
                self._engine.telemetry.store("too_large")
            return
        if isinstance(decision, Discard):
            self._engine.telemetry.store(decision.reason)
        value = StoredResponse(loaded.head.status, loaded.head.headers, loaded.chunks)
        self._board.found[key] = Entry(value, None, now, now, 0)

    async def _keep(self, permit: Permit, budget: Budget) -> bool:
        """Store what was loaded, all at once, and give it to those who wait. Whether something was to be stored."""
        engine, led = self._engine, self._led
        for flight in self.party.flights:
            flight.keep()  # whoever leaves now, what was loaded is stored
        with ExitStack() as storing:
            for key in self._stores:
                storing.enter_context(led[key].storing())
            values: dict[str, Packed] = {
                key: engine.stack.pack(store.value, trusted=True)
                for key, store in self._stores.items()
                if not led[key].fenced
            }
            if fenced := len(self._stores) - len(values):
                engine.telemetry.store("fenced", fenced)
            kept = tuple(values)
            if values:
                engine.telemetry.expect_savings(_value(next(iter(self._stores.values()))).model)
                frame = None if fenced else self._frame()
                if frame is not None:
                    values[self._board.key] = engine.stack.pack(frame, trusted=True)
                first = next(iter(self._stores.values()))  # they are of one call, so they are kept alike
                details = Details(first.tags) if first.tags else NO_DETAILS
                keep = Keep(first.fresh_for, first.stale_for, details=details)
                act = engine.stack.publish(values, keep, permit, budget)
                outcome = await self._ways.run(act)
                for key in kept:  # the frame is none of them
                    engine.telemetry.store(outcome.of(key))
        for key in self._stores:
            led[key].settle(Found(self._board.found[key], names.L1))
        return bool(kept)

    def _frame(self) -> StoredResponse | None:
        """What the answers have in common, to give the same answer to the same request."""
        if not self.frames:
            return None
        together, frame = self._ask.frame()
        seconds = sum(value.load_seconds for value in map(_value, self._stores.values()))
        loaded = self._loaded((together,), seconds)
        if len(self._stores) < len(self._board.places):
            loaded = replace(loaded, part=True)  # the rest was loaded at other times
        decision = self._policy.on_loaded(self._board.whole, loaded)
        if not isinstance(decision, Store) or not isinstance(decision.value, StoredResponse):
            return None
        return replace(decision.value, chunks=(frame,))

    # Failures

    def _decline(self, missing: Sequence[str], answer: Declined, seconds: float) -> None:
        now = self._board.now()
        substitutes = {
            key: self._policy.on_refused(self._board.request(key), stale, answer.head, now)
            for key in missing
            if (stale := self._left(key)) is not None
        }
        if self._stand_in(missing, substitutes, answer.head.status, answer.head.status):
            return
        if answer.head.status != 200 and not answer.own:
            decision = self._policy.on_loaded(self._board.request(missing[0]), self._loaded((answer.body,), seconds))
            if isinstance(decision, Discard):
                self._engine.telemetry.store(decision.reason)
                if decision.remember_for:
                    self._remember(missing, decision.failure, now + decision.remember_for, None)
        self.party.failure = answer

    def _fail(self, missing: Sequence[str], error: Exception) -> None:
        now = self._board.now()
        decisions = {
            key: self._policy.on_error(self._board.request(key), self._left(key), error, now) for key in missing
        }
        cause = self._error = type(error).__qualname__
        if self._stand_in(missing, decisions, None, cause):
            return
        waiting = any(flight.has_callers() for flight in self.party.flights)
        deserted = self.party.deserted
        self._engine.note_failure(cause, stale=False, unheard=deserted or not waiting)
        if deserted and waiting:
            return  # as with a single response, they ask for themselves
        first = next((one for one in decisions.values() if isinstance(one, Reraise)), None)
        if first is not None and first.remember_for:
            self._remember(missing, bare(error), now + first.remember_for, first.patience)
        self.party.failure = Failed.of(error)

    def _left(self, key: str) -> Entry | None:
        """What was stored of an item and has not been removed or invalidated meanwhile."""
        entry = self._board.stale.get(key)
        gone = entry is None or self._led[key].fenced or self._engine.stack.is_invalid(key, entry)
        return None if gone else entry

    def _stand_in(
        self, missing: Sequence[str], substitutes: Mapping[str, object], status: int | None, cause: str | int
    ) -> bool:
        """Answer with what was stored, if there is something for each item; whether there is."""
        serves = {key: one for key, one in substitutes.items() if isinstance(one, Serve)}
        if not missing or len(serves) < len(missing):
            return False
        self.failed_with = status
        self._engine.note_failure(cause, stale=True, unheard=False)
        for key, serve in serves.items():
            if serve.retry_in:
                self._engine.stack.rearm(key, serve.entry, self._board.now() + serve.retry_in)
            self._board.stand_in(key, serve.entry)
            self._led[key].settle(Substitute(serve.entry, names.STALE, status))
        return True

    def _remember(self, missing: Iterable[str], failure: object, until: float, patience: float | None) -> None:
        for key in missing:
            if not self._led[key].fenced:
                self._engine.failures.note(key, failure, until, patience)


def _value(store: Store) -> StoredResponse:
    assert isinstance(store.value, StoredResponse)
    return store.value
