"""Frames: what is stored comes back, and nothing but an undamaged frame of the same key is taken for one."""

import dataclasses
import math
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import packb

from aurelis.cache._entry import NO_DETAILS, Details
from aurelis.cache.codecs import MSGPACK_VALUES, Frame, decode_frame, encode_frame
from aurelis.cache.exceptions import FrameError

durations = st.floats(min_value=0, allow_infinity=True, allow_nan=False)
leads = st.floats(min_value=0, allow_infinity=False, allow_nan=False)
texts = st.text(alphabet=st.characters(), max_size=20)
details = st.builds(
    Details,
    tags=st.lists(texts, max_size=5).map(tuple),
    lead=leads,
    spread=leads,
    etag=st.none() | texts,
    last_modified=st.none() | texts,
)
frames = st.builds(
    Frame,
    key=texts,
    created=st.floats(allow_nan=False, allow_infinity=False),
    fresh_for=durations,
    stale_for=durations,
    payload=st.binary(max_size=100),
    codec=st.integers(0, 255),
    generation=st.integers(0, 2**64 - 1),
    details=st.just(NO_DETAILS) | details,
)

EXAMPLE = Frame("aurelis:v1:a:b", 1_700_000_000.25, 60.0, math.inf, b"\x81\xa1a\x01")
DESCRIBED = dataclasses.replace(
    EXAMPLE,
    generation=1_700_000_000_000_001,
    details=Details(("t:a", "t:b"), 12.0, 0.5, '"abc"', "Sun, 06 Nov 1994 08:49:37 GMT"),
)
STORED = encode_frame(EXAMPLE)


def _forged(**changes: Any) -> bytes:
    """Return a frame whose check is right, whatever is in it."""
    field: dict[str, Any] = {
        "created": 0.0,
        "fresh_for": 1.0,
        "stale_for": 0.0,
        "key": b"k",
        "details": b"",
        "payload": b"p",
    } | changes
    sizes = (field.get(f"{name}_size", len(field[name])) for name in ("key", "details", "payload"))
    times = field["created"], field["fresh_for"], field["stale_for"]
    body: bytes = struct.pack(">dddQBIIQ", *times, 7, 1, *sizes)
    body += field["key"] + field["details"] + field["payload"]
    return b"AuC\x02" + struct.pack(">I", zlib.crc32(body)) + body


def _reason(data: bytes, key: str) -> str:
    with pytest.raises(FrameError) as raised:
        decode_frame(data, key)
    return raised.value.reason


@given(frames)
def test_decoding_inverts_encoding(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame), frame.key) == frame


def test_a_key_with_a_lone_surrogate_is_a_key() -> None:
    frame = Frame("\ud800", 0.0, 1.0, 0.0, b"")
    assert decode_frame(encode_frame(frame), "\ud800") == frame


def test_the_layout_is_as_documented() -> None:
    """A stored format: a change of it needs another version."""
    assert STORED[:4] == b"AuC\x02"
    assert STORED[4:8] == struct.pack(">I", zlib.crc32(STORED[8:]))
    assert STORED[8:57] == struct.pack(">dddQBIIQ", 1_700_000_000.25, 60.0, math.inf, 0, MSGPACK_VALUES, 14, 0, 4)
    assert STORED[57:] == b"aurelis:v1:a:b" + b"\x81\xa1a\x01"
    assert STORED.hex() == (
        "41754302b3f2d47f41d954fc40100000404e0000000000007ff00000000000000000000000"
        "000000010000000e000000000000000000000004617572656c69733a76313a613a6281a161"
        "01"
    )  # fmt: skip


def test_the_layout_of_details_is_as_documented() -> None:
    stored = encode_frame(DESCRIBED)
    packed = packb(
        {
            "tags": ["t:a", "t:b"],
            "lead": 12.0,
            "spread": 0.5,
            "etag": '"abc"',
            "last_modified": "Sun, 06 Nov 1994 08:49:37 GMT",
        }
    )
    numbers = (1_700_000_000_000_001, MSGPACK_VALUES, 14, len(packed), 4)
    assert stored[8:57] == struct.pack(">dddQBIIQ", 1_700_000_000.25, 60.0, math.inf, *numbers)
    assert stored[57:] == b"aurelis:v1:a:b" + packed + b"\x81\xa1a\x01"
    assert decode_frame(stored, DESCRIBED.key) == DESCRIBED


def test_a_frame_without_details_gives_the_one_record_for_none() -> None:
    """Most entries have none: they share it, and the way from a frame to memory looks for it."""
    assert decode_frame(STORED, EXAMPLE.key).details is NO_DETAILS
    assert encode_frame(dataclasses.replace(EXAMPLE, details=Details())) == STORED


def test_the_instant_of_a_retry_is_not_kept() -> None:
    """It is one of this process's monotonic clock, and so means nothing to another one."""
    frame = dataclasses.replace(EXAMPLE, details=Details(("t:a",), retry_at=5.0))
    assert decode_frame(encode_frame(frame), frame.key).details == Details(("t:a",))


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda tail: b"AuC\x02" + tail), st.text(max_size=5))
def test_any_bytes_are_a_frame_error(data: bytes, key: str) -> None:
    assert _reason(data, key) in {"magic", "version", "truncated", "check"}


@given(frames, st.data())
@settings(max_examples=300)
def test_a_flipped_bit_is_a_frame_error(frame: Frame, data: st.DataObject) -> None:
    """CRC-32 finds every error of up to 32 bits in a row."""
    damaged = bytearray(encode_frame(frame))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    assert _reason(bytes(damaged), frame.key)


