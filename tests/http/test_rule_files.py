"""Rules from TOML."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from aurelis.cache.exceptions import ConfigurationError
from aurelis.cache.http import CacheRule, load_rules


def user(scope: Mapping[str, Any]) -> str | None:
    """Who is asking."""
    return str(scope["user"])


DOCUMENT = """
[[rules]]
path = "/catalog/{item}"
ttl = 60
tags = ["catalog", "item:{item}"]
ignore_query = ["utm_*"]
host = ["shop.example", {regex = "(a|b)[.]example"}]
headers = {Accept = "*json*", X-Old = {regex = "[01]"}}
stale_while_revalidate = 30

[[rules]]
path = {regex = "/[0-9]+"}
ttl = 5.5
principal = "user"

[[rules]]
path = "/admin/**"
bypass = true
"""


def test_a_document_gives_the_rules_that_code_would() -> None:
    first, second, third = load_rules(DOCUMENT, principals={"user": user})
    assert first == CacheRule(
        "/catalog/{item}",
        ttl=60,
        tags=["catalog", "item:{item}"],
        ignore_query=["utm_*"],
        host=["shop.example", re.compile("(a|b)[.]example")],
        headers={"Accept": "*json*", "X-Old": re.compile("[01]")},
        stale_while_revalidate=30,
    )
    assert second == CacheRule(re.compile("/[0-9]+"), ttl=5.5, principal=user)
    assert third == CacheRule("/admin/**", bypass=True)


OPTIONS = {
    "ttl": "60",
    "cookies": '["lang"]',
    "shared": "true",
    "method": '["HEAD"]',
    "host": '"*.example"',
    "headers": '{Accept = "*json*"}',
    "statuses": "[200, 410]",
    "stale_while_revalidate": "30",
    "stale_if_error": "0.5",
    "vary": '["Accept"]',
    "tags": '["catalog"]',
    "query": '["page", "q_*"]',
    "ignore_query": '["utm_*"]',
    "sort_query": "true",
    "key_headers": '["X-Country"]',
    "bypass": "true",
    "override": '["no-store", "private"]',
    "cache_status": '"debug"',
    "max_body_bytes": "1000",
}


def test_there_is_a_key_for_each_argument() -> None:
    assert {each.name for each in fields(CacheRule) if each.init} == {"path", "principal", *OPTIONS}


@pytest.mark.parametrize("name", OPTIONS)
def test_each_argument_means_the_same_in_a_document(name: str) -> None:
    lines = {"path": '"/a"', name: OPTIONS[name]} | ({} if name == "bypass" else {"ttl": "60"})
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    (rule,) = load_rules("[[rules]]\n" + text)
    assert rule == CacheRule(**tomllib.loads(text))
    assert getattr(rule, name) not in (None, False, (), frozenset())


@pytest.mark.parametrize("name", OPTIONS)
def test_a_value_of_another_kind_is_an_error_that_names_rule_and_argument(name: str) -> None:
    wrong = "07:32:00"  # a time of day is none of what an argument may be
    text = f'[[rules]]\npath = "/a"\n{"" if name == "ttl" else "ttl = 60"}\n{name} = {wrong}'
    with pytest.raises(ConfigurationError, match=rf"^rule 1 \('/a'\): {name}"):
        load_rules(text)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(DOCUMENT, encoding="utf-8")
    assert load_rules(path, principals={"user": user}) == load_rules(str(path), principals={"user": user})
    assert len(load_rules(path, principals={"user": user})) == 3
    with pytest.raises(FileNotFoundError):
        load_rules(tmp_path / "missing.toml")


def test_no_rules_are_none() -> None:
    assert load_rules("") == load_rules("rules = []") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[rules]]\npath = "/"\nttll = 60', r"rule 1 \('/'\): 'ttll' is not known; did you mean 'ttl'\?"),
        ('[[rules]]\npath = "/"\nstale_on_error = 60', "did you mean 'stale_if_error'"),
        ('[[rules]]\npath = "/"\nzzz = 60', "'zzz' is not known$"),
        ("[[rules]]\n_pattern = 1", "'_pattern' is not known"),
        ("[[rules]]\nttl = 60", "rule 1: path is missing"),
        ('[[rules]]\npath = "/"\nttl = 0', r"rule 1 \('/'\): ttl=0: .* more than 0 seconds"),
        ('[[rules]]\npath = "/"\n[[rules]]\npath = "x"\nttl = 1', r"rule 1 \('/'\): the rule says nothing"),
        ('[[rules]]\npath = {regex = "("}\nttl = 1', "path is no regular expression"),
        ('[[rules]]\npath = {glob = "x"}\nttl = 1', "path must be a text or"),
        ('[[rules]]\npath = "/"\nttl = 1\nheaders = {A = {b = 1}}', "headers.A must be a text or"),
        ('[[rules]]\npath = "/"\nttl = 1\nprincipal = "usr"', "'usr' is not one of principals.*did you mean 'user'"),
        ('[rules]\npath = "/"', r"with two brackets"),
        ("rules = [1]", r"with two brackets"),
        ('[[rule]]\npath = "/"', r"'rule' is not known here"),
        ("x = [", "no TOML"),
    ],
)
def test_a_wrong_document_says_what_is_wrong_and_where(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_rules(text, principals={"user": user})
