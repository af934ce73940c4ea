"""Fields of a model's response that are replayed with it later, to other callers."""

from __future__ import annotations

from aurelis.cache.http import Fields, ResponseHead, storable_fields

ORIGINAL_REQUEST_ID = b"x-cache-original-request-id"
"""Where the provider's id of the call that was really made is kept."""

# They name a call that the next caller did not make.
_REQUEST_IDS = frozenset({b"x-request-id", b"request-id"})
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
        b"retry-after-ms",
        # about the first caller
        b"set-cookie",
        b"set-cookie2",
        # other names of the first call
        b"apim-request-id",
        b"cf-ray",
        b"x-ms-client-request-id",
        ORIGINAL_REQUEST_ID,
    }
)
_LIMITS = (b"ratelimit", b"rate-limit")
"""Parts of the names of fields about limits of the first caller: of OpenAI, Anthropic, Azure and those of the IETF."""


def replay_fields(head: ResponseHead) -> Fields:
    """The fields in order, without those that hold for the first caller, its connection or its moment only.

    Names come out in lower case. The id of the call that was really made is kept under `ORIGINAL_REQUEST_ID`.
    """
    return tuple(
        (ORIGINAL_REQUEST_ID if name in _REQUEST_IDS else name, value)
        for name, value in storable_fields(head)
        if name not in _DROPPED and not any(part in name for part in _LIMITS)
    )
