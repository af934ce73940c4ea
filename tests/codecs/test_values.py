"""Values come back exactly, or are refused by name; whatever the bytes, reading fails as a miss."""

import collections
import dataclasses
import io
import itertools
import math
import struct
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import msgpack
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurelis.cache.codecs import ValueCodec
from aurelis.cache.exceptions import ConfigurationError, FrameError, UnstorableValueError
from tests.codecs import examples as ex
from tests.codecs.examples import same

PARIS = ZoneInfo("Europe/Paris")
AUTUMN = datetime(2024, 10, 27, 2, 30, 15, 123456)  # noqa: DTZ001 - its half past two comes twice in Paris

CODEC = ValueCodec(ex.TYPES)


def _used(order: ex.Order) -> ex.Order:
    assert order.summary
    return order


def _with(value: Any, **attributes: object) -> Any:
    for name, item in attributes.items():
        object.__setattr__(value, name, item)
    return value


EXACT: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "ints": [0, 1, -1, 127, 128, -32, -33, 2**31, 2**63 - 1, -(2**63), 2**64 - 1],
    "big ints": [2**64, -(2**63) - 1, 2**100, -(2**100), 10**5000, 255 << 64, -255 << 64],
    "floats": [0.0, -0.0, 1.0, 0.1, 5e-324, sys.float_info.max, math.inf, -math.inf, math.nan],
    "complex": [0j, complex(-0.0, -0.0), complex(math.nan, math.inf), 1 - 2j],
    "strs": ["", "a", "é", "e\u0301", "中文", "😀", "\x00", "x" * 70_000],
    "lone surrogates": ["\ud800", "a\udfffb", "\udc80\ud800", {"\ud800": "\ud800"}],
    "bytes": [b"", b"\x00\xff", b"x" * 70_000],
    "bytearrays": [
        bytearray(),
        bytearray(b"\x00\xff"),
        {"a": [bytearray(b"x")]},
        (bytearray(b"y"), [bytearray(b"z")]),
    ],
    "bytearray": bytearray(b"alone"),
    "bytearray in objects": [ex.Point(bytearray(b"a"), 0), ex.Box([bytearray(b"b")])],  # type: ignore[arg-type]
    "tuples": [(), (1,), (1, (2, (3, [4, (5,)]))), ([], {})],
    "tuple": (),
    "lists": [[], [[]], [[[1]]], list(range(70_000))],
    "sets": [set(), {1, "a", None, (1, 2)}, frozenset(), frozenset({frozenset({1}), b"x"}), {1.5, True}],
    "set": set(),
    "frozenset": frozenset({1}),
    "dicts": [{}, {"a": {"b": {}}}, {str(n): n for n in range(70_000)}],
    "dict with other keys": {
        None: 0,
        True: 1,
        2: 2,
        2.5: 3,
        "a": 4,
        b"a": 5,
        (1, (2,)): 6,
        frozenset({1}): 7,
        2**70: 8,
        -(2**63): 9,
        Decimal("1.5"): 10,
        UUID(int=1): 11,
        date(2024, 1, 1): 12,
        AUTUMN: 13,
        ex.Colour.RED: 14,
        ex.FrozenPoint(1, 2): 15,
        ex.Pair(1): 16,
        math.inf: 17,
        "\ud800": 18,
        1j: 19,
    },
    "dict with only ints as keys": {1: "a", 0: "b", -5: "c"},
    "dict order": {"b": 1, "a": 2, 0: 3, "c": 4},
    "naive datetimes": [AUTUMN, AUTUMN.replace(fold=1), datetime.min, datetime.max],  # noqa: DTZ901,
    "datetimes with an offset": [
        AUTUMN.replace(tzinfo=UTC),
        AUTUMN.replace(tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        AUTUMN.replace(tzinfo=timezone(timedelta(microseconds=1))),
        AUTUMN.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
        AUTUMN.replace(tzinfo=timezone(timedelta(0), "UTC")),
        AUTUMN.replace(tzinfo=timezone(timedelta(0), "")),
        AUTUMN.replace(tzinfo=timezone(timedelta(0), "\ud800")),
    ],
    "datetimes with a zone": [
        AUTUMN.replace(tzinfo=PARIS),
        AUTUMN.replace(tzinfo=PARIS, fold=1),
        AUTUMN.replace(tzinfo=ZoneInfo("UTC")),
        AUTUMN.replace(tzinfo=ZoneInfo("America/Argentina/Buenos_Aires")),
        AUTUMN.replace(tzinfo=ZoneInfo("Etc/GMT+5")),
    ],
    "dates": [date.min, date(2024, 2, 29), date.max],
    "times": [
        time.min,
        time.max,
        time(1, 2, 3, 4, fold=1),
        time(2, tzinfo=UTC),
        time(2, tzinfo=PARIS, fold=1),
    ],
    "timedeltas": [
        timedelta(0),
        timedelta.min,
        timedelta.max,
        timedelta(microseconds=-1),
        timedelta(days=-1),
    ],
    "decimals": [
        Decimal(text)
        for text in (
            "0",
            "-0",
            "0.00",
            "1E+10",
            "1.10",
            "NaN",
            "-NaN123",
            "sNaN",
            "Infinity",
            "-Infinity",
            "9" * 100,
        )
    ],
    "uuids": [UUID(int=0), UUID(int=2**128 - 1), *(UUID(int=5, is_safe=safe) for safe in SafeUUID)],
    "enums": [*ex.Colour, ex.Colour.AZURE, *ex.Size, *ex.Mode],
    "flags": [
        *ex.Access,
        ex.Access(0),
        ex.Access.READ | ex.Access.WRITE,
        ex.Bits(9),
        ex.Bits(64),
        ~ex.Bits.ONE,
    ],
    "dataclasses": [
        ex.Point(1, 2.0),
        ex.FrozenPoint(1, 2),
        ex.Slots("a", ["b"]),
        ex.FrozenSlots("a", ex.FrozenPoint(1, 2)),
    ],
    "dataclass with computed fields": ex.Order(lines=(ex.Point(1, 2),), factor=3, colour=ex.Colour.BLUE),
    "dataclass with a cached property": _used(ex.Order(lines=())),
    "dataclass changed later": _with(ex.Point(1, 2), x="text", more=[1]),
    "generic dataclass": [ex.Box(1), ex.Box[int](1), ex.Box(ex.Box([ex.Box(None)]))],
    "dataclass on a class with slots": [ex.OnSlots("a"), _with(ex.OnSlots("a"), _secret=(1,))],
    "pydantic dataclass": ex.Checked(1),
    "namedtuples": [
        ex.Pair(1),
        ex.Pair(1, ex.Pair(2)),
        ex.LoosePair(1, 2),
        _with(ex.LoosePair(1, 2), more=(1,)),
    ],
    "models": [
        ex.Item(sku="a", price=Decimal("1.10")),
        ex.Basket(
            items=[ex.Item(sku="b", price=Decimal("2.50"), added=AUTUMN.replace(tzinfo=PARIS))],
            notes={1: "x"},
        ),
    ],
    "model with aliases": ex.Renamed(first="1", second="2"),
    "model whose validation is no identity": ex.Counting(number=1),
    "model with a cached property": [m for m in [ex.Counting(number=1)] if m.double],
    "model with extra attributes": [ex.Open(known=1), ex.Open.model_validate({"known": 1, "more": (2,)})],
    "model built without validation": ex.Item.model_construct(sku=1, price=(2,), added=None, _fields_set={"sku"}),
    "frozen model": ex.FrozenModel(name="a", parts=(1, (2,))),
    "root model": ex.Numbers([1, 2]),
    "generic model": ex.IntHolder(content=1),
    "mixed": {"rows": [(1, {"a": {ex.Colour.RED}}), [ex.Pair(0, {1: (2,)})]], "when": AUTUMN, "n": 2**70},
}

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**64)
    | st.floats()
    | st.complex_numbers()
    | st.text(alphabet=st.characters())
    | st.text(alphabet=st.characters(categories=["Cs", "L"]), max_size=5)
    | st.binary(max_size=20)
    | st.decimals()
    | st.uuids()
    | st.dates()
    | st.times(timezones=st.none() | st.timezones())
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.sampled_from([*ex.Colour, *ex.Size, *ex.Mode, *ex.Access, ex.Access(0), ex.Bits(9)])
)
# A signalling NaN cannot be hashed.
hashable = st.recursive(
    leaves.filter(lambda v: not (isinstance(v, Decimal) and v.is_snan())),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(ex.FrozenPoint, inner, inner)
        | st.builds(ex.Pair, inner, inner)
    ),
    max_leaves=5,
)
values = st.recursive(
    leaves | hashable | st.binary(max_size=5).map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(hashable, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.builds(ex.Point, inner, inner)
        | st.builds(ex.Slots, inner, inner)
        | st.builds(ex.Box, inner)
        | st.builds(ex.Pair, inner, inner)
        | st.builds(lambda item: ex.FrozenModel(name="a", parts=(item,)), inner)
        | st.builds(lambda item: ex.Open.model_construct(known=item, more=item), inner)
    ),
    max_leaves=15,
)


