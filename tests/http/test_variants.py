"""Vary (RFC 9111 §4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import selects_same, variant_digest, vary_names
from aurelis.cache.http._variants import normalised


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param(None, (), id="absent"),
        pytest.param(b"", (), id="empty"),
        pytest.param(b" , ", (), id="empty-members"),
        pytest.param(b"Accept", (b"accept",), id="one"),
        pytest.param(b"Foo, BAR,foo ,", (b"bar", b"foo"), id="several"),
        pytest.param(b"*", None, id="star"),
        pytest.param(b" , *", None, id="star-after-nothing"),
        pytest.param(b"Accept, *", None, id="star-among-names"),
        pytest.param(b"Accept Encoding", None, id="no-name"),
        pytest.param(b'"Accept"', None, id="quoted"),
        pytest.param(b'"Accept, Foo', None, id="open-quote"),
    ],
)
def test_vary_names(value: bytes | None, names: tuple[bytes, ...] | None) -> None:
    """RFC 9110 §12.5.5."""
    assert vary_names(value) == names


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        pytest.param(b"foo", b"1,2", b" 1, 2 ", True, id="whitespace-around-members"),
        pytest.param(b"foo", b"1,,2", b"1, 2", True, id="empty-members"),
        pytest.param(b"foo", b"1 2", b"1  2", False, id="whitespace-inside"),
        pytest.param(b"foo", b"a", b"A", False, id="case-of-unknown-fields"),
        pytest.param(b"foo", b"1, 2", b"2, 1", False, id="order"),
        pytest.param(b"foo", b'"1, 2"', b'"1,2"', False, id="inside-quotes"),
        pytest.param(b"foo", b'"1, 2', b'"1,2', False, id="open-quote"),
        pytest.param(b"accept-language", b"en, de", b" eN ,   De", True, id="9110-12.5.4-case"),
        pytest.param(b"accept-language", b"en, de", b"de, en", True, id="9110-12.5.4-order"),
        pytest.param(b"accept-language", b"en;q=0.5, de", b"de;q=1.0, en; q=0.50", True, id="9110-12.4.2-weights"),
        pytest.param(b"accept-language", b"en;q=0.5, de", b"en, de;q=0.5", False, id="9110-12.4.2-other-weights"),
        pytest.param(b"accept-language", b"en;q=2, de", b"de, en;q=2", False, id="9110-12.4.2-malformed"),
        pytest.param(b"accept-encoding", b"br, gzip;q=0", b"gzip; q=0.0, BR", True, id="9110-12.5.3-order"),
        pytest.param(b"accept", b"text/html, text/plain", b"text/plain, text/html", False, id="accept-as-it-is"),
        pytest.param(b"accept-encoding", b"gzip, br", b"GZIP,br", True, id="9110-12.5.3-case"),
        pytest.param(b"accept", b"text/html;v=A", b"text/html;v=a", False, id="accept-parameters-have-case"),
        pytest.param(b"cookie", b"a=1, 2", b"a=1,2", False, id="cookies-are-no-list"),
        pytest.param(b"authorization", b"Digest a, b", b"Digest a,b", False, id="credentials-are-opaque"),
        pytest.param(b"user-agent", b"x ", b"x", True, id="whitespace-at-the-ends"),
    ],
)
def test_normalisation(name: bytes, one: bytes, other: bytes, same: bool) -> None:
    """RFC 9111 §4.1: only what means nothing goes."""
    assert (normalised(name, one) == normalised(name, other)) is same
    assert selects_same((name,), {name: one}, {name: other}) is same


def test_an_absent_field_differs_from_an_empty_one() -> None:
    """RFC 9111 §4.1: absent only matches absent."""
    assert not selects_same((b"foo",), {}, {b"foo": b""})
    assert not selects_same((b"foo",), {b"foo": b""}, {})
    assert selects_same((b"foo",), {}, {b"bar": b"1"})
    assert selects_same((), {b"foo": b"1"}, {})
    assert variant_digest((b"foo",), {}) != variant_digest((b"foo",), {b"foo": b""})


NAMES = st.sampled_from([b"a", b"b", b"ab", b"accept-encoding", b"cookie"])
VALUES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", b"1", b"1:a+1:1", b"gzip, br", b"br, gzip", b"1:b+1:", b"1,2", b"1 , 2"]),
)
FIELDS = st.dictionaries(NAMES, VALUES)


@given(st.sets(NAMES).map(lambda names: tuple(sorted(names))), FIELDS, FIELDS)
def test_digests_agree_exactly_where_selecting_values_do(
    names: tuple[bytes, ...], one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    same = variant_digest(names, one) == variant_digest(names, other)
    assert same is selects_same(names, one, other)
    assert same is all(
        (name in one) == (name in other)
        and normalised(name, one.get(name, b"")) == normalised(name, other.get(name, b""))
        for name in names
    )


@given(st.sets(NAMES), st.sets(NAMES), FIELDS)
def test_digests_of_different_fields_differ(one: set[bytes], other: set[bytes], fields: dict[bytes, bytes]) -> None:
    digests = {variant_digest(tuple(sorted(names)), fields) for names in (one, other)}
    assert (len(digests) == 1) is (one == other)


def test_a_digest_has_128_bits_whatever_the_values_are() -> None:
    assert len(variant_digest((b"a",), {b"a": b"x" * 100_000})) == 32
