"""The canonical encoding: equal exactly when the values are the same."""

import copy
import dataclasses
import enum
import io
import itertools
import math
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache._canonical import MAX_DEPTH, canonical, digest
from aurelis.cache.exceptions import UnkeyableError
from tests.codecs import examples as ex
from tests.codecs.examples import same

PARIS = ZoneInfo("Europe/Paris")
AUTUMN = datetime(2024, 10, 27, 2, 30)  # noqa: DTZ001 - twice in Paris

# Each differs from each other, many of them only by type.
DISTINCT: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        0.0,
        -0.0,
        1.0,
        math.nan,
        math.inf,
        -math.inf,
        5e-324,
        0j,
        complex(0, -0.0),
    ),
    *(2**63, 2**64, -(2**64), 2**4000, 10**5000, 2.0**64),
    *("", "0", "1", "None", "True", "é", "e\u0301", "\ud800", "\udfff", "\x00", "a", "ab", "s1:a"),
    *(b"", b"0", b"1", b"a"),
    *([], (), {}, set(), frozenset()),
    *([1], (1,), {1}, frozenset({1}), {1: None}, {"1": None}, {True: None}, {None: 1}, {1: 1}),
    *([[]], [()], ([],), [[], []], [[[]]], [1, 2], [2, 1], [12], ["a", "b"], ["ab"], ["a,b"]),
    *({"a": 1}, {"a": True}, {"a": 1.0}, {"a": {"b": 1}}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {(1, 2): 3}),
    *(
        Decimal(0),
        Decimal("0.0"),
        Decimal("-0"),
        Decimal("NaN"),
        Decimal("NaN1"),
        Decimal("sNaN"),
        Decimal("1E+1"),
    ),
    *(UUID(int=0), UUID(int=1)),
    *(date(2024, 1, 1), date(1, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC)),  # noqa: DTZ001
    *(AUTUMN, AUTUMN.replace(fold=1), AUTUMN.replace(tzinfo=PARIS), AUTUMN.replace(tzinfo=PARIS, fold=1)),
    *(AUTUMN.replace(tzinfo=UTC), AUTUMN.replace(tzinfo=ZoneInfo("UTC")), AUTUMN.replace(microsecond=1)),
    *(
        AUTUMN.replace(tzinfo=timezone(timedelta(hours=1))),
        AUTUMN.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
    ),
    *(time(2, 30), time(2, 30, fold=1), time(2, 30, tzinfo=UTC), time(2, 30, 0, 1)),
    *(UTC, timezone(timedelta(hours=1)), timezone(timedelta(hours=1), "CET"), PARIS, ZoneInfo("UTC")),
    *(timedelta(0), timedelta(microseconds=1), timedelta(microseconds=-1), timedelta.max, timedelta.min),
    *(ex.Colour.RED, ex.Colour.BLUE, ex.Size.SMALL, ex.Mode.FAST),
    *(ex.Access.READ, ex.Access.ADMIN, ex.Access(0), ex.Bits.ONE, ex.Bits(32), ex.Bits(33)),
    *(
        ex.Point(0, 0),
        ex.Point(0, 0.0),
        ex.Point(0.0, 0),
        ex.FrozenPoint(0, 0),
        ex.Slots("a"),
        ex.Slots("a", ["b"]),
    ),
    *(ex.Unfinished(), ex.Box(None), ex.Pair(1), ex.Pair(1, 2), (1, 2)),
    *(ex.Item(sku="a", price=Decimal(1)), ex.Item(sku="a", price=Decimal("1.0")), ex.FrozenModel(name="a")),
    *(
        ex.Open(known=1),
        ex.Open.model_validate({"known": 1, "more": 2}),
        ex.Numbers([1]),
        ex.IntHolder(content=1),
    ),
]

# Not the number that has too many digits to be shown.
small_leaves = st.sampled_from([v for v in DISTINCT if type(v) is not int or v < 2**64])
hashable_leaves = st.sampled_from([0, 1, True, False, 0.0, -0.0, 1.0, None, "", "0", b"0", (), (0,), math.nan])


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(hashable_leaves, max_size=3)
        | st.frozensets(hashable_leaves, max_size=3)
        | st.dictionaries(hashable_leaves, inner, max_size=3)
        | st.builds(ex.Point, inner, inner)
        | st.builds(ex.Pair, inner, inner)
    )


