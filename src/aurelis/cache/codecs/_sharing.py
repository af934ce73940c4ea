"""What may be handed to several callers as it is, and how much memory it holds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from itertools import chain, islice
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

_IMMUTABLE: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, Decimal, UUID}
    | {date, time, datetime, timedelta, timezone, ZoneInfo}
)
_MUTABLE_BASES: Final = (list, dict, set, bytearray)
_MUTABLE: Final = frozenset(_MUTABLE_BASES)
_MAX_DEPTH: Final = 100

# Not counted: they live as long as the program, whether or not a cache refers to them.
_OF_THE_PROGRAM: Final = (
    type,
    Enum,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    ZoneInfo,
    timezone,
)
_MAX_COUNTED: Final = 10_000
_MAX_SAMPLED: Final = 500


def is_immutable(value: object) -> bool:
    """Return whether callers can share an object because none of them can change it for the others.

    True for None, bool, int, float, complex, str, bytes, Decimal, UUID, date, time, datetime, timedelta,
    timezone and ZoneInfo; for members of Enums; and for tuples, frozensets, NamedTuples, frozen dataclasses
    and frozen pydantic models of nothing but such values. False for everything else, subclasses of the
    built-in types included, and for what is nested more than 100 levels deep.
    """
    return _is_immutable(value, _MAX_DEPTH)


def _is_immutable(value: object, depth: int) -> bool:
    kind = type(value)
    if kind in _IMMUTABLE:
        return True
    if depth == 0 or kind in _MUTABLE:  # the latter is what most values are, and the rest of this is slow
        return False
    if isinstance(value, tuple | frozenset):
        # `typing.NamedTuple` makes classes whose instances have no place for anything but the items.
        plain = kind is tuple or kind is frozenset or (kind.__bases__ == (tuple,) and kind.__dictoffset__ == 0)
        return plain and all(_is_immutable(item, depth - 1) for item in value)
    if isinstance(value, Enum):
        return True
    if _is_frozen(kind) and not isinstance(value, _MUTABLE_BASES):
        return all(_is_immutable(item, depth - 1) for item in _attributes(value))
    return False


def _is_frozen(kind: type) -> bool:
    # Asked of the class itself: a plain subclass of a frozen dataclass can have attributes that are not
    # frozen.
    params = kind.__dict__.get("__dataclass_params__")
    if params is not None:
        return bool(params.frozen)
    config = getattr(kind, "model_config", None)
    return hasattr(kind, "__pydantic_fields__") and isinstance(config, dict) and config.get("frozen") is True


def _attributes(value: object) -> Iterable[object]:
    """Yield the values of all attributes of an instance, those in slots included."""
    yield from getattr(value, "__dict__", {}).values()
    for base in type(value).__mro__:
        for name, attribute in vars(base).items():
            # Of a pydantic model these are: the names that were set, which may be shared although they are a
            # set; private and extra attributes, which stay assignable in frozen models.
            if isinstance(attribute, MemberDescriptorType) and name != "__pydantic_fields_set__":
                yield getattr(value, name, None)


def size_of(value: object) -> int:
    """Return approximately how many bytes of memory an object holds, with all it refers to.

    Looks into lists, tuples, dicts, sets and attributes of objects, counts what occurs twice once, and
    leaves out classes, functions, modules and members of Enums. Exact up to some hundred objects; of larger
    values a sample is measured, which takes some milliseconds at most.
    """
    return int(_size(value, _MAX_COUNTED, _MAX_DEPTH, set()))


def _size(node: object, budget: float, depth: int, seen: set[int]) -> float:
    if id(node) in seen or isinstance(node, _OF_THE_PROGRAM):
        return 0.0
    seen.add(id(node))
    own = sys.getsizeof(node, 0)
    parts, count = _contents(node)
    if count == 0 or depth == 0:
        return own
    # At least one, or what is deep inside would not count at all.
    sample = max(1, min(count, _MAX_SAMPLED, int(budget)))
    share = budget / sample - 1
    measured = sum(_size(part, share, depth - 1, seen) for part in islice(parts, sample))
    return own + measured * count / sample


def _contents(node: object) -> tuple[Iterable[object], int]:
    if type(node) in _IMMUTABLE:
        return (), 0
    if isinstance(node, dict):
        return chain.from_iterable(node.items()), 2 * len(node)
    if isinstance(node, list | tuple | set | frozenset):
        return node, len(node)
    attributes = list(_attributes(node))
    if hasattr(node, "__dict__"):
        attributes.append(node.__dict__)  # for its own size; what is in it is then known
    return attributes, len(attributes)
