"""What a layer holds under a key: a value with its remaining life."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Entry:
    """One stored value as seen by this process.

    Instants are those of this process's monotonic clock (seconds), so other machines' clocks do not matter: a layer
    shared with others gives a remaining life, and the instant is made from it on arrival.

    The class is deliberately not frozen: one is built on each promotion, and a frozen dataclass costs six times as
    much to build. Nobody changes an entry after it was handed to a layer.

    Attributes:
        value: the object itself when it may be shared between callers; otherwise `None` and `payload` is set.
        payload: the packed form of a mutable value, unpacked anew for each reader; `None` when `value` is shared.
        fresh_until: instant at which the value stops being fresh; may be infinite.
        expires: instant at which this layer forgets the entry, ≥ 0; may be infinite. Never later than the end of the
            value's whole life; earlier where a layer's own time to live is shorter.
        size: approximate bytes held for key and value, ≥ 0.
    """

    value: object
    payload: bytes | None
    fresh_until: float
    expires: float
    size: int
