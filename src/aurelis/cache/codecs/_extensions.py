"""The msgpack extension types of stored values: one table of codes, and what the leaves among them contain.

The codes and contents are a stored format. A code is never given another meaning; 32 to 127 are for users.

====  =========  ============================================================================
code  type       content (integers and floats big-endian)
====  =========  ============================================================================
1     int        outside of 64 bits: two's complement, shortest whole bytes
2     complex    real and imaginary part, 8 bytes each
3     bytearray  its bytes
4     Decimal    its text, which keeps exponent, sign and NaN payload
5     UUID       16 bytes; one more if it knows whether it is safe: 0 safe, 1 unsafe
6     date       year (2 bytes), month, day
7     time       hour, minute, second, microsecond (4 bytes), fold, then the zone
8     datetime   year (2 bytes), month, day, then as time
9     timedelta  days (4 bytes, signed), seconds (4 bytes), microseconds (4 bytes)
16    tuple      a mark, see below
17    set        a mark
18    frozenset  a mark
19    object     a mark
====  =========  ============================================================================

A zone is nothing (naive), ``Z`` (`datetime.UTC`), ``F`` with the offset in microseconds (8 bytes,
signed) and perhaps a name in UTF-8, or ``K`` with the key of a `zoneinfo.ZoneInfo`.

A mark is an extension without content and the first element of an array: ``[mark of tuple, 1, 2]`` is a
tuple of two. The obvious alternative, the packed elements as content of the extension, needs one more run of
the unpacker for each level: a few hundred levels, easily forged, overflow the C stack and kill the process;
and it copies each byte once per level.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, InvalidOperation
from enum import IntEnum
from typing import Any, Final
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

from msgpack import ExtType


class Code(IntEnum):
    """The extension codes."""

    INT = 1
    COMPLEX = 2
    BYTEARRAY = 3
    DECIMAL = 4
    UUID = 5
    DATE = 6
    TIME = 7
    DATETIME = 8
    TIMEDELTA = 9
    TUPLE = 16
    SET = 17
    FROZENSET = 18
    OBJECT = 19


class ForeignZone(Exception):
    """A datetime or time has a zone that cannot be written so that it comes back the same."""

    def __init__(self, zone: tzinfo) -> None:
        super().__init__()
        self.zone = zone


_DATE: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_DATETIME: Final = struct.Struct(">HBBBBBIB")
_TIMEDELTA: Final = struct.Struct(">iII")
_COMPLEX: Final = struct.Struct(">dd")
_OFFSET: Final = struct.Struct(">q")
_MICROSECOND: Final = timedelta(microseconds=1)
# `ZoneInfo` opens a file or imports a resource of this name: it gets only what looks like a zone.
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}", re.ASCII)
# The precision of a context does not touch `Decimal(text)`, but without the trap bad text would become a NaN.
_EXACT: Final = Context(traps=[InvalidOperation])
_SAFETY: Final = {SafeUUID.unknown: b"", SafeUUID.safe: b"\0", SafeUUID.unsafe: b"\1"}
_SAFETY_OF: Final = {byte: safety for safety, byte in _SAFETY.items()}


def _zone(zone: tzinfo | None) -> bytes:
    if zone is None:
        return b""
    if zone is UTC:
        return b"Z"
    if type(zone) is timezone:
        # As it was made: one that was given its default name explicitly has another `repr`.
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # for pickling; not in typeshed
        text = name[0].encode("utf-8", "surrogatepass") if name else b""
        return b"F" + _OFFSET.pack(offset // _MICROSECOND) + (b"=" + text if name else b"")
    if type(zone) is ZoneInfo and _ZONE_KEY.fullmatch(zone.key or ""):  # one made from a file may have no key
        return b"K" + zone.key.encode("ascii")
    raise ForeignZone(zone)


def _read_zone(data: bytes) -> tzinfo | None:
    kind, content = data[:1], data[1:]
    if not kind:
        return None
    if kind == b"Z" and not content:
        return UTC
    if kind == b"F":
        (micros,) = _OFFSET.unpack_from(content)
        offset = timedelta(microseconds=micros)
        name = content[_OFFSET.size :]
        if not name:
            return timezone(offset)
        if name[:1] == b"=":
            return timezone(offset, name[1:].decode("utf-8", "surrogatepass"))
    if kind == b"K" and _ZONE_KEY.fullmatch(key := content.decode("ascii")):
        return ZoneInfo(key)
    raise ValueError("not a zone")


def _pack_int(value: int) -> ExtType:
    return ExtType(Code.INT, value.to_bytes((value.bit_length() + 8) // 8, "big", signed=True))


def _pack_uuid(value: UUID) -> ExtType:
    return ExtType(Code.UUID, value.bytes + _SAFETY[value.is_safe])


def _pack_date(value: date) -> ExtType:
    return ExtType(Code.DATE, _DATE.pack(value.year, value.month, value.day))


def _pack_time(value: time) -> ExtType:
    packed = _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
    return ExtType(Code.TIME, packed + _zone(value.tzinfo))


def _pack_datetime(value: datetime) -> ExtType:
    packed = _DATETIME.pack(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.fold,
    )
    return ExtType(Code.DATETIME, packed + _zone(value.tzinfo))


def _pack_timedelta(value: timedelta) -> ExtType:
    return ExtType(Code.TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds))


def _read_uuid(data: bytes) -> UUID:
    return UUID(bytes=data[:16], is_safe=_SAFETY_OF[data[16:]])


def _read_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, microsecond, _read_zone(data[_TIME.size :]), fold=fold)


def _read_datetime(data: bytes) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold = _DATETIME.unpack_from(data)
    zone = _read_zone(data[_DATETIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _read_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = _TIMEDELTA.unpack(data)
    return timedelta(days, seconds, microseconds)


# `Any`: each function is called only with values of exactly the type it stands beside.
PACK_LEAF: Final[dict[type, Callable[[Any], ExtType]]] = {
    int: _pack_int,  # msgpack offers only those that it cannot write itself
    complex: lambda value: ExtType(Code.COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    Decimal: lambda value: ExtType(Code.DECIMAL, str(value).encode("ascii")),
    UUID: _pack_uuid,
    date: _pack_date,
    time: _pack_time,
    datetime: _pack_datetime,
    timedelta: _pack_timedelta,
}
"""Makes an extension of a leaf that msgpack has no type for, by exact type; may raise `ForeignZone`."""

_READ_LEAF: Final[dict[int, Callable[[bytes], object]]] = {
    Code.INT: lambda data: int.from_bytes(data, "big", signed=True),
    Code.COMPLEX: lambda data: complex(*_COMPLEX.unpack(data)),
    Code.BYTEARRAY: bytearray,
    Code.DECIMAL: lambda data: Decimal(data.decode("ascii"), _EXACT),
    Code.UUID: _read_uuid,
    Code.DATE: lambda data: date(*_DATE.unpack(data)),
    Code.TIME: _read_time,
    Code.DATETIME: _read_datetime,
    Code.TIMEDELTA: _read_timedelta,
}


def read_leaf(code: int, data: bytes) -> object:
    """Return the leaf that an extension holds.

    Raises:
        Exception: Of any kind, if the code or the content is not one of ours; the caller contains it.
    """
    return _READ_LEAF[code](data)
