"""Frames that are compressed and encrypted: what comes back, what of them is secret, and what is refused."""

import contextlib
import dataclasses
import os
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._entry import NO_DETAILS
from aurelis.cache.codecs import MSGPACK_VALUES, Frame, Framing, encode_frame, make_framing
from aurelis.cache.exceptions import FrameError
from tests.codecs.test_frames import DESCRIBED, EXAMPLE, frames

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gzip": {"compression": "gzip"},
    "zstd": {"compression": "zstd"},
    "encrypted": {"encryption_key": KEY},
    "gzip, encrypted": {"compression": "gzip", "encryption_key": KEY},
    "zstd, encrypted": {"compression": "zstd", "encryption_key": KEY},
}
TEXT = dataclasses.replace(DESCRIBED, payload=b"some words of a body " * 100)


def framing(name: str, **more: Any) -> Framing:
    """Return one of those above."""
    return make_framing("ns", **{"threshold": 1, **OPTIONS[name], **more})


def encoded(framing: Framing, frame: Frame) -> bytes:
    return framing.encode(dataclasses.replace(frame))


def reason(framing: Framing, data: bytes, key: str = TEXT.key) -> str:
    with pytest.raises(FrameError) as raised:
        framing.decode(data, key)
    return raised.value.reason


def checked(data: bytes) -> bytes:
    """Return a frame whose check is right, by somebody who has changed it."""
    return data[:4] + struct.pack(">I", zlib.crc32(data[8:])) + data[8:]


@pytest.mark.parametrize("name", OPTIONS)
@given(frame=frames, repeated=st.integers(0, 20))
def test_decoding_inverts_encoding(name: str, frame: Frame, repeated: int) -> None:
    frame = dataclasses.replace(frame, codec=MSGPACK_VALUES, payload=frame.payload * repeated)
    assert framing(name).decode(encoded(framing(name), frame), frame.key) == frame


def test_without_options_a_frame_is_what_it_was() -> None:
    assert encoded(framing("plain"), DESCRIBED) == encode_frame(DESCRIBED)


@pytest.mark.parametrize(("name", "codec"), [("gzip", 0x11), ("zstd", 0x21), ("encrypted", 0x81)])
def test_the_codec_says_how_it_is_packed(name: str, codec: int) -> None:
    assert encoded(framing(name), TEXT)[40] == codec
    assert encoded(framing("zstd, encrypted"), TEXT)[40] == 0xA1


