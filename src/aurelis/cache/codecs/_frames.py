"""The frame around a stored value: whose it is, how long it lives, and whether it is undamaged.

A frame is what a layer shared by several processes keeps under a key. The layout is a stored format and
public; a change of it changes the version, and frames of another version are misses. Numbers are big-endian.

======  ======  ============================================================================
offset  length  content
======  ======  ============================================================================
0       3       magic: ``AuC``
3       1       version of this layout: 2
4       4       CRC-32 (as zlib) of everything from offset 8 to the end
8       8       created: float, seconds since the Unix epoch, finite
16      8       fresh for: float, seconds from then, ≥ 0, may be infinite
24      8       stale for: float, seconds after that, ≥ 0, may be infinite
32      8       generation: unsigned, what was known of invalidations when the value began to be loaded
40      1       how the payload is packed, see below
41      4       length of the key, unsigned
45      4       length of the details, unsigned
49      8       length of the payload, unsigned
57      -       the key in UTF-8, lone surrogates included
-       -       the details: nothing, or a msgpack map with any of ``tags`` (array of strings), ``lead``,
                ``spread`` (floats, seconds), ``etag`` and ``last_modified`` (strings)
-       -       the payload, to the end
======  ======  ============================================================================

How the payload is packed: the lower four bits are the codec, of which 1 is `ValueCodec`. The next two say how it
was compressed: 0 not at all, 1 gzip (RFC 1952), 2 Zstandard (RFC 8878). The highest bit says that it was encrypted
after that, and the details with it, so that there are none outside; see `_encryption` for what the payload is then.
The bit between them is 0.

The key is in it because the place where a frame was found proves nothing: keys get renamed, copied and
restored. The check finds accidents. It is no signature: whoever can write to the store can write valid
frames.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Final
from zlib import crc32

from msgpack import packb, unpackb

from aurelis.cache._entry import NO_DETAILS, Details
from aurelis.cache.exceptions import FrameError

MSGPACK_VALUES: Final = 1
"""The codec of payloads written by `ValueCodec`."""
ENCRYPTED: Final = 0x80
"""The bit of what is encrypted."""

MAGIC: Final = b"AuC\x02"
"""What a frame begins with."""

GENERATION_AT: Final = 32
"""The offset of its generation."""

_HEADER: Final = struct.Struct(">4sIdddQBIIQ")
_CHECK: Final = struct.Struct(">I")
_BODY: Final = struct.Struct(">dddQBIIQ")
_MAX_GENERATION: Final = 2**64 - 1
_CHECKED_FROM: Final = len(MAGIC) + _CHECK.size
_KEY_AT: Final = _HEADER.size
_REMEMBERED_SIZE: Final = 512


@dataclass(slots=True)
class Frame:
    """One stored value, still packed.

    Not frozen, as one is built for each hit in a shared layer, and freezing makes that several times as expensive;
    nobody changes one.

    Attributes:
        key: The full key.
        created: When the value was made; seconds since the Unix epoch.
        fresh_for: How long it is fresh from then; seconds, ≥ 0, may be infinite.
        stale_for: How long after that it may be served stale; seconds, ≥ 0, may be infinite.
        payload: The packed value.
        codec: How it is packed; 0 to 255, `MSGPACK_VALUES` unless it is compressed or encrypted.
        generation: See `aurelis.cache.typing.Entry`; 0 to 2**64 - 1.
        details: Likewise; the instant of a retry is not kept.
    """

    key: str
    created: float
    fresh_for: float
    stale_for: float
    payload: bytes = field(repr=False)
    codec: int = MSGPACK_VALUES
    generation: int = 0
    details: Details = NO_DETAILS


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        FrameError: A time or the codec is outside of its range (reason ``"header"``).
    """
    _require_range(frame.created, frame.fresh_for, frame.stale_for)
    _require_numbers(frame)
    key = to_bytes(frame.key)
    details = pack_details(frame.details)
    rest = b"".join((_body(frame, key, len(details), len(frame.payload)), key, details, frame.payload))
    return b"".join((MAGIC, _CHECK.pack(crc32(rest)), rest))


def decode_frame(data: bytes, key: str) -> Frame:
    """Return the frame that bytes hold.

    Args:
        data: Anything that was found under the key.
        key: The key under which it was found.

    Raises:
        FrameError: It is no frame for this key. The reasons, in the order in which they are looked for:
            ``"magic"`` (not ours), ``"version"``, ``"truncated"`` (shorter or longer than it says),
            ``"check"`` (damaged), ``"key"`` (the frame of another key), ``"header"`` (a time outside of its
            range). Nothing else, whatever the bytes.
    """
    payload, stale_for, generation, details, created, fresh_for, codec = open_frame(data, key)
    return Frame(key, created, fresh_for, stale_for, payload, codec, generation, details)


def generation_of(data: bytes) -> int:
    """Return the generation of a frame; 0 for anything else."""
    if data[: len(MAGIC)] != MAGIC:
        return 0
    return int.from_bytes(data[GENERATION_AT : GENERATION_AT + 8], "big")


