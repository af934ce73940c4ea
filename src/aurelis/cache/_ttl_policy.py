"""The rules for Python values: fresh for a time to live, then perhaps stale and still of use for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ._decisions import Discard, Load, Reraise, Serve, Store
from ._entry import Entry
from ._options import EntryOptions, seconds


@dataclass(frozen=True, slots=True)
class ValueRequest:
    """A request for a Python value.

    Attributes:
        key: full key.
        ttl: seconds ≥ 0 that a loaded value is to live; 0: not kept.
        options: what else the caller asks for.
    """

    key: str
    ttl: float
    options: EntryOptions


class TtlPolicy:
    """Serves what is fresh, loads the rest, keeps what was loaded for its time to live."""

    __slots__ = ()

    def key(self, request: ValueRequest) -> str:
        """The key as the caller gave it."""
        return request.key

    def on_lookup(self, request: ValueRequest, entry: Entry | None, now: float) -> Serve | Load:
        """`Serve` while fresh, or stale within the window in which it may be refreshed in the background."""
        if entry is None:
            return Load("uri-miss")
        throttled = now < entry.details.retry_at
        if now < entry.fresh_until:
            return Serve(entry, "early" if now >= entry.until and not throttled else "")
        if throttled and self._may_stand_in(request, entry, now):
            return Serve(entry)
        if now < entry.fresh_until + seconds(request.options.stale_while_revalidate):
            return Serve(entry, "revalidate")
        return Load("stale")

    def on_loaded(self, request: ValueRequest, loaded: object) -> Store | Discard:
        """`None` is a value like any other; a ttl of 0 keeps nothing."""
        if request.ttl <= 0:
            return Discard("ttl")
        return Store(loaded, request.ttl, request.options.stale_for)

    def on_error(self, request: ValueRequest, entry: Entry | None, error: BaseException, now: float) -> Serve | Reraise:
        """A stale value within its window stands in; otherwise the caller gets the loader's own exception."""
        if entry is not None and self._may_stand_in(request, entry, now):
            return Serve(entry)
        return Reraise()

    def _may_stand_in(self, request: ValueRequest, entry: Entry, now: float) -> bool:
        return now < entry.fresh_until + request.options.stale_for


def refresh_from(fresh_until: float, lead: float, spread: float, chance: float) -> float:
    """The instant from which a hit starts a refresh.

    XFetch (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015) refreshes at
    a request when `now - spread * ln(chance)` has passed the end of freshness; here the chance is drawn beforehand.

    Args:
        lead: seconds before the end of freshness, ≥ 0; 0: not at all.
        spread: mean of the random lead in seconds, ≥ 0.
        chance: a random number in (0, 1].
    """
    return fresh_until - max(lead, -spread * math.log(chance) if spread else 0.0)
