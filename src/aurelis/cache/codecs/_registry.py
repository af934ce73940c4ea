"""The allow-list: which classes may be stored, and how their instances are taken apart and rebuilt.

Stored bytes name a class, and the name is looked up here and nowhere else: nothing is imported, and no class
that the application did not list is ever instantiated.

Objects are rebuilt from their state, as `copy.copy` does, without ``__init__``, ``__post_init__`` or
validation. Those could change what was stored (a validator that rounds, a default that depends on the time,
an alias), and then a hit would differ from the miss before it. For pydantic this means neither
``model_validate`` nor ``model_construct``, which loses aliases' names and private attributes and runs
``model_post_init``.

The stored fields must be exactly those that the class has now: after a deployment that changed them, old
entries are misses instead of objects that lack an attribute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum, Flag
from types import MemberDescriptorType
from typing import Any, Final, Protocol

from aurelis.cache.exceptions import ConfigurationError, type_name


class Incomplete(Exception):
    """An instance lacks something that its class declares; the text says what."""


class Shape(Protocol):
    """How the instances of one class are taken apart and rebuilt."""

    def dismantle(self, value: Any) -> list[object]:  # `Any`: an instance of the class it was made for
        """Return the state as parts that can be stored.

        Raises:
            Incomplete: The instance has no complete state.
        """
        ...

    def assemble(self, parts: list[Any]) -> object:  # `Any`: whatever was stored; a wrong type raises here
        """Return an instance with the state that `dismantle` returned.

        Raises:
            Exception: Of any kind, if the parts are not such a state; the caller contains it.
        """
        ...


class Registry:
    """The shapes of the registered classes, by class and by name.

    Attributes:
        by_type: Class to name and shape. Looked up by exact type: a subclass is another class.
        by_name: ``module:qualname`` to shape.
    """

    __slots__ = ("by_name", "by_type")

    def __init__(self, types: Iterable[type]) -> None:
        """Make the allow-list.

        Raises:
            ConfigurationError: Something is no Enum, dataclass, NamedTuple or pydantic model, or two have
                one name.
        """
        self.by_type: dict[type, tuple[str, Shape]] = {}
        self.by_name: dict[str, Shape] = {}
        for kind in types:
            if not isinstance(kind, type):
                raise ConfigurationError(f"types: must be classes, not an object of type {type_name(type(kind))}")
            name = f"{kind.__module__}:{kind.__qualname__}"
            if name in self.by_name:
                raise ConfigurationError(f"types: two of them are named {name}, and stored bytes know only the name")
            shape = _shape(kind)
            self.by_type[kind] = name, shape
            self.by_name[name] = shape


def _shape(kind: type) -> Shape:
    if issubclass(kind, Enum):
        if not kind.__members__:
            raise ConfigurationError(f"types: {type_name(kind)} has no members; register the Enums that derive from it")
        return _EnumShape(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _NamedTupleShape(kind)
    if isinstance(getattr(kind, "__pydantic_fields__", None), Mapping) and hasattr(kind, "model_dump"):
        return _ModelShape(kind)
    # Asked of the class itself: a plain subclass of a dataclass is no dataclass, its state is more than the
    # fields.
    if "__dataclass_fields__" in kind.__dict__:
        return _DataclassShape(kind)
    raise ConfigurationError(f"types: {type_name(kind)} is none of Enum, dataclass, NamedTuple and pydantic model")


class _EnumShape:
    """Members by name; flags by number, since a combination of flags has no stable name."""

    def __init__(self, kind: type[Enum]) -> None:
        self._kind = kind

    def dismantle(self, value: Enum) -> list[object]:
        if isinstance(value, Flag):
            return [int(value.value)]
        if self._kind.__members__.get(value.name) is not value:
            raise Incomplete("it is no declared member of its class")
        return [value.name]

    def assemble(self, parts: list[Any]) -> object:
        (member,) = parts
        return self._kind(member) if issubclass(self._kind, Flag) else self._kind.__members__[member]


class _NamedTupleShape:
    """Items by name, in order."""

    def __init__(self, kind: type[tuple[object, ...]]) -> None:
        self._kind = kind
        self._names: tuple[str, ...] = tuple(kind._fields)  # type: ignore[attr-defined]  # its caller made sure

    def dismantle(self, value: tuple[object, ...]) -> list[object]:
        if len(value) != len(self._names):
            raise Incomplete("it has not as many items as its class has fields")
        return _with_rest(dict(zip(self._names, value, strict=True)), getattr(value, "__dict__", {}))

    def assemble(self, parts: list[Any]) -> object:
        fields, rest = _split(parts)
        if tuple(fields) != self._names:
            raise ValueError("other fields")
        value: tuple[object, ...] = tuple.__new__(self._kind, fields.values())
        if rest:
            value.__dict__.update(rest)
        return value


class _DataclassShape:
    """Fields by name, and what else the instance carries (cached properties, slots of a base)."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._names = tuple(field.name for field in dataclasses.fields(kind))
        self._expected = frozenset(self._names)
        self._slots = tuple(
            name
            for base in kind.__mro__
            for name, attribute in vars(base).items()
            if isinstance(attribute, MemberDescriptorType) and name not in self._expected
        )
        try:
            object.__new__(kind)
        except TypeError:
            raise ConfigurationError(
                f"types: {type_name(kind)} is abstract, or has state beside its fields from a built-in base"
            ) from None

    def dismantle(self, value: object) -> list[object]:
        fields = {}
        for name in self._names:
            try:
                fields[name] = getattr(value, name)
            except AttributeError:
                raise Incomplete(f"its field {name!r} has no value") from None
        rest = {name: getattr(value, name) for name in self._slots if hasattr(value, name)}
        attributes: dict[str, object] = getattr(value, "__dict__", {})
        # `Box[int](1)` leaves a trace of its parameters, which mean nothing to the instance.
        rest |= {k: v for k, v in attributes.items() if k not in fields and k != "__orig_class__"}
        return _with_rest(fields, rest)

    def assemble(self, parts: list[Any]) -> object:
        fields, rest = _split(parts)
        if fields.keys() != self._expected:
            raise ValueError("other fields")
        value: object = object.__new__(self._kind)
        # Not `setattr`: the class may be frozen or watch assignments.
        for name, item in fields.items():
            object.__setattr__(value, name, item)
        for name, item in rest.items():
            if name in self._slots:
                object.__setattr__(value, name, item)
            else:
                value.__dict__[name] = item
        return value


