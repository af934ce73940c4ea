"""The rules together: what is stored, under which key, and who gets it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._entry import Entry
from aurelis.cache._keys import CacheKeyBuilder
from aurelis.cache.http import (
    HttpPolicy,
    HttpRequest,
    LoadedResponse,
    ResponseHead,
    RuleEffect,
    StoredResponse,
    VariantIndex,
    current_age,
    variant_digest,
)
from aurelis.cache.typing import Bypass, Discard, ExchangePolicy, Follow, Load, Pass, Record, Refuse, Serve, Store
from tests.http.messages import DATE, NOW, URL, Shelf, get, head, lines, loaded, policy

RULE = RuleEffect(ttl=60.0)
ALLOWING_RULE = RuleEffect(ttl=60.0, credentials_allowed=True)
HOUR_BEFORE = b"Sun, 06 Nov 1994 07:49:37 GMT"


def test_the_policy_is_an_exchange_policy() -> None:
    """Checked by the type checker."""
    rules: ExchangePolicy[HttpRequest, ResponseHead, LoadedResponse] = policy()
    assert rules.terminator(get(), head()) is None


# --- keys


def test_get_and_head_share_a_key() -> None:
    """RFC 9111 §2, RFC 9110 §9.3.2."""
    rules = policy()
    assert rules.key(get()) == rules.key(HttpRequest("HEAD", URL, {}))
    assert rules.key(get()) == "aurelis:v1:http:GET%20https%3A%2F%2Fexample.com%2Fcatalog%2F17"


def test_category_and_key_builder_are_given() -> None:
    def keys(category: str, identifier: str, params: Mapping[str, object] | None = None) -> str:
        return f"{category}|{identifier}|{params}"

    rules = HttpPolicy(shared=True, category="web", keys=keys)
    assert rules.key(get(partition="p")) == f"web|GET {URL}|{{'partition': 'p'}}"


TEXT = st.text(alphabet="ab :/?%*GET", max_size=8)
SELECTING = st.dictionaries(st.sampled_from([b"a", b"b"]), st.sampled_from([b"", b"1", b"2"]))


@given(st.lists(st.tuples(TEXT, TEXT, st.sampled_from([(), (b"a",), (b"a", b"b")]), SELECTING), min_size=2, max_size=4))
def test_keys_differ_whenever_url_partition_or_selecting_values_do(
    parts: list[tuple[str, str, tuple[bytes, ...], dict[bytes, bytes]]],
) -> None:
    rules = policy()
    keys: dict[str, object] = {}
    for url, partition, vary, fields in parts:
        request = HttpRequest("GET", url, fields, partition)
        key = rules.key(request)
        if vary:
            follow = rules.on_lookup(request, Entry(VariantIndex(vary), None, 1.0, 1.0, 1), 0.0)
            assert isinstance(follow, Follow)
            key = follow.key
        meaning = (url, partition, vary, tuple(map(fields.get, vary)))
        assert keys.setdefault(key, meaning) == meaning
    assert len(keys) == len({(url, p, vary, tuple(map(fields.get, vary))) for url, p, vary, fields in parts})


def test_long_urls_and_values_have_keys_that_are_not_remembered() -> None:
    rules = policy()
    long_url = URL + "?" + "x" * 10_000
    assert rules.key(get(url=long_url)) != rules.key(get(url=long_url + "x"))
    index = Entry(VariantIndex((b"accept",)), None, 1.0, 1.0, 1)
    answers = [rules.on_lookup(get(accept="x" * length), index, 0.0) for length in (10_000, 10_001, 10_000)]
    assert answers[0] == answers[2] != answers[1]
    assert rules._addresses._remembered.cache_info().currsize == 0


# --- storing


def kept(
    rules: HttpPolicy, response: ResponseHead, request: HttpRequest | None = None, *, seconds: float = 0.0
) -> tuple[Store, StoredResponse]:
    decision = rules.on_loaded(request or get(), loaded(response, seconds=seconds))
    assert isinstance(decision, Store)
    assert isinstance(decision.value, StoredResponse)
    return decision, decision.value


def test_a_response_is_stored_ready_to_be_replayed() -> None:
    response = LoadedResponse(
        ResponseHead(
            203,
            (
                (b"Content-Type", b"text/plain"),
                (b"Cache-Control", b"max-age=60, stale-if-error=30"),
                (b"Connection", b"x"),
                (b"X", b"1"),
                (b"Age", b"5"),
            ),
        ),
        (b"bo", b"dy"),
        seconds=3.0,
        request_time=NOW,
        response_time=NOW + 1.0,
        route="/catalog/{id}",
    )
    rules = policy()
    decision = rules.on_loaded(get(), response)
    assert decision == Store(
        StoredResponse(
            203,
            ((b"content-type", b"text/plain"), (b"cache-control", b"max-age=60, stale-if-error=30")),
            (b"bo", b"dy"),
            initial_age=8.0,  # 5 stated, 1 until the head came, 2 until the body had come
            lifetime=60.0,
            source="explicit",
            stale_if_error=30.0,
            may_be_stale=True,
            date=NOW + 1.0,
            load_seconds=3.0,
            route="/catalog/{id}",
        ),
        fresh_for=52.0,
        stale_for=60.0,  # for requests with max-stale
        key=rules.key(get()),
    )


@pytest.mark.parametrize(
    ("response", "body", "reason"),
    [
        pytest.param(head(cache_control="no-store"), b"", "no-store", id="5.2.2.5"),
        pytest.param(head(cache_control="max-age=60", content_length="5"), b"body", "incomplete", id="3.3"),
        pytest.param(head(cache_control="max-age=60", age="60"), b"", "not-fresh", id="4.2.3-too-old"),
    ],
)
def test_what_is_not_kept(response: ResponseHead, body: bytes, reason: str) -> None:
    assert policy().on_loaded(get(), loaded(response, body=body)) == Discard(reason)


@pytest.mark.parametrize(
    ("response", "rule", "answer"),
    [
        pytest.param(head(cache_control="max-age=60", age="10"), None, Record(50.0), id="explicit"),
        pytest.param(head(cache_control="max-age=60", age="60"), None, Pass("not-fresh"), id="4.2.3-too-old"),
        pytest.param(head(cache_control="no-store"), None, Pass("no-store", lasting=True), id="5.2.2.5"),
        pytest.param(head(), None, Pass("not-fresh", lasting=True), id="nothing-said"),
        pytest.param(head(date=HOUR_BEFORE, cache_control="max-age=7200"), None, Record(3600.0), id="apparent-age"),
        pytest.param(head(), RULE, Record(60.0), id="rule"),
        pytest.param(head(500), RULE, Pass("not-fresh"), id="rule-and-error"),
    ],
)
def test_the_head_tells_whether_to_record(
    response: ResponseHead, rule: RuleEffect | None, answer: Record | Pass
) -> None:
    assert policy().on_response(get(rule=rule), response, NOW) == answer


def test_the_time_an_origin_takes_counts_against_its_own_lifetime() -> None:
    """RFC 9111 §4.2.3: response_delay and resident_time."""
    slow = loaded(head(cache_control="max-age=2"), seconds=2.0)
    assert policy().on_loaded(get(), slow) == Discard("not-fresh")


def test_the_time_an_app_takes_does_not_count_against_a_rule() -> None:
    """Otherwise a short ttl would never help a slow route. Age still tells the truth."""
    decision, stored = kept(policy(), head(), get(rule=RuleEffect(ttl=2.0)), seconds=5.0)
    assert decision.fresh_for == 2.0
    assert stored.initial_age == 5.0
    assert current_age(stored.lifetime, fresh_until=1002.0, now=1000.0) == 5.0
    assert current_age(stored.lifetime, fresh_until=1002.0, now=1001.0) == 6.0


def test_the_age_of_a_response_from_elsewhere_counts_against_a_rule() -> None:
    decision, _ = kept(policy(), head(age="20"), get(rule=RULE))
    assert decision.fresh_for == 40.0
    late = loaded(head(date=HOUR_BEFORE))
    assert policy().on_loaded(get(rule=RULE), late) == Discard("not-fresh")


def test_variants_are_kept_beside_an_index() -> None:
    """RFC 9111 §4.1."""
    rules = policy()
    request = get(accept="text/html", accept_language="de")
    decision, stored = kept(rules, head(cache_control="max-age=60", vary="Accept-Language, Accept"), request)
    assert stored.vary == (b"accept", b"accept-language")
    digest = variant_digest(stored.vary, request.fields)
    assert decision.index == (rules.key(request), VariantIndex(stored.vary, (), (digest,)))
    assert decision.key not in (None, rules.key(request))


def test_a_variant_key_of_nobody_is_asked_for() -> None:
    """The same request finds its variant, others find their own place empty."""
    shelf = Shelf(policy())
    shelf.store(get(accept="a"), head(cache_control="max-age=60", vary="accept"))
    assert isinstance(shelf.look(get(accept="a")), Serve)
    assert isinstance(shelf.look(get(accept=" a ")), Serve)
    assert shelf.look(get(accept="b")) == Load("uri-miss")
    assert shelf.look(get()) == Load("uri-miss")
    shelf.store(get(accept="b"), head(cache_control="max-age=60", vary="accept"))
    assert isinstance(shelf.look(get(accept="a")), Serve)
    assert isinstance(shelf.look(get(accept="b")), Serve)


def test_a_response_without_vary_replaces_the_index() -> None:
    shelf = Shelf(policy())
    shelf.store(get(accept="a"), head(cache_control="max-age=60", vary="accept"))
    shelf.store(get(accept="b"), head(cache_control="max-age=60"))
    assert isinstance(shelf.look(get(accept="c")), Serve)


# --- sharing one load


FRESH = head(cache_control="max-age=60")
PUBLIC = head(cache_control="max-age=60, public")
VARYING = head(cache_control="max-age=60, vary-me", vary="accept")
AUTHORIZATION, COOKIE = Bypass("bypass", "authorization"), Bypass("bypass", "cookie")


@pytest.mark.parametrize(
    ("leader", "follower", "response", "refused"),
    [
        pytest.param(get(), get(), FRESH, None, id="same"),
        pytest.param(get(), get(), head(cache_control="no-store"), Bypass("miss", "no-store"), id="3-unstorable"),
        pytest.param(get(accept="a"), get(accept=" a"), VARYING, None, id="4.1-same-variant"),
        pytest.param(get(), get(cookie="a=b"), FRESH, None, id="explicit-cookie"),
        pytest.param(get(), get(authorization="a"), FRESH, AUTHORIZATION, id="3.5-follower"),
        pytest.param(get(), get(authorization="a"), PUBLIC, None, id="3.5-public-follower"),
        pytest.param(get(authorization="a"), get(), FRESH, Bypass("miss", "authorization"), id="3.5-leader"),
        pytest.param(get(authorization="a"), get(), PUBLIC, None, id="3.5-public-leader"),
        pytest.param(get(rule=RULE), get(rule=RULE, cookie="a=b"), head(), COOKIE, id="rule-cookie"),
        pytest.param(get(rule=ALLOWING_RULE), get(rule=ALLOWING_RULE, cookie="a=b"), head(), None, id="allowed"),
        pytest.param(get(), get(cookie="a=b"), head(last_modified=HOUR_BEFORE), COOKIE, id="heuristic-cookie"),
    ],
)
def test_who_waited_gets_the_response_only_where_a_lookup_would_give_it(
    leader: HttpRequest, follower: HttpRequest, response: ResponseHead, refused: Bypass | None
) -> None:
    rules = policy()
    assert rules.on_shared(follower, leader, response, NOW) == refused
    shelf = Shelf(rules)
    shelf.store(leader, response)
    assert isinstance(shelf.look(follower), Serve) is (refused is None)


def test_who_waited_for_another_variant_goes_to_the_key_of_its_own() -> None:
    """RFC 9111 §4.1. It is the key that a lookup would follow to."""
    shelf = Shelf(policy())
    answer = shelf.policy.on_shared(get(accept="b"), get(accept="a"), VARYING, NOW)
    assert isinstance(answer, Follow)
    shelf.store(get(accept="b"), VARYING)
    assert answer.key in shelf.entries


def test_a_private_cache_shares_within_a_partition() -> None:
    private = head(cache_control="max-age=60, private")
    assert policy(shared=False).on_shared(get(authorization="a"), get(), private, NOW) is None


# --- laws

DIRECTIVE = st.sampled_from(
    [
        "max-age=60",
        "max-age=0",
        "max-age=x",
        "s-maxage=30",
        "private",
        'private="a"',
        "public",
        "no-store",
        "no-cache",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "stale-if-error=99",
        "foo",
    ]
)
RESPONSE_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "cache_control": st.lists(DIRECTIVE, max_size=4).map(", ".join),
        "expires": st.sampled_from([DATE, "Sun, 06 Nov 1994 09:49:37 GMT", "0"]),
        "date": st.sampled_from([DATE, HOUR_BEFORE, "foo"]),
        "last_modified": st.sampled_from([HOUR_BEFORE, "foo"]),
        "age": st.sampled_from(["0", "10", "x"]),
        "vary": st.sampled_from(["accept", "Accept, cookie", "*", ""]),
        "set_cookie": st.just("a=b"),
    },
)
RESPONSES = st.builds(
    lambda status, fields: ResponseHead(status, lines(**fields)),
    st.sampled_from([200, 200, 200, 203, 204, 206, 301, 304, 404, 500, 599]),
    RESPONSE_FIELDS,
)
REQUEST_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "cache_control": st.sampled_from(["no-cache", "max-age=20", "min-fresh=20", "no-store", "x"]),
        "accept": st.sampled_from(["a", "b", " a "]),
        "cookie": st.sampled_from(["user=1", "user=2"]),
        "authorization": st.sampled_from(["1", "2"]),
        "if_none_match": st.just('"a"'),
        "range": st.just("bytes=0-1"),
    },
)
RULES = st.sampled_from([None, RULE, ALLOWING_RULE])


@given(RESPONSES, RULES, REQUEST_FIELDS, REQUEST_FIELDS, st.booleans(), st.floats(0, 4000), st.floats(0, 4000))
def test_fresh_at_t_implies_fresh_at_any_earlier_t(
    response: ResponseHead,
    rule: RuleEffect | None,
    storing: dict[str, str],
    asking: dict[str, str],
    shared: bool,
    one: float,
    other: float,
) -> None:
    shelf = Shelf(policy(shared=shared))
    shelf.store(get(storing, rule=rule), response)
    answers = []
    for at in sorted((one, other)):
        shelf.now = 1000.0 + at
        answers.append(isinstance(shelf.look(get(asking, rule=rule)), Serve))
    assert answers != [False, True]


@given(RESPONSES, RULES, REQUEST_FIELDS, st.floats(0, 4000))
def test_age_is_never_negative_and_never_beyond_the_lifetime_of_a_hit(
    response: ResponseHead, rule: RuleEffect | None, fields: dict[str, str], later: float
) -> None:
    shelf = Shelf(policy())
    shelf.store(get(fields, rule=rule), response)
    shelf.now += later
    answer = shelf.look(get(fields, rule=rule))
    if isinstance(answer, Serve):
        stored = answer.entry.value
        assert isinstance(stored, StoredResponse)
        age = current_age(stored.lifetime, answer.entry.fresh_until, shelf.now)
        assert stored.initial_age <= age + 1e-6
        assert age <= stored.lifetime + 1e-6


@given(
    RESPONSES,
    RULES,
    REQUEST_FIELDS,
    REQUEST_FIELDS,
    st.sampled_from(["", "p1", "p2"]),
    st.sampled_from(["", "p1"]),
)
def test_a_shared_cache_gives_nobody_what_is_anothers(
    response: ResponseHead,
    rule: RuleEffect | None,
    storing: dict[str, str],
    asking: dict[str, str],
    owner: str,
    other: str,
) -> None:
    """Whatever was stored for one request, another gets it only where response or rule say that it may."""
    first, second = get(storing, rule=rule, partition=owner), get(asking, rule=rule, partition=other)
    shelf = Shelf(policy())
    if isinstance(shelf.look(first), Load):
        shelf.store(first, response)
    if not isinstance(shelf.look(second), Serve):
        return
    assert owner == other
    fields = dict(response.headers)
    said = fields.get(b"cache-control", b"").decode()
    assert "private" not in said
    assert "no-cache" not in said
    assert "no-store" not in said or "must-understand" in said
    if b"set-cookie" in fields:
        assert "age=" in said or b"expires" in fields
        if b"cookie" in first.fields and rule is not ALLOWING_RULE:
            assert "public" in said or "s-maxage" in said
    assert fields.get(b"vary") != b"*"
    explicit = "age=" in said or b"expires" in fields
    if rule is not ALLOWING_RULE:
        for request in (first, second):
            if b"authorization" in request.fields:
                assert explicit
                assert any(word in said for word in ("public", "s-maxage", "must-revalidate"))
            if b"cookie" in request.fields:
                assert explicit
    for name in fields.get(b"vary", b"").lower().split(b", "):
        if name:
            assert first.fields.get(name, b"-").strip() == second.fields.get(name, b"-").strip()


@given(RESPONSES, REQUEST_FIELDS, REQUEST_FIELDS)
def test_a_private_cache_gives_nothing_to_another_partition(
    response: ResponseHead, storing: dict[str, str], asking: dict[str, str]
) -> None:
    shelf = Shelf(policy(shared=False))
    shelf.store(get(storing, partition="alice"), response)
    for partition in ("bob", ""):
        assert not isinstance(shelf.look(get(asking, partition=partition)), Serve)


@given(st.lists(st.tuples(RESPONSES, REQUEST_FIELDS, st.floats(0, 100)), max_size=6), RULES)
def test_what_is_served_is_what_some_response_said(
    exchanges: list[tuple[ResponseHead, dict[str, str], float]], rule: RuleEffect | None
) -> None:
    """A client gets its own response or one that was made before for the same URL, never a mixture."""
    shelf = Shelf(policy())
    said: set[bytes] = set()
    for number, (response, fields, pause) in enumerate(exchanges):
        shelf.now += pause
        body = b"%d" % number
        said.add(body)
        assert shelf.ask(get(fields, rule=rule), response, body) in said


@given(RESPONSES, REQUEST_FIELDS)
def test_no_client_gets_past_the_cache_where_directives_are_not_heeded(
    response: ResponseHead, fields: dict[str, str]
) -> None:
    shelf = Shelf(policy(honour_request_directives=False))
    shelf.store(get(), response)
    plain = {name: value for name, value in fields.items() if name != "cache_control"}
    assert shelf.look(get(fields)) == shelf.look(get(plain))


def test_a_bypass_stores_nothing() -> None:
    shelf = Shelf(policy())
    assert shelf.ask(get(if_none_match='"a"'), head(cache_control="max-age=60"), b"1") == b"1"
    assert shelf.look(get(range="bytes=0-")) == Bypass("uri-miss", "range")
    assert shelf.entries == {}


def test_keys_are_those_of_the_key_builder() -> None:
    """So that whatever addresses entries by identifier finds those of HTTP too."""
    builder = CacheKeyBuilder("shop")
    rules = HttpPolicy(shared=False, keys=builder.build_key)
    assert rules.key(get()) == builder.build_key("http", f"GET {URL}")
    assert rules.key(get(partition="p")) == builder.build_key("http", f"GET {URL}", {"partition": "p"})


# --- tags


def test_the_tags_of_a_rule_are_those_of_what_it_keeps() -> None:
    rules, request = policy(), get(rule=RuleEffect(60.0, tags=("t:catalog",)))
    for response in (head(200), head(200, vary="accept")):
        assert rules.on_response(request, response, NOW) == Record(60.0, ("t:catalog",))
        assert kept(rules, response, request)[0].tags == ("t:catalog",)


def within(longest: float, **fields: str) -> tuple[Record | Pass, Store | Discard]:
    """What becomes of a response that is to be kept no longer than this."""
    request = get(rule=RuleEffect(longest or None, longest=longest))
    response = head(**fields)
    rules = policy()
    return rules.on_response(request, response, NOW), rules.on_loaded(request, loaded(response))


@pytest.mark.parametrize(
    ("longest", "fields", "fresh_for"),
    [
        (30.0, {}, 30.0),
        (30.0, {"cache_control": "max-age=60"}, 30.0),
        (30.0, {"cache_control": "max-age=10"}, 10.0),
        (30.0, {"cache_control": "max-age=60", "age": "20"}, 30.0),
        (30.0, {"cache_control": "max-age=60", "age": "50"}, 10.0),
        (float("inf"), {"cache_control": "max-age=60"}, 60.0),
    ],
)
def test_a_longest_life_is_an_upper_bound(longest: float, fields: dict[str, str], fresh_for: float) -> None:
    recorded, decision = within(longest, **fields)
    assert isinstance(recorded, Record)
    assert recorded.lifetime == fresh_for
    assert isinstance(decision, Store)
    assert decision.fresh_for == fresh_for
    assert isinstance(decision.value, StoredResponse)
    age = float(fields.get("age", "0"))
    assert current_age(decision.value.lifetime, fresh_for, 0.0) == decision.value.initial_age == age


def test_a_longest_life_of_0_keeps_nothing() -> None:
    assert within(0.0, cache_control="max-age=60") == (Pass("ttl"), Discard("ttl"))
    assert within(0.0, cache_control="max-age=60", etag='"a"') == (Pass("ttl"), Discard("ttl"))


def test_what_the_app_itself_says_is_heeded_in_any_case() -> None:
    rules = policy(honour_request_directives=False)
    shelf = Shelf(rules)
    for insists in (False, True):
        request = get({"cache_control": "only-if-cached"})
        request.insists = insists
        assert (shelf.look(request) == Refuse()) is insists
    shelf.store(get(), head(cache_control="max-age=60"))
    for insists in (False, True):
        request = get({"cache_control": "no-cache"})
        request.insists = insists
        assert (shelf.look(request) == Load("request")) is insists
