"""Vary (RFC 9111 §4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import VariantIndex, selects_same, variant_digest, vary_names
from aurelis.cache.http._messages import MAX_LANGUAGES, MAX_VARIANTS
from aurelis.cache.http._variants import chosen_language, normalised
from tests.http.messages import Shelf, get, head, policy


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


CHOICES = ((b"de,en", b"de"), (b"fr", b"fr"))


@pytest.mark.parametrize(
    ("value", "language"),
    [
        pytest.param(b"en, de", b"de", id="chosen-before"),
        pytest.param(b"fr;q=0.5, de;q=1.0", b"de", id="preferred"),
        pytest.param(b"DE, en;q=0.9", b"de", id="preferred-case"),
        pytest.param(b"it, de;q=0.9", None, id="prefers-another"),
        pytest.param(b"de, fr", None, id="prefers-none"),
        pytest.param(b"de;q=0", None, id="excluded"),
        pytest.param(b"de-AT", None, id="narrower"),
        pytest.param(b"*", None, id="any"),
        pytest.param(b"de;q=x", None, id="malformed"),
        pytest.param(b"=de", None, id="forged"),
        pytest.param(b"", None, id="empty"),
        pytest.param(None, None, id="absent"),
        pytest.param(b"de," * 400, None, id="long"),
    ],
)
def test_which_language_would_be_chosen(value: bytes | None, language: bytes | None) -> None:
    """RFC 9110 §12.5.4."""
    assert chosen_language(value, CHOICES) == language
    assert chosen_language(value, ()) is None


@given(st.one_of(st.binary(max_size=30), st.text("defr-,;q=01. *", max_size=30).map(str.encode)))
def test_any_bytes_choose_something_that_is_there_or_nothing(value: bytes) -> None:
    assert chosen_language(value, CHOICES) in (None, b"de", b"fr")


def test_responses_in_one_language_are_one_variant() -> None:
    shelf = Shelf(policy())
    for accepted, language, body in (("en, de", "de", b"1"), ("fr", "fr", b"2")):
        response = head(cache_control="max-age=60", vary="accept-language, x", content_language=language)
        assert shelf.ask(get(accept_language=accepted), response, body) == body
        assert index_of(shelf).vary == (b"accept-language", b"x")
    plain = head(cache_control="max-age=60", vary="accept-language, x")
    for accepted, body in (("de, en", b"1"), ("fr, de;q=0.5", b"2"), ("de, fr;q=0.5", b"1"), ("it, de;q=0.5", b"3")):
        assert shelf.ask(get(accept_language=accepted), plain, body if body == b"3" else b"x") == body
    assert shelf.ask(get(accept_language="de", x="1"), plain, b"4") == b"4"  # the other field counts as ever
    assert shelf.ask(get(accept_language="=de"), plain, b"5") == b"5"


def index_of(shelf: Shelf) -> VariantIndex:
    """What is stored under the key of the URI."""
    value = shelf.entries[shelf.policy.key(get())].value
    assert isinstance(value, VariantIndex)
    return value


def test_an_index_remembers_a_bounded_number_of_choices() -> None:
    index = VariantIndex((b"accept-language",))
    for number in range(MAX_LANGUAGES + 10):
        index, _ = VariantIndex(index.vary, ((b"%d" % number, b"de"),)).after(index)
    assert len(index.languages) == MAX_LANGUAGES
    assert index.languages[0] == (b"%d" % (MAX_LANGUAGES + 9), b"de")
    assert VariantIndex((b"x",)).after(index) == (VariantIndex((b"x",)), ())
    after, _ = VariantIndex(index.vary, ((b"70", b"fr"),)).after(index)
    assert after.languages[:2] == ((b"70", b"fr"), (b"73", b"de"))


def test_of_many_variants_the_last_are_kept() -> None:
    """Also where the origin names now these fields and now those."""
    shelf = Shelf(policy())
    for number in range(4 * MAX_VARIANTS):
        response = head(cache_control="max-age=60", vary=("x", "x, y")[number // 2 % 2])
        shelf.ask(get(x=str(number)), response, b"%d" % number)
    assert len(shelf.entries) == MAX_VARIANTS + 1
    assert len(index_of(shelf).variants) == MAX_VARIANTS
    last = 4 * MAX_VARIANTS - 1
    assert shelf.ask(get(x=str(last)), head(), b"x") == b"%d" % last
    assert shelf.ask(get(x="0"), head(), b"x") == b"x"


def test_a_variant_that_is_stored_again_displaces_no_other() -> None:
    known, displaced = VariantIndex((b"x",), (), ("new",)).after(VariantIndex((b"x",), (), ("old", "new")))
    assert (known.variants, displaced) == (("new", "old"), ())
