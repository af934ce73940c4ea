"""How a cache writes its frames and which it reads: compressed or not, encrypted or not."""

from __future__ import annotations

import struct
from typing import Final

from aurelis.cache._entry import NO_DETAILS, Details
from aurelis.cache.exceptions import ConfigurationError, FrameError

from ._compression import MAX_BYTES, METHODS, THRESHOLD, Compressor, Method, decompress, is_compressed, uncompressed
from ._encryption import OVERHEAD, Encryption, Keys, parse_keys
from ._frames import (
    ENCRYPTED,
    MSGPACK_VALUES,
    Frame,
    encode_frame,
    open_frame,
    outside,
    outside_of,
    pack_details,
    read_details,
)

_SIZE: Final = struct.Struct(">I")
_NEVER: Final = -1
"""A codec that no frame has."""


class Framing:
    """Writes and reads frames.

    Whatever it writes, it reads what was compressed by any method, so that processes may be configured one after the
    other. With `encryption` it reads nothing that is not encrypted: whoever can write to the store could otherwise
    have it take what they like.

    Args:
        compressor: `None`: nothing is compressed.
        encryption: `None`: nothing is encrypted.
        max_bytes: What was compressed and has more bytes than this is not read.

    Attributes:
        plain: The codec of payloads that are to be taken as they are; anything else is for `unwrap`.
    """

    __slots__ = ("_compressor", "_encryption", "_max_bytes", "plain")

    def __init__(
        self,
        compressor: Compressor | None = None,
        encryption: Encryption | None = None,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._compressor = compressor
        self._encryption = encryption
        self._max_bytes = max_bytes
        self.plain = MSGPACK_VALUES if encryption is None else _NEVER

    def encode(self, frame: Frame) -> bytes:
        """Return the bytes of a frame, which is used up.

        Raises:
            FrameError: As `encode_frame`.
        """
        if self._compressor is not None and (smaller := self._compressor.compress(frame.payload)) is not None:
            frame.payload = smaller
            frame.codec |= self._compressor.code
        if self._encryption is not None:
            # Tags and validators say something of a value, too.
            details = pack_details(frame.details)
            text = b"".join((_SIZE.pack(len(details)), details, frame.payload))
            frame.codec |= ENCRYPTED
            frame.payload = self._encryption.seal(text, outside(frame, len(text) + OVERHEAD))
            frame.details = NO_DETAILS
        return encode_frame(frame)

    def decode(self, data: bytes, key: str) -> Frame:
        """Return the frame that bytes hold, its payload as the codec has written it.

        Raises:
            FrameError: As `decode_frame` and `unwrap`.
        """
        payload, stale_for, generation, details, created, fresh_for, codec = open_frame(data, key)
        if codec != self.plain:
            payload, details = self.unwrap(data, key, codec, payload, details)
        return Frame(key, created, fresh_for, stale_for, payload, MSGPACK_VALUES, generation, details)

    def unwrap(self, data: bytes, key: str, codec: int, payload: bytes, details: Details) -> tuple[bytes, Details]:
        """Return the payload as the codec has written it, and the details, of what `open_frame` found in `data`.

        Raises:
            FrameError: It cannot be read here. The reasons, in the order in which they are looked for:
                ``"unencrypted"`` (and all should be encrypted), ``"unknown_key"`` (encrypted under another one),
                ``"tampered"``, ``"compression"`` (damaged, or the method is not to be had), ``"too_large"`` (when it
                is unpacked), ``"codec"`` (written by something newer).
        """
        if codec & ENCRYPTED:
            if self._encryption is None:
                raise FrameError("unknown_key", "it needs encryption_key")
            text = self._encryption.unseal(payload, outside_of(data, key))
            payload_at = _SIZE.size + int.from_bytes(text[: _SIZE.size], "big")
            payload, details = text[payload_at:], read_details(text[_SIZE.size : payload_at])
            codec ^= ENCRYPTED
        elif self._encryption is not None:
            raise FrameError("unencrypted")
        if is_compressed(codec):
            payload = decompress(payload, codec, self._max_bytes)
            codec = uncompressed(codec)
        if codec != MSGPACK_VALUES:
            raise FrameError("codec")
        return payload, details


def make_framing(
    namespace: str,
    *,
    compression: Method | None = None,
    threshold: int = THRESHOLD,
    max_bytes: int = MAX_BYTES,
    encryption_key: Keys | None = None,
) -> Framing:
    """Return how frames of a namespace are written, as a configuration says it.

    Raises:
        ConfigurationError: The method is not known, or a key is none.
        MissingExtraError: A package is needed that is not installed.
    """
    if compression is not None and compression not in METHODS:
        known = " or ".join(map(repr, METHODS))
        raise ConfigurationError(f"compression must be {known}, or None, not {compression!r}")
    compressor = None if compression is None else Compressor(compression, threshold, max_bytes)
    encryption = None if encryption_key is None else Encryption(parse_keys(encryption_key), namespace)
    return Framing(compressor, encryption, max_bytes=max_bytes)
