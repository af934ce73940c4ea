"""Which keys a pattern names."""

from __future__ import annotations

import re
from collections.abc import Callable

from .exceptions import ConfigurationError


def literal_start(pattern: str) -> str:
    """What every match of the pattern begins with."""
    return pattern.partition("*")[0]


def matcher(pattern: str, prefix: str, *, everything: bool) -> Callable[[str], bool]:
    """Whether a key is meant by a pattern.

    The pattern stands for the whole of `category:identifier`, with both parts as they are in keys: escaped. `*` is any
    text; no other character has a meaning. All versions and all variants by params are meant.

    Args:
        pattern: not empty.
        prefix: the namespace, escaped, with a colon.
        everything: a pattern that begins with `*` is allowed.

    Raises:
        TypeError: the pattern is no string.
        ConfigurationError: it is empty, or begins with `*` although `everything` is off.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern must be a str, not {type(pattern).__name__}")
    if not pattern:
        raise ConfigurationError("a pattern must not be empty; to forget everything use clear()")
    if not everything and not literal_start(pattern):
        raise ConfigurationError(
            "a pattern that begins with '*' looks at every key: pass everything=True if that is meant, or clear()"
        )
    expression = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)

    def matches(key: str) -> bool:
        if not key.startswith(prefix):
            return False
        parts = key[len(prefix) :].split(":", 4)
        return len(parts) in (3, 4) and expression.fullmatch(f"{parts[1]}:{parts[2]}") is not None

    return matches