# --- exact round trip


@pytest.mark.parametrize("value", EXACT.values(), ids=EXACT)
def test_values_come_back_exactly(value: object) -> None:
    payload = CODEC.dumps(value)
    assert same(CODEC.loads(payload), value)
    assert same(CODEC.loads(memoryview(payload)), value)


@given(values)
@settings(max_examples=300)
def test_any_value_comes_back_exactly(value: object) -> None:
    assert same(CODEC.loads(CODEC.dumps(value)), value)


def test_the_comparison_of_these_tests_is_strict() -> None:
    for left, right in itertools.combinations([1, 1.0, True, "1", b"1", bytearray(b"1"), [1], (1,), {1}], 2):
        assert not same(left, right)
    assert not same(0.0, -0.0)
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same([1, (2,)], [1, [2]])
    assert not same(AUTUMN.replace(tzinfo=PARIS), AUTUMN.replace(tzinfo=PARIS, fold=1))
    assert not same(ex.Point(1, 2), ex.Point(1, 2.0))
    assert not same(ex.Item(sku="a", price=Decimal(1)), ex.Item(sku="a", price=Decimal(1), added=None))


def test_each_reader_gets_its_own_object() -> None:
    payload = CODEC.dumps({"rows": [1], "basket": ex.Basket(items=[])})
    first, second = CODEC.loads(payload), CODEC.loads(payload)
    assert isinstance(first, dict)
    first["rows"].append(2)
    first["basket"].items.append(3)
    assert same(second, {"rows": [1], "basket": ex.Basket(items=[])})


