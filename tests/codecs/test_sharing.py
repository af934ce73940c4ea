"""Which values callers may share, and how much memory values hold."""

import io
import sys
import time as clock
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from aurelis.cache.codecs import is_immutable, size_of
from tests.codecs import examples as ex


class _Text(str):
    """Can have attributes."""


def _deep(levels: int) -> tuple[Any, ...]:
    value: tuple[Any, ...] = ()
    for _ in range(levels):
        value = (value,)
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 1, 2**70, 1.5, 1j, "a", b"a", Decimal(1), UUID(int=1)),
        *(date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), time(1), timedelta(1), UTC, ZoneInfo("UTC")),
        *(ex.Colour.RED, ex.Size.SMALL, ex.Mode.FAST, ex.Access.READ | ex.Access.WRITE),
        *((), (1, ("a", (None,))), frozenset(), frozenset({1, (2,)}), _deep(50)),
        *(ex.FrozenPoint(1, 2), ex.FrozenSlots("a", ex.FrozenPoint(1, 2)), (ex.FrozenPoint(1, 2),)),
        *(ex.Pair(1), ex.Pair(1, (2, ex.Colour.RED)), ex.FrozenModel(name="a", parts=(1, (2,)))),
    ],
)
def test_nobody_can_change_these(value: object) -> None:
    assert is_immutable(value)


@pytest.mark.parametrize(
    "value",
    [
        *([], {}, set(), bytearray(), ([],), (1, (2, {})), object(), io.BytesIO(), range(3)),
        *(_Text("a"), (_Text("a"),), memoryview(b"x"), _deep(200)),
        *(ex.Point(1, 2), ex.Slots("a"), ex.FrozenPoint([], 2), ex.FrozenSlots("a", ex.Point(1, 2))),  # type: ignore[arg-type]
        *(ex.PlainSubclass(1, 2), ex.LoosePair(1, 2), ex.Pair(1, [])),
        *(ex.Item(sku="a", price=Decimal(1)), ex.FrozenModel(name="a", parts=([],)), ex.Numbers([1])),
    ],
)
def test_somebody_could_change_these(value: object) -> None:
    assert not is_immutable(value)


def test_the_size_of_leaves_is_their_own() -> None:
    for value in (1, 1.5, "abc", b"x" * 1000, 2**1000, Decimal(1)):
        assert size_of(value) == sys.getsizeof(value)


def test_the_size_includes_what_is_referred_to() -> None:
    text, key = "x" * 1000, "a key"
    own = sys.getsizeof(text)
    assert size_of([text]) == sys.getsizeof([text]) + own
    assert size_of({key: (text,)}) == sys.getsizeof({key: 0}) + sys.getsizeof(key) + sys.getsizeof((0,)) + own
    for value in (
        ex.Box(text),
        ex.Slots(text),
        ex.FrozenModel(name=text),
        ex.Pair(1, text),
        {text},
        frozenset({text}),
    ):
        assert own < size_of(value) < own + 1000


def test_what_occurs_twice_counts_once() -> None:
    text = "x" * 1000
    assert size_of([text, text]) < 1200


def test_what_the_program_owns_does_not_count() -> None:
    for value in (ex.Colour, ex.Colour.RED, size_of, sys, len, UTC):
        assert size_of(value) == 0


def test_a_cycle_ends() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    assert size_of(cyclic) == sys.getsizeof(cyclic)


@pytest.mark.parametrize(
    "value",
    [
        [str(n) * 5 for n in range(200_000)],
        {n: str(n) * 5 for n in range(100_000)},
        [[str(n * m) * 5 for m in range(300)] for n in range(300)],
    ],
    ids=["list", "dict", "nested"],
)
def test_large_values_are_estimated_from_a_sample(value: Any) -> None:
    parts = value.values() if isinstance(value, dict) else value
    real = sys.getsizeof(value) + sum(
        sys.getsizeof(part) + sum(map(sys.getsizeof, part if isinstance(part, list) else [])) for part in parts
    )
    began = clock.process_time()
    assert 0.5 * real < size_of(value) < 2 * real
    assert clock.process_time() - began < 0.5
