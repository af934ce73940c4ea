"""Classes as applications have them, and a comparison that is stricter than ``==``."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum, auto
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar
from uuid import UUID

import pydantic
import pydantic.dataclasses

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"
    AZURE = "blue"  # noqa: PIE796 - an alias, which is the point


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Mode(StrEnum):
    FAST = auto()
    SLOW = auto()


class Access(Flag):
    READ = auto()
    WRITE = auto()
    ADMIN = READ | WRITE


class Bits(IntFlag):
    ONE = 1
    EIGHT = 8


@dataclass
class Point:
    x: float
    y: float


@dataclass(frozen=True)
class FrozenPoint:
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    name: str
    where: FrozenPoint


@dataclass(slots=True)
class Slots:
    name: str
    tags: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Order:
    """Rebuilding it with its own ``__init__`` would give another object."""

    lines: tuple[Point, ...]
    colour: Colour = Colour.RED
    factor: InitVar[int] = 2
    total: float = field(init=False)
    count: int = field(init=False, default=7)
    shared: ClassVar[int] = 1

    def __post_init__(self, factor: int) -> None:
        self.total = factor * sum(line.x for line in self.lines)
        self.lines = (*self.lines, Point(0.0, 0.0))

    @cached_property
    def summary(self) -> list[str]:
        return ["a", "b"]


@dataclass
class Box(Generic[T]):
    content: T


class WithSlot:
    __slots__ = ("_secret", "unused")


@dataclass
class OnSlots(WithSlot):
    __slots__ = ("name",)
    name: str


@dataclass(repr=False)
class Unfinished:
    later: int = field(init=False)


class PlainSubclass(FrozenPoint):
    """No dataclass itself: may have attributes that are no fields, and they are not frozen."""


class Pair(NamedTuple):
    left: int
    right: object = None


class LoosePair(Pair):
    """Has a ``__dict__``, unlike its base."""


class Item(pydantic.BaseModel):
    sku: str
    price: Decimal
    added: datetime | None = None


class Basket(pydantic.BaseModel):
    items: list[Item]
    owner: tuple[int, str] = (0, "")
    notes: dict[int, str] = {}


class Renamed(pydantic.BaseModel):
    """Its constructor takes other names than its fields have, two of them crosswise."""

    model_config = pydantic.ConfigDict(populate_by_name=False)
    first: str = pydantic.Field(alias="second")
    second: str = pydantic.Field(alias="first")


class Counting(pydantic.BaseModel):
    """Changes what it validates, each time."""

    number: int
    _log: list[str] = pydantic.PrivateAttr(default_factory=list)
    _unset: int = pydantic.PrivateAttr()

    @pydantic.field_validator("number")
    @classmethod
    def _one_more(cls, number: int) -> int:
        return number + 1

    def model_post_init(self, _: object, /) -> None:
        self._log.append("made")

    @cached_property
    def double(self) -> int:
        return 2 * self.number


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    known: int


class FrozenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    name: str
    parts: tuple[object, ...] = ()


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Holder(pydantic.BaseModel, Generic[T]):
    content: T


IntHolder = Holder[int]


@pydantic.dataclasses.dataclass
class Checked:
    number: int


TYPES: list[type] = [
    *(Colour, Size, Mode, Access, Bits),
    *(Point, FrozenPoint, FrozenSlots, Slots, Order, Box, OnSlots, Unfinished, Checked),
    *(Pair, LoosePair),
    *(Item, Basket, Renamed, Counting, Open, FrozenModel, Numbers, IntHolder),
]


def same(left: Any, right: Any, *, ordered: bool = True) -> bool:
    """Return whether two values have the same types and content throughout; unlike ``==``, a NaN is a NaN.

    Args:
        ordered: Whether the order in dictionaries counts.
    """

    def again(a: object, b: object) -> bool:
        return same(a, b, ordered=ordered)

    kind = type(left)
    if kind is not type(right):
        return False
    if issubclass(kind, Enum):
        return left is right or (issubclass(kind, Flag) and left.value == right.value)
    if kind is float:
        return (math.isnan(left) and math.isnan(right)) or repr(left) == repr(right)
    if kind is complex:
        return again(left.real, right.real) and again(left.imag, right.imag)
    if kind is Decimal:
        return bool(left.as_tuple() == right.as_tuple())
    if kind is UUID:
        return bool(left == right and left.is_safe == right.is_safe)
    if kind in (date, time, datetime, timedelta):
        return repr(left) == repr(right)  # with fold, zone and the name of the zone
    if kind is dict:
        pairs = list(left.items()), list(right.items())
        return again(*pairs) if ordered else _pair_off(*pairs, again)
    if kind in (set, frozenset):
        return _pair_off(list(left), list(right), again)
    if isinstance(left, list | tuple):
        return (
            len(left) == len(right)
            and all(map(again, left, right))
            and again(getattr(left, "__dict__", None), getattr(right, "__dict__", None))
        )
    if isinstance(left, pydantic.BaseModel):
        states = [
            (vars(value), value.__pydantic_extra__, value.__pydantic_fields_set__, _private(value))
            for value in (left, right)
        ]
        return again(*states)
    if dataclasses.is_dataclass(kind):
        return all(again(*attributes) for attributes in zip(_state(left), _state(right), strict=True))
    return bool(left == right)


def _pair_off(left: list[Any], right: list[Any], equal: Callable[[Any, Any], bool]) -> bool:
    left = list(left)
    for item in right:
        match = next((position for position, other in enumerate(left) if equal(item, other)), None)
        if match is None:
            return False
        del left[match]
    return not left


def _private(value: pydantic.BaseModel) -> dict[str, object] | None:
    private = value.__pydantic_private__
    return None if private is None else {k: v for k, v in private.items() if "Undefined" not in type(v).__name__}


def _state(value: Any) -> list[object]:
    fields = {name.name: getattr(value, name.name, "no value") for name in dataclasses.fields(value)}
    slots = {name: getattr(value, name, "no value") for name in ("_secret", "unused")}
    known = {*fields, "__orig_class__"}
    state = {k: v for k, v in getattr(value, "__dict__", {}).items() if k not in known}
    return [fields, slots, sorted(state), [state[name] for name in sorted(state)]]
