"""Entries to frames and back, for layers that are shared by processes and keep bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from aurelis.cache._clock import Clock
from aurelis.cache._entry import Entry
from aurelis.cache._trouble import Incidents
from aurelis.cache.codecs import Frame, Framing, ValueCodec, is_immutable, open_frame
from aurelis.cache.exceptions import FrameError

_FOREVER: Final = 10 * 365 * 86_400.0
"""Lives longer than this many seconds are stored without an expiry."""


def note_damage(incidents: Incidents, clock: Clock, error: FrameError) -> None:
    """Say in the log that a frame is damaged or not ours, for a layer of which nobody counts that."""
    incidents.met(f"an entry that is damaged or not ours: {error.reason}", clock.monotonic())


class Framed:
    """The part of a layer that frames what it keeps."""

    _codec: ValueCodec
    _framing = Framing()
    _clock: Clock
    _damaged: Callable[[FrameError], None]

    def _entry(self, key: str, data: bytes, life: int, now: float | None = None) -> Entry | None:
        """The entry of a frame that lives for `life` more milliseconds, -1: for ever; `None`: damaged or not ours.

        Args:
            now: monotonic, seconds, for who has read many at once.
        """
        try:
            payload, stale_for, generation, details, _, _, codec = open_frame(data, key)
            if codec != self._framing.plain:
                payload, details = self._framing.unwrap(data, key, codec, payload, details)
            value = self._codec.loads(payload)
        except FrameError as error:
            self._damaged(error)
            return None
        # The server's clock says how long it has to live (-1: no expiry); ours only counts on from here.
        expires = math.inf if life < 0 else (self._clock.monotonic() if now is None else now) + life / 1000
        # A mutable value comes with its packed form: the value is this caller's own, the next one unpacks another.
        kept = None if is_immutable(value) else payload
        return Entry(value, kept, expires - stale_for, expires, len(payload) + len(key), generation, details)

    def _frame(self, key: str, entry: Entry) -> tuple[bytes, int | None]:
        """An entry's frame, and its life in milliseconds; `None`: for ever."""
        now = self._clock.monotonic()
        payload = self._codec.dumps(entry.value) if entry.payload is None else entry.payload
        fresh_for = max(0.0, entry.fresh_until - now)
        more: dict[str, Any] = {"generation": entry.generation, "details": entry.details}
        if fresh_for > _FOREVER:
            return self._framing.encode(Frame(key, self._clock.time(), fresh_for, 0.0, payload, **more)), None
        # What is fresh for a time only gets an expiry, however long it may be served stale: freshness is read from it.
        life = min(max(0.0, entry.expires - now), _FOREVER)
        frame = Frame(key, self._clock.time(), fresh_for, max(0.0, life - fresh_for), payload, **more)
        # At least a millisecond: what stands under the key now must go in any case.
        return self._framing.encode(frame), max(1, int(life * 1000))
