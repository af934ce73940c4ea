"""Values to bytes and back: what is stored, and the frame around it."""

from ._compression import MAX_BYTES, THRESHOLD, Compressor, Method, decompress, is_compressed, uncompressed
from ._encryption import Keys
from ._frames import (
    GENERATION_AT,
    MAGIC,
    MSGPACK_VALUES,
    Frame,
    decode_frame,
    encode_frame,
    generation_of,
    open_frame,
    to_bytes,
)
from ._framing import Framing, make_framing
from ._sharing import is_immutable, size_of
from ._values import ValueCodec

__all__ = [
    "GENERATION_AT",
    "MAGIC",
    "MAX_BYTES",
    "MSGPACK_VALUES",
    "THRESHOLD",
    "Compressor",
    "Frame",
    "Framing",
    "Keys",
    "Method",
    "ValueCodec",
    "decode_frame",
    "decompress",
    "encode_frame",
    "generation_of",
    "is_compressed",
    "is_immutable",
    "make_framing",
    "open_frame",
    "size_of",
    "to_bytes",
    "uncompressed",
]
