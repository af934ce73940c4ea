"""Vectors: the nearest of a partition, in an array and in usearch's index."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache.exceptions import EmbeddingError
from aurelis.cache.similarity._vectors import Graph, Matrix, Vectors, packed, unit, unpacked

NUMBERS = st.lists(
    st.floats(-1e6, 1e6).filter(lambda number: number == 0 or abs(number) > 1e-6), min_size=3, max_size=3
)


@pytest.mark.parametrize("kind", [Matrix, Graph])
def test_the_nearest_come_first(kind: type[Vectors]) -> None:
    vectors: Vectors = kind()
    assert vectors.nearest(unit([1, 0]), 3) == []
    for number, degrees in enumerate((0, 10, 30, 90, 180)):
        assert vectors.add(number, unit([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]))
    found = vectors.nearest(unit([1, 0]), 3)
    assert [number for number, _ in found] == [0, 1, 2]
    assert [cosine for _, cosine in found] == pytest.approx(
        [1, math.cos(math.radians(10)), math.cos(math.pi / 6)], abs=1e-5
    )
    vectors.remove(0)
    vectors.remove(0)
    assert [number for number, _ in vectors.nearest(unit([1, 0]), 1)] == [1]


@pytest.mark.parametrize("kind", [Matrix, Graph])
def test_other_dimensions_are_left_out(kind: type[Vectors]) -> None:
    vectors: Vectors = kind()
    assert vectors.add(1, unit([1, 0]))
    assert not vectors.add(2, unit([1, 0, 0]))
    assert vectors.nearest(unit([1, 0, 0]), 3) == []
    vectors.remove(1)
    assert vectors.add(3, unit([0, 0, 1]))  # nothing is left of the others
    assert [number for number, _ in vectors.nearest(unit([1, 0, 1]), 3)] == [3]


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans(), NUMBERS.filter(any)), max_size=80))
@settings(max_examples=60)
def test_an_array_holds_what_was_put_in_and_not_removed(changes: list[tuple[int, bool, list[float]]]) -> None:
    matrix, model = Matrix(), dict[int, np.ndarray[tuple[int], np.dtype[np.float32]]]()
    for number, add, numbers in changes:
        if add:
            model[number] = unit(numbers)
            assert matrix.add(number, unit(numbers))
        else:
            model.pop(number, None)
            matrix.remove(number)
    asked = unit([1, 2, 3])
    found = dict(matrix.nearest(asked, 100))
    assert found.keys() == model.keys()
    for number, vector in model.items():
        assert found[number] == pytest.approx(float(vector @ asked), abs=1e-5)


@pytest.mark.parametrize("numbers", [[], [0.0, 0.0], [math.nan, 1], [math.inf, 1], ["a"], [[1.0]], [None]])
def test_what_is_no_vector_is_refused(numbers: list[float]) -> None:
    with pytest.raises(EmbeddingError, match="vector"):
        unit(numbers)


@given(NUMBERS.filter(any))
def test_packing_loses_nothing(numbers: list[float]) -> None:
    vector = unit(numbers)
    again = unpacked(packed(vector))
    assert again is not None
    assert again.tolist() == vector.tolist()


@pytest.mark.parametrize("data", [b"", b"abc", b"\0" * 8, np.array([2.0, 0.0], "<f4").tobytes(), b"\xff" * 8])
def test_damaged_bytes_are_no_vector(data: bytes) -> None:
    assert unpacked(data) is None
