"""What processes tell each other of changes, and how one of them notices that it has missed something.

Every message has a number, which Redis gives: the generation of the change. Who hears all numbers has missed nothing.
Messages may overtake each other on their way, so a hole counts only when it stays open for a moment. A sign of life
from time to time repeats the last number, which shows a message that was lost at the end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from msgpack import packb, unpackb

from .typing import Kind, Message

_KINDS: Final = frozenset({"keys", "tags", "soft", "beat"})

GRACE: Final = 1.0
"""Seconds for which a message may be behind others."""
_MAX_AHEAD: Final = 10_000
_MAX_AWAY: Final = 64


def encode(node: str, kind: Kind, names: tuple[str, ...] = ()) -> bytes:
    """The message without its number, which Redis puts before it."""
    return bytes(packb([node, kind, *names], unicode_errors="surrogatepass"))


def decode(data: bytes) -> Message | None:
    """The message; `None` for anything else."""
    number, space, body = data.partition(b" ")
    if not space or not number.isdigit() or len(number) > 20:
        return None
    try:
        parts = unpackb(body, unicode_errors="surrogatepass")
    except Exception:  # noqa: BLE001  # whoever can publish may send anything
        return None
    if type(parts) is not list or len(parts) < 2 or not all(type(part) is str for part in parts):
        return None
    node, kind, *names = parts
    if kind not in _KINDS:
        return None
    return Message(int(number), node, kind, tuple(names))


@dataclass(frozen=True, slots=True)
class Heard:
    """Which numbers have been heard.

    Attributes:
        upto: all up to this one; -1: none yet.
        ahead: further ones, above a hole.
        since: the instant at which the hole was first seen.
        told: the highest number that anything has told of.
        at: the instant at which `upto` was reached.
    """

    upto: int = -1
    ahead: frozenset[int] = frozenset()
    since: float = 0.0
    told: int = field(default=-1, compare=False)
    at: float = field(default=0.0, compare=False)


class Echo:
    """How long a sign of life takes to come back to its sender, by the sender's own clock.

    They come back in the order in which they were sent. Where one may be missing or not, the next one is not measured.
    """

    def __init__(self) -> None:
        self._away: deque[float] = deque(maxlen=_MAX_AWAY)
        self._skip = False

    def begin_anew(self) -> None:
        """What was sent before may not come back."""
        self._away.clear()

    def sent(self, now: float) -> None:
        """One goes off."""
        if not self._skip:
            self._away.append(now)
        self._skip = False

    def failed(self) -> None:
        """It may have gone off, or not."""
        self._away.clear()
        self._skip = True

    def heard(self, now: float) -> float | None:
        """One has come back. Returns the seconds that it took; `None`: it is not sure which one it is."""
        return max(now - self._away.popleft(), 0.0) if self._away else None


def hear(heard: Heard, message: Message, now: float) -> tuple[Heard, bool]:
    """The next state, and whether something must have been lost.

    Args:
        now: monotonic, seconds.
    """
    number, beat = message.number, message.kind == "beat"
    if heard.upto < 0:
        return Heard(number, at=now), False
    if number <= heard.upto:
        if beat and number < heard.upto and now - heard.at > GRACE:
            return Heard(number, at=now), True  # the numbers have begun anew, from below
        return _aged(heard, now)
    ahead = heard.ahead if beat else heard.ahead | {number}
    told = max(heard.told, number, *ahead)
    upto = heard.upto
    while upto + 1 in ahead:
        upto += 1
        ahead -= {upto}
    if upto >= told:
        return Heard(upto, at=now), False
    if len(ahead) > _MAX_AHEAD:
        return Heard(told, at=now), True
    if upto == heard.upto:
        return _aged(Heard(upto, ahead, heard.since or now, told, heard.at), now)
    return Heard(upto, ahead, now, told, now), False


def _aged(heard: Heard, now: float) -> tuple[Heard, bool]:
    if heard.since and now - heard.since > GRACE:
        return Heard(max((heard.told, heard.upto, *heard.ahead)), at=now), True
    return heard, False
