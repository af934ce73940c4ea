"""Tags: which follow from a key, that different names never meet, and what is no tag."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache import CacheKeyBuilder
from aurelis.cache._keys import escape
from aurelis.cache._tags import EVERYTHING, category, identifier, implied, tag, tags

names = st.text(alphabet=st.characters(), max_size=8) | st.text(alphabet=":*%{}\ud800aA", max_size=5)
namespaces = st.text(alphabet=st.characters(), min_size=1, max_size=8) | st.text(
    alphabet=":*%{}a", min_size=1, max_size=5
)
PREFIX = "aurelis:"


def key(namespace: str, *parts: str, params: dict[str, Any] | None = None) -> tuple[str, str]:
    """Returns a key, and the prefix of its namespace."""
    category_name, identifier_name = parts
    return CacheKeyBuilder(namespace).build_key(category_name, identifier_name, params), escape(namespace) + ":"


# --- tags that follow from a key


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("aurelis:v1:user:17", (EVERYTHING, "c:user"), id="plain"),
        pytest.param("aurelis:v2:user:17", (EVERYTHING, "c:user"), id="version"),
        pytest.param("aurelis:v1:user%3Aa:17", (EVERYTHING, "c:user%3Aa"), id="escaped"),
        pytest.param("aurelis:v1:search:shoes:" + "0" * 32, (EVERYTHING, "c:search", "i:search:shoes"), id="params"),
        pytest.param("aurelis:v1:user:17:a:b", (EVERYTHING,), id="too-many-parts"),
        pytest.param("aurelis:v1:user", (EVERYTHING,), id="too-few-parts"),
        pytest.param("aurelis:", (EVERYTHING,), id="nothing-but-the-prefix"),
        pytest.param("other:v1:user:17", (EVERYTHING,), id="another-namespace"),
        pytest.param("aurelis2:v1:user:17", (EVERYTHING,), id="a-longer-namespace"),
        pytest.param("aurelis", (EVERYTHING,), id="the-namespace"),
        pytest.param("k", (EVERYTHING,), id="any"),
        pytest.param("", (EVERYTHING,), id="empty"),
        pytest.param("\ud800", (EVERYTHING,), id="lone-surrogate"),
    ],
)
def test_a_key_of_the_builder_has_its_category_and_every_key_is_part_of_everything(
    key: str, expected: tuple[str, ...]
) -> None:
    assert implied(key, PREFIX) == expected


@given(namespaces, names, names)
def test_a_key_without_params_has_the_tag_of_its_category(namespace: str, of: str, name: str) -> None:
    assert implied(*key(namespace, of, name)) == (EVERYTHING, category(of))


@given(namespaces, names, names, st.integers())
def test_a_key_with_params_has_that_of_its_identifier_too(namespace: str, of: str, name: str, page: int) -> None:
    found = implied(*key(namespace, of, name, params={"page": page}))
    assert found == (EVERYTHING, category(of), identifier(of, name))


@given(st.text(alphabet=st.characters(), max_size=30), namespaces)
def test_any_key_is_part_of_everything_and_none_has_a_callers_tag(anything: str, namespace: str) -> None:
    found = implied(anything, escape(namespace) + ":")
    assert found[0] == EVERYTHING
    assert not any(name.startswith("t:") for name in found)


# --- different names never meet


@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_different_tags_have_different_names(given_names: list[str]) -> None:
    assert len({tag(name) for name in given_names}) == len(given_names)


@given(st.lists(names, min_size=2, max_size=6, unique=True))
def test_different_categories_have_different_names(given_names: list[str]) -> None:
    assert len({category(name) for name in given_names}) == len(given_names)


@given(st.lists(st.tuples(names, names), min_size=2, max_size=6, unique=True))
def test_different_identifiers_have_different_names(given_names: list[tuple[str, str]]) -> None:
    assert len({identifier(*name) for name in given_names}) == len(given_names)


@given(names, names, names, names)
def test_names_of_different_kinds_never_meet(one: str, of: str, another: str, name: str) -> None:
    assert len({EVERYTHING, tag(one), category(of), identifier(another, name)}) == 4


@given(namespaces, names, names, names)
def test_a_key_has_the_tag_of_no_other_category(namespace: str, of: str, name: str, other: str) -> None:
    if other != of:
        assert category(other) not in implied(*key(namespace, of, name, params={"a": 1}))


# --- what is a tag


def test_each_tag_counts_once_in_the_order_given() -> None:
    assert tags(["b", "a", "b"]) == ("t:b", "t:a")
    assert tags(("a",)) == ("t:a",)
    assert tags({"a": 1}) == ("t:a",)


@pytest.mark.parametrize("empty", [[], (), set(), iter(())], ids=["list", "tuple", "set", "iterator"])
def test_there_may_be_none(empty: Any) -> None:
    assert tags(empty) == ()


def test_they_may_come_from_an_iterator() -> None:
    assert tags(name for name in "ab") == ("t:a", "t:b")


def test_any_text_but_an_empty_one_is_a_tag() -> None:
    odd = ["*", " ", "\n", "t:", "c:user", "\ud800", "x" * 10_000]
    assert tags(odd) == tuple("t:" + name for name in odd)


@pytest.mark.parametrize("one", ["user", ""], ids=repr)
def test_one_text_in_place_of_several_is_refused_with_advice(one: str) -> None:
    with pytest.raises(TypeError, match=r"tags must be a sequence of str; write tags=\["):
        tags(one)


@pytest.mark.parametrize(
    ("wrong", "kind"), [([1], "int"), ([None], "NoneType"), ([b"a"], "bytes"), (["a", ("b",)], "tuple"), (b"a", "int")]
)
def test_what_is_no_text_is_refused(wrong: Any, kind: str) -> None:
    with pytest.raises(TypeError, match=f"a tag must be a str, not {kind}"):
        tags(wrong)


def test_an_empty_tag_is_refused() -> None:
    with pytest.raises(ValueError, match="a tag must not be empty"):
        tags(["a", ""])
