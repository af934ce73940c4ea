"""What this process has at hand of the prompts that were answered, by partition. Bounded in bytes."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ._vectors import Vectors
from ._wording import Reading

if TYPE_CHECKING:
    from ._vectors import Vector

_OVERHEAD: Final = 1024
"""Bytes of a row beside its letters and its vector, about."""
_MAX_VIEWS: Final = 1024
RETRY: Final = 30.0
"""Seconds after which a prompt that is listed and was not found is looked for again."""


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt that was answered.

    Attributes:
        name: digest of the prompt.
        prompt: as it was.
        reading: as the gate reads it.
        vector: of length 1; `None` where letters are compared.
        tags: of its answer.
        expires: monotonic instant at which its answer is out of date.
    """

    name: bytes
    prompt: str = field(repr=False)
    reading: Reading = field(repr=False)
    vector: Vector | None = field(repr=False)
    tags: tuple[str, ...]
    expires: float

    @property
    def size(self) -> int:
        """Bytes, about."""
        letters = 5 * len(self.prompt)  # itself, its words, what they are joined to, and what is given
        return _OVERHEAD + letters + (0 if self.vector is None else 4 * self.vector.size)


class View:
    """The rows of one partition. To be used by one thread at a time.

    Args:
        vectors: makes the place for vectors; `None`: letters are compared.

    Attributes:
        rows: by name, the oldest first.
        texts: what is compared letter by letter, by name; empty where vectors are compared.
        slots: what the lists said when the rows were last brought in line with them.
        gone: names that are listed and are not here, with the instant until which they are not looked for.
        recent: by list, names that this process has added, with the instant of that, the oldest first.
        busy: monotonic instant until which somebody is bringing it in line.
        size: bytes of all rows.
    """

    def __init__(self, vectors: Callable[[], Vectors] | None) -> None:
        self.rows: OrderedDict[bytes, Row] = OrderedDict()
        self.slots: tuple[bytes, ...] = ()
        self.gone: dict[bytes, float] = {}
        self.recent: defaultdict[int, dict[bytes, float]] = defaultdict(dict)
        self.busy = -math.inf
        self.size = 0
        self._vectors = None if vectors is None else vectors()
        self.texts: dict[bytes, str] = {}
        self._numbers: dict[bytes, int] = {}
        self._names: dict[int, bytes] = {}
        self._next = 0
        self._first_expiry = math.inf

    def add(self, row: Row) -> None:
        """Take a row in, in place of the one of that name. One whose vector does not fit in is left out."""
        self.discard(row.name)
        if self._vectors is None:
            self.texts[row.name] = row.reading.text
        else:
            self._next += 1
            if row.vector is None or not self._vectors.add(self._next, row.vector):
                return
            self._numbers[row.name], self._names[self._next] = self._next, row.name
        self.rows[row.name] = row
        self.size += row.size
        self._first_expiry = min(self._first_expiry, row.expires)
        self.gone.pop(row.name, None)

    def discard(self, name: bytes) -> None:
        """Forget a row, if it is there."""
        row = self.rows.pop(name, None)
        if row is None:
            return
        self.size -= row.size
        self.texts.pop(name, None)
        number = self._numbers.pop(name, None)
        if number is not None and self._vectors is not None:
            del self._names[number]
            self._vectors.remove(number)

    def expire(self, now: float) -> None:
        """Forget what is out of date. It may be answered anew, by another process as well."""
        if now < self._first_expiry:
            return
        for name in [name for name, row in self.rows.items() if row.expires <= now]:
            self.discard(name)
            self.gone[name] = now + RETRY
        self._first_expiry = min((row.expires for row in self.rows.values()), default=math.inf)

    def nearest(self, vector: Vector, count: int, least: float) -> list[tuple[Row, float]]:
        """So many rows at most whose cosine is at least this, the most similar first."""
        near = [] if self._vectors is None else self._vectors.nearest(vector, count)
        return [(self.rows[self._names[number]], min(cosine, 1.0)) for number, cosine in near if cosine >= least]


class Views:
    """The views of one cache. To be used by one thread at a time.

    Args:
        vectors: as for `View`.
        max_bytes: of all rows; beyond that those go that were used the longest time ago.
        evicted: called with how many have gone.
    """

    def __init__(self, vectors: Callable[[], Vectors] | None, max_bytes: int, evicted: Callable[[int], None]) -> None:
        self._vectors = vectors
        self.max_bytes = max_bytes
        self._evicted = evicted
        self._views: OrderedDict[str, View] = OrderedDict()

    def known(self, partition: str) -> View | None:
        """The view of a partition, if there is one."""
        return self._views.get(partition)

    def of(self, partition: str) -> View:
        """The view of a partition, which is the one used last then."""
        view = self._views.get(partition)
        if view is None:
            view = self._views[partition] = View(self._vectors)
        self._views.move_to_end(partition)
        return view

    def shrink(self, now: float) -> None:
        """Keep within the limits."""
        over = self.size - self.max_bytes
        while over > 0 or len(self._views) > _MAX_VIEWS:
            partition, view = next(iter(self._views.items()))
            if len(self._views) > 1:
                del self._views[partition]
                self._evicted(len(view.rows))
                over -= view.size
                continue
            name, row = next(iter(view.rows.items()))
            view.discard(name)
            view.gone[name] = now + RETRY
            self._evicted(1)
            over -= row.size

    def leave(self, partition: str) -> None:
        """Forget a view that holds nothing."""
        view = self._views.get(partition)
        if view is not None and not view.rows and not any(view.slots):
            del self._views[partition]

    def clear(self) -> None:
        """Forget all."""
        self._views.clear()

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(len(view.rows) for view in list(self._views.values()))

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return sum(view.size for view in list(self._views.values()))
