"""Turns Python values into bytes that are equal exactly when the values are the same: the substance of keys.

The encoding is injective: a type tag, a length, the content. So ``1``, ``1.0``, ``True`` and ``"1"`` differ,
a list differs from a tuple, and no choice of strings makes two different arguments look alike. Every NaN is
the same value, ``-0.0`` is not ``0.0``, and ``Decimal("1.0")`` is not ``Decimal("1.00")``: where Python
calls two different things equal, a key had rather miss than serve the wrong one. The order in dictionaries
and sets does not count.

The encoding is the input of stored keys, hence public in effect: changing it makes every stored entry a miss.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from operator import itemgetter
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from .exceptions import UnkeyableError, type_name

MAX_DEPTH: Final = 100
"""How many levels of containers a keyable value may have."""

_DIGEST_BYTES: Final = 16
"""128 bits: with 10 billion keys the chance of any collision is below 10⁻¹⁸."""

_TOO_DEEP: Final = f"it contains itself or is nested more than {MAX_DEPTH} levels deep"
_MICROSECOND: Final = timedelta(microseconds=1)
# A dataclass that is also one of these has content beside its fields.
_WITH_CONTENT: Final = (str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset)


def canonical(value: object, *, root: str = "value") -> bytes:
    """Return the canonical encoding of a value.

    Keyable are None, bool, int, float, complex, str (also with lone surrogates), bytes, list, tuple, dict
    (with any keyable keys), set, frozenset, datetime, date, time (without zone, with a fixed offset or a
    `ZoneInfo`), these zones, timedelta, Decimal, UUID, members of an Enum, NamedTuples, and instances of dataclasses
    and of pydantic models by the name of their class and their fields. Subclasses of the built-in types are not:
    they may carry more than the encoding would see. Classes are told apart by ``module:qualname``.

    Args:
        value: Anything keyable, at most `MAX_DEPTH` levels deep.
        root: What to call the value in an error, usually the name of the argument.

    Raises:
        UnkeyableError: Something in it is of no keyable type, is nested too deep, or contains itself. Names
            the place and the type, never the value.
    """
    try:
        return _encode(value, 0)
    except _Refusal as refusal:
        path = root + "".join(reversed(refusal.steps))
        raise UnkeyableError(path, refusal.type_name, refusal.reason) from None
    except RecursionError:  # the caller's own stack was nearly used up
        raise UnkeyableError(root, type_name(type(value)), _TOO_DEEP) from None


def digest(value: object, *, root: str = "value") -> str:
    """Return 32 hexadecimal digits (BLAKE2b, 128 bits) that stand for a value in a key.

    Raises:
        UnkeyableError: As `canonical`.
    """
    return hashlib.blake2b(canonical(value, root=root), digest_size=_DIGEST_BYTES).hexdigest()


class _Refusal(Exception):
    """Carries what was refused; the steps are added, innermost first, while it rises."""

    def __init__(self, kind: type, reason: str = "") -> None:
        super().__init__()
        self.type_name = type_name(kind)
        self.reason = reason
        self.steps: list[str] = []


def _encode(value: object, depth: int) -> bytes:
    encoder = _ENCODERS.get(type(value))
    return _object(value, depth) if encoder is None else encoder(value, depth)


# --- leaves; they take the depth so that the table below can name them as they are


def _sized(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(content), content)


def _none(_: None, _depth: int) -> bytes:
    return b"N"


def _bool(value: bool, _depth: int) -> bytes:
    return b"T" if value else b"F"


def _int(value: int, _depth: int = 0) -> bytes:
    # Hexadecimal: decimal digits take quadratic time, and Python refuses to write more than 4 300 of them.
    return _sized(b"i", b"%x" % value)


def _float(value: float, _depth: int = 0) -> bytes:
    return b"f" + struct.pack(">d", math.nan if value != value else value)


def _complex(value: complex, _depth: int) -> bytes:
    return b"c" + _float(value.real) + _float(value.imag)


def _text(value: str, _depth: int = 0) -> bytes:
    return _sized(b"s", value.encode("utf-8", "surrogatepass"))


def _bytes(value: bytes, _depth: int) -> bytes:
    return _sized(b"b", value)


def _decimal(value: Decimal, _depth: int) -> bytes:
    # In capitals, or the context of the caller would decide between "1E+9" and "1e+9".
    return _sized(b"x", str(value).upper().encode("ascii"))


def _uuid(value: UUID, _depth: int) -> bytes:
    return b"u" + value.bytes


def _date(value: date, _depth: int) -> bytes:
    return b"y" + value.isoformat().encode("ascii")  # always ten characters


def _timedelta(value: timedelta, _depth: int = 0) -> bytes:
    return _sized(b"D", b"%d" % (value // _MICROSECOND))


def _datetime(value: datetime, _depth: int) -> bytes:
    plain = value.replace(tzinfo=None, fold=0).isoformat().encode("ascii")
    return _sized(b"w", plain) + b"%d" % value.fold + _zone_of(value)


def _time(value: time, _depth: int) -> bytes:
    plain = value.replace(tzinfo=None, fold=0).isoformat().encode("ascii")
    return _sized(b"h", plain) + b"%d" % value.fold + _zone_of(value)


def _zone(zone: tzinfo | None, _depth: int = 0) -> bytes:
    if zone is None:
        return b"N"
    if type(zone) is timezone:
        # The name is part of the zone: it shows in `tzname()` and `strftime()`.
        return b"O" + _timedelta(zone.utcoffset(None)) + _text(zone.tzname(None))
    if type(zone) is ZoneInfo and zone.key:  # one made from a file may have none
        return b"Z" + _text(zone.key)
    raise _Refusal(type(zone), "use datetime.timezone or a zoneinfo.ZoneInfo that has a key")


def _zone_of(value: datetime | time) -> bytes:
    try:
        return _zone(value.tzinfo)
    except _Refusal as refusal:
        refusal.steps.append(".tzinfo")
        raise


# --- containers


def _many(tag: bytes, parts: Iterable[bytes], count: int) -> bytes:
    # Each part says where it ends, so the number of parts makes the whole unambiguous.
    return b"%b%d:%b" % (tag, count, b"".join(parts))


def _items(values: Iterable[object], depth: int) -> list[bytes]:
    depth = _deeper(values, depth)
    parts: list[bytes] = []
    try:
        for value in values:
            parts.append(_encode(value, depth))  # noqa: PERF401 - the number of parts is the index in an error
    except _Refusal as refusal:
        refusal.steps.append(f"[{len(parts)}]")
        raise
    return parts


def _list(value: list[object], depth: int) -> bytes:
    return _many(b"l", _items(value, depth), len(value))


def _tuple(value: tuple[object, ...], depth: int) -> bytes:
    return _many(b"t", _items(value, depth), len(value))


def _set(value: set[object], depth: int) -> bytes:
    return _many(b"e", sorted(_members(value, depth)), len(value))


def _frozenset(value: frozenset[object], depth: int) -> bytes:
    return _many(b"E", sorted(_members(value, depth)), len(value))


def _members(values: Iterable[object], depth: int) -> list[bytes]:
    depth = _deeper(values, depth)
    try:
        return [_encode(value, depth) for value in values]
    except _Refusal as refusal:
        refusal.steps.append("{…}")  # a set has no positions
        raise


def _dict(value: dict[object, object], depth: int) -> bytes:
    depth = _deeper(value, depth)
    pairs: list[bytes] = []
    key: object = None
    try:
        for key, item in value.items():
            pairs.append(_encode(key, depth) + _encode(item, depth))
    except _Refusal as refusal:
        refusal.steps.append(key_step(key, len(pairs)))
        raise
    pairs.sort()
    return _many(b"d", pairs, len(pairs))


def key_step(key: object, position: int) -> str:
    """Return the step to a dictionary's item as a path in an error shows it.

    Only short names are shown as they are; anything else may be data of a user and is shown by its position.
    """
    if type(key) is str and len(key) <= 40 and key.isascii() and key.isidentifier():
        return f"[{key!r}]"
    return f"[<key {position}>]"


def _deeper(value: object, depth: int) -> int:
    if depth == MAX_DEPTH:
        raise _Refusal(type(value), _TOO_DEEP)
    return depth + 1


# --- objects


class _Unset:
    """The type of what stands for a field that has no value yet."""


_UNSET: Final = _Unset()


def _unset(_: _Unset, _depth: int) -> bytes:
    return b"U"


def _class(kind: type) -> bytes:
    return _text(f"{kind.__module__}:{kind.__qualname__}")


def _object(value: object, depth: int) -> bytes:
    kind = type(value)
    if isinstance(value, Enum):
        return b"m" + _class(kind) + _member(value)
    names: tuple[str, ...] = getattr(kind, "_fields", ())
    if isinstance(value, tuple) and kind.__bases__ == (tuple,) and len(names) == len(value):
        return _fields(b"n", value, zip(names, value, strict=True), depth)
    # Asked of the class itself: a plain subclass of a dataclass may hold more than the inherited fields.
    if "__dataclass_fields__" in kind.__dict__ and not isinstance(value, _WITH_CONTENT):
        declared = dataclasses.fields(value)  # type: ignore[arg-type]  # checked above
        state = ((field.name, getattr(value, field.name, _UNSET)) for field in declared)
        return _fields(b"k", value, state, depth)
    fields = getattr(kind, "__pydantic_fields__", None)
    if isinstance(fields, Mapping) and hasattr(kind, "model_dump"):
        named = {name: item for name, item in vars(value).items() if name in fields}
        named |= getattr(value, "__pydantic_extra__", None) or {}
        return _fields(b"p", value, sorted(named.items(), key=itemgetter(0)), depth)
    raise _Refusal(kind)


def _member(value: Enum) -> bytes:
    if isinstance(value, Flag):  # a combination of flags has no stable name, and its number says it all
        return _int(int(value.value))
    if type(value.name) is not str:
        raise _Refusal(type(value), "it is no declared member of its class")
    return _text(value.name)


def _fields(tag: bytes, value: object, fields: Iterable[tuple[str, object]], depth: int) -> bytes:
    depth = _deeper(value, depth)
    parts = [_class(type(value))]
    for name, item in fields:
        try:
            parts.append(_text(name) + _encode(item, depth))
        except _Refusal as refusal:
            refusal.steps.append(f".{name}")
            raise
    return _many(tag, parts, len(parts))


# `Any`: each function is called only with values of exactly the type it stands beside.
_ENCODERS: Final[dict[type, Callable[[Any, int], bytes]]] = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    complex: _complex,
    str: _text,
    bytes: _bytes,
    Decimal: _decimal,
    UUID: _uuid,
    date: _date,
    time: _time,
    datetime: _datetime,
    timedelta: _timedelta,
    timezone: _zone,
    ZoneInfo: _zone,
    list: _list,
    tuple: _tuple,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    _Unset: _unset,
}
