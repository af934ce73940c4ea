"""When a stored response answers (RFC 9111 §4), and when with 304 (§4.3.2)."""

from dataclasses import replace

import pytest

from aurelis.cache.http import (
    HttpRequest,
    RuleEffect,
    StoredResponse,
    VariantIndex,
    is_not_modified,
    not_modified_fields,
)
from aurelis.cache.typing import Bypass, Follow, Load, Lookup, Refuse, Reraise, Serve
from tests.http.messages import DATE, URL, entry, get, lines, policy

LATER = b"Sun, 06 Nov 1994 09:49:37 GMT"
EARLIER = b"Sun, 06 Nov 1994 07:49:37 GMT"
RULE = RuleEffect(ttl=60.0)
ALLOWING_RULE = RuleEffect(ttl=60.0, credentials_allowed=True)

FRESH = entry(StoredResponse(200, (), (b"body",), initial_age=10.0, lifetime=60.0), fresh_until=100.0)
"""At 70, its age is 30 and 30 seconds are left."""
NOW = 70.0
LATE = 100.0


def expected(answer: Lookup | str) -> Lookup:
    return Serve(FRESH) if isinstance(answer, str) else answer


@pytest.mark.parametrize(
    ("fields", "hit", "miss", "stale"),
    [
        pytest.param({}, "hit", Load("uri-miss"), Load("stale"), id="4-plain"),
        pytest.param(
            {"cache_control": "nothing-to-see-here", "pragma": "foo"},
            "hit",
            Load("uri-miss"),
            Load("stale"),
            id="5.2.3-unknown",
        ),
        pytest.param(
            {"cache_control": "no-cache"},
            Load("request"),
            Load("uri-miss"),
            Load("stale"),
            id="5.2.1.4-no-cache",
        ),
        pytest.param({"pragma": "no-cache"}, Load("request"), Load("uri-miss"), Load("stale"), id="5.4-pragma"),
        pytest.param(
            {"pragma": "no-cache", "cache_control": "x"},
            "hit",
            Load("uri-miss"),
            Load("stale"),
            id="5.4-pragma-beside-cache-control",
        ),
        pytest.param(
            {"cache_control": "max-age=29"},
            Load("request"),
            Load("uri-miss"),
            Load("stale"),
            id="5.2.1.1-older",
        ),
        pytest.param({"cache_control": "max-age=30"}, "hit", Load("uri-miss"), Load("stale"), id="5.2.1.1-max-age"),
        pytest.param(
            {"cache_control": "min-fresh=31"},
            Load("request"),
            Load("uri-miss"),
            Load("stale"),
            id="5.2.1.3-staler",
        ),
        pytest.param({"cache_control": "min-fresh=30"}, "hit", Load("uri-miss"), Load("stale"), id="5.2.1.3"),
        pytest.param({"cache_control": "max-stale"}, "hit", Load("uri-miss"), Load("stale"), id="5.2.1.2-unused"),
        pytest.param({"cache_control": "no-store"}, *[Bypass("request", "no-store")] * 3, id="5.2.1.5-no-store"),
        pytest.param({"cache_control": "only-if-cached"}, "hit", Refuse(), Refuse(), id="5.2.1.7-only-if-cached"),
        pytest.param({"cache_control": "only-if-cached, no-cache"}, *[Refuse()] * 3, id="5.2.1.7-with-no-cache"),
        pytest.param(
            {"cache_control": "only-if-cached", "range": "bytes=0-"}, "hit", Refuse(), Refuse(), id="5.2.1.7-range"
        ),
        pytest.param(
            {"range": "bytes=0-1"},
            "hit",
            Bypass("uri-miss", "range"),
            Bypass("stale", "range"),
            id="9110-14.2-range",
        ),
        pytest.param({"if_match": '"a"'}, *[Bypass("bypass", "conditional")] * 3, id="4.3.2-if-match"),
        pytest.param(
            {"if_unmodified_since": "x"},
            *[Bypass("bypass", "conditional")] * 3,
            id="4.3.2-if-unmodified-since",
        ),
        pytest.param(
            {"if_none_match": '"a"'},
            "hit",
            Bypass("uri-miss", "conditional"),
            Bypass("stale", "conditional"),
            id="4.3.2-if-none-match",
        ),
        pytest.param(
            {"if_modified_since": "x"},
            "hit",
            Bypass("uri-miss", "conditional"),
            Bypass("stale", "conditional"),
            id="4.3.2-if-modified-since",
        ),
        pytest.param(
            {"if_none_match": '"a"', "cache_control": "max-age=0"},
            Bypass("request", "conditional"),
            Bypass("uri-miss", "conditional"),
            Bypass("stale", "conditional"),
            id="4.3.2-revalidating-client",
        ),
    ],
)
@pytest.mark.parametrize("shared", [True, False])
def test_requests_by_their_fields(
    shared: bool, fields: dict[str, str], hit: Lookup | str, miss: Lookup, stale: Lookup
) -> None:
    """Numbers are sections of RFC 9111."""
    ask = policy(shared=shared).on_lookup
    assert ask(get(fields), FRESH, NOW) == expected(hit)
    assert ask(get(fields), None, NOW) == miss
    assert ask(get(fields), FRESH, LATE) == stale


