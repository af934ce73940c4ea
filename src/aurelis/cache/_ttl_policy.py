"""The rules for Python values: fresh for a time to live, and that is all."""

from __future__ import annotations

from dataclasses import dataclass

from ._decisions import Discard, Load, Reraise, Serve, Store
from ._entry import Entry


@dataclass(frozen=True, slots=True)
class ValueRequest:
    """A request for a Python value.

    Attributes:
        key: full key.
        ttl: seconds ≥ 0 that a loaded value is to live; 0: not kept.
    """

    key: str
    ttl: float


class TtlPolicy:
    """Serves what is fresh, loads the rest, keeps what was loaded for its time to live."""

    __slots__ = ()

    def key(self, request: ValueRequest) -> str:
        """The key as the caller gave it."""
        return request.key

    def on_lookup(self, request: ValueRequest, entry: Entry | None, now: float) -> Serve | Load:
        """`Serve` while fresh. The managers read memory by `entry.expires` alone, which says the same, faster."""
        if entry is not None and now < entry.fresh_until:
            return Serve(entry)
        return Load("uri-miss" if entry is None else "stale")

    def on_loaded(self, request: ValueRequest, loaded: object) -> Store | Discard:
        """`None` is a value like any other; a ttl of 0 keeps nothing."""
        if request.ttl <= 0:
            return Discard("ttl")
        return Store(loaded, request.ttl)

    def on_error(self, request: ValueRequest, entry: Entry | None, error: BaseException, now: float) -> Reraise:
        """The caller gets the loader's own exception."""
        return Reraise()
