"""Which keys a pattern names."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from ._keys import escape
from .exceptions import ConfigurationError


def literal_start(pattern: str, category: str | None = None) -> str:
    """What every match of the pattern, in the category if there is one, begins with."""
    start = pattern.partition("*")[0]
    return start if category is None else max(start, escape(category) + ":", key=len)


def category_of(pattern: str) -> str | None:
    """The one category that the pattern is about; `None`: it may be several."""
    start, colon, _ = literal_start(pattern).partition(":")
    try:
        return unquote(start, errors="surrogatepass") if colon else None
    except UnicodeDecodeError:  # of no category, as that is not how one is written
        return None


def matcher(
    pattern: str, prefix: str, *, category: str | None = None, everything: bool = False
) -> Callable[[str], bool]:
    """Whether a key is meant by a pattern.

    The pattern stands for the whole of `category:identifier`, with both parts as they are in keys: escaped. `*` is any
    text; no other character has a meaning. All versions and all variants by params are meant.

    Args:
        pattern: not empty.
        prefix: the namespace, escaped, with a colon.
        category: no other one is meant; `None`: any.
        everything: a pattern that begins with `*` is allowed although there is no category.

    Raises:
        TypeError: the pattern or the category is no string.
        ConfigurationError: the pattern is empty, or begins with `*` although `everything` is off.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern must be a str, not {type(pattern).__name__}")
    if not pattern:
        raise ConfigurationError("a pattern must not be empty; to forget everything use clear()")
    only = None if category is None else escape(category)
    if not everything and only is None and not literal_start(pattern):
        raise ConfigurationError(
            "a pattern that begins with '*' looks at every key: name a category, or use"
            " invalidate_pattern(..., everything=True) or clear() if all of them are meant"
        )
    expression = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)

    def matches(key: str) -> bool:
        if not key.startswith(prefix):
            return False
        parts = key[len(prefix) :].split(":", 4)
        if len(parts) not in (3, 4) or (only is not None and parts[1] != only):
            return False
        return expression.fullmatch(f"{parts[1]}:{parts[2]}") is not None

    return matches