def open_frame(data: bytes, key: str) -> tuple[bytes, float, int, Details, float, float, int]:
    """Return payload, stale for, generation, details, created, fresh for and codec of the frame that bytes hold.

    As `decode_frame`, for who reads a hundred at once: a record for each would be a tenth of the work.
    """
    try:
        header = _HEADER.unpack_from(data)
    except struct.error:
        raise FrameError(_foreign(data[:4]) or "truncated") from None
    magic, check, created, fresh_for, stale_for, generation, codec, key_size, details_size, payload_size = header
    if magic != MAGIC:
        raise FrameError(_foreign(magic))
    details_at = _KEY_AT + key_size
    payload_at = details_at + details_size
    if len(data) != payload_at + payload_size:
        raise FrameError("truncated")
    if crc32(memoryview(data)[_CHECKED_FROM:]) != check:
        raise FrameError("check")
    if data[_KEY_AT:details_at] != to_bytes(key):
        raise FrameError("key")
    _require_range(created, fresh_for, stale_for)
    details = read_details(data[details_at:payload_at]) if details_size else NO_DETAILS
    return data[payload_at:], stale_for, generation, details, created, fresh_for, codec


def outside(frame: Frame, payload_size: int) -> bytes:
    """Return what of a frame without details is not its payload, from the times on to the key.

    Raises:
        FrameError: As `encode_frame`.
    """
    _require_range(frame.created, frame.fresh_for, frame.stale_for)
    _require_numbers(frame)
    key = to_bytes(frame.key)
    return _body(frame, key, 0, payload_size) + key


def outside_of(data: bytes, key: str) -> bytes:
    """Return the same of the bytes of a frame that `open_frame` has opened."""
    return data[_CHECKED_FROM : _KEY_AT + len(to_bytes(key))]


def to_bytes(key: str) -> bytes:
    """Return the UTF-8 of a key, which may hold lone surrogates."""
    try:
        return key.encode()
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")  # naming an error handler costs more than all the rest


def pack_details(details: Details) -> bytes:
    """Return the bytes of details, which are few or none."""
    if details is NO_DETAILS:
        return b""
    found = {
        "tags": list(details.tags),
        "lead": details.lead,
        "spread": details.spread,
        "etag": details.etag,
        "last_modified": details.last_modified,
    }
    packed = {name: value for name, value in found.items() if value or value == ""}
    return bytes(packb(packed, unicode_errors="surrogatepass")) if packed else b""


def read_details(data: bytes) -> Details:
    """Return the details that bytes hold.

    Raises:
        FrameError: They hold none (reason ``"header"``).
    """
    if not data:
        return NO_DETAILS
    return _remembered_details(data) if len(data) <= _REMEMBERED_SIZE else _unpack_details(data)


def _unpack_details(data: bytes) -> Details:
    try:
        found = unpackb(data, unicode_errors="surrogatepass")
        tags = found.pop("tags", [])
        lead, spread = found.pop("lead", 0.0), found.pop("spread", 0.0)
        etag, last_modified = found.pop("etag", None), found.pop("last_modified", None)
    except Exception as error:  # noqa: BLE001  # damaged bytes can fail anywhere
        raise FrameError("header", type(error).__name__) from None
    texts = [*tags, *(text for text in (etag, last_modified) if text is not None)] if type(tags) is list else [None]
    numbers = (lead, spread)
    if found or not all(type(text) is str for text in texts):
        raise FrameError("header", "the details hold something else than they may")
    if not all(type(number) is float and 0.0 <= number < math.inf for number in numbers):
        raise FrameError("header", "lead and spread must be finite, 0 or more")
    return Details(tuple(tags), lead, spread, etag, last_modified)


# What is stored with the same tags and options has the same details.
_remembered_details = lru_cache(1024)(_unpack_details)


def _body(frame: Frame, key: bytes, details_size: int, payload_size: int) -> bytes:
    times = (frame.created, frame.fresh_for, frame.stale_for, frame.generation)
    return _BODY.pack(*times, frame.codec, len(key), details_size, payload_size)


def _foreign(start: bytes) -> str:
    if start == MAGIC[: len(start)]:
        return ""
    return "version" if start[:3] == MAGIC[:3] else "magic"


def _require_range(created: float, fresh_for: float, stale_for: float) -> None:
    # Written so that NaN, for which every comparison is false, is refused.
    if not (isfinite(created) and fresh_for >= 0.0 and stale_for >= 0.0):
        raise FrameError("header", "created must be finite, fresh_for and stale_for 0 or more")


def _require_numbers(frame: Frame) -> None:
    if not (0 <= frame.codec <= 255 and 0 <= frame.generation <= _MAX_GENERATION):
        raise FrameError("header", "the codec is not in 0 to 255, or the generation not in 0 to 2**64 - 1")
    if not (0.0 <= frame.details.lead < math.inf and 0.0 <= frame.details.spread < math.inf):
        raise FrameError("header", "lead and spread must be finite, 0 or more")
