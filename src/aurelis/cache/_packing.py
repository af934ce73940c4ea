"""Values made ready for the layers, and how they are to be kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ._entry import NO_DETAILS, Details, Entry
from .codecs import ValueCodec, is_immutable, size_of
from .telemetry import names


@dataclass(frozen=True, slots=True)
class Packed:
    """A value ready for every layer.

    Attributes:
        value: the object itself.
        payload: its packed form; `None` where no layer needs it, since the object is shared and stays in the process.
        shared: the object may be handed to several callers.
    """

    value: object = field(repr=False)
    payload: bytes | None = field(repr=False)
    shared: bool

    @property
    def size(self) -> int:
        """Approximate bytes, in the form in which it goes to layers below memory."""
        return size_of(self.value) if self.payload is None else len(self.payload)


@dataclass(frozen=True, slots=True)
class Keep:
    """How values are to be kept.

    Attributes:
        ttl: seconds > 0; `None`: each layer's own.
        stale_for: seconds after that in which they may still be served in need.
        memory_ttl: seconds at most in memory, where a shared layer is below; `None`: the layer's own.
        details: what else is known of them.
        chance: in (0, 1], for the random part of an early refresh.
    """

    ttl: float | None
    stale_for: float = 0.0
    memory_ttl: float | None = None
    details: Details = NO_DETAILS
    chance: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of values that were stored together, by the names of telemetry.

    Attributes:
        result: of all of them, or of some.
        only: the keys of those; empty: of all. All layers took the others.
    """

    result: str
    only: Collection[str] = ()

    def of(self, key: str) -> str:
        """What became of one of them."""
        return self.result if not self.only or key in self.only else names.KEPT


class Packing:
    """Packs and unpacks the values of one cache.

    Args:
        copy: callers get values of their own; otherwise the very objects that were stored.
        alone: memory is the only layer, so that nothing need be packed that can be shared.
    """

    def __init__(self, codec: ValueCodec, *, copy: bool, alone: bool) -> None:
        self._codec = codec
        self._copy = copy
        self._alone = alone

    def pack(self, value: object, *, trusted: bool = False) -> Packed:
        """Make a value ready for every layer.

        Args:
            trusted: a record of ours, known to be immutable and storable, which needs no check.

        Raises:
            UnstorableValueError: it holds a type that is neither built in nor registered. Also what could be shared
                without packing is checked: otherwise a program works until its cache gets a second layer.
        """
        if not self._copy or (trusted and self._alone):
            return Packed(value, None, True)
        payload = self._codec.dumps(value)
        return Packed(value, payload, trusted or is_immutable(value))

    def unpack(self, packed: Packed) -> object:
        """The value for one more reader."""
        if packed.shared or packed.payload is None:
            return packed.value
        return self._codec.loads(packed.payload)

    def read(self, entry: Entry) -> object:
        """The value for one reader: the shared object, or a copy of its own."""
        return entry.value if entry.payload is None else self._codec.loads(entry.payload)