def test_request_directives_can_be_switched_off() -> None:
    """No client can make the cache ask the origin; conditions and ranges are no directives."""
    ask = policy(honour_request_directives=False).on_lookup
    for value in ("no-cache", "no-store", "max-age=0", "min-fresh=99"):
        assert ask(get(cache_control=value), FRESH, NOW) == Serve(FRESH)
        assert ask(get(cache_control=value), None, NOW) == Load("uri-miss")
    assert ask(get(pragma="no-cache"), FRESH, NOW) == Serve(FRESH)
    assert ask(get(cache_control="only-if-cached"), None, NOW) == Load("uri-miss")
    assert ask(get(range="bytes=0-"), None, NOW) == Bypass("uri-miss", "range")


def test_what_was_stale_when_it_was_stored_is_never_fresh() -> None:
    """Not for a request, either, that has looked at the clock just before it was stored."""
    response = StoredResponse(200, (), (b"body",), initial_age=11.0, lifetime=11.0, overdue=1.0)
    ask, late = policy().on_lookup, entry(response, fresh_until=NOW + 0.001)
    assert ask(get(), late, NOW) == Load("stale")
    assert ask(get(cache_control="only-if-cached"), late, NOW) == Refuse()
    behind = entry(replace(response, stale_while_revalidate=60.0), fresh_until=NOW + 0.001)
    assert ask(get(), behind, NOW) == Serve(behind, "revalidate")


def test_head_is_answered_from_a_stored_get() -> None:
    """RFC 9110 §9.3.2. What the origin answers to HEAD is not stored, so nobody waits for it."""
    ask = policy().on_lookup
    assert ask(HttpRequest("HEAD", URL, {}), FRESH, NOW) == Serve(FRESH)
    assert ask(HttpRequest("HEAD", URL, {b"range": b"bytes=0-1"}), FRESH, NOW) == Serve(FRESH)
    assert ask(HttpRequest("HEAD", URL, {}), None, NOW) == Bypass("uri-miss", "head")
    assert ask(HttpRequest("HEAD", URL, {}), FRESH, LATE) == Bypass("stale", "head")
    refusing = {b"cache-control": b"only-if-cached"}
    assert ask(HttpRequest("HEAD", URL, refusing), None, NOW) == Refuse()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "QUERY"])
def test_other_methods_pass_by(method: str) -> None:
    """RFC 9110 §9.1: a method is case-sensitive."""
    for fields in ({}, {b"cache-control": b"only-if-cached"}):
        assert policy().on_lookup(HttpRequest(method, URL, fields), FRESH, NOW) == Bypass("method")


@pytest.mark.parametrize("value", [None, "foreign", 17, ("x",)])
def test_an_entry_of_another_kind_is_none(value: object) -> None:
    assert policy().on_lookup(get(), entry(value), NOW) == Load("uri-miss")
    assert policy().on_lookup(get(cookie="a=b"), entry(value), NOW) == Load("uri-miss")
    assert policy().on_error(get(), entry(value), OSError(), NOW) == Reraise()


def test_an_index_is_followed_by_every_request_that_may_be_answered() -> None:
    """RFC 9111 §4.1."""
    index = entry(VariantIndex((b"accept",)))
    rules = policy()
    plain, directed = rules.on_lookup(get(), index, NOW), rules.on_lookup(get(cache_control="x"), index, NOW)
    assert isinstance(plain, Follow)
    assert plain == directed
    assert rules.on_lookup(get(range="bytes=0-"), index, NOW) == plain


