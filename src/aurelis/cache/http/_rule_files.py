"""Rules that are read from TOML."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeAlias

from aurelis.cache._nearest import nearest
from aurelis.cache.exceptions import ConfigurationError

from ._rules import CacheRule

Principal: TypeAlias = Callable[[Mapping[str, Any]], str | None]
"""As `CacheRule(principal=...)` takes it."""

_KEYS: Final = tuple(each.name for each in fields(CacheRule) if each.init)
_PATTERNS: Final = frozenset({"path", "host"})


def load_rules(
    source: str | os.PathLike[str], *, principals: Mapping[str, Principal] | None = None
) -> tuple[CacheRule, ...]:
    """The rules of a TOML document, in order: each `[[rules]]` has the arguments of a `CacheRule`.

    Where a pattern may be a regular expression, `{regex = "…"}` is one. `principal` is the name of one of `principals`,
    since a file holds no functions.

    Args:
        source: path of a file, or the document itself, which has a line break or a `=`.
        principals: functions by the names that the rules use.

    Raises:
        ConfigurationError: it is no TOML, has a key that is not known, or a rule cannot work; names the rule.
        OSError: the file cannot be read.

    Example:
        >>> load_rules('''
        ... [[rules]]
        ... path = "/catalog/{item}"
        ... ttl = 60
        ... tags = ["catalog", "item:{item}"]
        ... ''')
        (CacheRule(path='/catalog/{item}', ttl=60.0, principal=None, cookies=None, shared=False, tags=('catalog', \
'item:{item}')),)
    """
    is_text = isinstance(source, str) and ("\n" in source or "=" in source or not source.strip())
    text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the rules are no TOML: {error}") from error
    for key in document:
        if key != "rules":
            raise ConfigurationError(f"{key!r} is not known here: write each rule under [[rules]]")
    rules = document.get("rules", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigurationError("rules must be tables: write each rule under [[rules]], with two brackets")
    return tuple(_rule(number, rule, principals or {}) for number, rule in enumerate(rules, start=1))


def _rule(number: int, table: Mapping[str, Any], principals: Mapping[str, Principal]) -> CacheRule:
    where = f"rule {number}"
    if isinstance(table.get("path"), str):
        where += f" ({table['path']!r})"
    for key in table:
        if key not in _KEYS:
            raise ConfigurationError(f"{where}: {key!r} is not known{nearest(key, _KEYS)}")
    if "path" not in table:
        raise ConfigurationError(f'{where}: path is missing; write for instance path = "/catalog/*"')
    # `Any`: the rule itself looks at them.
    arguments: dict[str, Any] = {
        key: _pattern(where, key, value) if key in _PATTERNS else value for key, value in table.items()
    }
    if isinstance(table.get("host"), list):
        arguments["host"] = [_pattern(where, "host", each) for each in table["host"]]
    if isinstance(table.get("headers"), dict):
        arguments["headers"] = {
            name: _pattern(where, f"headers.{name}", each) for name, each in table["headers"].items()
        }
    if "principal" in table:
        name = table["principal"]
        if not isinstance(name, str) or name not in principals:
            raise ConfigurationError(
                f"{where}: principal = {name!r} is not one of principals={{...}} of load_rules"
                f"{nearest(str(name), principals)}"
            )
        arguments["principal"] = principals[name]
    try:
        return CacheRule(**arguments)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _pattern(where: str, key: str, value: object) -> object:
    if not isinstance(value, dict):
        return value
    if set(value) != {"regex"} or not isinstance(value["regex"], str):
        raise ConfigurationError(f'{where}: {key} must be a text or {{regex = "…"}}')
    try:
        return re.compile(value["regex"])
    except re.error as error:
        raise ConfigurationError(f"{where}: {key} is no regular expression: {error}") from error
