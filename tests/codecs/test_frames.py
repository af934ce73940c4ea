"""Frames: what is stored comes back, and nothing but an undamaged frame of the same key is taken for one."""

import dataclasses
import math
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache.codecs import MSGPACK_VALUES, Frame, decode_frame, encode_frame
from aurelis.cache.exceptions import FrameError

durations = st.floats(min_value=0, allow_infinity=True, allow_nan=False)
frames = st.builds(
    Frame,
    key=st.text(alphabet=st.characters(), max_size=20),
    created=st.floats(allow_nan=False, allow_infinity=False),
    fresh_for=durations,
    stale_for=durations,
    payload=st.binary(max_size=100),
    codec=st.integers(0, 255),
)

EXAMPLE = Frame("aurelis:v1:a:b", 1_700_000_000.25, 60.0, math.inf, b"\x81\xa1a\x01")
STORED = encode_frame(EXAMPLE)


def _forged(**changes: Any) -> bytes:
    """Return a frame whose check is right, whatever is in it."""
    field: dict[str, Any] = {
        "created": 0.0,
        "fresh_for": 1.0,
        "stale_for": 0.0,
        "key": b"k",
        "payload": b"p",
    } | changes
    key_size = field.get("key_size", len(field["key"]))
    payload_size = field.get("payload_size", len(field["payload"]))
    times = field["created"], field["fresh_for"], field["stale_for"]
    body: bytes = struct.pack(">dddBIQ", *times, 1, key_size, payload_size)
    body += field["key"] + field["payload"]
    return b"AuC\x01" + struct.pack(">I", zlib.crc32(body)) + body


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
    assert STORED[:4] == b"AuC\x01"
    assert STORED[4:8] == struct.pack(">I", zlib.crc32(STORED[8:]))
    assert STORED[8:45] == struct.pack(">dddBIQ", 1_700_000_000.25, 60.0, math.inf, MSGPACK_VALUES, 14, 4)
    assert STORED[45:] == b"aurelis:v1:a:b" + b"\x81\xa1a\x01"
    assert STORED.hex() == (
        "417543012536198241d954fc40100000404e0000000000007ff0000000000000010000000e"
        "0000000000000004617572656c69733a76313a613a6281a16101"
    )  # fmt: skip


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda tail: b"AuC\x01" + tail), st.text(max_size=5))
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


def test_each_bit_counts() -> None:
    for bit in range(8 * len(STORED)):
        damaged = bytearray(STORED)
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
        (b"AuC\x02", "version"),
        (b"AuC\x02" + bytes(100), "version"),
        (b"AuD\x01" + bytes(100), "magic"),
        (b"\x80\x04\x95" + bytes(100), "magic"),
        (b'{"value": 1, "created": 0}' * 3, "magic"),
        (b"AuC\x01" + bytes(41), "check"),
        (b"AuC\x01" + bytes(42), "truncated"),
        (_forged(key_size=2**32 - 1), "truncated"),
        (_forged(payload_size=2**64 - 1), "truncated"),
        (_forged(key_size=2, payload_size=0), "key"),
        (_forged(key_size=0, payload_size=2), "key"),
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
    assert decode_frame(_forged(), "k") == Frame("k", 0.0, 1.0, 0.0, b"p")


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
