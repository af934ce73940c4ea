"""`CacheRule`: which paths and which requests."""

import re
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import Admission, CacheRule, StoredResponse, match_rule, rules_for
from aurelis.cache.typing import Bypass, Pass, Store
from tests.http.messages import NOW, get, head, loaded, policy


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("/catalog", ["/catalog"], ["/catalog/", "/catalogs", "/", "", "catalog", "/Catalog"]),
        (
            "/catalog/*",
            ["/catalog/17", "/catalog/", "/catalog/a b"],
            ["/catalog", "/catalog/17/x", "/x/catalog/1"],
        ),
        ("/*/detail", ["/17/detail", "//detail"], ["/detail", "/1/7/detail", "/17/details"]),
        ("/catalog/**", ["/catalog/", "/catalog/17", "/catalog/17/x"], ["/catalog", "/x"]),
        ("/**", ["/", "/a", "/a/b"], ["", "a"]),
        ("/a/**/b", ["/a/b", "/a/x/b", "/a/x/y/b", "/a/b/b"], ["/a/xb", "/ab", "/a/b/c", "/a/"]),
        ("/a**/b", ["/a/b", "/ab/b", "/a/x/b", "/a/x/yz/b"], ["/ab", "/x/b"]),
        ("/img/**.png", ["/img/a.png", "/img/a/b.png"], ["/img/a.jpg", "/a.png"]),
        ("/**/*.css", ["/a.css", "/x/a.css", "/x/y/.css"], ["/a.css/x", "/a.js"]),
        (
            "/v*/items/*-x",
            ["/v1/items/a-x", "/v/items/-x", "/v1/items/a-x-x"],
            ["/v1/items/a-y", "/v1/x/items/a-x"],
        ),
        ("/a/*/**/b", ["/a/x/b", "/a/x/y/b", "/a//b"], ["/a/b"]),
        ("/**a*b", ["/ab", "/a/ab", "/x/axb", "/a/a/b/ab"], ["/a/b", "/abc"]),
        ("/a.c?[x]", ["/a.c?[x]"], ["/abc?[x]", "/a.cx", "/a.c"]),
        ("/a\nb*", ["/a\nb", "/a\nb\n"], ["/a b"]),
    ],
)
def test_a_pattern_speaks_for_whole_paths(pattern: str, matching: list[str], others: list[str]) -> None:
    rule = CacheRule(pattern, ttl=1)
    assert [path for path in matching if not rule.matches(path)] == []
    assert [path for path in others if rule.matches(path)] == []


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("/a/../b", False),
        ("/a/./b", False),
        ("/..", False),
        ("/a/..", False),
        ("/.hidden", True),
        ("/a/...", True),
        ("/a/..b", True),
        ("/a./b", True),
        ("/a/..;/b", False),
        ("/a/.;x=1/b", False),
        ("/a/..;", False),
        ("/a/...;/b", True),
        ("/a/b;..", True),
        ("/a/..\\b", False),
        ("/a\\..\\b", False),
        ("/a\\b", True),
        ("/a/%2e%2e/b", False),
        ("/a/%2E./b", False),
        ("/a/.%2e", False),
        ("/a/%252e%252e/b", False),
        ("/a/..%2fb", False),
        ("/a/..%5cb", False),
        ("/a/..%3b/b", False),
        ("/a%2fb", False),
        ("/a%5Cb", False),
        ("/a%252fb", False),
        ("/%25252525252e", False),
        ("/100%", True),
        ("/a%20b", True),
        ("/a%2541", True),
        ("/a%zz%", True),
        ("/" + "x" * 4095, True),
        ("/" + "x" * 4096, False),
    ],
)
def test_ambiguous_paths_match_nothing(path: str, matches: bool) -> None:
    assert CacheRule("/**", ttl=1).matches(path) is matches
    assert CacheRule(path.replace("*", ""), ttl=1).matches(path) is matches


