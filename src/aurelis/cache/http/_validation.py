"""Asking the origin whether a stored response still holds, and what its answer changes (RFC 9111 §4.3)."""

from __future__ import annotations

from collections.abc import Iterable

from ._grammar import entity_tag, http_date, weakly_equal
from ._messages import Fields, ResponseHead, StoredResponse
from ._storing import storable_fields

CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
"""Conditions that a cache may evaluate (RFC 9111 §4.3.2)."""

FAILED = frozenset({500, 502, 503, 504})
"""Statuses by which an origin, or what is before it, says that it has failed (RFC 5861 §4)."""

# RFC 9111 §3.2. Beside Content-Length, those are left alone that say how to read the stored bytes: these don't change.
_NOT_UPDATED = frozenset({b"content-encoding", b"content-length", b"content-range"})


def conditions(stored: StoredResponse) -> Fields:
    """The fields of a request that asks whether the response still holds (RFC 9111 §4.3.1).

    Empty: it has no validator.
    """
    found: list[tuple[bytes, bytes]] = []
    tag = entity_tag(first(stored.headers, b"etag"))
    if tag is not None:
        found.append((b"if-none-match", tag))
    modified = first(stored.headers, b"last-modified")
    if modified is not None and http_date(modified, stored.date) is not None:
        found.append((b"if-modified-since", modified))
    return tuple(found)


def updated(stored: StoredResponse, head: ResponseHead) -> ResponseHead | None:
    """The head of a stored response after a 304 (RFC 9111 §3.2, §4.3.4).

    Args:
        stored: the response that was asked about.
        head: of the 304; names of fields in lower case.

    Returns:
        `None`: the 304 speaks of another response, so it changes nothing.
    """
    if not _is_about(stored, head):
        return None
    new = [line for line in storable_fields(head) if line[0] not in _NOT_UPDATED]
    replaced = {name for name, _ in new}
    # The Date of the stored response says when that was made. One that is confirmed without a Date was so now.
    replaced.add(b"date")
    kept = [line for line in stored.headers if line[0] not in replaced]
    age = [line for line in head.headers if line[0] == b"age"]
    return ResponseHead(stored.status, (*kept, *new, *age))


def updated_by_head(stored: StoredResponse, head: ResponseHead) -> ResponseHead | None:
    """The same after a HEAD was answered with 200 (RFC 9111 §4.3.5); `None`: that shows that it has changed."""
    for name in (b"etag", b"last-modified", b"content-length"):
        new = first(head.headers, name)
        if new is not None and new != first(stored.headers, name):
            return None
    return updated(stored, head)


def _is_about(stored: StoredResponse, head: ResponseHead) -> bool:
    tag, own = entity_tag(first(head.headers, b"etag")), entity_tag(first(stored.headers, b"etag"))
    if tag is not None and own is not None:
        return weakly_equal(tag, own)
    modified = http_date(first(head.headers, b"last-modified"), stored.date)
    known = http_date(first(stored.headers, b"last-modified"), stored.date)
    return modified is None or known is None or modified == known


def conditional(fields: Iterable[tuple[bytes, bytes]], own: Fields) -> list[tuple[bytes, bytes]]:
    """The fields of a request with conditions of the cache's own in place of its client's.

    Args:
        fields: of the request; names in any case.
        own: of the cache, as `conditions` gives them; without any the request asks for the whole response.
    """
    return [*(line for line in fields if line[0].lower() not in CONDITIONS), *own]


def first(fields: Fields, name: bytes) -> bytes | None:
    """The first line of a field; `None`: there is none."""
    return next((value for candidate, value in fields if candidate == name), None)