def test_what_is_written_is_msgpack() -> None:
    """A stored format.  Plain values are what any msgpack library writes; marks need the leading byte C1."""
    assert CODEC.dumps({"a": [1, None, 1.5, b"x"]}).hex() == "81a1619401c0cb3ff8000000000000c40178"
    assert CODEC.dumps(2**64).hex() == "c70901010000000000000000"
    assert CODEC.dumps(1j).hex() == "d8020000000000000000" + "3ff0000000000000"
    assert CODEC.dumps(bytearray(b"x")).hex() == "d40378"
    assert CODEC.dumps(Decimal("1.50")).hex() == "d604312e3530"
    assert CODEC.dumps(UUID(int=1)).hex() == "d80500000000000000000000000000000001"
    assert CODEC.dumps(date(2024, 2, 29)).hex() == "d60607e8021d"
    assert CODEC.dumps(time(1, 2, 3, 4, UTC)).hex() == "c70907010203000000040" + "05a"
    assert CODEC.dumps(AUTUMN.replace(tzinfo=PARIS)).hex() == "c7190807e80a1b021e0f0001e240004b" + b"Europe/Paris".hex()
    assert CODEC.dumps(timedelta(-1, 2, 3)).hex() == "c70c09ffffffff0000000200000003"
    assert CODEC.dumps((1, 2)).hex() == "c193c700100102"
    assert CODEC.dumps({1}).hex() == "c192c7001101"
    assert CODEC.dumps(frozenset({1})).hex() == "c192c7001201"
    name = b"tests.codecs.examples:Pair".hex()
    assert CODEC.dumps(ex.Pair(1, 2)).hex() == f"c193c70013ba{name}82a46c65667401a5726967687402"


def test_threads_may_share_a_codec() -> None:
    """Packing calls back into Python, where threads take turns."""
    examples = [EXACT[name] for name in ("mixed", "tuples", "bytearrays", "models", "lone surrogates")]
    start = threading.Barrier(8)

    def work(value: object) -> bool:
        start.wait()
        return all(same(CODEC.loads(CODEC.dumps(value)), value) for _ in range(50))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, (examples * 2)[:8]))
    finally:
        sys.setswitchinterval(interval)


