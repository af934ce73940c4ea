"""Patterns of a rule: parameters of paths, hosts, values of fields, names."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http._matching import HostPattern, PathPattern, ValuePattern, names_expression


@pytest.mark.parametrize(
    ("pattern", "path", "parameters"),
    [
        ("/catalog/{item}", "/catalog/17", {"item": "17"}),
        ("/catalog/{item}", "/catalog/", None),
        ("/catalog/{item}", "/catalog/17/reviews", None),
        ("/catalog/{item}", "/catalog/a b;c", {"item": "a b;c"}),
        ("/{shop}/{item}", "/x/y", {"shop": "x", "item": "y"}),
        ("/{shop}/*/{item}", "/x//y", {"shop": "x", "item": "y"}),
        ("/{item}.json", "/a.b.json", {"item": "a.b"}),
        ("/{item}.json", "/.json", None),
        ("/{item}.json/x", "/a.json.json/x", {"item": "a.json"}),
        ("/{item}.json/*", "/a.json.json/x", {"item": "a.json"}),
        ("/v{major}.{minor}/x", "/v1.2.3/x", {"major": "1", "minor": "2.3"}),
        ("/**/{item}", "/a/b/c", {"item": "c"}),
        ("/**/{item}", "/c", {"item": "c"}),
        ("/{shop}/**", "/x/y/z", {"shop": "x"}),
        ("/{item}", "/..", None),
        ("/plain", "/plain", {}),
        (re.compile(r"/(?P<year>[0-9]{4})/(?P<page>.*)"), "/2024/a/b", {"year": "2024", "page": "a/b"}),
        (re.compile(r"/(?P<year>[0-9]{4})(/(?P<page>.*))?"), "/2024", {"year": "2024", "page": ""}),
        (re.compile(r"/a"), "/ab", None),
        (re.compile(r"/.*"), "/a/../b", None),
        (re.compile(r"/.*"), "/" + "a" * 4096, None),
        (re.compile(r"/CATALOG", re.IGNORECASE), "/catalog", {}),
    ],
)
def test_a_path_gives_its_parameters(
    pattern: str | re.Pattern[str], path: str, parameters: dict[str, str] | None
) -> None:
    assert PathPattern.of(pattern).match(path) == parameters


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/{}", "name of a parameter"),
        ("/{a b}", "name of a parameter"),
        ("/{1a}", "name of a parameter"),
        ("/{item:path}", "name of a parameter"),
        ("/{a}/{a}", "is there twice"),
        ("/{a}{b}", "nothing stands between"),
        ("/{a}*", "nothing stands between"),
        ("/*{a}", "nothing stands between"),
        ("/**{a}", "nothing stands between"),
        ("/{a", "re.compile"),
        ("/a}", "re.compile"),
        ("/{a}}", "re.compile"),
        ("/{{a}}", "re.compile"),
        (re.compile(rb"/a"), "compile it from a str"),
    ],
)
def test_a_path_that_cannot_be_a_pattern_is_refused(pattern: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PathPattern.of(pattern)


@pytest.mark.parametrize(
    "pattern", ["/{a}-{b}-{c}-x", "/**a{b}a**a{c}a**x", "/{a}/{b}/**/{c}a*x", "/**/{a}-{b}/**/{c}-x"]
)
def test_parameters_cost_little_on_hostile_paths(pattern: str) -> None:
    compiled = PathPattern.of(pattern)
    started = time.process_time()
    for filler in ("a", "a/", "-a", "-", "/-a"):
        assert compiled.match("/" + filler * (4000 // len(filler)) + "!") is None
    assert time.process_time() - started < 2


@given(st.text(alphabet="ab/-", max_size=12))
def test_parameters_put_back_give_the_path(text: str) -> None:
    found = PathPattern.of("/{one}/x-{two}").match("/" + text)
    if found is not None:
        assert f"/{found['one']}/x-{found['two']}" == "/" + text
        assert "/" not in found["one"] + found["two"]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (
            "shop.example",
            ["shop.example", "SHOP.example", "shop.example:8000"],
            ["a.shop.example", "shop.example.evil"],
        ),
        ("*.shop.example", ["a.shop.example", "A.shop.example:80"], ["shop.example", "a.b.shop.example", "x"]),
        ("**.shop.example", ["a.shop.example", "a.b.shop.example"], ["shop.example", "shop.example.evil"]),
        ("shop.example:8000", ["shop.example:8000"], ["shop.example", "shop.example:80"]),
        ("[::1]", ["[::1]", "[::1]:80"], ["::1"]),
        (re.compile(r"(a|b)\.example"), ["a.example", "b.example:80", "A.example"], ["c.example"]),
        ("shop.example", [], ["shop.example/x", "shop.example@evil", "x" * 5000, "", "shop.example:80:80"]),
    ],
)
def test_a_host_is_matched_with_or_without_its_port(
    pattern: str | re.Pattern[str], matching: list[str], others: list[str]
) -> None:
    compiled = HostPattern.of(pattern)
    assert [host for host in matching if not compiled.matches(host)] == []
    assert [host for host in others if compiled.matches(host)] == []


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("1", [b"1"], [b"", b"11", b" 1"]),
        ("*json*", [b"application/json", b"json", b"a/json, b/c"], [b"JSON", b""]),
        ("*", [b"", b"a/b"], [b"x" * 5000]),
        ("a*b*c", [b"abc", b"a..b..c", b"abcbc"], [b"ab", b"abcb"]),
        (re.compile("de(-.*)?"), [b"de", b"de-AT"], [b"den"]),
    ],
)
def test_a_value_is_matched_as_a_whole(
    pattern: str | re.Pattern[str], matching: list[bytes], others: list[bytes]
) -> None:
    compiled = ValuePattern.of(pattern, "headers['x']")
    assert [value for value in matching if not compiled.matches(value)] == []
    assert [value for value in others if compiled.matches(value)] == []


def test_values_cost_little_whoever_sends_them() -> None:
    started = time.process_time()
    assert not ValuePattern.of("*a*a*a*a*b", "x").matches(b"a" * 4000)
    assert HostPattern.of("**a**a**a**b").matches("a" * 4000) is False
    assert time.process_time() - started < 1


@pytest.mark.parametrize("pattern", ["", 1, None, b"a", "a/b"])
def test_what_is_no_host_is_refused(pattern: object) -> None:
    with pytest.raises(ConfigurationError, match="host="):
        HostPattern.of(pattern)


@pytest.mark.parametrize("pattern", ["", 1, None, "a**b", re.compile(b"a")])
def test_what_is_no_pattern_for_a_value_is_refused(pattern: object) -> None:
    with pytest.raises(ConfigurationError, match="headers"):
        ValuePattern.of(pattern, "headers['x']")


def test_several_names_are_one_expression() -> None:
    found = names_expression(("utm_*", "a.b"), "query")
    assert [name for name in ("utm_", "utm_x", "a.b", "axb", "xutm_a") if found.fullmatch(name)] == [
        "utm_",
        "utm_x",
        "a.b",
    ]
    assert names_expression((), "query").fullmatch("") is None