# Few different leaves, so that examples often are nearly the same.
values = st.recursive(small_leaves | hashable_leaves, _containers, max_leaves=6)


def test_what_is_different_is_encoded_differently() -> None:
    for (i, left), (j, right) in itertools.combinations(enumerate(DISTINCT), 2):
        assert canonical(left) != canonical(right), (i, j, left, right)


@given(st.lists(values, min_size=2, max_size=6))
@settings(max_examples=300)
def test_encodings_are_equal_exactly_when_values_are_the_same(examples: list[Any]) -> None:
    for left, right in itertools.combinations(examples, 2):
        assert (canonical(left) == canonical(right)) == same(left, right, ordered=False)


@given(st.lists(values, max_size=4), st.lists(values, max_size=4))
def test_encodings_do_not_run_into_each_other(left: list[Any], right: list[Any]) -> None:
    """Each encoding says where it ends: none is the beginning of another."""
    a, b = canonical(left), canonical(right)
    assert a == b or not (a.startswith(b) or b.startswith(a))


@given(st.dictionaries(st.text(max_size=3) | st.integers(0, 9), st.integers(0, 9)), st.randoms())
def test_order_in_dicts_and_sets_does_not_count(value: dict[Any, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical(dict(items)) == canonical(value)
    assert canonical({key for key, _ in items}) == canonical(set(value))


@given(st.datetimes(timezones=st.none() | st.timezones()), st.times(), st.timedeltas(), st.decimals(), st.uuids())
def test_leaves_of_all_kinds_are_keyable(
    instant: datetime, clock: time, duration: timedelta, number: Decimal, uuid: UUID
) -> None:
    leaves = (instant, clock, duration, number, uuid)
    assert canonical(leaves) == canonical(copy.deepcopy(leaves))


def test_the_context_of_decimals_does_not_count() -> None:
    value = Decimal("1E+30")
    before = canonical(value)
    with localcontext(Context(prec=3, capitals=0)):
        assert str(value) == "1e+30"
        assert canonical(value) == before


def test_every_nan_is_the_same() -> None:
    assert canonical(math.nan) == canonical(-math.nan) == canonical(float("nan"))
    assert canonical({math.nan: 1, float("nan"): 2}) == canonical({float("nan"): 2, math.nan: 1})


def test_an_alias_of_an_enum_is_its_member() -> None:
    assert canonical(ex.Colour.AZURE) == canonical(ex.Colour.BLUE)


def test_fields_alone_make_a_dataclass() -> None:
    """A cached property must not change the key of its object."""
    order = ex.Order(lines=())
    before = canonical(order)
    assert order.summary
    assert canonical(order) == before


def test_the_order_of_extra_attributes_does_not_count() -> None:
    one, other = (ex.Open.model_validate({"known": 1, **extra}) for extra in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert canonical(one) == canonical(other)


def test_the_digest_is_the_same_everywhere() -> None:
    """A stored key: this value may change only together with a note that all entries become misses."""
    assert digest({"page": 1, "limit": 10}) == "92a374ade7cc7dd1a9a8a0d4e323e2ce"
    script = "from aurelis.cache._canonical import digest; print(digest({frozenset('abc'), 'x', 1.5, None}))"
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 32


class _Text(str):
    __slots__ = ()


class _Zone(tzinfo):
    def utcoffset(self, _: datetime | None, /) -> timedelta:
        return timedelta(hours=1)

    dst = utcoffset

    def tzname(self, _: datetime | None, /) -> str:
        return "a zone of somebody else"


@dataclasses.dataclass
class _ListWithField(list[int]):
    name: str = "a"


class _Growing(enum.Enum):
    KNOWN = 1

    @classmethod
    def _missing_(cls, value: object) -> "_Growing":
        member = object.__new__(cls)
        member._name_ = None  # type: ignore[assignment]  # as libraries do for values that they don't know
        member._value_ = value  # type: ignore[assignment]
        return member


def _zone_without_key() -> ZoneInfo:
    # The smallest file: a header of version 1 with one type of local time.
    head = b"TZif" + bytes(16) + b"".join(count.to_bytes(4, "big") for count in (0, 0, 0, 0, 1, 4))
    return ZoneInfo.from_file(io.BytesIO(head + bytes(6) + b"UTC\0"))


@pytest.mark.parametrize(
    ("value", "path", "type_name"),
    [
        (object(), "value", "object"),
        (int, "value", "type"),
        (len, "value", "builtin_function_or_method"),
        (bytearray(b"x"), "value", "bytearray"),
        (memoryview(b"x"), "value", "memoryview"),
        (range(3), "value", "range"),
        (Path("x"), "value", f"{type(Path()).__module__}.{type(Path()).__qualname__}"),
        (OrderedDict(a=1), "value", "collections.OrderedDict"),
        (_Text("x"), "value", f"{__name__}._Text"),
        (ex.PlainSubclass(0, 0), "value", "tests.codecs.examples.PlainSubclass"),
        (ex.LoosePair(1), "value", "tests.codecs.examples.LoosePair"),
        (tuple.__new__(ex.Pair, (1,)), "value", "tests.codecs.examples.Pair"),
        (_ListWithField(), "value", f"{__name__}._ListWithField"),
        (_Growing(7), "value", f"{__name__}._Growing"),
        (AUTUMN.replace(tzinfo=_Zone()), "value.tzinfo", f"{__name__}._Zone"),
        (time(tzinfo=_Zone()), "value.tzinfo", f"{__name__}._Zone"),
        (AUTUMN.replace(tzinfo=_zone_without_key()), "value.tzinfo", "zoneinfo.ZoneInfo"),
        (_Zone(), "value", f"{__name__}._Zone"),
        (_zone_without_key(), "value", "zoneinfo.ZoneInfo"),
        ([0, object()], "value[1]", "object"),
        ({"x": [object()]}, "value['x'][0]", "object"),
        ({"x": 1, "secret user": object()}, "value[<key 1>]", "object"),
        ({b"x": 1, object(): 1}, "value[<key 1>]", "object"),
        ({(1, object()): 1}, "value[<key 0>][1]", "object"),
        ({object()}, "value{…}", "object"),
        (frozenset({object()}), "value{…}", "object"),
        (ex.Point(0, ex.Box(object())), "value.y.content", "object"),  # type: ignore[arg-type]
        (ex.Pair(1, object()), "value.right", "object"),
        (ex.FrozenModel(name="x", parts=(object(),)), "value.parts[0]", "object"),
    ],
)
def test_what_cannot_be_part_of_a_key_is_located(value: object, path: str, type_name: str) -> None:
    with pytest.raises(UnkeyableError) as raised:
        canonical(value)
    assert (raised.value.path, raised.value.type_name) == (path, type_name)
    assert path in str(raised.value)
    assert type_name in str(raised.value)


def test_the_root_has_the_name_of_the_argument() -> None:
    with pytest.raises(UnkeyableError, match=r"params\['x'\]\[0\] of type object"):
        digest({"x": [object()]}, root="params")


def test_nothing_of_the_value_is_in_the_message() -> None:
    with pytest.raises(UnkeyableError) as raised:
        canonical({"alice@example.org": [_Text("s3cret")]})
    assert "alice" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


def _nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap",
    [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {(v,)} and (v,), ex.Box, ex.Pair],
    ids=["list", "tuple", "dict", "key", "dataclass", "namedtuple"],
)
def test_depth_is_bounded(wrap: Callable[[Any], Any]) -> None:
    assert canonical(_nested(MAX_DEPTH, wrap))
    with pytest.raises(UnkeyableError, match="nested more than 100 levels deep"):
        canonical(_nested(MAX_DEPTH + 1, wrap))


def test_a_value_that_contains_itself_is_refused() -> None:
    in_list: list[Any] = [1]
    in_list.append(in_list)
    in_dict: dict[str, Any] = {}
    in_dict["x"] = (in_dict,)
    in_object = ex.Box[Any](None)
    in_object.content = [in_object]
    for value in (in_list, in_dict, in_object):
        with pytest.raises(UnkeyableError, match="contains itself"):
            canonical(value)


def test_a_caller_without_stack_gets_the_same_error() -> None:
    """Recursion of the caller's own must not turn into a RecursionError here."""
    value = _nested(MAX_DEPTH, lambda v: [v])

    def descend(levels: int) -> bytes:
        return descend(levels - 1) if levels else canonical(value)

    # A new thread begins with an empty stack.
    with ThreadPoolExecutor(1) as pool, pytest.raises(UnkeyableError, match="nested"):
        pool.submit(descend, sys.getrecursionlimit() - 100).result()