@pytest.mark.parametrize("writer", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("reader", ["plain", "gzip", "zstd"])
def test_what_one_method_wrote_is_read_with_any(writer: str, reader: str) -> None:
    """So that processes can be configured one after the other."""
    assert framing(reader).decode(encoded(framing(writer), TEXT), TEXT.key) == TEXT


def test_encryption_comes_after_compression() -> None:
    """The other way round nothing would become smaller."""
    assert len(encoded(framing("zstd, encrypted"), TEXT)) < 500
    assert len(encoded(framing("encrypted"), TEXT)) > len(TEXT.payload)


def test_what_is_below_the_threshold_is_left_as_it_is() -> None:
    assert encoded(framing("zstd", threshold=len(TEXT.payload) + 1), TEXT)[40] == MSGPACK_VALUES


def test_bytes_that_stay_as_long_are_left_as_they_are() -> None:
    frame = dataclasses.replace(TEXT, payload=os.urandom(2000))
    assert encoded(framing("zstd"), frame) == encode_frame(frame)


def test_nothing_of_an_encrypted_frame_can_be_read_but_its_key_and_its_times() -> None:
    stored = encoded(framing("encrypted"), TEXT)
    assert b"words" not in stored
    for detail in (*TEXT.details.tags, TEXT.details.etag, TEXT.details.last_modified):
        assert isinstance(detail, str)
        assert detail.encode() not in stored
    assert stored[57 : 57 + len(TEXT.key)] == TEXT.key.encode()


def test_an_encrypted_frame_without_details_gives_the_one_record_for_none() -> None:
    assert framing("encrypted").decode(encoded(framing("encrypted"), EXAMPLE), EXAMPLE.key).details is NO_DETAILS


def test_what_is_not_encrypted_is_refused_where_everything_is_to_be() -> None:
    """Whoever can write to the store can write valid frames without a key."""
    for writer in ("plain", "gzip", "zstd"):
        assert reason(framing("encrypted"), encoded(framing(writer), TEXT)) == "unencrypted"


def test_what_is_encrypted_is_refused_without_a_key_or_with_another() -> None:
    stored = encoded(framing("zstd, encrypted"), TEXT)
    assert reason(framing("plain"), stored) == "unknown_key"
    assert reason(framing("encrypted", encryption_key=OTHER), stored) == "unknown_key"


def test_keys_are_replaced_in_three_steps_without_a_miss() -> None:
    """All processes get the new key as their second, then as their first, and then it alone."""
    old, second = framing("encrypted"), framing("encrypted", encryption_key=[KEY, OTHER])
    first, new = framing("encrypted", encryption_key=[OTHER, KEY]), framing("encrypted", encryption_key=OTHER)
    for together in ((old, second), (second, first), (first, new)):
        for writer in together:
            for reader in together:
                assert reader.decode(encoded(writer, TEXT), TEXT.key) == TEXT


@pytest.mark.parametrize("name", ["encrypted", "zstd, encrypted"])
def test_each_bit_of_an_encrypted_frame_counts_though_its_check_is_right(name: str) -> None:
    """The check finds accidents, the tag whoever knows how to write a check."""
    frame = dataclasses.replace(TEXT, payload=b"abc" * 10)
    stored = encoded(framing(name), frame)
    for bit in range(64, 8 * len(stored)):
        damaged = bytearray(stored)
        damaged[bit // 8] ^= 1 << bit % 8
        found = reason(framing(name), checked(bytes(damaged)))
        assert found in {"tampered", "unknown_key", "truncated", "key", "header", "unencrypted"}, bit


def test_a_frame_of_another_key_is_refused_also_when_the_key_is_changed_in_it() -> None:
    stored = encoded(framing("encrypted"), dataclasses.replace(TEXT, key="user:1"))
    assert reason(framing("encrypted"), stored, "user:2") == "key"
    assert reason(framing("encrypted"), checked(stored.replace(b"user:1", b"user:2")), "user:2") == "tampered"


def test_neither_times_nor_generation_can_be_changed() -> None:
    """Else what was invalidated could be made valid again."""
    stored = encoded(framing("encrypted"), TEXT)
    for offset, form, value in ((8, ">d", 1e9), (16, ">d", 1e6), (24, ">d", 1.0), (32, ">Q", 2**63)):
        changed = bytearray(stored)
        struct.pack_into(form, changed, offset, value)
        assert reason(framing("encrypted"), checked(bytes(changed))) == "tampered"


def test_details_cannot_be_added_outside() -> None:
    stored = encoded(framing("encrypted"), EXAMPLE)
    payload_at = 57 + len(EXAMPLE.key)
    changed = bytearray(stored[:payload_at] + b"\x80" + stored[payload_at:])
    struct.pack_into(">I", changed, 45, 1)
    assert reason(framing("encrypted"), checked(bytes(changed)), EXAMPLE.key) == "tampered"


def test_what_unpacks_to_too_much_is_refused() -> None:
    stored = encoded(framing("zstd"), dataclasses.replace(TEXT, payload=bytes(100_000)))
    assert len(stored) < 300
    assert reason(framing("zstd", max_bytes=99_999), stored) == "too_large"


@pytest.mark.parametrize("codec", [0, 2, 15, 0x41], ids=hex)
def test_a_codec_that_is_not_known_is_refused(codec: int) -> None:
    stored = encode_frame(dataclasses.replace(TEXT, codec=codec))
    assert reason(framing("plain"), stored) == ("compression" if codec == 0x41 else "codec")


@pytest.mark.parametrize("name", OPTIONS)
@given(tail=st.binary(max_size=150), codec=st.integers(0, 255))
def test_any_payload_is_read_or_a_frame_error(name: str, tail: bytes, codec: int) -> None:
    stored = encode_frame(Frame("k", 0.0, 1.0, 0.0, tail, codec))
    with contextlib.suppress(FrameError):
        assert framing(name).decode(stored, "k").payload == tail
