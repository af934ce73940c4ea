"""What was made smaller comes back, and nothing that is read takes more memory than it may."""

import gzip
import os
import sys
import threading
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.codecs import Compressor, Method, decompress
from aurelis.cache.exceptions import FrameError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

METHODS: list[Method] = ["gzip", "zstd"]
both = pytest.mark.parametrize("method", METHODS)
CODE = {"gzip": 0x10, "zstd": 0x20}
TEXT = b"the same words over and over again " * 1000


def packed(method: Method, data: bytes) -> bytes:
    """Return what is compressed in any case."""
    return gzip.compress(data) if method == "gzip" else zstd.compress(data)


def reason(data: bytes, code: int, max_bytes: int = 100_000) -> str:
    with pytest.raises(FrameError) as raised:
        decompress(data, code, max_bytes)
    return raised.value.reason


@both
@given(data=st.binary(max_size=2000).map(lambda data: data * 5))
def test_decompressing_inverts_compressing(method: Method, data: bytes) -> None:
    compressor = Compressor(method, 1)
    smaller = compressor.compress(data)
    if smaller is not None:
        assert len(smaller) < len(data)
        assert decompress(smaller, compressor.code | 1, len(data)) == data


@both
def test_the_format_is_the_one_that_others_read(method: Method) -> None:
    """A stored format: RFC 1952 and RFC 8878."""
    compressor = Compressor(method, 1)
    smaller = compressor.compress(TEXT)
    assert smaller is not None
    assert compressor.code == CODE[method]
    assert (gzip.decompress if method == "gzip" else zstd.decompress)(smaller) == TEXT


@both
def test_what_would_not_become_smaller_is_left_as_it_is(method: Method) -> None:
    assert Compressor(method, 1).compress(os.urandom(5000)) is None
    assert Compressor(method, 1).compress(b"") is None


@both
def test_it_is_tried_from_the_threshold_up_to_the_bound(method: Method) -> None:
    compressor = Compressor(method, 1000, 2000)
    tried = [size for size in (999, 1000, 2000, 2001) if compressor.compress(b"a" * size) is not None]
    assert tried == [1000, 2000]


@both
def test_the_bound_is_exact(method: Method) -> None:
    stored = packed(method, TEXT)
    assert decompress(stored, CODE[method], len(TEXT)) == TEXT
    assert reason(stored, CODE[method], len(TEXT) - 1) == "too_large"


@both
def test_what_unpacks_to_a_gigabyte_takes_no_more_memory_than_the_bound(method: Method) -> None:
    mega = bytes(2**20)
    if method == "gzip":
        compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = b"".join(compressor.compress(mega) for _ in range(1024)) + compressor.flush()
    else:
        maker = zstd.ZstdCompressor()
        bomb = b"".join(maker.compress(mega) for _ in range(1024)) + maker.flush()
    assert len(bomb) < 2**21
    tracemalloc.start()
    try:
        assert reason(bomb, CODE[method], 2**20) == "too_large"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_window_that_is_larger_than_the_bound_is_refused() -> None:
    """Zstandard takes memory for the window that a frame asks for, however little is in it."""
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 27})
    small = compressor.compress(b"a") + compressor.flush()
    assert zstd.get_frame_info(small).decompressed_size is None
    assert reason(small, CODE["zstd"], 2**20) == "compression"
    assert decompress(small, CODE["zstd"], 2**27) == b"a"


@both
def test_whatever_keeps_to_the_bound_can_be_read_with_it(method: Method) -> None:
    """Else a value could be stored and never found."""
    for size in (1, 1000, 1024, 1025, 65_536, 65_537, 3_000_000, 2**23, 2**23 + 1):
        data = (os.urandom(size // 4 + 1) * 4)[:size]
        compressor = Compressor(method, 1, size)
        smaller = compressor.compress(data)
        if smaller is not None:
            assert decompress(smaller, compressor.code, size) == data


@both
def test_a_bound_may_be_larger_than_any_memory(method: Method) -> None:
    assert decompress(packed(method, TEXT), CODE[method], 2**100) == TEXT


@both
def test_damage_is_a_frame_error(method: Method) -> None:
    stored = packed(method, TEXT)
    for data in (b"", stored[:-1], stored[: len(stored) // 2], stored + b"x", stored + stored, b"x" + stored):
        assert reason(data, CODE[method]) == "compression"


@both
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_a_frame_error(method: Method, data: bytes) -> None:
    for content in (data, packed(method, TEXT)[:20] + data):
        try:
            decompress(content, CODE[method], 1000)
        except FrameError as error:
            assert error.reason in {"compression", "too_large"}  # noqa: PT017  # most are errors, some may be read


@pytest.mark.parametrize("code", [0x30, 0x40, 0x50, 0x60, 0x70], ids=hex)
def test_a_method_that_is_not_known_is_a_frame_error(code: int) -> None:
    assert reason(gzip.compress(TEXT), code) == "compression"


def test_threads_share_a_compressor() -> None:
    compressor = Compressor("zstd", 1)
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(200):
            data = b"%d %d " % (number, turn) * 500
            smaller = compressor.compress(data)
            if smaller is None or decompress(smaller, compressor.code) != data:
                wrong.append(turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