def test_objects_are_rebuilt_without_running_their_code() -> None:
    @dataclasses.dataclass
    class Touchy:
        number: int

        def __post_init__(self) -> None:
            raise AssertionError("not called")

        def __setattr__(self, name: str, value: object) -> None:
            raise AssertionError("not called")

    codec = ValueCodec([Touchy])
    value = _with(object.__new__(Touchy), number=1)
    again = codec.loads(codec.dumps(value))
    assert isinstance(again, Touchy)
    assert again.number == 1


def test_decimals_do_not_depend_on_the_context() -> None:
    value = Decimal("1." + "1" * 60)
    # Precise to three digits, and content to make a NaN of anything.
    with localcontext(Context(prec=3, traps=[])):
        assert same(CODEC.loads(CODEC.dumps(value)), value)
        with pytest.raises(FrameError):
            CODEC.loads(msgpack.packb(msgpack.ExtType(4, b"one")))


# --- refusal


class _Text(str):
    __slots__ = ()


class _Int(int):
    pass


class _Zone(tzinfo):
    def utcoffset(self, _: datetime | None, /) -> timedelta:
        return timedelta(hours=1)

    dst = utcoffset

    def tzname(self, _: datetime | None, /) -> str:
        return "a zone of somebody else"


class _OtherZoneInfo(ZoneInfo):
    pass


class _Stamp(datetime):
    pass


class _Growing(Enum):
    KNOWN = 1

    @classmethod
    def _missing_(cls, value: object) -> "_Growing":
        member = object.__new__(cls)
        member._name_ = "KNOWN"
        member._value_ = value  # type: ignore[assignment]  # as libraries do for values that they don't know
        return member


def _zone_from_file(key: str | None) -> ZoneInfo:
    # The smallest file: a header of version 1 with one type of local time.
    head = b"TZif" + bytes(16) + struct.pack(">6I", 0, 0, 0, 0, 1, 4)
    return ZoneInfo.from_file(io.BytesIO(head + bytes(6) + b"UTC\0"), key=key)


PLAIN = ValueCodec()
HERE = __name__
THERE = ex.__name__


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "object"),
        (int, "type"),
        (len, "builtin_function_or_method"),
        (range(3), "range"),
        (iter([]), "list_iterator"),
        (NotImplemented, "NotImplementedType"),
        (memoryview(b"x"), "memoryview"),
        (Path("x"), f"{type(Path()).__module__}.{type(Path()).__qualname__}"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (collections.defaultdict(int), "collections.defaultdict"),
        (collections.deque([1]), "collections.deque"),
        (msgpack.ExtType(5, b"x"), "msgpack.ext.ExtType"),
        (msgpack.Timestamp(1), "msgpack.ext.Timestamp"),
        (_Text("x"), f"{HERE}._Text"),
        (_Int(1), f"{HERE}._Int"),
        (_Stamp(2024, 1, 1), f"{HERE}._Stamp"),
        (AUTUMN.replace(tzinfo=_Zone()), "datetime.datetime"),
        (time(tzinfo=_Zone()), "datetime.time"),
        (UTC, "datetime.timezone"),
        (ex.Colour.RED, f"{THERE}.Colour"),
        (ex.Size.SMALL, f"{THERE}.Size"),
        (ex.Mode.FAST, f"{THERE}.Mode"),
        (ex.Access.READ, f"{THERE}.Access"),
        (ex.Bits.ONE, f"{THERE}.Bits"),
        (ex.Point(1, 2), f"{THERE}.Point"),
        (ex.Pair(1), f"{THERE}.Pair"),
        (ex.Item(sku="a", price=Decimal(1)), f"{THERE}.Item"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda v: v, "value"),
        (lambda v: [0, v], "value[1]"),
        (lambda v: (v,), "value[0]"),
        (lambda v: {"rows": [{"who": v}]}, "value['rows'][0]['who']"),
        (lambda v: {"the secret": v}, "value[<key 0>]"),
        (lambda v: [bytearray(b"x"), (v,)], "value[1][0]"),
        (lambda v: ["\ud800", v], "value[1]"),
    ],
    ids=[
        "alone",
        "in a list",
        "in a tuple",
        "in dicts",
        "key not shown",
        "with a bytearray",
        "with a surrogate",
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(
    value: object, name: str, wrap: Callable[[object], object], path: str
) -> None:
    with pytest.raises(UnstorableValueError) as raised:
        PLAIN.dumps(wrap(value))
    assert (raised.value.type_name, raised.value.path) == (name, path)
    assert f"{path} of type {name}:" in str(raised.value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({1: object()}, "value[<key 0>]"),
        ({(1, _Int(2)): 0}, "value<key 0>[1]"),
        ({msgpack.ExtType(1, b""): 0}, "value<key 0>"),
        ({memoryview(b"x"): 0}, "value<key 0>"),
        ({_Int(1)}, "value{…}"),
        (ex.Point(1, object()), "value.y"),  # type: ignore[arg-type]
        ([ex.Unfinished(), ex.Box([object()])], "value[0]"),
        ([ex.Box([object()]), ex.Unfinished()], "value[0].content[0]"),
        ([object(), *range(100_000)], "value"),  # it would take too long to find
        (ex.Pair(1, [memoryview(b"x")]), "value.right[0]"),
        (ex.FrozenModel(name="x", parts=(object(),)), "value.parts[0]"),
        (ex.Open.model_validate({"known": 1, "more": object()}), "value.more"),
        (_with(ex.Counting(number=1), _log=[object()]), "value._log[0]"),
        (_with(ex.Point(1, 2), lock=threading.Lock()), "value.lock"),
        (ex.PlainSubclass(1, 2), "value"),
        (_Growing(5), "value"),
    ],
)
def test_what_cannot_be_stored_is_located(value: object, path: str) -> None:
    with pytest.raises(UnstorableValueError) as raised:
        ValueCodec([*ex.TYPES, _Growing]).dumps(value)
    assert raised.value.path == path