@pytest.mark.parametrize("frame", [EXAMPLE, DESCRIBED], ids=["plain", "described"])
def test_each_bit_counts(frame: Frame) -> None:
    stored = encode_frame(frame)
    for bit in range(8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        expected = {0: {"magic"}, 3: {"version"}}.get(bit // 8, {"magic", "truncated", "check"})
        assert _reason(bytes(damaged), EXAMPLE.key) in expected


def test_each_length_but_the_right_one_is_truncated() -> None:
    for length in range(len(STORED)):
        assert _reason(STORED[:length], EXAMPLE.key) == "truncated"
    assert _reason(STORED + b"\x00", EXAMPLE.key) == "truncated"
    assert _reason(STORED + STORED, EXAMPLE.key) == "truncated"


@given(frames, st.text(alphabet=st.characters(), max_size=20))
def test_a_frame_of_another_key_is_a_frame_error(frame: Frame, key: str) -> None:
    if key != frame.key:
        assert _reason(encode_frame(frame), key) == "key"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"A", "truncated"),
        (b"x", "magic"),
        (b"AuC", "truncated"),
        (b"AuC\x01", "version"),
        (b"AuC\x01" + bytes(100), "version"),
        (b"AuC\x03" + bytes(100), "version"),
        (b"AuD\x02" + bytes(100), "magic"),
        (b"\x80\x04\x95" + bytes(100), "magic"),
        (b'{"value": 1, "created": 0}' * 3, "magic"),
        (b"AuC\x02" + bytes(53), "check"),
        (b"AuC\x02" + bytes(54), "truncated"),
        (_forged(key_size=2**32 - 1), "truncated"),
        (_forged(details_size=2**32 - 1), "truncated"),
        (_forged(payload_size=2**64 - 1), "truncated"),
        (_forged(key_size=2, payload_size=0), "key"),
        (_forged(key_size=0, payload_size=2), "key"),
        (_forged(key_size=0, details_size=2, payload_size=0), "key"),
        (_forged(key=b"\xff"), "key"),
        (_forged(created=math.nan), "header"),
        (_forged(created=math.inf), "header"),
        (_forged(fresh_for=math.nan), "header"),
        (_forged(fresh_for=-1.0), "header"),
        (_forged(fresh_for=-math.inf), "header"),
        (_forged(stale_for=math.nan), "header"),
        (_forged(stale_for=-5e-324), "header"),
    ],
)
def test_what_is_no_frame_of_ours_says_why(data: bytes, reason: str) -> None:
    assert _reason(data, "k") == reason


def test_the_forger_of_these_tests_can_make_a_good_frame() -> None:
    assert decode_frame(_forged(), "k") == Frame("k", 0.0, 1.0, 0.0, b"p", generation=7)
    described = _forged(details=packb({"tags": ["t:a"], "lead": 1.0}))
    expected = Frame("k", 0.0, 1.0, 0.0, b"p", generation=7, details=Details(("t:a",), 1.0))
    assert decode_frame(described, "k") == expected


@pytest.mark.parametrize(
    "found",
    [
        b"\xc1",
        b"\x81",
        packb({}) + b"\x00",
        packb(None),
        packb([]),
        packb([["t:a"]]),
        packb("tags"),
        packb({"tags": "t:a"}),
        packb({"tags": None}),
        packb({"tags": {"t:a": 1}}),
        packb({"tags": [1]}),
        packb({"tags": [b"t:a"]}),
        packb({"tags": [["t:a"]]}),
        packb({"tags": [None]}),
        packb({"lead": 1}),
        packb({"lead": None}),
        packb({"lead": "1.0"}),
        packb({"lead": -1.0}),
        packb({"lead": math.nan}),
        packb({"lead": math.inf}),
        packb({"spread": -5e-324}),
        packb({"spread": math.inf}),
        packb({"spread": True}),
        packb({"etag": 1}),
        packb({"etag": b"abc"}),
        packb({"last_modified": 784111777.0}),
        packb({"retry_at": 1.0}),
        packb({"tags": [], "more": None}),
        packb({1: 2}),
        b"\x91" * 5000 + b"\x90",
    ],
    ids=repr,
)
def test_damaged_details_are_a_frame_error(found: bytes) -> None:
    """The check finds accidents; whoever can write to the store can write anything with a check that is right."""
    assert _reason(_forged(details=found), "k") == "header"


@given(st.binary(min_size=1, max_size=40))
def test_any_details_are_details_or_a_frame_error(found: bytes) -> None:
    data = _forged(details=found)
    try:
        frame = decode_frame(data, "k")
    except FrameError:
        assert _reason(data, "k") == "header"
    else:
        assert decode_frame(encode_frame(frame), "k") == frame


@pytest.mark.parametrize(
    "changes",
    [
        {"created": math.nan},
        {"created": math.inf},
        {"fresh_for": -1.0},
        {"fresh_for": math.nan},
        {"stale_for": -1.0},
        {"stale_for": math.nan},
        {"codec": 256},
        {"codec": -1},
        {"generation": -1},
        {"generation": 2**64},
        {"details": Details(lead=math.inf)},
        {"details": Details(lead=math.nan)},
        {"details": Details(lead=-1.0)},
        {"details": Details(spread=math.inf)},
        {"details": Details(spread=math.nan)},
    ],
    ids=str,
)
def test_a_frame_that_could_not_be_read_is_not_written(changes: dict[str, Any]) -> None:
    frame = dataclasses.replace(EXAMPLE, **changes)
    with pytest.raises(FrameError) as raised:
        encode_frame(frame)
    assert raised.value.reason == "header"


def test_the_message_has_neither_key_nor_payload() -> None:
    with pytest.raises(FrameError) as raised:
        decode_frame(encode_frame(Frame("secret key", 0.0, 1.0, 0.0, b"secret value")), "other key")
    assert "key)" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "other" not in str(raised.value)
