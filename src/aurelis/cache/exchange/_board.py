"""The items of one request, and what is known of each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from aurelis.cache._decisions import Load, Refuse, Serve
from aurelis.cache._entry import Entry
from aurelis.cache.http import LoadedResponse, ResponseHead
from aurelis.cache.telemetry import names
from aurelis.cache.typing import ExchangePolicy

from ._judgements import stale_reason

Q = TypeVar("Q")


class Board(Generic[Q]):
    """The items of one request, and what is known of them.

    Attributes:
        whole: the request.
        key: of it.
        requests: one for each item, by place.
        keys: of them.
        places: the first place of each key.
        found: answers.
        how: result and layer of what was not loaded for this request.
        stale: what there is of the others.
        lapsed: those of which that is too old to be an answer.
        due: what is to be loaded anew in the background.
        reason: why the others are loaded, in the words of RFC 9211.
        refused: nothing is to be loaded.
    """

    def __init__(
        self,
        policy: ExchangePolicy[Q, ResponseHead, LoadedResponse],
        whole: Q,
        requests: Sequence[Q],
        now: Callable[[], float],
    ) -> None:
        self._policy = policy
        self.whole = whole
        self.key = policy.key(whole)
        self.requests = requests
        self.keys = [policy.key(request) for request in requests]
        self.places: dict[str, int] = {}
        for place, key in enumerate(self.keys):
            self.places.setdefault(key, place)
        self.now = now
        self.found: dict[str, Entry] = {}
        self.how: dict[str, tuple[str, str]] = {}
        self.stale: dict[str, Entry] = {}
        self.lapsed: set[str] = set()
        self.due: list[str] = []
        self.reason = "miss"
        self.refused = False
        self._why_stale: set[str] = set()

    def stand_in(self, key: str, entry: Entry) -> None:
        """What was stored answers for an item, whose load has failed."""
        self.found[key], self.how[key] = entry, (names.STALE, "")
        self._why_stale.add("error")

    def stale_reason(self) -> str:
        """Why the whole is stale: the worst of the reasons of its items."""
        return next((reason for reason in ("error", "revalidate") if reason in self._why_stale), "request")

    def request(self, key: str) -> Q:
        """The request for an item."""
        return self.requests[self.places[key]]

    def take(self, key: str, entry: Entry | None, layer: str) -> bool:
        """Whether an entry answers the request for its item."""
        now = self.now()
        decision = self._policy.on_lookup(self.request(key), entry, now)
        if isinstance(decision, Serve):
            self.found[key] = decision.entry
            if now < decision.entry.fresh_until:
                self.how[key] = (names.HIT, layer)
            else:
                self.how[key] = (names.STALE, "")
                self._why_stale.add(stale_reason(decision, now))
            if decision.refresh:
                self.due.append(key)
            return True
        self.refused |= isinstance(decision, Refuse)
        if isinstance(decision, Load) and decision.reason == "request":
            self.reason = "request"
        if isinstance(decision, Load) and decision.reason == "stale":
            self.lapsed.add(key)
        if entry is not None:
            self.stale[key] = entry
        return False
