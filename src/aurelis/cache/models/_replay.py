"""Fields of a model's response that are replayed with it later, to other callers."""

from __future__ import annotations

from aurelis.cache.http._messages import Fields

ORIGINAL_REQUEST_ID = b"x-cache-original-request-id"
"""Where the provider's id of the call that was really made is kept."""

_DROPPED = frozenset(
    {
        # about a connection that is gone (RFC 9110 §7.6.1, RFC 9112 §6, §7)
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        # about the bytes on the wire: the body is kept decoded, since the next client may not know the coding
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        # about the moment of the first call: `Age` says how long ago that was
        b"age",
        b"date",
        b"retry-after",
        # about the first caller
        b"set-cookie",
        b"set-cookie2",
        ORIGINAL_REQUEST_ID,
    }
)
_DROPPED_PREFIXES = (b"x-ratelimit-", b"ratelimit")


def replay_fields(fields: Fields) -> Fields:
    """The fields in order, without those that hold for the first caller, its connection or its moment only.

    `x-request-id` names a call that the next caller did not make, so it is kept under `ORIGINAL_REQUEST_ID`.
    """
    nominated = {
        name.strip().lower()
        for field, value in fields
        if field == b"connection"
        for name in value.split(b",")
    }
    kept: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        if name in _DROPPED or name in nominated or name.startswith(_DROPPED_PREFIXES):
            continue
        kept.append((ORIGINAL_REQUEST_ID if name == b"x-request-id" else name, value))
    return tuple(kept)
