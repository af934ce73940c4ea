"""What a journal keeps, as frames, and dead letters as users see them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from aurelis.cache._clock import Clock
from aurelis.cache.codecs import Frame, Framing, ValueCodec
from aurelis.cache.exceptions import FrameError
from aurelis.cache.journals._journal import Letter

DELETION = b""
"""In place of a frame: the key is to be deleted."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A write that the data store has not taken, as often as it was tried.

    Attributes:
        key: its full key.
        deletes: the key was to be deleted.
        readable: `value` is what was to be written; false if this process cannot read it, for instance because a class
            is no longer among `CacheConfig.types`, or for want of an `encryption_key`.
        value: what was to be written; `None` without one. `repr` does not show it.
        attempts: how often it was tried.
        error: type of what the store raised last.
        at: when it was given up; seconds since the Unix epoch.
    """

    key: str
    deletes: bool
    readable: bool
    value: object = field(repr=False)
    attempts: int
    error: str
    at: float


class Envelopes:
    """Puts values into frames, compressed and encrypted as in the layers of the cache, and takes them out."""

    def __init__(self, codec: ValueCodec, framing: Framing, clock: Clock) -> None:
        self._codec = codec
        self._framing = framing
        self._clock = clock

    def frame(self, key: str, value: object, payload: bytes | None) -> bytes:
        """The frame of a value.

        Args:
            payload: its packed form, where that is known.

        Raises:
            UnstorableValueError: it cannot be stored.
        """
        packed = self._codec.dumps(value) if payload is None else payload
        return self._framing.encode(Frame(key, self._clock.time(), math.inf, 0.0, packed))

    def value(self, key: str, frame: bytes) -> object:
        """The value in a frame.

        Raises:
            FrameError: it is damaged, is encrypted by another key, or holds a class that is not registered.
        """
        return self._codec.loads(self._framing.decode(frame, key).payload)

    def letter(self, letter: Letter) -> DeadLetter:
        """A dead letter of a journal."""
        deletes, readable, value = letter.frame == DELETION, True, None
        if not deletes:
            try:
                value = self.value(letter.key, letter.frame)
            except FrameError:
                readable = False
        return DeadLetter(letter.key, deletes, readable, value, letter.attempts, letter.error, letter.at)
