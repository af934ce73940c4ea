"""Fields of a model's response that are replayed with it later, to other callers."""

from __future__ import annotations

from aurelis.cache.http import Fields, ResponseHead, storable_fields

ORIGINAL_REQUEST_ID = b"x-cache-original-request-id"
"""Where the provider's id of the call that was really made is kept."""

_DROPPED = frozenset(
    {
        # about the bytes on the wire: the body is kept decoded, since the next client may not know the coding
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        # about the moment of the first call: `Age` says how long ago that was
        b"date",
        b"retry-after",
        # about the first caller
        b"set-cookie",
        b"set-cookie2",
        ORIGINAL_REQUEST_ID,
    }
)
_DROPPED_PREFIXES = (b"x-ratelimit-", b"ratelimit")


def replay_fields(head: ResponseHead) -> Fields:
    """The fields in order, without those that hold for the first caller, its connection or its moment only.

    Names come out in lower case. `x-request-id` names a call that the next caller did not make, so it is kept
    under `ORIGINAL_REQUEST_ID`.
    """
    return tuple(
        (ORIGINAL_REQUEST_ID if name == b"x-request-id" else name, value)
        for name, value in storable_fields(head)
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    )
