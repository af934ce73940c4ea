"""Tags of responses: those of rules, those that responses name, and the groups of RFC 9875."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache._entry import Details
from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import CacheRule, HttpRequest, RuleEffect, combine, group_tag, invalidated_groups
from aurelis.cache.http._tagging import MAX_TAGS, confirmed_tags, response_tags, string_list
from aurelis.cache.typing import Store
from tests.http.messages import URL, entry, get, head, loaded, policy


def tags_of(rule: CacheRule, path: str) -> tuple[str, ...] | None:
    """The tags that a rule gives a path; `None`: the cache has nothing to do with it."""
    said = rule.on_target(path, "example.com", b"")
    assert said is not None
    return None if said.refusal is not None else tuple(tag.removeprefix("t:") for tag in said.effect.tags)


@pytest.mark.parametrize(
    ("path", "tags", "request_path", "expected"),
    [
        ("/catalog/*", ["catalog"], "/catalog/1", ("catalog",)),
        ("/catalog/*", ["a", "b", "a"], "/catalog/1", ("a", "b")),
        ("/catalog/{item}", ["item:{item}"], "/catalog/17", ("item:17",)),
        ("/{shop}/{item}", ["{shop}", "{shop}/{item}"], "/x/y", ("x", "x/y")),
        ("/{shop}/{item}", ["{shop}:{item}"], "/a:b/c", ("a%3Ab:c",)),  # escaped: no value passes for two
        ("/{shop}/{item}", ["{shop}:{item}"], "/a/b:c", ("a:b%3Ac",)),
        ("/{item}", ["item:{item}"], "/a b,c", ("item:a%20b%2Cc",)),
        ("/{item}", ["item:{item}"], "/ä", ("item:%C3%A4",)),
        ("/{item}", ["item:{item}"], "/{item}", ("item:%7Bitem%7D",)),
        ("/{a}", ["{a}{a}"], "/x", ("xx",)),
    ],
)
def test_a_rule_fills_in_the_parameters_of_the_path(
    path: str, tags: list[str], request_path: str, expected: tuple[str, ...]
) -> None:
    assert tags_of(CacheRule(path, ttl=60, tags=tags), request_path) == expected


def test_a_function_gives_tags_from_the_parameters() -> None:
    rule = CacheRule("/{item}", ttl=60, tags=lambda parameters: ["all", parameters["item"].lower()])
    assert tags_of(rule, "/A b") == ("all", "a b")


def test_a_tag_that_is_too_long_keeps_the_response_out() -> None:
    """Without its tag nobody could invalidate it."""
    assert tags_of(CacheRule("/{item}", ttl=60, tags=["{item}"]), "/" + "x" * 513) is None
    assert tags_of(CacheRule("/{item}", ttl=60, tags=lambda _: map(str, range(129))), "/x") is None


@pytest.mark.parametrize("given", ["catalog", [""], [1], None, 7, ["{item"], ["x}"], ["{other}"], ["{}"], ["x" * 513]])
def test_wrong_tags_are_refused(given: object) -> None:
    with pytest.raises(ConfigurationError, match="tags"):
        CacheRule("/{item}", ttl=60, tags=given)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("given", ["text", [""], [1], 5])
def test_a_function_that_gives_no_tags_is_an_error(given: object) -> None:
    rule = CacheRule("/", ttl=60, tags=lambda _: given)  # type: ignore[arg-type, return-value]  # the mistake
    with pytest.raises(TypeError, match="tags="):
        rule.on_target("/", "example.com", b"")


def named(request: HttpRequest | None = None, /, **fields: str) -> list[str] | None:
    """The tags of a response with these fields, without the mark of callers' tags."""
    tags = response_tags(request or get(), combine(head(**fields).headers))
    return None if tags is None else [tag.removeprefix("t:") for tag in tags]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("surrogate_key", "a b  c", ["a", "b", "c"]),
        ("surrogate_key", "a,b c", ["a,b", "c"]),
        ("surrogate_key", "a b, c", ["a", "b", "c"]),  # two lines, joined
        ("surrogate_key", "", []),
        ("cache_tag", "a, b c,,d ", ["a", "b c", "d"]),
        ("xkey", "a b,c\t, d", ["a", "b", "c", "d"]),
        ("xkey", " , ", []),
        ("xkey", "a a", ["a"]),
    ],
)
def test_a_response_names_its_tags(field: str, value: str, expected: list[str]) -> None:
    assert named(**{field: value}) == expected


def test_tags_of_rule_and_response_come_together() -> None:
    request = get(rule=RuleEffect(ttl=60, tags=("t:a", "t:b")))
    assert named(request, surrogate_key="b c", cache_tag="d") == ["a", "b", "c", "d"]
    assert named(request) == ["a", "b"]