def glob_matches(pattern: str, path: str) -> bool:
    """The definition, by trying everything."""

    @cache
    def rest(at: int, begin: int) -> bool:
        if at == len(pattern):
            return begin == len(path)
        if pattern.startswith("**/", at) and pattern[at - 1] == "/":
            return rest(at + 3, begin) or any(
                path[end] == "/" and rest(at + 3, end + 1) for end in range(begin, len(path))
            )
        if pattern.startswith("**", at):
            return any(rest(at + 2, end) for end in range(begin, len(path) + 1))
        if pattern[at] == "*":
            return any("/" not in path[begin:end] and rest(at + 1, end) for end in range(begin, len(path) + 1))
        return path[begin : begin + 1] == pattern[at] and rest(at + 1, begin + 1)

    return rest(0, 0)


PIECES = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "/**/", "ab", "/a"]), max_size=8)


@given(PIECES.map("".join), st.text(alphabet="ab/", max_size=14))
def test_patterns_match_what_their_definition_says(pieces: str, text: str) -> None:
    pattern, path = "/" + re.sub(r"\*{3,}", "**", pieces), "/" + text
    assert CacheRule(pattern, ttl=1).matches(path) is glob_matches(pattern, path)


@pytest.mark.parametrize("pattern", ["/**a**a**a**b", "/*a*a*a*a*b", "/**/a/**/a/**/b", "/**a*b*c", "/**ab**c*d"])
def test_a_hostile_path_costs_little(pattern: str) -> None:
    """Without care each wildcard multiplies the time by the length of the path."""
    rule = CacheRule(pattern, ttl=1)
    started = time.process_time()
    for filler in ("a", "a/", "ab", "-"):
        assert not rule.matches("/" + filler * (4000 // len(filler)) + "-")
    assert time.process_time() - started < 2


def test_the_first_rule_that_matches_wins() -> None:
    rules = [CacheRule("/a/*", ttl=1), CacheRule("/a/**", ttl=2), CacheRule("/**", ttl=3)]
    found = [match_rule(rules, path) for path in ("/a/b", "/a/b/c", "/x", "/a/../b")]
    assert found == [*rules, None]
    assert match_rule([], "/a") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "catalog"}, "starts with '/'"),
        ({"path": ""}, "starts with '/'"),
        ({"path": None}, "starts with '/'"),
        ({"path": "/a***"}, "only '\\*' and '\\*\\*'"),
        ({"ttl": 0}, "more than 0 seconds"),
        ({"ttl": -1.5}, "more than 0 seconds"),
        ({"ttl": float("nan")}, "more than 0 seconds"),
        ({"ttl": timedelta(0)}, "more than 0 seconds"),
        ({"ttl": "60"}, "seconds or a timedelta"),
        ({"ttl": True}, "seconds or a timedelta"),
        ({"ttl": None}, "seconds or a timedelta"),
        ({"principal": "alice"}, "function of the ASGI scope"),
        ({"cookies": "lang"}, "pass a tuple of names"),
        ({"cookies": ("a b",)}, "not the name of a cookie"),
        ({"cookies": ("",)}, "not the name of a cookie"),
        ({"cookies": (1,)}, "not the name of a cookie"),
        ({"cookies": ("ä",)}, "not the name of a cookie"),
        ({"cookies": ("lang",), "shared": True}, "contradicts"),
        ({"principal": lambda scope: "x", "shared": True}, "contradicts"),
        ({"method": "POST"}, "GET, HEAD or both"),
        ({"method": ("GET", "get")}, "GET, HEAD or both"),
        ({"method": ()}, "match nothing"),
        ({"method": 1}, "pass a tuple"),
        ({"method": [["GET"]]}, "GET, HEAD or both"),
        ({"host": ()}, "match nothing"),
        ({"host": ""}, "name of a host"),
        ({"host": "https://shop.example"}, "without scheme and path"),
        ({"host": ["a", 1]}, "name of a host"),
        ({"headers": ["x"]}, "pass a mapping"),
        ({"headers": {"a b": "x"}}, "name of a header field"),
        ({"headers": {"a": ""}}, "is no pattern"),
        ({"statuses": (500,)}, "from 200 to 499"),
        ({"statuses": (199,)}, "from 200 to 499"),
        ({"statuses": (True,)}, "from 200 to 499"),
        ({"statuses": (206,)}, "no response of its own"),
        ({"statuses": (304,)}, "no response of its own"),
        ({"statuses": ()}, "keep nothing"),
        ({"statuses": 200}, "pass a tuple"),
        ({"stale_while_revalidate": -1}, "0 seconds or more"),
        ({"stale_while_revalidate": "1"}, "seconds or a timedelta"),
        ({"stale_if_error": float("inf")}, "not for ever"),
        ({"stale_if_error": float("nan")}, "0 seconds or more"),
        ({"vary": "accept"}, "pass a tuple"),
        ({"vary": ("a b",)}, "name of a header field"),
        ({"vary": ("*",)}, "name of a header field"),
        ({"key_headers": ("ä",)}, "name of a header field"),
        ({"key_headers": "x"}, "pass a tuple"),
        ({"tags": "catalog"}, "pass a list of texts"),
        ({"tags": {"catalog": 1}}, "pass a list of texts"),
        ({"query": "page"}, "pass a tuple"),
        ({"query": ("",)}, "is no name"),
        ({"query": ("a**",)}, "only '\\*' is a wildcard"),
        ({"ignore_query": (1,)}, "is no name"),
        ({"query": ("a",), "ignore_query": ("b",)}, "leave one of them out"),
        ({"override": "no-store"}, "pass a tuple"),
        ({"override": ("set-cookie",)}, "may override no-cache, no-store, private"),
        ({"override": ("no-store",), "ttl": None}, "say how long it is kept"),
        ({"override": [["no-store"]]}, "may override no-cache, no-store, private"),
        ({"cache_status": 1}, "pass True, False, 'debug' or None"),
        ({"cache_status": "verbose"}, "pass True, False, 'debug' or None"),
        ({"max_body_bytes": 0}, "1 or more bytes"),
        ({"max_body_bytes": True}, "1 or more bytes"),
        ({"max_body_bytes": 1.5}, "1 or more bytes"),
        ({"bypass": True}, "leave out ttl"),
        ({"bypass": True, "ttl": None, "tags": ["a"]}, "leave out tags"),
        ({"ttl": None, "host": "shop.example"}, "says nothing"),
    ],
)
def test_a_wrong_rule_is_refused_when_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CacheRule(**{"path": "/", "ttl": 60, **arguments})