@pytest.mark.parametrize("zone", [_Zone(), _OtherZoneInfo("UTC"), _zone_from_file(None), _zone_from_file("../etc/x")])
def test_a_zone_that_would_not_come_back_is_refused(zone: tzinfo) -> None:
    for value in (AUTUMN.replace(tzinfo=zone), time(tzinfo=zone)):
        with pytest.raises(UnstorableValueError, match=f"tzinfo is a .*{type(zone).__name__}"):
            CODEC.dumps(value)


def test_an_incomplete_object_is_refused() -> None:
    """It could not be told from one that was stored before the class got another field."""
    with pytest.raises(UnstorableValueError, match="its field 'later' has no value"):
        CODEC.dumps(ex.Unfinished())
    with pytest.raises(UnstorableValueError, match="its field 'price' has no value"):
        CODEC.dumps(ex.Item.model_construct(sku="a", added=None))
    with pytest.raises(UnstorableValueError, match="not as many items"):
        CODEC.dumps(tuple.__new__(ex.Pair, (1,)))


def test_nothing_of_the_value_is_in_the_message() -> None:
    with pytest.raises(UnstorableValueError) as raised:
        CODEC.dumps({"alice@example.org": [_Text("s3cret")]})
    assert "alice" not in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_the_packer_of_a_refused_value_is_not_used_again() -> None:
    with pytest.raises(UnstorableValueError):
        CODEC.dumps([1, "half written", object()])
    assert CODEC.dumps(1) == b"\x01"


# --- nesting


def _nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("wrap", "cost"),
    [
        (lambda v: [v], 1),
        (lambda v: (v,), 1),
        (lambda v: {"a": v}, 1),
        (lambda v: frozenset({v}), 1),
        (ex.Box, 2),
        (ex.Pair, 2),
        (lambda v: ex.FrozenModel.model_construct(name="", parts=v), 2),
    ],
    ids=["list", "tuple", "dict", "frozenset", "dataclass", "namedtuple", "model"],
)
def test_depth_is_bounded(wrap: Callable[[Any], Any], cost: int) -> None:
    value = _nested(500 // cost, wrap)
    again = CODEC.loads(CODEC.dumps(value))
    assert CODEC.dumps(again) == CODEC.dumps(value)  # comparing them would need more stack than there is
    with pytest.raises(UnstorableValueError, match="nested too deep"):
        CODEC.dumps(_nested(1025, wrap))


def test_a_deep_value_with_a_bytearray_is_stored_or_refused() -> None:
    """Replacing it takes stack of Python's; running out of it must not show as a RecursionError."""
    assert CODEC.loads(CODEC.dumps(_nested(100, lambda v: [bytearray(b"x"), v])))
    deep = _nested(500, lambda v: [bytearray(b"x"), v])

    def descend(levels: int) -> bytes:
        return descend(levels - 1) if levels else CODEC.dumps(deep)

    # A new thread begins with an empty stack.
    with ThreadPoolExecutor(1) as pool, pytest.raises(UnstorableValueError, match="nested too deep"):
        pool.submit(descend, sys.getrecursionlimit() - 400).result()


def test_a_value_that_contains_itself_is_refused() -> None:
    in_list: list[Any] = [1]
    in_list.append(in_list)
    in_dict: dict[str, Any] = {"blob": bytearray(b"x")}
    in_dict["x"] = (in_dict,)
    in_object = ex.Box[Any](None)
    in_object.content = [in_object]
    for value in (in_list, in_dict, in_object, (in_list, object())):
        with pytest.raises(UnstorableValueError, match="contains itself"):
            CODEC.dumps(value)


# --- damaged and foreign bytes


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\xc1" + tail))
@settings(max_examples=500)
def test_any_bytes_are_a_storable_value_or_a_frame_error(payload: bytes) -> None:
    _storable_or_refused(payload)


@given(values, st.data())
@settings(max_examples=300)
def test_damaged_bytes_are_a_storable_value_or_a_frame_error(value: object, data: st.DataObject) -> None:
    payload = bytearray(CODEC.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(payload) - 1))
        payload[position] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(payload)))
    _storable_or_refused(bytes(payload))
    _storable_or_refused(bytes(payload[:cut]))