_MODEL_STATE: Final = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


class _ModelShape:
    """The whole state of a pydantic model: fields, which of them were set, extra and private attributes."""

    def __init__(self, kind: type[Any]) -> None:  # `Any`: pydantic is not imported here
        self._kind = kind
        self._expected = frozenset(kind.__pydantic_fields__)

    def dismantle(self, value: Any) -> list[object]:
        state = vars(value)
        fields = {name: item for name, item in state.items() if name in self._expected}
        if len(fields) != len(self._expected):
            raise Incomplete(f"its field {min(self._expected - fields.keys())!r} has no value")
        private = value.__pydantic_private__
        if private is not None:
            private = {k: v for k, v in private.items() if type(v).__name__ != _UNDEFINED}
        own = [sorted(value.__pydantic_fields_set__), value.__pydantic_extra__, private]
        rest = {name: item for name, item in state.items() if name not in fields}  # cached properties
        return [fields, own, rest] if rest else [fields, own]

    def assemble(self, parts: list[Any]) -> object:
        fields, (fields_set, extra, private), *rest = parts
        if fields.keys() != self._expected:
            raise ValueError("other fields")
        for attributes in (extra, private, *rest):
            if attributes is not None and type(attributes) is not dict:
                raise TypeError("not attributes")
        value: object = object.__new__(self._kind)
        object.__setattr__(value, "__dict__", fields | rest[0] if rest else fields)
        for name, item in zip(_MODEL_STATE, (set(fields_set), extra, private), strict=True):
            # A root model has constants instead of the last two; setting those would put them among the
            # fields.
            if getattr(value, name, self) != item:
                object.__setattr__(value, name, item)
        return value


_UNDEFINED: Final = "PydanticUndefinedType"  # a private attribute without a value


def _with_rest(fields: dict[str, object], rest: Mapping[str, object]) -> list[object]:
    return [fields, dict(rest)] if rest else [fields]


def _split(parts: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    fields, rest = parts if len(parts) == 2 else (*parts, {})
    if type(fields) is not dict or type(rest) is not dict:
        raise TypeError("not attributes")
    return fields, rest