def test_a_rule_is_a_value() -> None:
    rule = CacheRule("/a", ttl=timedelta(minutes=1), cookies=["lang"])
    assert rule == CacheRule("/a", ttl=60.0, cookies=("lang",))
    assert hash(rule) == hash(CacheRule("/a", ttl=60.0, cookies=("lang",)))
    assert rule.ttl == 60.0
    assert repr(rule) == "CacheRule(path='/a', ttl=60.0, principal=None, cookies=('lang',), shared=False)"
    with pytest.raises(AttributeError):
        rule.ttl = 1.0  # type: ignore[misc]  # frozen
    with pytest.raises(TypeError):
        CacheRule("/a", 60)  # type: ignore[call-arg]  # keyword-only


def user(scope: Mapping[str, Any]) -> str | None:
    who = scope.get("user")
    assert who is None or isinstance(who, str)
    return who


CREDENTIALS = {b"authorization": b"Bearer x", b"cookie": b"session=1"}
BY_COOKIE = CacheRule("/", ttl=60, cookies=("lang", "theme"))


def admitted(rule: CacheRule, fields: Mapping[bytes, bytes], **scope: str) -> Admission:
    answer = rule.admit(scope, fields)
    assert isinstance(answer, Admission)
    return answer


def test_a_rule_without_an_answer_allows_no_credentials() -> None:
    answer = admitted(CacheRule("/", ttl=60), CREDENTIALS)
    assert (answer.effect.ttl, answer.effect.credentials_allowed, answer.partition_source) == (
        60.0,
        False,
        b"",
    )