def _storable_or_refused(payload: bytes) -> None:
    try:
        value = CODEC.loads(payload)
    except FrameError:
        return
    # No mark, no Timestamp, nothing that reading should have resolved.
    assert same(CODEC.loads(CODEC.dumps(value)), value)


def _packed(value: Any) -> bytes:
    payload: bytes = msgpack.packb(value)
    return b"\xc1" + payload


TUPLE, SET, OBJECT = (msgpack.ExtType(code, b"") for code in (16, 17, 19))
PAIR, COLOUR, ITEM, OPEN = (f"{THERE}:{name}" for name in ("Pair", "Colour", "Item", "Open"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xc1\xc1\x01",
        msgpack.packb(1) + b"\x00",
        msgpack.packb([TUPLE, 1]),
        msgpack.packb(msgpack.ExtType(99, b"")),
        msgpack.packb(msgpack.ExtType(6, b"\x00\x00\x01\x01")),
        msgpack.packb(msgpack.ExtType(6, b"\x07\xe8\x02\x1e")),
        msgpack.packb(msgpack.ExtType(9, b"\x7f" + bytes(11))),
        msgpack.packb(msgpack.ExtType(5, bytes(17) + b"\x00")),
        msgpack.packb(msgpack.ExtType(8, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 2))),
        *(
            msgpack.packb(msgpack.ExtType(8, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 0) + zone))
            for zone in (
                b"X",
                b"Zx",
                b"F",
                b"F" + b"\x7f" * 8,
                b"F" + bytes(8) + b"x",
                b"K",
                b"KNo/Such",
                b"KEurope",
            )
        ),
        *(
            msgpack.packb(msgpack.ExtType(8, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 0) + b"K" + key))
            for key in (
                b"../../etc/passwd",
                b"/etc/passwd",
                b"Europe/../UTC",
                b"os.path",
                b"Europe/Paris\n",
                b"\xff",
            )
        ),
        _packed(TUPLE),
        _packed([1, TUPLE]),
        _packed([TUPLE, TUPLE]),
        _packed([TUPLE, [1, SET]]),
        _packed({"a": TUPLE}),
        _packed([msgpack.ExtType(16, b"x"), 1]),
        _packed([SET, []]),
        _packed([SET, {}]),
        _packed([OBJECT]),
        _packed([OBJECT, "builtins:object"]),
        _packed([OBJECT, "os:system", "true"]),
        _packed([OBJECT, ["list"], 1]),
        _packed([OBJECT, COLOUR]),
        _packed([OBJECT, COLOUR, "GREEN"]),
        _packed([OBJECT, COLOUR, "_member_map_"]),
        _packed([OBJECT, f"{THERE}:Access", 64]),
        _packed([OBJECT, PAIR]),
        _packed([OBJECT, PAIR, 1]),
        _packed([OBJECT, PAIR, ["left", "right"]]),
        _packed([OBJECT, PAIR, {"left": 1}]),
        _packed([OBJECT, PAIR, {"right": 1, "left": 1}]),
        _packed([OBJECT, PAIR, {"left": 1, "right": 1}, {"more": 1}]),
        _packed([OBJECT, f"{THERE}:Point", {"x": 1}]),
        _packed([OBJECT, f"{THERE}:Point", {"x": 1, "y": 1, "z": 1}]),
        _packed([OBJECT, f"{THERE}:Slots", {"name": 1, "tags": 1}, {"more": 1}]),
        _packed([OBJECT, ITEM, {"sku": 1, "price": 2, "added": 3}]),
        _packed([OBJECT, ITEM, {"sku": 1, "price": 2}, [[], None, None]]),
        _packed([OBJECT, OPEN, {"known": 1}, [[], ["more"], None]]),
        _packed([OBJECT, OPEN, {"known": 1}, [1, {}, None]]),
        b"\x81\x90\x01",
        b"\x91" * 1025 + b"\x01",
        b"\xc1" + b"\x91" * 1025 + b"\x01",
        b"\xc1" + b"\x92\xc7\x00\x10" * 1025 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xdd\x00\x00\x40\x00" * 1000 + bytes(0x4000),
    ],
    ids=lambda payload: payload[:20].hex(),
)
def test_forged_and_foreign_bytes_are_a_frame_error(payload: bytes) -> None:
    with pytest.raises(FrameError) as raised:
        CODEC.loads(payload)
    assert raised.value.reason == "payload"