def test_a_response_with_too_many_tags_is_not_stored() -> None:
    many = ",".join(map(str, range(MAX_TAGS + 1)))
    for fields in ({"cache_tag": many}, {"surrogate_key": "x" * 513}):
        assert named(**fields) is None
        response = head(cache_control="max-age=60", **fields)
        assert getattr(policy().on_response(get(), response, 0.0), "reason", "") == "tags"
        assert getattr(policy().on_loaded(get(), loaded(response)), "reason", "") == "tags"
    assert named(get(rule=RuleEffect(ttl=60, tags=("t:x",))), cache_tag=many.rpartition(",")[0]) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'"a"', ["a"]),
        (b'"a", "b c" ,\t"d"', ["a", "b c", "d"]),
        (b'"a";x;y=1;z="q, \\" ", "b"', ["a", "b"]),
        (b'"a\\"b\\\\"', ['a"b\\']),
        (b'  "a"  ', ["a"]),
        (b'"a", token, 1, 1.5, ?1, :YQ==:, @1, %"x", "b"', ["a", "b"]),
        (b"", []),
        (b"token", []),
        (b'"a",', []),
        (b',"a"', []),
        (b'"a" "b"', []),
        (b'"a', []),
        (b'"a\\x"', []),
        ('"ä"'.encode(), []),
        (b'"a";=1', []),
        (b'"a";x=', []),
        (b'("a" "b")', []),
        (b"\x00", []),
    ],
)
def test_a_list_of_strings_is_read_as_rfc_9651_says(value: bytes, expected: list[str]) -> None:
    assert string_list(value) == expected


@given(st.binary(max_size=60) | st.text(alphabet='"a\\,; =1?:@%()\t', max_size=30).map(str.encode))
def test_any_bytes_give_a_list(value: bytes) -> None:
    string_list(value)
    assert response_tags(get(), {b"cache-groups": value, b"xkey": value}) is not None


def test_groups_belong_to_an_origin() -> None:
    """RFC 9875 §2.1"""
    here, there = "https://shop.example/a", "https://other.example/a"
    assert named(get(url=here), cache_groups='"g"') == [group_tag("https://shop.example", "g")]
    assert named(get(url=here), cache_groups='"g"') != named(get(url=there), cache_groups='"g"')
    assert named(get(url=here), surrogate_key="g") != named(get(url=here), cache_groups='"g"')


@pytest.mark.parametrize("url", ["https://SHOP.example:443", "https://shop.example/x?y", "HTTPS://shop.example"])
def test_an_origin_has_several_spellings(url: str) -> None:
    assert group_tag(url, "g") == group_tag("https://shop.example", "g")


def test_an_unsafe_response_invalidates_groups() -> None:
    """RFC 9875 §3"""
    fields = {b"cache-group-invalidation": b'"a", "b", "a"'}
    for method in ("POST", "PUT", "DELETE", "PATCH", "UNKNOWN"):
        request = HttpRequest(method, "https://shop.example/x", {})
        assert invalidated_groups(request, fields) == tuple(
            group_tag("https://shop.example", name) for name in ("a", "b")
        )
    for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        assert invalidated_groups(HttpRequest(method, "https://shop.example/x", {}), fields) == ()


def test_tags_of_the_app_outlive_a_confirmation() -> None:
    """Those that the response itself has given change with its fields."""
    fields = combine(((b"cache-tag", b"own, both"), (b"cache-groups", b'"g"')))
    group = response_tags(get(), combine(((b"cache-groups", b'"g"'),)))
    assert group is not None
    before = ("t:own", "t:both", "t:app", *group)
    assert confirmed_tags(URL, before, fields, ("t:new",)) == ("t:new", "t:app")
    assert confirmed_tags(URL, before, fields, ("t:both", "t:app")) == ("t:both", "t:app")
    assert confirmed_tags(URL, ("t:app",), {}, ()) == ("t:app",)
    assert confirmed_tags(URL, (), fields, ("t:new",)) == ("t:new",)


def test_a_confirmed_response_with_too_many_tags_is_for_the_one_who_asked() -> None:
    before = tuple(f"t:{number}" for number in range(MAX_TAGS))
    assert confirmed_tags(URL, before, {}, ()) == before
    assert confirmed_tags(URL, before, {}, ("t:new",)) is None
    rules = policy()
    first = rules.on_loaded(get(), loaded(head(cache_control="max-age=60", etag='"a"')))
    assert isinstance(first, Store)
    tagged = replace(entry(first.value), details=Details(before))
    confirming = get(rule=RuleEffect(None, tags=("t:new",)))
    answer = rules.on_validated(confirming, tagged, loaded(head(304, etag='"a"')))
    assert answer is not None
    assert answer.store is None
    told = loaded(head(200, cache_control="max-age=60", etag='"a"'))
    asking = HttpRequest("HEAD", URL, {}, rule=confirming.rule)
    assert rules.on_head(asking, tagged, told) is None
    kept = rules.on_head(HttpRequest("HEAD", URL, {}), tagged, told)
    assert isinstance(kept, Store)
    assert kept.tags == before
