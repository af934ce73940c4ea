"""What a layer holds under a key: a value with its remaining life."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Details:
    """What is known of a value beside its life, where there is anything.

    Attributes:
        tags: names given by the caller or the loader.
        lead: seconds before the end of freshness at which it is to be refreshed early, ≥ 0.
        spread: mean, in seconds, of a random lead (XFetch: the time that the load took, times beta), ≥ 0.
        etag: validator that the loader gave.
        last_modified: date that the loader gave, in its own form.
        retry_at: monotonic instant before which a failed refresh is not tried again, in this process.
    """

    tags: tuple[str, ...] = ()
    lead: float = 0.0
    spread: float = 0.0
    etag: str | None = None
    last_modified: str | None = None
    retry_at: float = -math.inf


NO_DETAILS = Details()


@dataclass(slots=True)
class Entry:
    """One stored value as seen by this process.

    Instants are those of this process's monotonic clock (seconds), so other machines' clocks do not matter: a layer
    shared with others gives a remaining life, and the instant is made from it on arrival.

    The class is deliberately not frozen: one is built on each promotion, and a frozen dataclass costs six times as
    much to build. Nobody changes an entry after it was handed to a layer, but for `until` and `mark`, which belong to
    memory.

    Attributes:
        value: the object itself when it may be shared between callers; otherwise `None` and `payload` is set.
        payload: the packed form of a mutable value, unpacked anew for each reader; `None` when `value` is shared.
        fresh_until: instant at which the value stops being fresh; may be infinite.
        expires: instant at which this layer forgets the entry, ≥ 0; may be infinite. Never later than the end of the
            value's whole life; earlier where a layer's own time to live is shorter.
        size: approximate bytes held for key and value, ≥ 0.
        generation: what was known of invalidations when the value began to be loaded; see `Generations`.
        details: what else is known.
        until: instant up to which memory may serve it without looking at anything else.
        mark: of the generations when the entry was last compared with them.
        stored: instant at which the layer took it, where the layer knows; -inf: it does not.
    """

    value: object = field(repr=False)
    payload: bytes | None = field(repr=False)
    fresh_until: float
    expires: float
    size: int
    generation: int = 0
    details: Details = NO_DETAILS
    until: float = -math.inf
    mark: int = -1
    stored: float = -math.inf