def test_reading_text_is_a_frame_error() -> None:
    with pytest.raises(FrameError):
        CODEC.loads("text")  # type: ignore[arg-type]  # a layer that decodes responses would do this


def test_a_foreign_timestamp_is_a_datetime() -> None:
    assert same(CODEC.loads(msgpack.packb(msgpack.Timestamp(0))), datetime(1970, 1, 1, tzinfo=UTC))


def test_the_message_has_nothing_of_what_was_stored() -> None:
    with pytest.raises(FrameError) as raised:
        CODEC.loads(_packed([OBJECT, "s3cret:s3cret", {}]))
    assert "s3cret" not in str(raised.value)


# --- the allow-list


def _dataclass(module: str, name: str, **fields: Any) -> type:
    made = dataclasses.make_dataclass(name, fields.items())
    made.__module__ = module
    return made


def test_another_codec_without_the_class_has_a_miss() -> None:
    payload = CODEC.dumps(ex.Point(1, 2))
    with pytest.raises(FrameError):
        PLAIN.loads(payload)


def test_a_class_whose_fields_changed_has_a_miss() -> None:
    def kind(**fields: Any) -> type:
        return _dataclass("app", "Changing", **fields)

    def model(**fields: Any) -> type[pydantic.BaseModel]:
        return pydantic.create_model("Changing", __module__="app", **fields)

    def pair(*names: str) -> type:
        return collections.namedtuple("Changing", names, module="app")

    for old, new, state in [
        (kind(a=int), kind(a=int, b=int), {"a": 1}),
        (kind(a=int, b=int), kind(a=int), {"a": 1, "b": 2}),
        (model(a=(int, 1)), model(a=(int, 1), b=(int, 2)), {"a": 1}),
        (model(a=(int, 1), b=(int, 2)), model(a=(int, 1)), {"a": 1}),
        (pair("a", "b"), pair("b", "a"), {"a": 1, "b": 2}),
    ]:
        payload = ValueCodec([old]).dumps(old(**state))
        assert same(ValueCodec([old]).loads(payload), old(**state))
        with pytest.raises(FrameError):
            ValueCodec([new]).loads(payload)


class _Abstract:
    pass


@dataclasses.dataclass
class _ListWithField(list[int]):
    name: str = "a"


@dataclasses.dataclass
class _ErrorWithField(Exception):
    name: str = "a"


@pytest.mark.parametrize(
    ("types", "match"),
    [
        ([int], "int is none of"),
        ([_Abstract], "_Abstract is none of"),
        ([ex.PlainSubclass], "PlainSubclass is none of"),
        ([tuple], "tuple is none of"),
        ([Enum], "Enum has no members"),
        ([_ListWithField], "built-in base"),
        ([_ErrorWithField], "built-in base"),
        ([ex.Point, ex.Point], "two of them are named tests.codecs.examples:Point"),
        (
            [ex.Point, _dataclass(THERE, "Point", x=int)],
            "two of them",
        ),
        ([ex.Point(1, 2)], "not an object of type"),
        ([ex.Box[int]], "not an object of type"),
        (["app.User"], "not an object of type str"),
    ],
)
def test_classes_that_cannot_be_registered_are_refused(types: list[Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        ValueCodec(types)
