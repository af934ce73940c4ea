"""Payloads made smaller, and read back within a bound that is checked while they grow.

Whoever can write to a store can put some bytes there that unpack to gigabytes. So nothing is unpacked at once: a
decompressor is asked for one byte more than may be there, which it never exceeds, and gives up on a window that is
larger than the bound. What is written keeps to the same bound, so what was stored can be read.
"""

from __future__ import annotations

import sys
import threading
import zlib
from typing import TYPE_CHECKING, Any, Final, Literal

from aurelis.cache.exceptions import FrameError, MissingExtraError

if TYPE_CHECKING:
    # The same module: the standard library has it from Python 3.14 on.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

Method = Literal["gzip", "zstd"]

METHODS: Final[tuple[Method, ...]] = ("zstd", "gzip")
THRESHOLD: Final = 1024
"""Bytes from which on something is compressed, unless said otherwise."""
MAX_BYTES: Final = 64 * 2**20
"""Bytes that something may have when it is unpacked, unless said otherwise."""

GZIP: Final = 0x10
ZSTD: Final = 0x20
_MASK: Final = 0x70
"""The bits of a frame's codec that say how its payload was compressed; the highest of them is none yet."""
_CODE: Final[dict[Method, int]] = {"gzip": GZIP, "zstd": ZSTD}

# gzip's usual level 6 takes three to five times as long as 1, and leaves a tenth less; Zstandard's 3 leaves as little
# in the time of 1.
_GZIP_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 3
_GZIP_BITS: Final = 31
"""Of zlib: the largest window, and the gzip format around it."""
_SMALLEST_WINDOW, _LARGEST_WINDOW = 21, 27
"""Of Zstandard, as powers of two: what its level asks for, and the largest that its decompressor takes by itself."""


class Compressor:
    """Makes payloads smaller by one method.

    Threads may share it.

    Args:
        method: `zstd` or `gzip`.
        threshold: Bytes from which on it is tried, ≥ 0.
        max_bytes: Bytes up to which it is tried, ≥ 1.

    Attributes:
        code: The bits of a frame's codec that stand for the method.

    Raises:
        MissingExtraError: This Python has no Zstandard, and no package for it.
    """

    __slots__ = ("_kept", "_max_bytes", "_method", "_threshold", "code")

    def __init__(self, method: Method, threshold: int, max_bytes: int = MAX_BYTES) -> None:
        _require(method)
        self._method = method
        self.code = _CODE[method]
        self._threshold = threshold
        self._max_bytes = max_bytes
        self._kept = threading.local()

    def compress(self, data: bytes) -> bytes | None:
        """Return fewer bytes for it; `None`: it is better left as it is."""
        if not self._threshold <= len(data) <= self._max_bytes:
            return None
        packed = _gzip(data) if self._method == "gzip" else self._zstd(data)
        return packed if len(packed) < len(data) else None

    def _zstd(self, data: bytes) -> bytes:
        # One for each thread: to make it takes longer than to compress a small value, and it is no use to two at once.
        compressor: zstd.ZstdCompressor | None = getattr(self._kept, "compressor", None)
        if compressor is None:
            compressor = self._kept.compressor = _load_zstd().ZstdCompressor(level=_ZSTD_LEVEL)
        return compressor.compress(data, compressor.FLUSH_FRAME)


def _require(method: Method) -> None:
    if method == "zstd":
        try:
            _load_zstd()
        except ImportError:
            raise MissingExtraError("zstd", "compression='zstd' before Python 3.14") from None


def is_compressed(codec: int) -> bool:
    """Return whether a frame's codec says that its payload was compressed."""
    return bool(codec & _MASK)


def uncompressed(codec: int) -> int:
    """Return the codec without what it says of compression."""
    return codec & ~_MASK


def decompress(data: bytes, codec: int, max_bytes: int = MAX_BYTES) -> bytes:
    """Return what was compressed.

    Args:
        codec: Of the frame.
        max_bytes: The bound; memory for more is never taken.

    Raises:
        FrameError: It is more than that (reason ``"too_large"``), or damaged, or by a method that is not known or not
            to be had here (reason ``"compression"``). Nothing else, whatever the bytes.
    """
    code = codec & _MASK
    try:
        if code == GZIP:
            return _bounded(zlib.decompressobj(_GZIP_BITS), data, max_bytes)
        if code == ZSTD:
            return _bounded(_zstd_decompressor(max_bytes), data, max_bytes)
    except FrameError:
        raise
    except ImportError:
        raise FrameError("compression", 'it needs the extra "zstd"') from None
    except Exception as error:  # noqa: BLE001  # each library has errors of its own; damaged bytes can fail anywhere
        raise FrameError("compression", type(error).__name__) from None
    raise FrameError("compression", "the method is not known")


def _bounded(decompressor: zlib._Decompress | zstd.ZstdDecompressor, data: bytes, max_bytes: int) -> bytes:
    unpacked = decompressor.decompress(data, min(max_bytes + 1, sys.maxsize))
    if len(unpacked) > max_bytes:
        raise FrameError("too_large", "it unpacks to more than compression_max_bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise FrameError("compression", "it has no end, or more after it")
    return unpacked


def _gzip(data: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_BITS)
    return compressor.compress(data) + compressor.flush()


def _zstd_decompressor(max_bytes: int) -> zstd.ZstdDecompressor:
    module = _load_zstd()
    window = min(max((max_bytes - 1).bit_length(), _SMALLEST_WINDOW), _LARGEST_WINDOW)
    decompressor: zstd.ZstdDecompressor = module.ZstdDecompressor(
        options={module.DecompressionParameter.window_log_max: window}
    )
    return decompressor


def _load_zstd() -> Any:  # a module has no type of its own
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
