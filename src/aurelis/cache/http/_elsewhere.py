"""What requests say about another target than their own, in fields that no specification of HTTP itself knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

from ._messages import Fields

_ELSEWHERE = (
    b"forwarded",
    b"front-end-https",
    b"x-forwarded-host",
    b"x-forwarded-method",
    b"x-forwarded-path",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-protocol",
    b"x-forwarded-scheme",
    b"x-forwarded-server",
    b"x-forwarded-ssl",
    b"x-forwarded-uri",
    b"x-host",
    b"x-http-host-override",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-host",
    b"x-original-uri",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-scheme",
    b"x-script-name",
    b"x-url-scheme",
)
ELSEWHERE_FIELDS = frozenset(
    b"".join(spelling)
    for name in _ELSEWHERE
    # What is WSGI, below a bridge for instance, does not tell `_` from `-`.
    for spelling in product(*([b"-", b"_"] if char == 0x2D else [bytes([char])] for char in name))
)
"""Request fields by which apps are told of another target than that of the request.

Proxies set them, and so can anybody where no proxy takes them away. An app that heeds one answers for that other
target, so requests share entries only with those that say the same.
"""

# Of Forwarded (RFC 7239 §4) `host` and `proto` are about the target; the others would keep each client apart.
_PAIR = rb"""[ \t]*([A-Za-z-]+)=("(?:[^"\\]|\\.)*+"|[^;," \t]*+)[ \t]*"""
_FORWARDED = re.compile(rb"%b(?:[;,]%b)*+" % (_PAIR, _PAIR))
_FORWARDED_PAIR = re.compile(_PAIR)


def told_elsewhere(fields: Mapping[bytes, bytes]) -> Fields:
    """What a request says about another target than its own: fields by name, sorted; empty: nothing.

    Args:
        fields: of the request, by lower-case name.
    """
    found: list[tuple[bytes, bytes]] = []
    for name in fields:
        if name in ELSEWHERE_FIELDS:
            value = fields[name]
            if name != b"forwarded" or (value := _target_in(value)):
                found.append((name, value))
    if len(found) > 1:
        found.sort()
    return tuple(found)


def encoded_elsewhere(told: Fields) -> bytes:
    """The same in an injective encoding, for keys."""
    return b"".join(b"%d:%b%d:%b" % (len(name), name, len(value), value) for name, value in told)


def _target_in(forwarded: bytes) -> bytes:
    """What Forwarded says of the target. Where its syntax is odd, and may be read in other ways, that is all of it."""
    if _FORWARDED.fullmatch(forwarded) is None:
        return forwarded
    pairs = [(name.lower(), value) for name, value in _FORWARDED_PAIR.findall(forwarded)]
    return b";".join(b"%b=%b" % pair for pair in pairs if pair[0] in (b"host", b"proto"))
