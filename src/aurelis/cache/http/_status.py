"""The Cache-Status field: what this cache did with a request (RFC 9211)."""

from __future__ import annotations

import re
from typing import TypedDict, Unpack

_SF_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_FORWARD_REASONS = frozenset({"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"})


class Going(TypedDict, total=False):
    """How a request that was forwarded went.

    Attributes:
        status: what the origin answered (RFC 9211 §2.3); `None` or absent: not said.
        ttl: freshness of what was stored, seconds (§2.4); likewise.
        stored: the answer was stored (§2.5).
        collapsed: the answer was made for another request too (§2.6).
        detail: for people (§2.8); empty: not said.
    """

    status: int | None
    ttl: float | None
    stored: bool
    collapsed: bool
    detail: str


class CacheStatus:
    """Writes the list member of one cache.

    Durations are whole seconds, as the field has no fractions.

    Args:
        name: of the cache; any string.

    Example:
        >>> status = CacheStatus("aurelis")
        >>> status.hit(ttl=30.5)
        b'aurelis; hit; ttl=30'
        >>> status.forwarded("uri-miss", status=200, stored=True)
        b'aurelis; fwd=uri-miss; fwd-status=200; stored'
    """

    __slots__ = ("_hit", "_name")

    def __init__(self, name: str) -> None:
        self._name = _token_or_string(name)
        self._hit = self._name + b"; hit"

    def hit(self, *, ttl: float | None = None, key: str = "", detail: str = "") -> bytes:
        """The member for a request that was answered from the store (RFC 9211 §2.1).

        Args:
            ttl: remaining freshness in seconds, negative for a stale answer (§2.4); `None`: not said.
            key: under which it is stored (§2.7); empty: not said.
            detail: for people (§2.8); empty: not said.
        """
        member = self._hit if ttl is None else b"%b; ttl=%d" % (self._hit, ttl // 1)
        return member if not key and not detail else member + _explained(key, detail)

    def forwarded(self, reason: str, *, key: str = "", **going: Unpack[Going]) -> bytes:
        """The member for a request that went to the origin, alone or together with others (RFC 9211 §2.2).

        Args:
            reason: why, one of the tokens of §2.2; any other counts as `miss`, the one that is always true.
            key: under which it is looked for (§2.7); empty: not said.
            going: how it went.
        """
        member = b"%b; fwd=%b" % (self._name, (reason if reason in _FORWARD_REASONS else "miss").encode())
        status, ttl = going.get("status"), going.get("ttl")
        if status is not None:
            member += b"; fwd-status=%d" % status
        if ttl is not None:
            member += b"; ttl=%d" % (ttl // 1)
        if going.get("stored"):
            member += b"; stored"
        if going.get("collapsed"):
            member += b"; collapsed"
        return member + _explained(key, going.get("detail", ""))

    def refused(self, *, detail: bool = True) -> bytes:
        """The member for a request that asked for nothing but a stored answer where there was none."""
        return self._name + b"; detail=only-if-cached" if detail else self._name


def append_status(existing: bytes | None, member: bytes) -> bytes:
    """The field value with one more member: caches nearer to the client come later (RFC 9211 §2).

    Args:
        existing: value that came from the origin, its lines joined; `None` or empty: none.
        member: of this cache.
    """
    return existing + b", " + member if existing else member


def _explained(key: str, detail: str) -> bytes:
    text = b"; key=" + _string(key) if key else b""
    return text + b"; detail=" + _token_or_string(detail) if detail else text


def _token_or_string(text: str) -> bytes:
    """An sf-token where the text is one, else an sf-string (RFC 8941 §3.3.3, §3.3.4)."""
    if _SF_TOKEN.fullmatch(text) is not None:
        return text.encode("ascii")
    return _string(text)


def _string(text: str) -> bytes:
    """An sf-string (RFC 8941 §3.3.3); what has no place in it is shown as `?`."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in text)
    return ('"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"').encode("ascii")
