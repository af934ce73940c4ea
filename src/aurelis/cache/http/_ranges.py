"""Parts of a stored response (RFC 9110 §14).

A client chooses how many parts it asks for, so how much is made of one body is bounded: never more bytes of it than it
has, in `MAX_RANGES` parts at most. Who asks for more gets the whole, which is always right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ._grammar import entity_tag, http_date
from ._messages import Fields, HttpRequest, ResponseHead, StoredPart, StoredResponse
from ._validation import first

MAX_RANGES: Final = 16
"""Parts in one response."""

_MAX_LENGTH: Final = 1024
_CONTENT_RANGE = re.compile(rb"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_RANGE_SET = re.compile(rb"bytes[ \t]*=(.*)", re.IGNORECASE | re.DOTALL)
_RANGE = re.compile(rb"(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))")
# What describes the whole body and not its parts.
_OF_THE_WHOLE = frozenset({b"content-length", b"content-range"})


@dataclass(frozen=True, slots=True)
class Part:
    """The answer to a request for parts.

    Attributes:
        status: 206, or 416 where no part is within the body.
        fields: as they are sent.
        body: likewise.
    """

    status: int
    fields: Fields = field(repr=False)
    body: bytes = field(repr=False)


def ranges(value: bytes, size: int) -> list[tuple[int, int]] | None:
    """The parts that a Range field asks for, first and last byte each, in the order asked.

    Args:
        value: of the field, its lines joined.
        size: bytes of the body.

    Returns:
        Empty: none of them is within the body. `None`: the field does not count, because it is malformed, speaks of
        something else than bytes, or asks for too much.
    """
    match = _RANGE_SET.fullmatch(value) if len(value) <= _MAX_LENGTH else None
    if match is None:
        return None
    found: list[tuple[int, int]] = []
    members = [member for part in match[1].split(b",") if (member := part.strip(b" \t"))]
    if not members:
        return None
    for member in members:
        spec = _RANGE.fullmatch(member)
        if spec is None:
            return None
        start, end, suffix = spec.groups()
        if suffix is not None:
            span = max(size - int(suffix), 0), size - 1
        else:
            span = int(start), min(int(end), size - 1) if end else size - 1
            if end and int(end) < int(start):
                return None
        if span[0] <= span[1] and suffix != b"0" * len(suffix or b"x"):
            found.append(span)
    if len(found) > MAX_RANGES or sum(end - start + 1 for start, end in found) > size:
        return None
    return found


def part_of(fields: Mapping[bytes, bytes], stored: StoredResponse, boundary: bytes) -> Part | None:
    """What a stored response gives to a GET request with Range; `None`: the whole (RFC 9110 §14.2).

    Args:
        fields: of the request, by lower-case name.
        stored: the response selected, whole, with its body as it was sent.
        boundary: between parts, random.
    """
    wanted = fields.get(b"range")
    if wanted is None or stored.status != 200 or not _is_same(fields.get(b"if-range"), stored):
        return None
    body = b"".join(stored.chunks)
    size = len(body)
    spans = ranges(wanted, size)
    if spans is None:
        return None
    if not spans:
        kept = tuple(line for line in stored.headers if line[0] in (b"date", b"etag", b"vary"))
        return Part(416, (*kept, (b"content-range", b"bytes */%d" % size), (b"content-length", b"0")), b"")
    kept = tuple(line for line in stored.headers if line[0] not in _OF_THE_WHOLE)
    if len(spans) == 1:
        ((start, end),) = spans
        place = (b"content-range", b"bytes %d-%d/%d" % (start, end, size))
        return Part(206, (*kept, place, (b"content-length", b"%d" % (end + 1 - start))), body[start : end + 1])
    media_type = first(stored.headers, b"content-type")
    parts = _multipart(body, spans, media_type, boundary)
    kept = tuple(line for line in kept if line[0] != b"content-type")
    kind = (b"content-type", b"multipart/byteranges; boundary=" + boundary)
    return Part(206, (*kept, kind, (b"content-length", b"%d" % len(parts))), parts)


def content_range(value: bytes | None) -> tuple[int, int, int] | None:
    """First and last byte, and bytes of the whole, as Content-Range has them; `None`: it does not say all of it."""
    match = _CONTENT_RANGE.fullmatch(value.strip(b" \t")) if value is not None and len(value) <= _MAX_LENGTH else None
    if match is None:
        return None
    start, end, size = map(int, match.groups())
    return (start, end, size) if start <= end < size else None


def without_range(request: HttpRequest) -> HttpRequest:
    """The request for the whole."""
    fields = {name: value for name, value in request.fields.items() if name not in (b"range", b"if-range")}
    return replace(request, fields=fields)


def as_whole(head: ResponseHead) -> ResponseHead:
    """The head of the response to a request with Range, as if its body were the whole."""
    return ResponseHead(200, tuple(line for line in head.headers if line[0] != b"content-range"))


def within(fields: Mapping[bytes, bytes], part: StoredPart) -> StoredResponse | None:
    """What a stored part gives to a GET request with Range; `None`: it is not enough (RFC 9111 §3.3).

    Args:
        fields: of the request, by lower-case name.
        part: fresh.
    """
    wanted, stored = fields.get(b"range"), part.response
    spans = None if wanted is None else ranges(wanted, part.size)
    if spans is None or len(spans) != 1 or not _is_same(fields.get(b"if-range"), stored):
        return None
    ((start, end),) = spans
    if start < part.first or end > part.last:
        return None
    body = b"".join(stored.chunks)[start - part.first : end + 1 - part.first]
    kept = tuple(line for line in stored.headers if line[0] not in _OF_THE_WHOLE)
    place = (b"content-range", b"bytes %d-%d/%d" % (start, end, part.size))
    return replace(stored, status=206, headers=(*kept, place, (b"content-length", b"%d" % len(body))), chunks=(body,))


def _multipart(body: bytes, spans: list[tuple[int, int]], media_type: bytes | None, boundary: bytes) -> bytes:
    """RFC 9110 §14.6."""
    kind = b"" if media_type is None else b"Content-Type: %b\r\n" % media_type
    pieces = []
    for start, end in spans:
        place = b"Content-Range: bytes %d-%d/%d\r\n" % (start, end, len(body))
        pieces.append(b"--%b\r\n%b%b\r\n%b\r\n" % (boundary, kind, place, body[start : end + 1]))
    return b"".join((*pieces, b"--%b--\r\n" % boundary))


def _is_same(if_range: bytes | None, stored: StoredResponse) -> bool:
    """Whether the parts that a client has are of the same response (RFC 9110 §13.1.5)."""
    if if_range is None:
        return True
    tag = entity_tag(if_range)
    if tag is not None:  # strong comparison
        return not tag.startswith(b"W/") and tag == entity_tag(first(stored.headers, b"etag"))
    since = http_date(if_range, stored.date)
    modified = http_date(first(stored.headers, b"last-modified"), stored.date)
    # A date is strong if the response was made at least a second after it (RFC 9110 §8.8.2.2).
    return since is not None and since == modified and stored.date - modified >= 1
