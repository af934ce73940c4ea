"""Which parameters of a query count."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import TRACKING_PARAMETERS, CacheRule


def counted(sent: bytes, /, **arguments: Any) -> bytes:
    """What of a query counts under a rule with these arguments."""
    said = CacheRule("/", ttl=60, **arguments).on_target("/", "example.com", sent)
    assert said is not None
    return said.query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", b""),
        (b"page=2", b"page=2"),
        (b"page=2&utm_source=x&gclid=1", b"page=2"),
        (b"utm_source=x", b""),
        (b"utm%5Fsource=x&page=2", b"page=2"),  # the name is compared decoded
        (b"UTM_source=x", b"UTM_source=x"),
        (b"utm_source[]=x", b""),
        (b"page[utm_x]=1", b"page[utm_x]=1"),
        (b"page=2&page=3&utm_a=1", b"page=2&page=3"),
        (b"page=2;utm_source=x", b"page=2;utm_source=x"),  # one parameter for a cache that knows `&` alone
        (b"utm_source=x;page=2", b""),  # and so is this: the app does not get to see a part of it
        (b"&&page=2&", b"page=2"),
        (b"page", b"page"),
        (b"=utm_source", b"=utm_source"),
        (b"page=%zz&%zz=1", b"page=%zz&%zz=1"),
        (b"page=\xff&\xff=1", b"page=\xff&\xff=1"),
    ],
)
def test_tracking_parameters_do_not_count(query: bytes, expected: bytes) -> None:
    assert counted(query, ignore_query=TRACKING_PARAMETERS) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"page=2&sort=a&x=1", b"page=2&sort=a"),
        (b"sort=a&page=2", b"sort=a&page=2"),
        (b"page=2&page=1", b"page=2&page=1"),
        (b"pages=2&page[]=1", b""),
        (b"pag%65=2", b"pag%65=2"),  # spelt as it came
        (b"x=1;page=2", b""),
    ],
)
def test_only_what_is_named_counts(query: bytes, expected: bytes) -> None:
    assert counted(query, query=("page", "sort")) == expected


def test_nothing_counts_where_nothing_is_named() -> None:
    assert counted(b"a=1&b=2", query=()) == b""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"b=1&a=2", b"a=2&b=1"),
        (b"b=1&a=2&b=0&a=1", b"a=2&a=1&b=1&b=0"),
        (b"b&a", b"a&b"),
        (b"%62=1&a=1", b"a=1&%62=1"),
    ],
)
def test_sorting_keeps_several_of_one_name_in_order(query: bytes, expected: bytes) -> None:
    assert counted(query, sort_query=True) == expected


PAIRS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "utm_x", "c[]"]), st.text(alphabet="12;=%", max_size=3)), max_size=6
)


@given(PAIRS)
def test_sorted_queries_agree_exactly_where_their_parameters_do(pairs: list[tuple[str, str]]) -> None:
    """In any order of different names, and nothing is lost or made up."""
    query = "&".join(f"{name}={value}" for name, value in pairs).encode()
    found = counted(query, sort_query=True)
    assert sorted(found.split(b"&")) == sorted(query.split(b"&"))
    by_name = {name: [value for other, value in pairs if other == name] for name, _ in pairs}
    for name, values in by_name.items():
        start = name.encode() + b"="
        assert [pair[len(start) :].decode() for pair in found.split(b"&") if pair.startswith(start)] == values
    assert counted(found, sort_query=True) == found


@given(st.binary(max_size=40))
def test_any_query_gives_a_result_that_stays(query: bytes) -> None:
    choices: list[dict[str, Any]] = [{"sort_query": True}, {"query": ("a*",)}, {"ignore_query": ("utm_*",)}]
    for arguments in choices:
        found = counted(query, **arguments)
        assert counted(found, **arguments) == found