def test_a_shared_rule_ignores_credentials() -> None:
    answer = admitted(CacheRule("/", ttl=60, shared=True), CREDENTIALS)
    assert (answer.effect.credentials_allowed, answer.partition_source) == (True, b"")


def test_each_principal_has_a_partition() -> None:
    rule = CacheRule("/", ttl=60, principal=user)
    alice, bob, nobody = (admitted(rule, CREDENTIALS, user=name) for name in ("alice", "bob", ""))
    assert len({alice.partition_source, bob.partition_source, nobody.partition_source, b""}) == 4
    assert alice.effect.credentials_allowed
    assert admitted(rule, {}, user="alice") == alice
    assert admitted(rule, {}, user="\udcff").partition_source


def test_an_unknown_principal_bypasses() -> None:
    assert CacheRule("/", ttl=60, principal=user).admit({}, {}) == Bypass("bypass", "principal")


def test_a_principal_must_be_text() -> None:
    """A number would be a mistake that looks as if it worked."""
    rule = CacheRule("/", ttl=60, principal=lambda scope: 17)  # type: ignore[arg-type, return-value]  # the mistake
    with pytest.raises(TypeError, match=r"CacheRule\('/'\) returned int: return str or None"):
        rule.admit({}, {})


def test_principal_and_cookies_separate_together() -> None:
    rule = CacheRule("/", ttl=60, principal=user, cookies=("lang",))
    sources = {
        admitted(rule, {b"cookie": cookie}, user=name).partition_source
        for name in ("alice", "bob")
        for cookie in (b"lang=de", b"lang=en")
    }
    assert len(sources) == 4


def test_cookies_alone_say_nothing_about_authorization() -> None:
    assert BY_COOKIE.admit({}, {b"authorization": b"x"}) == Bypass("bypass", "authorization")


def partition(cookie: bytes) -> bytes:
    return admitted(BY_COOKIE, {b"cookie": cookie}).partition_source


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"lang=de", b"session=1; lang=de ;x=y", True),
        (b"lang=de; theme=dark", b"theme=dark; lang=de", False),
        (b"lang=de", b"lang=en", False),
        (b"lang=de", b"LANG=de", False),
        (b"lang=de", b"lang=de; lang=en", False),
        (b"lang=", b"", False),
        (b"lang", b"", True),
        (b"session=1", b"", True),
        (b"lang=a; theme=b", b"lang=a1:theme1:b", False),
        (b"lang=a,b", b"lang=a,c", False),
        (b"x=1, lang=de", b"", True),
    ],
)
def test_the_cookies_that_count_make_the_partition(one: bytes, other: bytes, same: bool) -> None:
    assert (partition(one) == partition(other)) is same


def test_requests_without_those_cookies_share() -> None:
    answer = admitted(BY_COOKIE, {})
    assert (answer.partition_source, answer.effect.credentials_allowed) == (b"", True)
    ignoring = CacheRule("/", ttl=60, cookies=())
    assert admitted(ignoring, {b"cookie": b"session=1"}) == Admission(answer.effect, b"")


COOKIE_VALUE = st.text(alphabet="ab0123456789:", max_size=8).map(str.encode)
PAIRS = st.lists(st.tuples(st.sampled_from([b"lang", b"theme", b"other"]), COOKIE_VALUE), max_size=4)


