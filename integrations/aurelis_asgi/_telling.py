"""What a response tells about the cache: `Age` and `Cache-Status` (RFC 9211), as much as was asked for."""

from __future__ import annotations

from typing import Literal, TypeAlias, Unpack

from aurelis.cache.http import CacheStatus, Fields, Going

Tells: TypeAlias = bool | Literal["debug"]
"""Whether responses say what was done; `"debug"`: also why, and under which key."""


class Teller:
    """Makes the fields for the response to one request, or to all whose responses tell nothing of their own.

    Args:
        status: writes the members.
        tells: how much.
        key: of the response, told by `"debug"` alone; empty: not known.
    """

    __slots__ = ("_key", "_status", "_tells")

    def __init__(self, status: CacheStatus, tells: Tells, key: str = "") -> None:
        self._status = status
        self._tells = tells
        self._key = key if tells == "debug" else ""

    def hit(self, age: int, ttl: float) -> Fields:
        """The fields of an answer from the cache; both in whole seconds."""
        stamp = (b"age", b"%d" % age)
        return (stamp, (b"cache-status", self._status.hit(ttl=ttl, key=self._key))) if self._tells else (stamp,)

    def forwarded(self, reason: str, **going: Unpack[Going]) -> Fields:
        """The fields of an answer for which the app was asked; arguments as of `CacheStatus.forwarded`."""
        if not self._tells:
            return ()
        if self._tells != "debug":
            going["detail"] = ""
        return ((b"cache-status", self._status.forwarded(reason, key=self._key, **going)),)

    def refused(self) -> Fields:
        """The fields of the answer that nothing is stored where nothing else was wanted."""
        if not self._tells:
            return ()
        return ((b"cache-status", self._status.refused(detail=self._tells == "debug")),)