def stored(source: str, *, allows_authorization: bool = False) -> StoredResponse:
    return StoredResponse(
        200,
        (),
        (b"",),
        lifetime=60.0,
        source=source,
        allows_authorization=allows_authorization,
        stale_if_error=50.0,
    )


COOKIE, AUTHORIZATION = {"cookie": "a=b"}, {"authorization": "x"}


@pytest.mark.parametrize("rule", [None, RULE])
@pytest.mark.parametrize(
    ("response", "fields", "refused"),
    [
        (stored("explicit"), COOKIE, ""),
        (stored("explicit"), AUTHORIZATION, "authorization"),
        (stored("explicit", allows_authorization=True), AUTHORIZATION, ""),
        (stored("rule"), COOKIE, "cookie"),
        (stored("rule"), AUTHORIZATION, "authorization"),
        (stored("heuristic"), COOKIE, "cookie"),
        (stored("heuristic"), AUTHORIZATION, "authorization"),
        (stored("heuristic"), {}, ""),
    ],
)
def test_credentials_and_a_stored_response(
    rule: RuleEffect | None, response: StoredResponse, fields: dict[str, str], refused: str
) -> None:
    """Only a shared cache cares: nothing is given away without a word of the origin or of the rule."""
    found = entry(response)
    shared, request = policy(), get(fields, rule=rule)
    expect = Bypass("bypass", refused) if refused else Serve(found)
    assert shared.on_lookup(request, found, NOW) == expect
    assert shared.on_lookup(request, found, LATE) == (expect if refused else Load("stale"))
    assert shared.on_error(request, found, OSError(), LATE) == (Reraise() if refused else Serve(found))
    only = get(fields, rule=rule, cache_control="only-if-cached")
    assert shared.on_lookup(only, found, NOW) == (Refuse() if refused else Serve(found))
    assert shared.on_lookup(get(fields, rule=ALLOWING_RULE), found, NOW) == Serve(found)
    assert policy(shared=False).on_lookup(request, found, NOW) == Serve(found)


@pytest.mark.parametrize(
    ("rule", "fields", "answer"),
    [
        (None, COOKIE, Load("uri-miss")),
        (None, AUTHORIZATION, Load("uri-miss")),
        (RULE, {}, Load("uri-miss")),
        (RULE, COOKIE, Bypass("bypass", "cookie")),
        (RULE, AUTHORIZATION, Bypass("bypass", "authorization")),
        (RULE, COOKIE | AUTHORIZATION, Bypass("bypass", "authorization")),
        (ALLOWING_RULE, COOKIE | AUTHORIZATION, Load("uri-miss")),
    ],
)
def test_credentials_under_a_rule_and_nothing_stored(
    rule: RuleEffect | None, fields: dict[str, str], answer: Lookup
) -> None:
    """Without a rule the response may still say that it is for everybody."""
    assert policy().on_lookup(get(fields, rule=rule), None, NOW) == answer
    assert policy(shared=False).on_lookup(get(fields, rule=rule), None, NOW) == Load("uri-miss")


@pytest.mark.parametrize(
    ("now", "fields", "served"),
    [
        pytest.param(100.0, {}, True, id="5861-4-within"),
        pytest.param(149.9, {}, True, id="5861-4-at-the-end"),
        pytest.param(150.0, {}, False, id="5861-4-beyond"),
        pytest.param(100.0, {"cache_control": "no-cache"}, False, id="5.2.1.4-no-cache"),
        pytest.param(100.0, {"cache_control": "max-age=999"}, False, id="5.2.1.1-max-age"),
        pytest.param(100.0, {"cache_control": "min-fresh=0"}, False, id="5.2.1.3-min-fresh"),
    ],
)
def test_a_stale_response_stands_in_for_a_failed_origin(now: float, fields: dict[str, str], served: bool) -> None:
    found = entry(stored("explicit"))
    assert policy().on_error(get(fields), found, OSError(), now) == (Serve(found) if served else Reraise())


def test_not_every_failure_is_the_origins() -> None:
    found = entry(stored("explicit"))
    assert policy().on_error(get(), found, KeyboardInterrupt(), LATE) == Reraise()
    assert policy().on_error(get(), None, OSError(), LATE) == Reraise()
    assert policy().on_error(get(), FRESH, OSError(), LATE) == Reraise()


