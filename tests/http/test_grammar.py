"""Parsing is total, and malformed values err on the side of less reuse."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import (
    RequestDirectives,
    ResponseDirectives,
    combine,
    http_date,
    request_directives,
    response_directives,
)
from aurelis.cache.http import _grammar as grammar
from aurelis.cache.http._grammar import MAX_DELTA_SECONDS
from tests.http.messages import DATE, NOW

HEADER_LIKE = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(
            [b"max-age", b"=", b",", b" ", b'"', b"\\", b"no-store", b"10", b"W/", b"*", b"Sun, 06 Nov 1994"]
        )
    ).map(b"".join),
)


@given(HEADER_LIKE, st.floats())
def test_any_bytes_give_a_result(value: bytes, reference: float) -> None:
    """No parser raises, whatever comes."""
    members, _ = grammar.split_list(value)
    assert all(members)
    grammar.unquote(value)
    grammar.delta_seconds(value)
    grammar.http_date(value, reference)
    grammar.http_date(value, None)
    grammar.entity_tag(value)
    grammar.entity_tags(value)
    grammar.is_token(value)
    response_directives(value)
    request_directives({b"cache-control": value})
    request_directives({b"pragma": value})
    assert 0 <= grammar.age_seconds(value) <= MAX_DELTA_SECONDS


@pytest.mark.parametrize(
    ("value", "members", "closed"),
    [
        pytest.param(b"", [], True, id="empty"),
        pytest.param(b" , ,\t", [], True, id="9110-5.6.1.2-empty-members"),
        pytest.param(b"a,b , c", [b"a", b"b", b"c"], True, id="9110-5.6.1-whitespace"),
        pytest.param(b'a="x,y", b', [b'a="x,y"', b"b"], True, id="9110-5.6.4-comma-in-quotes"),
        pytest.param(b'a="x\\",y", b', [b'a="x\\",y"', b"b"], True, id="9110-5.6.4-escaped-quote"),
        pytest.param(b'a="x,no-store', [b'a="x', b"no-store"], False, id="open-quote-hides-nothing"),
        pytest.param(b'a="1","2",b="x, c', [b'a="1"', b'"2"', b'b="x', b"c"], False, id="open-quote-at-the-end"),
        pytest.param(b'"', [b'"'], False, id="lone-quote"),
    ],
)
def test_lists_are_split_at_commas_outside_of_quotes(value: bytes, members: list[bytes], closed: bool) -> None:
    assert grammar.split_list(value) == (members, closed)


@pytest.mark.parametrize(
    "value",
    [
        b'"' + b'\\"' * 30_000,
        b'"",' * 20_000,
        b'""' * 30_000,
        b'"a' * 30_001,
        b"," * 60_000,
        b"max-age=1," * 6_000,
    ],
    ids=lambda value: repr(value[:6]),
)
def test_long_values_take_linear_time(value: bytes) -> None:
    """A field of the largest size that servers let through costs milliseconds, not minutes."""
    started = time.process_time()
    response_directives(value)
    grammar.entity_tags(value)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (b'"a"', b"a"),
        (b'"a\\"b\\\\"', b'a"b\\'),
        (b"a", b"a"),
        (b'"a', b'"a'),
        (b'"a"b"', b'"a"b"'),
        (b"", b""),
    ],
)
def test_quoted_strings_are_unquoted(value: bytes, content: bytes) -> None:
    """RFC 9110 §5.6.4."""
    assert grammar.unquote(value) == content


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(b"0", 0, id="zero"),
        pytest.param(b"60", 60, id="plain"),
        pytest.param(b"0060", 60, id="leading-zeros"),
        pytest.param(b"2147483647", 2**31 - 1, id="below-the-cap"),
        pytest.param(b"2147483649", 2**31, id="9111-1.2.2-overflow"),
        pytest.param(b"9" * 5000, 2**31, id="9111-1.2.2-thousands-of-digits"),
        pytest.param(b"0" * 5000, 0, id="thousands-of-zeros"),
        *((value, None) for value in (b"", b"-1", b"+1", b"1.0", b"1e3", b"60s", b" 60", "६०".encode(), b"1_0")),
    ],
)
def test_delta_seconds(value: bytes, seconds: int | None) -> None:
    assert grammar.delta_seconds(value) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), (b"", 0), (b"7", 7), (b" 7 ", 7), (b"7, 9", 7), (b"x, 9", 0), (b"-7", 0), (b"7.5", 0)],
)
def test_age_is_its_first_member_or_nothing(value: bytes | None, seconds: int) -> None:
    """RFC 9111 §5.1: of several the first counts, an invalid one is ignored."""
    assert grammar.age_seconds(value) == seconds


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        pytest.param(DATE, 784_111_777, id="9110-5.6.7-imf-fixdate"),
        pytest.param(b"Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777, id="9110-5.6.7-rfc850"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", 784_111_777, id="9110-5.6.7-asctime"),
        pytest.param(b"Sun Nov 16 08:49:37 1994", 784_975_777, id="9110-5.6.7-asctime-two-digits"),
        pytest.param(b" \t" + DATE + b" ", 784_111_777, id="whitespace-around"),
        pytest.param(b"SUN, 06 nov 1994 08:49:37 gmt", 784_111_777, id="other-case"),
        pytest.param(b"Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777, id="wrong-weekday"),
        pytest.param(b"Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_799, id="leap-second"),
        pytest.param(b"Thu, 01 Jan 1970 00:00:00 GMT", 0, id="epoch"),
        pytest.param(b"Wed, 31 Dec 1969 23:59:59 GMT", -1, id="before-the-epoch"),
        pytest.param(b"Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799, id="far-future"),
        *(
            pytest.param(value, None, id=value.decode())
            for value in (
                b"",
                b"0",
                b"-1",
                b"Sun, 06 Nov 1994 08:49:37",
                b"Sun, 06 Nov 1994 08:49:37 UTC",
                b"Sun, 06 Nov 1994 08:49:37 +0000",
                b"Sun, 06 Nov 94 08:49:37 GMT",
                b"Sun 06 Nov 1994 08:49:37 GMT",
                b"Sun, 06  Nov  1994 08:49:37 GMT",
                b"Sun, 06-Nov-1994 08:49:37 GMT",
                b"Sun, 06 Nov 1994 08.49.37 GMT",
                b"Sun, 06 Nov 1994 8:49:37 GMT",
                b"Sun, 6 Nov 1994 08:49:37 GMT",
                b"Sun, 06 Foo 1994 08:49:37 GMT",
                b"Sun, 31 Feb 1994 08:49:37 GMT",
                b"Sun, 00 Nov 1994 08:49:37 GMT",
                b"Sun, 06 Nov 0000 08:49:37 GMT",
                b"Sun, 06 Nov 1994 24:00:00 GMT",
                b"Sun, 06 Nov 1994 08:49:61 GMT",
                b"Sun, 06-Nov-94 08:49:37 GMT",
                b"Sun Nov 6 08:49:37 1994",
            )
        ),
        pytest.param(DATE + b", " + DATE, None, id="two-lines"),
        pytest.param(DATE + b"\n", None, id="line-break"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_dates(value: bytes | None, instant: int | None) -> None:
    """RFC 9110 §5.6.7: three forms, nothing in between."""
    assert http_date(value, NOW) == instant


@pytest.mark.parametrize(
    ("year", "reference", "expected"),
    [
        (b"94", NOW, 1994),
        (b"44", NOW, 2044),
        (b"45", NOW, 1945),
        (b"50", 1_764_000_000.0, 2050),  # read in 2025
        (b"76", 1_764_000_000.0, 1976),
        (b"20", float("nan"), 2020),
        (b"21", float("inf"), 1921),
        (b"94", 253_402_300_799.0, None),  # 10 000 years have five digits
    ],
)
def test_a_year_of_two_digits_is_at_most_50_years_ahead(year: bytes, reference: float, expected: int | None) -> None:
    """RFC 9110 §5.6.7."""
    value = b"Monday, 01-Jan-%b 00:00:00 GMT" % year
    same = None if expected is None else http_date(b"Mon, 01 Jan %d 00:00:00 GMT" % expected, reference)
    if expected is None:
        assert http_date(value, reference) in (None, http_date(b"Mon, 01 Jan 9994 00:00:00 GMT", 0))
    else:
        assert http_date(value, reference) == same
    assert http_date(value, None) is None


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        pytest.param(b'"a"', [b'"a"'], id="one"),
        pytest.param(b'"a", W/"b" ,"c"', [b'"a"', b'W/"b"', b'"c"'], id="9110-13.1.2-list"),
        pytest.param(b'"a,b", "c"', [b'"a,b"', b'"c"'], id="9110-8.8.3-comma-inside"),
        pytest.param(b'"a\\", "b"', [b'"a\\"', b'"b"'], id="9110-8.8.3-backslash-is-no-escape"),
        pytest.param(b'"\xfc"', [b'"\xfc"'], id="9110-8.8.3-obs-text"),
        pytest.param(b" * ", [b"*"], id="9110-13.1.2-any"),
        pytest.param(b'*, "a"', [b'"a"'], id="star-in-a-list-is-nothing"),
        pytest.param(b'a, w/"b", W"c", "d" x, "e', [], id="malformed"),
        pytest.param(b'x, "a"', [b'"a"'], id="malformed-among-others"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_entity_tag_lists(value: bytes, tags: list[bytes]) -> None:
    assert grammar.entity_tags(value) == tags


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (b' "a" ', b'"a"'),
        (b'W/"a"', b'W/"a"'),
        (b'""', b'""'),
        (b"a", None),
        (b'"a", "b"', None),
        (None, None),
    ],
)
def test_an_etag_field_has_one_tag(value: bytes | None, tag: bytes | None) -> None:
    """RFC 9110 §8.8.3."""
    assert grammar.entity_tag(value) == tag


def test_weak_comparison_ignores_weakness() -> None:
    """RFC 9110 §8.8.3.2, table 3."""
    assert grammar.weakly_equal(b'W/"1"', b'W/"1"')
    assert grammar.weakly_equal(b'W/"1"', b'"1"')
    assert not grammar.weakly_equal(b'W/"1"', b'W/"2"')


@pytest.mark.parametrize(
    ("value", "directives"),
    [
        pytest.param(None, ResponseDirectives(), id="absent"),
        pytest.param(b"", ResponseDirectives(), id="empty"),
        pytest.param(b"max-age=60", ResponseDirectives(max_age=60), id="5.2.2.1"),
        pytest.param(b"MaX-aGe=60", ResponseDirectives(max_age=60), id="5.2-case"),
        pytest.param(b'max-age="60"', ResponseDirectives(max_age=60), id="5.2-quoted"),
        pytest.param(b"foo, max-age=60, bar=1", ResponseDirectives(max_age=60), id="5.2.3-unknown"),
        pytest.param(b"s-maxage=1,max-age=2", ResponseDirectives(max_age=2, s_maxage=1), id="5.2.2.10"),
        pytest.param(b"max-age=99999999999", ResponseDirectives(max_age=2**31), id="1.2.2-overflow"),
        *(
            pytest.param(value, ResponseDirectives(max_age=0), id=f"4.2.1-invalid {value.decode()}")
            for value in (
                b"max-age",
                b"max-age=",
                b"max-age=-60",
                b"max-age=60.0",
                b"max-age=60s",
                b"max-age='60'",
                b"max-age= 60",
                b"max-age =60",
                b"max-age=60; no-transform",
                b'max-age="6"0',
                b"max-age=60, max-age=30",
                b"max-age=60, max-age=x",
                b"max-age=60, max-age",
            )
        ),
        pytest.param(b"max-age=60, max-age=60", ResponseDirectives(max_age=60), id="4.2.1-twice-the-same"),
        pytest.param(b'x="max-age=60", max-age=1', ResponseDirectives(max_age=1), id="5.2-inside-quotes"),
        pytest.param(
            b'x="a, max-age=60, no-store',
            ResponseDirectives(max_age=60, no_store=True, malformed=True),
            id="open-quote",
        ),
        pytest.param(b"no-store", ResponseDirectives(no_store=True), id="5.2.2.5"),
        pytest.param(b"No-StOrE", ResponseDirectives(no_store=True), id="5.2.2.5-case"),
        pytest.param(b"no-store=1", ResponseDirectives(no_store=True), id="5.2.2.5-argument"),
        pytest.param(b"no-cache", ResponseDirectives(no_cache=True), id="5.2.2.4"),
        pytest.param(
            b'no-cache="A, b", no-cache="c"',
            ResponseDirectives(no_cache_fields=frozenset({b"a", b"b", b"c"})),
            id="5.2.2.4-fields",
        ),
        pytest.param(b'no-cache="a", no-cache', ResponseDirectives(no_cache=True), id="5.2.2.4-fields-and-all"),
        pytest.param(b'no-cache=""', ResponseDirectives(no_cache=True), id="5.2.2.4-no-fields"),
        pytest.param(b'no-cache="a b"', ResponseDirectives(no_cache=True), id="5.2.2.4-no-names"),
        pytest.param(b"private", ResponseDirectives(private=True), id="5.2.2.7"),
        pytest.param(b'private="a"', ResponseDirectives(private_fields=frozenset({b"a"})), id="5.2.2.7-fields"),
        pytest.param(b"immutable", ResponseDirectives(immutable=True), id="8246-2"),
        pytest.param(b"stale-while-revalidate=9", ResponseDirectives(stale_while_revalidate=9), id="5861-3"),
        pytest.param(b"public", ResponseDirectives(public=True), id="5.2.2.9"),
        pytest.param(b"must-revalidate", ResponseDirectives(must_revalidate=True), id="5.2.2.2"),
        pytest.param(b"must-understand", ResponseDirectives(must_understand=True), id="5.2.2.3"),
        pytest.param(b"proxy-revalidate", ResponseDirectives(proxy_revalidate=True), id="5.2.2.8"),
        pytest.param(b"stale-if-error=9", ResponseDirectives(stale_if_error=9), id="5861-4"),
        pytest.param(b"stale-if-error=x", ResponseDirectives(stale_if_error=0), id="5861-4-invalid"),
    ],
)
def test_response_directives(value: bytes | None, directives: ResponseDirectives) -> None:
    """Numbers are sections of RFC 9111."""
    assert response_directives(value) == directives


@pytest.mark.parametrize(
    ("fields", "directives"),
    [
        pytest.param({}, RequestDirectives(), id="none"),
        pytest.param({b"cache-control": b"no-cache"}, RequestDirectives(no_cache=True), id="5.2.1.4"),
        pytest.param({b"cache-control": b"no-store"}, RequestDirectives(no_store=True), id="5.2.1.5"),
        pytest.param({b"cache-control": b"only-if-cached"}, RequestDirectives(only_if_cached=True), id="5.2.1.7"),
        pytest.param({b"cache-control": b"max-age=0"}, RequestDirectives(max_age=0), id="5.2.1.1"),
        pytest.param({b"cache-control": b"min-fresh=5"}, RequestDirectives(min_fresh=5), id="5.2.1.3"),
        pytest.param({b"cache-control": b"max-age=x, min-fresh"}, RequestDirectives(), id="malformed"),
        pytest.param(
            {b"cache-control": b"max-age=9, max-age=5, min-fresh=5, min-fresh=9"},
            RequestDirectives(max_age=5, min_fresh=9),
            id="twice",
        ),
        pytest.param({b"cache-control": b"no-transform, x=1"}, RequestDirectives(), id="not-heeded"),
        pytest.param({b"cache-control": b"max-stale=9"}, RequestDirectives(max_stale=9), id="5.2.1.2"),
        pytest.param({b"cache-control": b"max-stale"}, RequestDirectives(max_stale=float("inf")), id="5.2.1.2-any"),
        pytest.param({b"cache-control": b"max-stale=x"}, RequestDirectives(), id="5.2.1.2-malformed"),
        pytest.param({b"cache-control": b"max-stale, max-stale=3"}, RequestDirectives(max_stale=3), id="5.2.1.2-twice"),
        pytest.param({b"cache-control": b"stale-if-error=9"}, RequestDirectives(stale_if_error=9), id="5861-4-request"),
        pytest.param({b"pragma": b"x, No-Cache"}, RequestDirectives(no_cache=True), id="5.4-pragma"),
        pytest.param({b"pragma": b"foo"}, RequestDirectives(), id="5.4-pragma-unknown"),
        pytest.param(
            {b"pragma": b"no-cache", b"cache-control": b"nothing-to-see-here"},
            RequestDirectives(),
            id="5.4-pragma-beside-cache-control",
        ),
    ],
)
def test_request_directives(fields: dict[bytes, bytes], directives: RequestDirectives) -> None:
    """Numbers are sections of RFC 9111."""
    assert request_directives(fields) == directives


def test_lines_of_one_field_are_joined() -> None:
    """RFC 9110 §5.2 with commas; Cookie by RFC 9113 §8.2.3 with semicolons."""
    fields = [(b"vary", b"a"), (b"cookie", b"a=1"), (b"vary", b"b"), (b"cookie", b"b=2"), (b"age", b"1")]
    assert combine(iter(fields)) == {b"vary": b"a, b", b"cookie": b"a=1; b=2", b"age": b"1"}
    assert combine(((b"a", b"1"), (b"b", b"2"))) == {b"a": b"1", b"b": b"2"}
