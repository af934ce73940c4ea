"""One request for several items: what is there of them, and who loads the rest."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, TypeVar

from aurelis.cache._decisions import Serve
from aurelis.cache._entry import Entry
from aurelis.cache._first_layer import Found
from aurelis.cache._flight import Abandoned, Failed, Flight, Settled
from aurelis.cache._recording import Reader, WaitTimeout
from aurelis.cache.exceptions import CacheClosedError, RecursiveLoadError
from aurelis.cache.http import ResponseHead, StoredResponse
from aurelis.cache.telemetry import names
from aurelis.cache.telemetry._spans import Made, described, link, tell

from ._answers import Hit, Refused, body_size
from ._board import Board
from ._exchange import Exchange
from ._judgements import waits_longer, would_block_itself
from ._outcomes import Loading, Substitute
from ._party import Ask, Declined, PartyLoad
from ._ways import Ways

Q = TypeVar("Q")

_ROUNDS: Final = 3
"""Times that loads of others are waited for before what is still missing is loaded here in any case."""


class Gathering(Generic[Q]):
    """Looks for the items of one request, and has loaded what is missing.

    Attributes:
        board: the items, and what is known of them.
        result: of the request: `hit`, `stale`, `miss` or `bypass`.
        present: how many items were there.
        loads: what was loaded for this request.
    """

    def __init__(
        self,
        exchange: Exchange[Q],
        whole: Q,
        requests: Sequence[Q],
        ask: Ask,
        ways: Ways,
        limit: int | None,
        patience: float | None,
        *,
        blocking: bool,
        again: bool = False,
    ) -> None:
        self._exchange = exchange
        self._engine = exchange.engine
        self._policy = exchange.policy
        self.board: Board[Q] = Board(exchange.policy, whole, requests, exchange.engine.clock.monotonic)
        self._ask = ask
        self._ways = ways
        self._limit = limit or len(requests)
        self._patience = patience
        self._blocking = blocking
        self._again = again
        self._counted = again
        self._begin = self.board.now()
        self.loads: list[PartyLoad[Q]] = []
        self.result = names.MISS
        self._layer = self._stale = ""
        self._span: Made = None
        self._linked: list[object] = []
        self._waited = self._at_hand = False
        self.present = 0

    def asked(self) -> int:
        """How often the origin was asked."""
        return sum(load.asked for load in self.loads)

    def head(self) -> ResponseHead | None:
        """Of the origin's last answer to this request."""
        return next((load.head for load in reversed(self.loads) if load.head is not None), None)

    def failed_with(self) -> int | None:
        """The status of the origin's answer, where something stands in for that."""
        return next((load.failed_with for load in self.loads if load.failed_with is not None), None)

    def frame(self) -> StoredResponse | None:
        """What memory has, beside the items, of the answer that was given to the same request before."""
        if self.asked() or self.result == names.STALE:
            return None
        now = self.board.now()
        entry = self._engine.peek(self.board.key, now)
        if entry is None or now >= entry.fresh_until or not isinstance(entry.value, StoredResponse):
            return None
        return entry.value

    # The steps

    async def gather(self) -> Declined | Refused | Hit | None:
        """Find or load all items; otherwise what the caller gets instead."""
        engine, board = self._engine, self.board
        engine.check(board.key)
        complete = False
        with engine.telemetry.spans.around("get", board.keys[0] if len(board.places) == 1 else None) as span:
            self._span = span
            try:
                missing = await self._look()
                self.present = sum(key in board.found for key in board.keys)
                if missing and board.refused:
                    self._counted = True
                    self.result = names.BYPASS
                    engine.telemetry.miss_l1.n += 1
                    engine.telemetry.bypass.n += 1
                    return Refused()
                for key in missing if board.reason != "request" else ():
                    failure = engine.failures.find(key, board.now(), self._patience)
                    if failure is not None:
                        self._counted = True
                        self.result, self._layer = names.HIT, names.NEGATIVE
                        return self._exchange.failed(*failure)
                declined = await self._load(missing) if missing else None
                complete = declined is None
                return declined
            finally:
                self._count(complete=complete)
                if span is not None:
                    collapsed = not self.asked() if self._waited or self.loads else None
                    tell(span, described(self.result, self._layer, collapsed=collapsed, stale=self._stale))

    async def _look(self) -> list[str]:
        """Look for the items in memory and below; returns those that are not there."""
        engine, board = self._engine, self.board
        now = board.now()
        missing = [key for key in board.places if not board.take(key, engine.peek(key, now), names.L1)]
        self._at_hand = not missing
        if missing and engine.stack.lower and board.reason != "request":
            budget = await self._ways.run(engine.ready())
            # The frame as well, which then is in memory.
            for layer, entries in await self._ways.run(engine.stack.lookup_many([*missing, board.key], budget)):
                for key, entry in entries.items():
                    if key != board.key:
                        board.take(key, entry, layer)
            missing = [key for key in missing if key not in board.found]
        return missing

    async def _load(self, missing: list[str]) -> Declined | None:
        flights = self._engine.flights
        for number in range(_ROUNDS + 1):
            led: dict[str, Flight[Any]] = {}
            followed: dict[str, Flight[Any]] = {}
            try:
                self._join(missing, led, followed, apart=number == _ROUNDS)
                if led and (declined := await self._lead(led)) is not None:
                    return declined
                for key, flight in followed.items():
                    failure = await self._follow(key, flight)
                    if isinstance(failure, Failed):
                        failure.again()
                    if isinstance(failure, Declined):
                        return replace(failure, collapsed=True)
            finally:
                for flight in reversed(led.values()):  # so that each looks at one of the others at most
                    if flight.task is None:
                        flight.abandon()  # a thread that is interrupted before it loads loads no more
                    flights.leave(flight, leads=True)
                for flight in followed.values():
                    flights.leave(flight, leads=False)
            missing = [key for key in missing if key not in self.board.found]
            if not missing:
                break
        return None

    def _join(
        self, missing: Iterable[str], led: dict[str, Flight[Any]], followed: dict[str, Flight[Any]], *, apart: bool
    ) -> None:
        """Join the flights of the items, those to be led here and those of others, without waiting in between."""
        flights = self._engine.flights
        for key in missing:
            try:
                flight, leads = (flights.apart(key), True) if apart else flights.join(key)
            except RecursiveLoadError:
                flight, leads = flights.apart(key), True
            if not leads and would_block_itself(flight, blocking=self._blocking):
                flights.leave(flight, leads=False)
                flight, leads = flights.apart(key), True
            (led if leads else followed)[key] = flight

    async def _lead(self, led: Mapping[str, Flight[Any]]) -> Declined | None:
        load = PartyLoad(self._exchange, self.board, self._ask, self._ways, self._limit, led, blocking=self._blocking)
        load.frames = not self._again
        load.first = not self._counted and not self.asked()
        self.loads.append(load)
        for flight in led.values():
            flight.patience = self._patience
        if self._blocking:
            await load.fill()
        else:
            self._engine.flights.start_party(led.values(), load.fill())
            try:
                for flight in led.values():
                    await self._ways.outcome(flight, None)
            except BaseException:
                load.party.deserted = True
                raise
        failure = load.party.failure
        if isinstance(failure, Failed):
            failure.again()
        if isinstance(failure, Declined):
            return failure
        if not self.board.found.keys() >= led.keys():
            raise CacheClosedError("the event loop or the cache was closed during the load")
        return None

    async def _follow(self, key: str, flight: Flight[Any]) -> object:
        """Wait for another's load of an item; returns its failure, if that would have been this caller's as well."""
        self._waited = True
        try:
            outcome = await self._ways.outcome(flight, self._left())
        finally:
            if not any(known is flight.link for known in self._linked):  # one load may bring several
                self._linked.append(flight.link)
                link(self._span, flight.link)
        request = self.board.request(key)
        if isinstance(outcome, Settled):
            result = outcome.result
            entry: Entry | None = None
            if isinstance(result, Found):
                entry = result.entry
            elif isinstance(result, Substitute):
                if isinstance(self._policy.on_error(request, result.entry, ConnectionError(), self.board.now()), Serve):
                    self.board.stand_in(key, result.entry)
                return None
            elif isinstance(result, Loading):
                await self._read(result)
                entry = self._engine.stack.peek(key)
            if entry is not None and self.board.take(key, entry, names.L1):
                self.board.how[key] = (names.JOINED, "")
            return None
        party = flight.party
        if isinstance(outcome, Abandoned) and party is not None and party.failure is not None:
            # What was asked for with more than this caller wants may have failed because of that.
            failure = party.failure
            if isinstance(failure, Declined) and (failure.own or failure.head.status == 200):
                return None  # it answers the others' request, though not item by item
            if isinstance(failure, Failed) and waits_longer(self._patience, flight, failure):
                return None
            return failure if all(one.key in self.board.places for one in party.flights) else None
        return None

    async def _read(self, loading: Loading) -> None:
        """Read a response to its end, after which it is stored, if it is."""
        reader = None if loading.recording is None else loading.recording.reader()
        if reader is None:
            return
        try:
            if self._blocking:
                patience = self._left()
                while reader.next_blocking(math.inf if patience is None else patience) is not None:
                    pass
            else:
                await self._read_on(reader)
        except WaitTimeout:
            raise
        except Exception:  # noqa: BLE001  # its own caller hears of it; this one asks for itself
            pass
        finally:
            reader.close()

    async def _read_on(self, reader: Reader) -> None:
        deadline = asyncio.timeout(self._left())
        try:
            async with deadline:
                while await reader.next() is not None:
                    pass
        except TimeoutError:
            if not deadline.expired():
                raise  # what the load has met
            raise WaitTimeout from None

    def _left(self) -> float | None:
        """Seconds for which the caller still waits for others; `None`: as long as that takes."""
        return None if self._patience is None else max(self._patience - (self.board.now() - self._begin), 0.0)

    # In the background

    def is_due(self) -> bool:
        """Whether something stale was given that is to be loaded anew."""
        return bool(self.board.due)

    def behind(self, started_by: object) -> PartyLoad[Q] | None:
        """What loads anew in the background what was stale; `None`: nothing was, or it is being loaded already.

        Args:
            started_by: what `Spans.here` has said where it is begun.
        """
        board = self.board
        led = {key: flight for key in board.due if (flight := self._exchange.load_behind(key)) is not None}
        if not led:
            return None
        own: Board[Q] = Board(self._policy, board.whole, board.requests, board.now)
        return PartyLoad(
            self._exchange,
            own,
            self._ask.behind or self._ask,
            self._ways,
            self._limit,
            led,
            blocking=self._blocking,
            behind="revalidate",
            started_by=started_by,
        )

    # Counting

    def _count(self, *, complete: bool) -> None:
        """Count the request once, each item, and what was saved."""
        if self._counted:
            return
        self._counted = True
        telemetry, board = self._engine.telemetry, self.board
        seen: set[str] = set()
        for key in board.keys:
            result, layer = board.how.get(key, _LOADED)
            if key in seen and result == names.MISS:
                result = names.JOINED  # asked for twice, loaded once
            seen.add(key)
            telemetry.item(result, layer).n += 1
        asked = self.asked()
        results = {board.how.get(key, _LOADED) for key in board.places}
        kinds = {result for result, _ in results}
        if not self._at_hand:
            telemetry.miss_l1.n += 1
        if complete and kinds <= {names.HIT, names.STALE}:
            self.result = names.STALE if names.STALE in kinds else names.HIT
            self._layer = layer = max(layer for _, layer in results)
            if self.result == names.HIT:
                telemetry.request(names.HIT, layer).n += 1
            else:
                self._stale = board.stale_reason()
                telemetry.stale(self._stale).n += 1
                if self._at_hand:
                    telemetry.lookup(names.L1, names.STALE).n += 1
            if asked:  # in vain, and what was stored stands in for the answer
                telemetry.refresh("error")
        else:
            telemetry.miss.n += 1
            if not asked:
                telemetry.coalesced.n += 1
                for load in self.loads:  # it may ask yet, for others
                    load.first = False
        if complete:
            self._count_saved()

    def _count_saved(self) -> None:
        """Count what was saved; what is not known of an item is not known of the request, which counts once for it."""
        board = self.board
        frame = self.frame() if self.result == names.HIT else None
        found = [board.found[key].value for key, (result, _) in board.how.items() if result != names.JOINED]
        given = [one for one in found if isinstance(one, StoredResponse)]
        answers = [frame] if frame else given
        if not answers:
            return
        telemetry, model = self._engine.telemetry, answers[0].model
        saved = telemetry.saved.get(model) or telemetry.saved_by(model)
        for one in given:  # of the frame the bodies are no part
            telemetry.saved_bytes.add(body_size(one))
        for one in answers:
            saved.seconds.n += one.load_seconds
            saved.input.n += one.input_tokens or 0
            saved.output.n += one.output_tokens or 0
            if telemetry.prices:
                saved.cost.n += one.cost or 0.0
        if any(one.input_tokens is None or one.output_tokens is None for one in answers):
            saved.unknown.n += 1
        if telemetry.prices and any(one.cost is None for one in answers):
            saved.unpriced.n += 1


_LOADED: Final = (names.MISS, "")
