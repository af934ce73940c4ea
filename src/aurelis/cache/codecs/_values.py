"""Python values to bytes and back, exactly: same types, same content, or an error that names the type.

A payload is msgpack. What JSON has, msgpack has; other leaves are extensions (`_extensions` has the table).
Containers that msgpack has no type for (tuples, sets, objects) are arrays whose first element is a mark; a
payload that contains marks begins with the byte ``C1``, which msgpack never uses, so that payloads without
them are unpacked by nothing but msgpack's own C code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgpack import ExtType, Packer, Timestamp, unpackb

from aurelis.cache.exceptions import FrameError, UnstorableValueError, type_name

from ._blame import find
from ._extensions import PACK_LEAF, Code, ForeignZone, read_leaf
from ._registry import Incomplete, Registry

_MARKED: Final = 0xC1
_MARKED_BYTE: Final = bytes([_MARKED])
_MARK: Final = {code: ExtType(code, b"") for code in (Code.TUPLE, Code.SET, Code.FROZENSET, Code.OBJECT)}
_CONTAINERS: Final[dict[type, Code]] = {tuple: Code.TUPLE, set: Code.SET, frozenset: Code.FROZENSET}

# msgpack writes these by itself, without asking, as something that reads back as another type.
_IMPOSTORS: Final = frozenset({bytearray, memoryview, ExtType, Timestamp})
_LOOK_INTO: Final = frozenset({list, dict}) | _IMPOSTORS
_nothing_in: Final = _LOOK_INTO.isdisjoint

# 511 levels with msgpack 1.1, 1 024 since 1.2; all read 1 024.
_TOO_DEEP: Final = "it contains itself or is nested too deep"


class ValueCodec:
    """Writes Python values as bytes and reads exactly the same values back.

    Storable are None, bool, int of any size, float (also NaN, infinities and -0.0), complex, str (also with
    lone surrogates), bytes, bytearray, tuple, list, set, frozenset, dict (keys of any storable type, order
    kept), Decimal, UUID, date, time, datetime (naive, with a fixed offset, or with a `ZoneInfo` that has a
    key; with fold), timedelta, and instances of the registered Enum, dataclass, NamedTuple and pydantic
    classes, nested some hundred levels (the limit is msgpack's). Subclasses are other types: an unregistered
    IntEnum is refused, not stored as an int. Parts of a value that are one object come back as several.

    Objects are rebuilt from their state without ``__init__`` or validation; see `_registry` for why.

    Threads may share a codec.
    """

    __slots__ = ("_registry",)

    def __init__(self, types: Iterable[type] = ()) -> None:
        """Make a codec.

        Args:
            types: The classes of the application whose instances may be stored: Enums, dataclasses,
                NamedTuples and pydantic models. Stored bytes know them by ``module:qualname``.

        Raises:
            ConfigurationError: One of them is something else, or two have the same name.
        """
        self._registry = Registry(types)

    def dumps(self, value: object) -> bytes:
        """Return the bytes of a value.

        Raises:
            UnstorableValueError: Something in it is of no storable type, or it is nested too deep, contains
                itself, or is larger than 4 GiB. Names the type and the place, never the value.
        """
        try:
            return self._pack(value, None)
        except UnicodeEncodeError:
            # Only now, since naming an error handler makes msgpack take a slower path for every string.
            return self._pack(value, "surrogatepass")

    def loads(self, payload: bytes | memoryview) -> object:
        """Return the value that `dumps` was given, as a new object.

        Nothing is imported or executed by name. Lengths are checked against the size of the payload before
        anything is allocated for them, and 1 024 levels of nesting are the limit.

        Raises:
            FrameError: The bytes are damaged, foreign, or name a class that is not registered or has other
                fields now; `reason` is ``"payload"``. Nothing else, whatever the bytes.
        """
        try:
            if payload[0] != _MARKED:
                return unpackb(
                    payload,
                    ext_hook=read_leaf,
                    strict_map_key=False,
                    unicode_errors="surrogatepass",
                    timestamp=3,  # foreign, but then at least a datetime, which is storable
                )
            return _Reader(self._registry).read(memoryview(payload)[1:])
        except Exception as error:  # noqa: BLE001 - damaged bytes can fail anywhere, also in a registered class
            # Not `from error`: that may quote what is stored.
            raise FrameError("payload", type(error).__name__) from None

    def _pack(self, value: object, unicode_errors: str | None) -> bytes:
        try:
            writer = _Writer(self._registry)
            payload = writer.pack(value, unicode_errors)
            if any(map(_has_impostor, writer.roots)):
                # Seldom, so who has none pays only for looking. Not before: now it cannot be cyclic.
                writer = _Writer(self._registry, replacing=True)
                payload = writer.pack(value, unicode_errors)
        except UnicodeEncodeError:
            raise
        except _Refusal as refusal:
            path = find(refusal.culprit, value, self._registry)
            raise UnstorableValueError(type_name(type(refusal.culprit)), path, refusal.reason) from None
        except RecursionError:  # the caller's own stack was nearly used up
            raise UnstorableValueError(type_name(type(value)), "value", _TOO_DEEP) from None
        except ValueError as error:
            reason = _TOO_DEEP if "recursion" in str(error) else "a part of it is too large"
            raise UnstorableValueError(type_name(type(value)), "value", reason) from None
        return _MARKED_BYTE + payload if writer.marked else payload


class _Refusal(Exception):
    def __init__(self, culprit: object, reason: str = "") -> None:
        super().__init__()
        self.culprit = culprit
        self.reason = reason


class _Writer:
    """One run of the packer.

    Attributes:
        roots: The value, and each array that was made from a container. They may contain impostors; what
            msgpack passed to `_expand` can't.
        marked: Whether there are marks in the output.
    """

    __slots__ = ("_registry", "_replacing", "marked", "roots")

    def __init__(self, registry: Registry, *, replacing: bool = False) -> None:
        self._registry = registry
        self._replacing = replacing
        self.roots: list[object] = []
        self.marked = False

    def pack(self, value: object, unicode_errors: str | None) -> bytes:
        self.roots.append([value])
        if self._replacing:
            value = _replace(value)
        # One for each value: `_expand` lets other threads run, and a packer is no use to two at once.
        packer = Packer(default=self._expand, strict_types=True, unicode_errors=unicode_errors)
        payload: bytes = packer.pack(value)
        return payload

    def _expand(self, value: object) -> object:
        """Return what msgpack shall write instead of a value that it has no type for."""
        kind = type(value)
        pack_leaf = PACK_LEAF.get(kind)
        if pack_leaf is not None:
            try:
                return pack_leaf(value)
            except ForeignZone as foreign:
                reason = f"its tzinfo is a {type_name(type(foreign.zone))}, no fixed offset and no ZoneInfo"
                raise _Refusal(value, reason) from None
        code = _CONTAINERS.get(kind, Code.OBJECT)
        parts: list[object]
        if code is not Code.OBJECT:
            assert isinstance(value, tuple | set | frozenset)
            parts = list(value)
        elif kind in self._registry.by_type:
            name, shape = self._registry.by_type[kind]
            try:
                parts = [name, *shape.dismantle(value)]
            except Incomplete as incomplete:
                raise _Refusal(value, str(incomplete)) from None
        else:
            raise _Refusal(value)
        self.marked = True
        self.roots.append(parts)
        if self._replacing:
            parts = [_replace(part) for part in parts]
        return [_MARK[code], *parts]


def _has_impostor(root: object) -> bool:
    """Return whether msgpack wrote something in these lists and dicts as another type."""
    left: list[Any] = [root]  # `Any`: lists and dicts, told apart below
    while left:
        node = left.pop()
        if type(node) is dict:
            if not _nothing_in(map(type, node)):
                return True
            node = node.values()
        if _nothing_in(map(type, node)):  # in C, and true for most
            continue
        for item in node:
            kind = type(item)
            if kind in _LOOK_INTO:
                if kind in _IMPOSTORS:
                    return True
                left.append(item)
    return False


def _replace(node: object) -> object:
    """Return a copy of lists and dicts in which byte arrays are extensions, and all else is the same."""
    kind = type(node)
    if kind in _IMPOSTORS:
        if isinstance(node, bytearray):
            return ExtType(Code.BYTEARRAY, bytes(node))
        raise _Refusal(node)
    if isinstance(node, list) and kind is list:
        return [_replace(item) for item in node]
    if isinstance(node, dict) and kind is dict:
        return {_replace(key): _replace(item) for key, item in node.items()}
    return node


class _Mark:
    """What a mark is read as; each of them is consumed by the array that it begins."""

    __slots__ = ("code",)

    def __init__(self, code: Code) -> None:
        self.code = code


_READ_MARK: Final[dict[int, _Mark]] = {code: _Mark(code) for code in _MARK}


class _Reader:
    """One run of the unpacker over a payload with marks."""

    __slots__ = ("_open", "_registry")

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._open = 0

    def read(self, payload: memoryview) -> object:
        value: object = unpackb(
            payload,
            ext_hook=self._extension,
            list_hook=self._array,
            strict_map_key=False,
            unicode_errors="surrogatepass",
            timestamp=3,
        )
        if self._open:
            raise ValueError("a mark in the wrong place")
        return value

    def _extension(self, code: int, data: bytes) -> object:
        mark = _READ_MARK.get(code)
        if mark is None:
            return read_leaf(code, data)
        if data:
            raise ValueError("a mark with content")
        self._open += 1
        return mark

    def _array(self, parts: list[Any]) -> object:  # `Any`: the elements are what they are
        if not parts or type(parts[0]) is not _Mark:
            return parts
        self._open -= 1
        code = parts[0].code
        del parts[0]
        if code is Code.TUPLE:
            return tuple(parts)
        if code is Code.SET:
            return set(parts)
        if code is Code.FROZENSET:
            return frozenset(parts)
        name, *state = parts
        return self._registry.by_name[name].assemble(state)
