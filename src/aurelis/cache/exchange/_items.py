"""Requests for several things at once, each of which is looked up, loaded and kept by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

from aurelis.cache._bridge import run_inline
from aurelis.cache.http import ResponseHead, StoredResponse

from ._answers import Hit, Refused
from ._exchange import Exchange
from ._gathering import Gathering
from ._party import ITEMS, Ask, Declined
from ._ways import Async, Blocking

Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class Gathered:
    """An answer for each item.

    Attributes:
        stored: the answers, in the order of the requests.
        result: `hit`, `stale` or `miss`.
        age: whole seconds since the oldest of them was made, ≥ 0.
        ttl: seconds of freshness that are left of the first to lose it; negative when it is stale, may be infinite.
        found: how many items were there.
        lapsed: all of them were, but too old to be an answer.
        head: of the origin's last answer, where it was asked for this call; `None`: it was not.
        status: what the origin has answered where it failed; `None`: nothing, or it did not.
        frame: what there is, beside the items, of the answer to the same request before; `None`: nothing.
        refresh: loads anew in a thread what was stale; `None`: nothing was, or it is being loaded already.
    """

    stored: list[StoredResponse]
    result: str
    age: int
    ttl: float
    found: int
    lapsed: bool
    head: ResponseHead | None
    status: int | None
    frame: StoredResponse | None
    refresh: Callable[[], None] | None


class Items(Generic[Q]):
    """Serves such requests for one exchange.

    An item is loaded once for all who ask for it meanwhile, alone or with others. A load asks for those items alone
    that nobody loads yet, begins before its caller waits for the loads of others, and waits for none: so two of them
    never wait for each other, whatever items they share.
    """

    def __init__(self, exchange: Exchange[Q]) -> None:
        self._exchange = exchange

    def note_again(self) -> None:
        """The origin is asked once more for a request that is counted already."""
        self._exchange.note_again(ITEMS)

    async def open(
        self,
        whole: Q,
        requests: Sequence[Q],
        ask: Ask,
        *,
        limit: int | None,
        patience: float | None = None,
        again: bool = False,
    ) -> Gathered | Declined | Refused | Hit:
        """Answer a request for several items.

        Args:
            whole: the request.
            requests: one for each item.
            ask: asks the origin for some of them.
            limit: how many it may be asked for at once.
            patience: seconds to wait at most for what another load brings; `None`: as long as that takes.
            again: for the second time: the request is counted already.

        Returns:
            `Declined`: the origin has answered something else, which is for the caller. `Hit`: that it has failed a
            moment ago.

        Raises:
            Exception: what `ask` raised.
            WaitTimeout: another's load took too long.
        """
        gathering = Gathering(
            self._exchange, whole, requests, ask, Async(), limit, patience, blocking=False, again=again
        )
        answer = await gathering.gather()
        if answer is not None:
            return answer
        behind = gathering.behind(self._exchange.here())
        if behind is not None:
            task = self._exchange.engine.flights.start_party(behind.party.flights, behind.fill(), Context())
            self._exchange.watch(task)
        return _gathered(gathering, None)

    def open_blocking(
        self,
        whole: Q,
        requests: Sequence[Q],
        ask: Ask,
        *,
        limit: int | None,
        patience: float | None = None,
        again: bool = False,
    ) -> Gathered | Declined | Refused | Hit:
        """The same for a caller without an event loop, in whose thread `ask` runs without ever suspending."""
        ways = Blocking(self._exchange.engine)
        gathering = Gathering(self._exchange, whole, requests, ask, ways, limit, patience, blocking=True, again=again)
        answer = run_inline(gathering.gather())
        if answer is not None:
            return answer

        started_by = self._exchange.here()

        def refresh() -> None:
            if (behind := gathering.behind(started_by)) is not None:
                run_inline(behind.fill())

        return _gathered(gathering, refresh if gathering.is_due() else None)


def _gathered(gathering: Gathering[Q], refresh: Callable[[], None] | None) -> Gathered:
    board = gathering.board
    entries = [board.found[key] for key in board.keys]
    now = board.now()
    stored: list[StoredResponse] = [entry.value for entry in entries]  # type: ignore[misc]  # that is what is served
    ttl = min(entry.fresh_until for entry in entries) - now
    ages = [one.lifetime - (entry.fresh_until - now) for one, entry in zip(stored, entries, strict=True)]
    return Gathered(
        stored,
        gathering.result,
        int(max((age for age in ages if age > 0), default=0)),  # no number where it is kept for ever
        ttl,
        gathering.present,
        board.lapsed >= board.places.keys(),
        gathering.head(),
        gathering.failed_with(),
        gathering.frame(),
        refresh,
    )
