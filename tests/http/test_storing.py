"""What may be stored (RFC 9111 §3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.http import (
    HttpRequest,
    ResponseHead,
    RuleEffect,
    Storable,
    Unstorable,
    is_complete,
    may_store,
    storable_fields,
)
from tests.http.messages import DATE, NOW, URL, get, head, lines

RULE = RuleEffect(ttl=60.0)
ALLOWING_RULE = RuleEffect(ttl=60.0, credentials_allowed=True)
OLD = "Fri, 01 Jan 1988 00:00:00 GMT"
FRESH = "max-age=60"


def reason(
    response: ResponseHead,
    request: HttpRequest | None = None,
    *,
    shared: bool = True,
    honour: bool = True,
    targets: tuple[bytes, ...] = (),
) -> str:
    """Why the response must not be stored; empty where it may."""
    verdict = may_store(
        request or get(),
        response,
        shared=shared,
        response_time=NOW,
        honour_request_directives=honour,
        targets=targets,
    )
    return verdict.reason if isinstance(verdict, Unstorable) else ""


@pytest.mark.parametrize(
    ("response", "shared", "private"),
    [
        pytest.param(head(cache_control=FRESH), "", "", id="3-explicit"),
        pytest.param(head(cache_control="s-maxage=60"), "", "not-fresh", id="5.2.2.10-s-maxage"),
        pytest.param(head(), "not-fresh", "not-fresh", id="3-nothing-said"),
        pytest.param(head(last_modified=OLD), "", "", id="4.2.2-heuristic"),
        pytest.param(head(cache_control="max-age=0"), "not-fresh", "not-fresh", id="needs-validation"),
        pytest.param(head(cache_control="max-age=60, no-store"), "no-store", "no-store", id="5.2.2.5-no-store"),
        pytest.param(head(cache_control="max-age=60, no-cache"), "no-cache", "no-cache", id="5.2.2.4-no-cache"),
        pytest.param(head(cache_control="no-cache", etag='"a"'), "", "", id="5.2.2.4-no-cache-with-validator"),
        pytest.param(head(cache_control="max-age=0", etag='"a"'), "", "", id="4.3-stale-with-validator"),
        pytest.param(head(cache_control="max-age=0", last_modified=OLD), "", "", id="4.3-stale-with-date"),
        pytest.param(head(cache_control="max-age=0", etag="a"), "not-fresh", "not-fresh", id="4.3-no-validator"),
        pytest.param(head(etag='"a"'), "not-fresh", "not-fresh", id="nothing-said-with-validator"),
        pytest.param(head(cache_control='max-age=60, no-cache="a"'), "", "", id="5.2.2.4-fields"),
        pytest.param(head(cache_control="max-age=60, private"), "private", "", id="5.2.2.7-private"),
        pytest.param(head(cache_control='max-age=60, private="a"'), "", "", id="5.2.2.7-fields"),
        pytest.param(head(100, cache_control=FRESH), "status", "status", id="3-not-final"),
        pytest.param(head(206, cache_control=FRESH), "status", "status", id="3.3-partial"),
        pytest.param(head(304, cache_control=FRESH), "status", "status", id="4.3-validation"),
        pytest.param(head(600, cache_control=FRESH), "status", "status", id="9110-15-no-status"),
        pytest.param(head(599, cache_control=FRESH), "", "", id="3-unknown-status-explicit"),
        pytest.param(head(599, last_modified=OLD), "not-fresh", "not-fresh", id="3-unknown-status-heuristic"),
        pytest.param(head(503, cache_control=FRESH), "", "", id="3-error-explicit"),
        pytest.param(head(cache_control="max-age=60, no-store, must-understand"), "", "", id="5.2.2.3-must-understand"),
        pytest.param(
            head(599, cache_control="max-age=60, no-store, must-understand"),
            "status",
            "status",
            id="5.2.2.3-not-understood",
        ),
        pytest.param(head(cache_control=FRESH, vary="*"), "vary", "vary", id="4.1-vary-star"),
        pytest.param(head(cache_control=FRESH, vary="accept, *"), "vary", "vary", id="4.1-vary-star-in-list"),
        pytest.param(head(cache_control=FRESH, vary="a b"), "vary", "vary", id="4.1-vary-malformed"),
        pytest.param(head(cache_control=FRESH, set_cookie="a=b"), "", "", id="7.3-set-cookie"),
        pytest.param(head(cache_control="no-cache", etag='"a"', set_cookie="a=b"), "set-cookie", "", id="validated"),
        pytest.param(head(last_modified=OLD, set_cookie="a=b"), "set-cookie", "set-cookie", id="set-cookie-heuristic"),
        pytest.param(head(cache_control=FRESH, x="a\r\nb: c"), *["invalid-field"] * 2, id="9110-5.5-line-break"),
        pytest.param(head(cache_control=FRESH, x="a\0"), *["invalid-field"] * 2, id="9110-5.5-nul"),
    ],
)
def test_what_a_response_allows(response: ResponseHead, shared: str, private: str) -> None:
    assert reason(response) == shared
    assert reason(response, shared=False) == private


def test_a_field_name_cannot_smuggle_a_line() -> None:
    """RFC 9110 §5.1."""
    for name in (b"a\r\nb", b"a\nb", b"a:b"):
        response = ResponseHead(200, ((b"cache-control", b"max-age=60"), (name, b"")))
        assert reason(response) == "invalid-field"


def test_names_count_in_any_case() -> None:
    response = ResponseHead(200, ((b"Cache-Control", b"no-store"),))
    assert reason(response) == "no-store"


@pytest.mark.parametrize(
    ("shared", "fields"),
    [
        (True, {"cache_control": FRESH}),
        (False, {"cache_control": FRESH}),
        (False, {"cache_control": "no-cache", "etag": '"a"'}),
    ],
)
def test_a_response_that_says_how_long_it_is_fresh_is_stored_without_its_cookies(
    shared: bool, fields: dict[str, str]
) -> None:
    """RFC 9111 §7.3."""
    response = head(set_cookie="a=b", **fields)
    answer = may_store(get(), response, shared=shared, response_time=NOW)
    assert isinstance(answer, Storable)
    assert answer.left_out == {b"set-cookie"}
    assert b"set-cookie" not in dict(storable_fields(response, answer.left_out))


@pytest.mark.parametrize(
    ("said", "shared", "private"),
    [
        ({"cache_control": FRESH}, "cookie", ""),
        ({"expires": "Sun, 06 Nov 1994 09:49:37 GMT"}, "cookie", ""),
        ({"cache_control": "max-age=60, must-revalidate"}, "cookie", ""),
        ({"cache_control": "max-age=60, public"}, "", ""),
        ({"cache_control": "s-maxage=60"}, "", "not-fresh"),
        ({"cache_control": FRESH, "cdn_cache_control": "max-age=60"}, "", ""),
        ({"cache_control": 'max-age=60, private="set-cookie"'}, "", ""),
        ({"cache_control": 'max-age=60, no-cache="Set-Cookie"'}, "", ""),
    ],
)
def test_a_page_that_changes_the_cookies_of_its_client_is_for_all_only_if_it_says_so(
    said: dict[str, str], shared: str, private: str
) -> None:
    response = head(set_cookie="session=2", **said)
    request = get({"cookie": "session=1"})
    assert reason(response, request, targets=(b"cdn-cache-control",)) == shared
    assert reason(response, request, shared=False) == private
    assert reason(response, get(), targets=(b"cdn-cache-control",)) == ""
    allowing = get({"cookie": "session=1"}, rule=RuleEffect(60, credentials_allowed=True))
    assert reason(response, allowing, targets=(b"cdn-cache-control",)) == ""


def test_directives_of_several_lines_count_together() -> None:
    """RFC 9110 §5.2."""
    response = ResponseHead(200, ((b"cache-control", b"max-age=60"), (b"cache-control", b"no-store")))
    assert reason(response) == "no-store"


@pytest.mark.parametrize(
    ("request_", "refused"),
    [
        pytest.param(HttpRequest("HEAD", URL, {}), "method", id="head"),
        pytest.param(HttpRequest("POST", URL, {}), "method", id="post"),
        pytest.param(get(range="bytes=0-1"), "range", id="3.3-range"),
        pytest.param(get(cache_control="no-store"), "request-no-store", id="5.2.1.5-no-store"),
        pytest.param(get(cache_control="no-cache"), "", id="5.2.1.4-no-cache"),
    ],
)
def test_what_a_request_allows(request_: HttpRequest, refused: str) -> None:
    assert reason(head(cache_control=FRESH), request_) == refused
    assert reason(head(cache_control=FRESH), request_, shared=False) == refused


def test_no_store_of_a_request_can_be_switched_off() -> None:
    assert reason(head(cache_control=FRESH), get(cache_control="no-store"), honour=False) == ""


NONE, RULED, ALLOWED = None, RULE, ALLOWING_RULE


@pytest.mark.parametrize(
    ("rule", "fields", "cache_control", "refused"),
    [
        # Authorization with explicit freshness: RFC 9111 §3.5.
        (NONE, {"authorization": "x"}, "max-age=60", "authorization"),
        (NONE, {"authorization": "x"}, "max-age=60, public", ""),
        (NONE, {"authorization": "x"}, "max-age=60, must-revalidate", ""),
        (NONE, {"authorization": "x"}, "s-maxage=60", ""),
        (RULED, {"authorization": "x"}, "max-age=60", "authorization"),
        (RULED, {"authorization": "x"}, "max-age=60, public", ""),
        (ALLOWED, {"authorization": "x"}, "max-age=60", ""),
        # Cookie with explicit freshness: the RFC has no rule.
        (NONE, {"cookie": "x=y"}, "max-age=60", ""),
        (RULED, {"cookie": "x=y"}, "max-age=60", ""),
        # Nothing said by the response: never shared by accident, whatever other directives there are.
        (RULED, {}, "", ""),
        (RULED, {"authorization": "x"}, "", "authorization"),
        (RULED, {"authorization": "x"}, "public, must-revalidate", "authorization"),
        (RULED, {"cookie": "x=y"}, "", "cookie"),
        (RULED, {"cookie": "x=y"}, "public", "cookie"),
        (NONE, {"cookie": "x=y"}, "", "cookie"),
        (NONE, {"authorization": "x"}, "public", "authorization"),
        (ALLOWED, {"authorization": "x", "cookie": "x=y"}, "", ""),
        # A rule never overrides the response.
        (ALLOWED, {}, "no-store", "no-store"),
        (ALLOWED, {}, "private", "private"),
        # To be validated before each use, and all the same not for others with credentials.
        (ALLOWED, {}, "no-cache", ""),
        (NONE, {}, "max-age=0", ""),
        (NONE, {"cookie": "x=y"}, "no-cache", "cookie"),
        (NONE, {"cookie": "x=y"}, "max-age=0", "cookie"),
        (NONE, {"cookie": "x=y"}, "no-cache, max-age=60", "cookie"),
        (NONE, {"authorization": "x"}, "no-cache, must-revalidate", "authorization"),
    ],
)
def test_credentials_in_a_shared_cache(
    rule: RuleEffect | None, fields: dict[str, str], cache_control: str, refused: str
) -> None:
    response = head(last_modified=OLD, **({"cache_control": cache_control} if cache_control else {}))
    assert reason(response, get(fields, rule=rule)) == refused


def test_a_private_cache_stores_responses_to_credentials() -> None:
    """RFC 9111 §3.5 speaks of shared caches; the partition keeps users apart."""
    for fields in ({"authorization": "x"}, {"cookie": "x=y"}):
        assert reason(head(cache_control=FRESH), get(fields), shared=False) == ""
        assert reason(head(last_modified=OLD), get(fields), shared=False) == ""


@pytest.mark.parametrize("rule", [RULE, ALLOWING_RULE])
def test_a_rule_never_stores_set_cookie(rule: RuleEffect) -> None:
    for shared in (True, False):
        assert reason(head(set_cookie="a=b"), get(rule=rule), shared=shared) == "set-cookie"


def verdict(cache_control: str, *, shared: bool = True) -> Storable:
    answer = may_store(get(), head(cache_control=cache_control), shared=shared, response_time=NOW)
    assert isinstance(answer, Storable)
    return answer


@pytest.mark.parametrize(
    ("cache_control", "shared", "private"),
    [
        pytest.param("max-age=60, stale-if-error=30", 30, 30, id="5861-4"),
        pytest.param("max-age=60", 0, 0, id="not-given"),
        pytest.param("max-age=60, stale-if-error=x", 0, 0, id="invalid"),
        pytest.param("max-age=60, stale-if-error=30, must-revalidate", 0, 0, id="5.2.2.2-must-revalidate"),
        pytest.param("max-age=60, stale-if-error=30, proxy-revalidate", 0, 30, id="5.2.2.8-proxy-revalidate"),
        pytest.param("max-age=60, s-maxage=60, stale-if-error=30", 0, 30, id="5.2.2.10-s-maxage"),
    ],
)
def test_how_long_a_stale_response_may_stand_in(cache_control: str, shared: float, private: float) -> None:
    """RFC 5861 §4 within RFC 9111 §4.2.4."""
    assert verdict(cache_control).stale_if_error == shared
    assert verdict(cache_control, shared=False).stale_if_error == private


def test_a_verdict_says_who_may_be_answered() -> None:
    assert not verdict("max-age=60").allows_authorization
    assert verdict("max-age=60, public").allows_authorization


@pytest.mark.parametrize(
    ("fields", "complete"),
    [
        pytest.param([], True, id="no-length"),
        pytest.param([(b"content-length", b"4")], True, id="right"),
        pytest.param([(b"Content-Length", b" 04 ")], True, id="right-with-zero"),
        pytest.param([(b"content-length", b"5")], False, id="3.3-too-short"),
        pytest.param([(b"content-length", b"3")], False, id="too-long"),
        pytest.param([(b"content-length", b"4, 4")], True, id="9110-8.6-repeated"),
        pytest.param([(b"content-length", b"4"), (b"content-length", b"5")], False, id="9110-8.6-contradictory"),
        pytest.param([(b"content-length", b"x")], False, id="malformed"),
        pytest.param([(b"content-length", b"-4")], False, id="negative"),
        pytest.param([(b"content-length", b"")], False, id="empty"),
        pytest.param([(b"content-length", b"4" * 5000)], False, id="huge"),
        pytest.param([(b"content-length", b"9"), (b"transfer-encoding", b"chunked")], True, id="9112-6.3-chunked"),
    ],
)
def test_a_body_must_have_the_length_announced(fields: list[tuple[bytes, bytes]], complete: bool) -> None:
    assert is_complete(ResponseHead(200, tuple(fields)), (b"bo", b"dy")) is complete


def test_only_end_to_end_fields_are_stored() -> None:
    """RFC 9111 §3.1: neither hop-by-hop fields nor those that Connection names."""
    response = ResponseHead(
        200,
        (
            (b"Content-Type", b"text/plain"),
            (b"Connection", b"close, X-Hop"),
            (b"Keep-Alive", b"5"),
            (b"X-Hop", b"1"),
            (b"Connection", b"x-Other ,"),
            (b"X-OTHER", b"2"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Age", b"3"),
            (b"Date", DATE),
            (b"X-Kept", b"a"),
            (b"x-kept", b"b"),
        ),
    )
    assert storable_fields(response) == (
        (b"content-type", b"text/plain"),
        (b"date", DATE),
        (b"x-kept", b"a"),
        (b"x-kept", b"b"),
    )


NAMES = st.sampled_from(
    [
        b"cache-control",
        b"vary",
        b"set-cookie",
        b"expires",
        b"date",
        b"age",
        b"last-modified",
        b"content-length",
    ]
)
ANY_HEAD = st.builds(
    ResponseHead,
    st.integers(-1, 1000),
    st.lists(st.tuples(NAMES | st.binary(max_size=4), st.binary(max_size=12))).map(tuple),
)


@given(
    ANY_HEAD,
    st.dictionaries(NAMES | st.sampled_from([b"range", b"cookie"]), st.binary(max_size=8)),
    st.booleans(),
)
def test_any_message_gets_a_decision(response: ResponseHead, fields: dict[bytes, bytes], shared: bool) -> None:
    """Bytes of all kinds give a verdict, never an exception; none that may be stored lacks a lifetime."""
    answer = may_store(HttpRequest("GET", URL, fields), response, shared=shared, response_time=NOW)
    match answer:
        case Storable(freshness):
            assert freshness.lifetime > 0
        case Unstorable(text):
            assert text
    is_complete(response, (b"",))
    storable_fields(response)


def test_the_message_builders_write_names_with_hyphens() -> None:
    assert lines(cache_control="a") == ((b"cache-control", b"a"),)
