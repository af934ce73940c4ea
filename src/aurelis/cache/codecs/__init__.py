"""Values to bytes and back: what is stored, and the frame around it."""

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
from ._sharing import is_immutable, size_of
from ._values import ValueCodec

__all__ = [
    "GENERATION_AT",
    "MAGIC",
    "MSGPACK_VALUES",
    "Frame",
    "ValueCodec",
    "decode_frame",
    "encode_frame",
    "generation_of",
    "is_immutable",
    "open_frame",
    "size_of",
    "to_bytes",
]
