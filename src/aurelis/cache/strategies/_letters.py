"""What a journal keeps, as frames, and dead letters as users see them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from aurelis.cache._clock import Clock
from aurelis.cache.codecs import Frame, ValueCodec, encode_frame, open_frame
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
            is no longer among `CacheConfig.types`.
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


def packed_frame(key: str, payload: bytes, clock: Clock) -> bytes:
    """The frame of a packed value."""
    return encode_frame(Frame(key, clock.time(), math.inf, 0.0, payload))


def value_of(key: str, frame: bytes, codec: ValueCodec) -> object:
    """The value in a frame.

    Raises:
        FrameError: it is damaged, or holds a class that is not registered.
    """
    return codec.loads(open_frame(frame, key)[0])


def opened(letter: Letter, codec: ValueCodec) -> DeadLetter:
    """A dead letter of a journal."""
    deletes, readable, value = letter.frame == DELETION, True, None
    if not deletes:
        try:
            value = value_of(letter.key, letter.frame, codec)
        except FrameError:
            readable = False
    return DeadLetter(letter.key, deletes, readable, value, letter.attempts, letter.error, letter.at)