@pytest.mark.parametrize(
    ("etag", "none_match", "not_modified"),
    [
        pytest.param(b'"a"', b'"a"', True, id="strong"),
        pytest.param(b'W/"a"', b'W/"a"', True, id="weak"),
        pytest.param(b'W/"a"', b'"a"', True, id="9110-13.1.2-weak-comparison"),
        pytest.param(b'"a"', b'"x", "a", "y"', True, id="list"),
        pytest.param(b'"a,b"', b'"x", "a,b"', True, id="comma"),
        pytest.param(b'"\xfc"', b'"\xfc"', True, id="obs-text"),
        pytest.param(b'"a"', b"*", True, id="any"),
        pytest.param(None, b"*", True, id="any-without-etag"),
        pytest.param(b'"a"', b'"b"', False, id="other"),
        pytest.param(b'"a"', b"a", False, id="unquoted"),
        pytest.param(b"a", b'"a"', False, id="unquoted-stored"),
        pytest.param(b"a", b"a", False, id="both-unquoted"),
        pytest.param(None, b'"a"', False, id="no-etag"),
        pytest.param(b'"a"', b"", False, id="empty"),
    ],
)
def test_if_none_match(etag: bytes | None, none_match: bytes, not_modified: bool) -> None:
    """RFC 9110 §13.1.2; If-Modified-Since beside it does not count (§13.1.3)."""
    response = StoredResponse(200, lines(last_modified=DATE, **({"etag": etag} if etag else {})), (b"",))
    for since in (EARLIER, LATER):
        fields = {b"if-none-match": none_match, b"if-modified-since": since}
        assert is_not_modified(fields, response) is not_modified


@pytest.mark.parametrize(
    ("fields", "since", "not_modified"),
    [
        pytest.param({"last_modified": DATE}, DATE, True, id="same"),
        pytest.param({"last_modified": DATE}, LATER, True, id="later"),
        pytest.param({"last_modified": DATE}, EARLIER, False, id="earlier"),
        pytest.param({"last_modified": DATE}, b"Sunday, 06-Nov-94 08:49:37 GMT", True, id="rfc850"),
        pytest.param({"last_modified": DATE}, b"foo", False, id="9110-13.1.3-invalid"),
        pytest.param({"last_modified": DATE}, DATE + b", " + DATE, False, id="9110-13.1.3-several"),
        pytest.param({}, DATE, True, id="4.3.2-date-instead"),
        pytest.param({}, EARLIER, False, id="4.3.2-date-instead-earlier"),
        pytest.param({"last_modified": "foo"}, DATE, True, id="4.3.2-invalid-last-modified"),
        pytest.param({"last_modified": "Sunday, 06-Nov-94 08:49:37 GMT"}, DATE, True, id="century"),
    ],
)
def test_if_modified_since(fields: dict[str, str | bytes], since: bytes, not_modified: bool) -> None:
    """RFC 9110 §13.1.3, RFC 9111 §4.3.2."""
    response = StoredResponse(200, lines(**fields), (b"",), date=784_111_777.0)  # that is DATE
    assert is_not_modified({b"if-modified-since": since}, response) is not_modified


@pytest.mark.parametrize(("status", "conditional"), [(200, True), (203, True), (301, False), (404, False)])
def test_only_a_success_can_be_not_modified(status: int, conditional: bool) -> None:
    """RFC 9110 §13.2.1."""
    response = StoredResponse(status, lines(etag='"a"'), (b"",))
    assert is_not_modified({b"if-none-match": b'"a"'}, response) is conditional
    assert not is_not_modified({b"accept": b"*/*"}, response)


def test_a_304_carries_what_does_not_describe_content() -> None:
    """RFC 9110 §15.4.5."""
    kept = lines(
        date=DATE,
        etag='"a"',
        vary="accept",
        cache_control="max-age=60",
        expires=LATER,
        content_location="/x",
        last_modified=DATE,
        access_control_allow_origin="*",
    )
    dropped = lines(
        content_type="text/plain",
        content_length="4",
        content_encoding="gzip",
        content_language="de",
        content_range="x",
    )
    assert not_modified_fields(StoredResponse(200, kept + dropped, (b"body",))) == kept