@given(PAIRS, PAIRS)
def test_partitions_agree_exactly_where_the_cookies_that_count_do(
    one: list[tuple[bytes, bytes]], other: list[tuple[bytes, bytes]]
) -> None:
    def header(pairs: list[tuple[bytes, bytes]]) -> bytes:
        return b"; ".join(name + b"=" + value for name, value in pairs)

    def counting(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [pair for pair in pairs if pair[0] != b"other"]

    assert (partition(header(one)) == partition(header(other))) is (counting(one) == counting(other))


# More than the path


@pytest.mark.parametrize(
    "arguments",
    [
        {"bypass": True},
        {"tags": ["a"]},
        {"shared": True},
        {"vary": ("accept",)},
        {"stale_if_error": 0},
        {"sort_query": True},
        {"max_body_bytes": 1},
        {"query": ()},
        {"cache_status": False},
        {"cache_status": False, "bypass": True},
    ],
)
def test_a_rule_need_not_give_a_lifetime(arguments: dict[str, Any]) -> None:
    assert CacheRule("/", **arguments).ttl is None


def test_a_rule_shows_what_was_given_beyond_the_usual() -> None:
    rule = CacheRule("/{item}", ttl=60, tags=["item:{item}"], method="GET", stale_if_error=timedelta(minutes=1))
    assert repr(rule) == (
        "CacheRule(path='/{item}', ttl=60.0, principal=None, cookies=None, shared=False, method=('GET',), "
        "stale_if_error=60.0, tags=('item:{item}',))"
    )
    assert hash(rule) == hash(CacheRule("/{item}", ttl=60, tags=("item:{item}",), method=["GET"], stale_if_error=60))
    assert hash(CacheRule(re.compile("/.*"), ttl=1, headers={"A": re.compile("b")}, host={"c"}, override=["private"]))


RULES = [
    CacheRule("/a/**", bypass=True, headers={"X-Preview": "*"}),
    CacheRule("/a/{item}", ttl=1, host=("*.shop.example", "shop.example"), method="HEAD", tags=["head"]),
    CacheRule("/a/{item}", ttl=2, host="shop.example", tags=["item:{item}"]),
    CacheRule("/**", ttl=3),
    CacheRule("/a/b", ttl=4),
]


@pytest.mark.parametrize(
    ("path", "host", "found"),
    [
        ("/a/b", "shop.example", [0, 1, 2]),  # nothing after a rule that counts for every request
        ("/a/b", "de.shop.example:80", [0, 1, 3]),
        ("/a/b", "other.example", [0, 3]),
        ("/b", "shop.example", [3]),
        ("/a/../b", "shop.example", []),
    ],
)
def test_the_rules_for_a_target_end_with_the_first_that_always_counts(path: str, host: str, found: list[int]) -> None:
    assert [said.rule for said in rules_for(RULES, path, host, b"")] == [RULES[number] for number in found]


@pytest.mark.parametrize(
    ("arguments", "method", "fields", "applies"),
    [
        ({}, "GET", {}, True),
        ({}, "HEAD", {}, True),
        ({"method": "GET"}, "HEAD", {}, False),
        ({"headers": {"Accept": "*json*"}}, "GET", {}, False),
        ({"headers": {"Accept": "*json*"}}, "GET", {b"accept": b"application/json, */*"}, True),
        ({"headers": {"Accept": "*json*"}}, "GET", {b"accept": b"text/html"}, False),
        ({"headers": {"A": "*", "B": "1"}}, "GET", {b"a": b""}, False),
        ({"headers": {"A": "*", "B": "1"}}, "GET", {b"a": b"", b"b": b"1"}, True),
        ({"headers": {"A": re.compile("[0-9]+")}}, "GET", {b"a": b"12"}, True),
    ],
)
def test_a_rule_applies_by_method_and_fields(
    arguments: dict[str, Any], method: str, fields: dict[bytes, bytes], applies: bool
) -> None:
    assert CacheRule("/", ttl=1, **arguments).applies(method, fields) is applies


def test_requests_that_match_by_fields_have_entries_of_their_own() -> None:
    """Otherwise those that do not match would be answered with what was made for those that do."""
    json, text = (CacheRule("/", ttl=1, headers={"accept": pattern}) for pattern in ("*json*", "*text*"))
    parts = [admitted(rule, {b"accept": b"json, text"}).partition_source for rule in (json, text)]
    assert len({*parts, b""}) == 3


KEYED = CacheRule("/", ttl=1, key_headers=("X-B", "x-a"), cookies=("lang",))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {b"x-c": b"1"}, True),
        ({b"x-a": b""}, {}, False),
        ({b"x-a": b"1"}, {b"x-b": b"1"}, False),
        ({b"x-a": b"1", b"x-b": b"2"}, {b"x-a": b"2", b"x-b": b"1"}, False),
        ({b"x-a": b"-"}, {b"x-b": b"-"}, False),
        ({b"x-b": b"1:a"}, {b"x-b": b"1", b"cookie": b"lang=a"}, False),
        ({b"x-a": b"1", b"x-b": b"2", b"user-agent": b"x"}, {b"x-b": b"2", b"x-a": b"1"}, True),
    ],
)
def test_fields_that_count_are_part_of_the_key(one: dict[bytes, bytes], other: dict[bytes, bytes], same: bool) -> None:
    left, right = (admitted(KEYED, fields).partition_source for fields in (one, other))
    assert (left == right) is same


