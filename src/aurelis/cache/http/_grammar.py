"""Parsing of field values: any bytes give a result, never an exception.

Where a value is malformed, the result is the one under which less is stored and less is reused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

MAX_DELTA_SECONDS = 2**31
"""Larger delta-seconds count as this many (RFC 9111 §1.2.2)."""

_OWS = b" \t"

# Possessive, so that no value takes more than linear time.
_QUOTED = rb'"(?:[^"\\]|\\.)*+"'
_QUOTED_STRING = re.compile(_QUOTED, re.DOTALL)
# A member and what ends it: a comma, the end, or a quote that never closes with all behind it.
_MEMBER = re.compile(rb'((?:[^",]++|%b)*+)(,|\Z|".*)' % _QUOTED, re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIGITS = re.compile(rb"[0-9]+")

# etagc includes the comma, and the backslash is an ordinary character (RFC 9110 §8.8.3).
_ETAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ETAG_LIST_PIECE = re.compile(rb'[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*"|[^,]*)[ \t]*(?:,|\Z)')

_MONTHS = {
    month: number
    for number, month in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"),
        start=1,
    )
}
_DAY = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY = rb"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH = rb"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
# Without regard to case, although RFC 9110 §5.6.7 has it matter: the meaning is never in doubt.
_DATE_FORMS = (
    re.compile(rb"%b, (?P<day>[0-9]{2}) %b (?P<year>[0-9]{4}) %b GMT" % (_DAY, _MONTH, _TIME), re.IGNORECASE),
    re.compile(rb"%b, (?P<day>[0-9]{2})-%b-(?P<year>[0-9]{2}) %b GMT" % (_LONG_DAY, _MONTH, _TIME), re.IGNORECASE),
    re.compile(rb"%b %b (?P<day>[0-9 ][0-9]) %b (?P<year>[0-9]{4})" % (_DAY, _MONTH, _TIME), re.IGNORECASE),
)


def is_token(value: bytes) -> bool:
    """Whether the value is a token (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(value) is not None


def split_list(value: bytes) -> tuple[list[bytes], bool]:
    """Split a comma-separated list, quoted strings kept whole (RFC 9110 §5.6.1).

    Returns:
        The members in order, without surrounding whitespace and empty ones, and whether every quote was
        closed. An open quote counts as an ordinary character, so that a directive behind it is still seen.
    """
    if b'"' not in value:
        return [member for part in value.split(b",") if (member := part.strip(_OWS))], True
    parts: list[bytes] = []
    closed = True
    for part, end in _MEMBER.findall(value):
        closed = end[:1] != b'"'
        parts += [part] if closed else (part + end).split(b",")
        if not closed:
            break
    return [member for part in parts if (member := part.strip(_OWS))], closed


def unquote(value: bytes) -> bytes:
    """The content of a quoted string; any other value unchanged (RFC 9110 §5.6.4)."""
    if _QUOTED_STRING.fullmatch(value) is None:
        return value
    return _QUOTED_PAIR.sub(rb"\1", value[1:-1])


def delta_seconds(value: bytes) -> int | None:
    """Seconds, 0 to `MAX_DELTA_SECONDS`; `None` where it is no delta-seconds (RFC 9111 §1.2.2)."""
    if _DIGITS.fullmatch(value) is None:
        return None
    digits = value.lstrip(b"0")
    # The length goes first: `int` refuses thousands of digits.
    return min(int(digits or b"0"), MAX_DELTA_SECONDS) if len(digits) <= 10 else MAX_DELTA_SECONDS


def age_seconds(value: bytes | None) -> int:
    """The Age field, seconds ≥ 0: its first member, and 0 where that is absent or invalid (RFC 9111 §5.1)."""
    if value is None:
        return 0
    return delta_seconds(value.split(b",", 1)[0].strip(_OWS)) or 0


def http_date(value: bytes | None, reference: float | None) -> int | None:
    """A date in one of the forms of RFC 9110 §5.6.7, as seconds since the epoch; `None` where it is none.

    Args:
        value: the field value; `None` where the field is absent.
        reference: seconds since the epoch; a two-digit year means the one at most 50 years after it. `None`:
            no such instant is known, so the form with a two-digit year is no date.
    """
    if value is None:
        return None
    value = value.strip(_OWS)
    match = next((found for form in _DATE_FORMS if (found := form.fullmatch(value))), None)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        if reference is None:
            return None
        latest = _year_of(reference) + 50
        year = latest - (latest - year) % 100
    try:
        instant = datetime(
            year,
            _MONTHS[match["month"].lower()],
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            # Seconds since the epoch have no place for a leap second: it counts as the second before.
            59 if match["second"] == b"60" else int(match["second"]),
            tzinfo=UTC,
        )
    except ValueError:  # the 31st of February, hour 24, year 0
        return None
    return int(instant.timestamp())


def _year_of(reference: float) -> int:
    try:
        return datetime.fromtimestamp(reference, UTC).year
    except (ValueError, OverflowError, OSError):  # a clock far off; any century will do
        return 1970


def entity_tag(value: bytes | None) -> bytes | None:
    """The field value if it is one well-formed entity tag, weak or strong (RFC 9110 §8.8.3)."""
    if value is None:
        return None
    value = value.strip(_OWS)
    return value if _ETAG.fullmatch(value) is not None else None


def entity_tags(value: bytes) -> list[bytes]:
    """The well-formed entity tags of a list, in order; `[b"*"]` for the wildcard (RFC 9110 §13.1.2)."""
    if value.strip(_OWS) == b"*":
        return [b"*"]
    pieces: list[bytes] = _ETAG_LIST_PIECE.findall(value)
    return [piece for piece in pieces if _ETAG.fullmatch(piece) is not None]


def weakly_equal(one: bytes, other: bytes) -> bool:
    """Weak comparison of two well-formed entity tags (RFC 9110 §8.8.3.2)."""
    return one.removeprefix(b"W/") == other.removeprefix(b"W/")
