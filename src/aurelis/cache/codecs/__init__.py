"""Values to bytes and back: what is stored, and the frame around it."""

from ._frames import MSGPACK_VALUES, Frame, decode_frame, encode_frame, open_frame, to_bytes
from ._sharing import is_immutable, size_of
from ._values import ValueCodec

__all__ = [
    "MSGPACK_VALUES",
    "Frame",
    "ValueCodec",
    "decode_frame",
    "encode_frame",
    "is_immutable",
    "open_frame",
    "size_of",
    "to_bytes",
]