def test_key_fields_say_nothing_about_credentials() -> None:
    rule = CacheRule("/", ttl=1, key_headers=("x-a",))
    assert not admitted(rule, CREDENTIALS).effect.credentials_allowed


# What a rule may set aside


@pytest.mark.parametrize(
    ("override", "cache_control", "ttl"),
    [
        (("no-store",), "no-store", 60),
        (("no-store",), "no-store, max-age=5", 60),  # what stands beside it was not meant for us either
        (("no-store",), "max-age=5", 5),
        (("no-store",), "private", None),
        (("no-store", "private"), "private, no-store, no-cache", None),
        (("no-store", "private", "no-cache"), "private, no-store, no-cache", 60),
        (("private",), "private, max-age=5", 60),
        ((), "no-store", None),
    ],
)
def test_a_rule_overrides_what_it_names_and_nothing_else(
    override: tuple[str, ...], cache_control: str, ttl: int | None
) -> None:
    said = CacheRule("/", ttl=60, override=override).on_target("/", "example.com", b"")
    assert said is not None
    request, response = get(rule=said.effect), head(cache_control=cache_control)
    stored = policy().on_loaded(request, loaded(response))
    assert isinstance(stored, Store) is (ttl is not None)
    if isinstance(stored, Store):
        assert isinstance(stored.value, StoredResponse)
        assert (stored.fresh_for, stored.value.source) == (ttl, "explicit" if ttl == 5 else "rule")


@pytest.mark.parametrize("fields", [{"cookie": "a=b"}, {"authorization": "x"}])
def test_a_private_response_that_a_rule_keeps_is_still_not_for_those_with_credentials(fields: dict[str, str]) -> None:
    said = CacheRule("/", ttl=60, override=("private",)).on_target("/", "example.com", b"")
    assert said is not None
    response = head(cache_control="private, max-age=5, public")
    assert isinstance(policy().on_response(get(fields, rule=said.effect), response, NOW), Pass)


def test_a_status_that_the_rule_does_not_name_is_not_overridden() -> None:
    said = CacheRule("/", ttl=60, override=("no-store",), statuses=(200,)).on_target("/", "example.com", b"")
    assert said is not None
    for status in (404, 500):
        assert isinstance(
            policy().on_response(get(rule=said.effect), head(status, cache_control="no-store"), NOW), Pass
        )


@pytest.mark.parametrize(("statuses", "status", "ttl"), [((200, 404), 404, 10), ((302,), 302, 60), ((302,), 200, None)])
def test_a_rule_keeps_the_statuses_that_it_names(statuses: tuple[int, ...], status: int, ttl: int | None) -> None:
    said = CacheRule("/", ttl=60, statuses=statuses).on_target("/", "example.com", b"")
    assert said is not None
    decision = policy().on_response(get(rule=said.effect), head(status), NOW)
    assert getattr(decision, "lifetime", None) == ttl


@pytest.mark.parametrize("name", ["shared", "bypass", "sort_query"])
@pytest.mark.parametrize("value", ["yes", "no", "", 1, 0, None, ["x"]], ids=repr)
def test_what_is_neither_true_nor_false_is_refused(name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"{name} must be True or False, not "):
        CacheRule("/", **options)
