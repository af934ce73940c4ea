"""Vectors of a partition, and those that are nearest to one: numpy for thousands, usearch for many more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from aurelis.cache.exceptions import EmbeddingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]


def unit(numbers: Iterable[float]) -> Vector:
    """The vector of length 1 in the same direction.

    Raises:
        EmbeddingError: there are no numbers, one is not finite, or all are 0.
    """
    import numpy as np

    try:
        vector = np.asarray(list(numbers), dtype=np.float64)
    except (TypeError, ValueError):
        raise EmbeddingError("a vector must be a sequence of numbers") from None
    length = math.sqrt(float(vector @ vector)) if vector.ndim == 1 and vector.size else 0.0
    if not 0.0 < length < math.inf:
        raise EmbeddingError("a vector must have finite numbers that are not all 0")
    return (vector / length).astype(np.float32)


def packed(vector: Vector) -> bytes:
    """The vector as bytes: its numbers of 32 bits, the lowest byte first."""
    return vector.astype("<f4").tobytes()


def unpacked(data: bytes) -> Vector | None:
    """The vector that was packed; `None`: the bytes are none of length 1."""
    import numpy as np

    if not data or len(data) % 4:
        return None
    vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
    return vector if abs(float(vector @ vector) - 1.0) < 1e-3 else None


class Vectors(Protocol):
    """Vectors of one number of dimensions, by number."""

    def add(self, number: int, vector: Vector) -> bool:
        """Take it; false if it has other dimensions than those that are there."""
        ...

    def remove(self, number: int) -> None:
        """Forget it, if it is there."""
        ...

    def nearest(self, vector: Vector, count: int) -> Sequence[tuple[int, float]]:
        """So many numbers at most, each with its cosine, the most similar first."""
        ...


class Matrix:
    """All in one array; a search compares with each."""

    def __init__(self) -> None:
        self._rows: Any = None  # an array as soon as the dimensions are known
        self._numbers: list[int] = []
        self._places: dict[int, int] = {}

    def add(self, number: int, vector: Vector) -> bool:
        """As the protocol says. An array that is full is made twice as large."""
        import numpy as np

        self.remove(number)
        if not self._numbers:
            self._rows = np.empty((16, vector.size), dtype=np.float32)
        elif self._rows.shape[1] != vector.size:
            return False
        count = len(self._numbers)
        if count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[count] = vector
        self._places[number] = count
        self._numbers.append(number)
        return True

    def remove(self, number: int) -> None:
        """As the protocol says. The last one takes its place."""
        place = self._places.pop(number, None)
        if place is None:
            return
        last = self._numbers.pop()
        if last != number:
            self._rows[place] = self._rows[len(self._numbers)]
            self._numbers[place] = last
            self._places[last] = place

    def nearest(self, vector: Vector, count: int) -> Sequence[tuple[int, float]]:
        """As the protocol says."""
        import numpy as np

        there = len(self._numbers)
        if not there or self._rows.shape[1] != vector.size:
            return []
        cosines = self._rows[:there] @ vector
        best = np.argpartition(-cosines, count - 1)[:count] if count < there else np.arange(there)
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [(self._numbers[place], float(cosines[place])) for place in best]


class Graph:
    """In usearch's index, which finds most of the nearest without comparing with all."""

    def __init__(self) -> None:
        self._index: Any = None  # it publishes no types
        self._size = 0

    def add(self, number: int, vector: Vector) -> bool:
        """As the protocol says."""
        from usearch.index import Index

        self.remove(number)
        if self._index is None or not len(self._index):
            self._index, self._size = Index(ndim=vector.size, metric="cos", dtype="f32"), vector.size
        elif self._size != vector.size:
            return False
        self._index.add(number, vector, threads=1)
        return True

    def remove(self, number: int) -> None:
        """As the protocol says."""
        if self._index is not None and number in self._index:
            self._index.remove(number)

    def nearest(self, vector: Vector, count: int) -> Sequence[tuple[int, float]]:
        """As the protocol says."""
        if self._index is None or not len(self._index) or self._size != vector.size:
            return []
        found = self._index.search(vector, count, threads=1)
        return [(int(key), 1.0 - float(distance)) for key, distance in zip(found.keys, found.distances, strict=True)]
