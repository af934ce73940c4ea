"""Names of what can be invalidated at once: a tag, a category, an identifier, everything."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from ._keys import escape

EVERYTHING: Final = "*"
"""The tag of all entries of a namespace."""
_EVERYTHING_ALONE: Final = (EVERYTHING,)
BELOW: Final = "b"
"""The tag of all entries in layers below the one that is shared."""


def own(key: str) -> str:
    """The tag of a key itself. Whatever changes the key invalidates it."""
    return "k:" + key


def tag(name: str) -> str:
    """The internal name of a caller's tag."""
    return "t:" + name


def names(internal: Iterable[str]) -> tuple[str, ...]:
    """The callers' tags among internal names."""
    return tuple(name[2:] for name in internal if name.startswith("t:"))


def category(name: str) -> str:
    """The tag of all entries of a category."""
    return "c:" + escape(name)


def identifier(category: str, name: str) -> str:
    """The tag of all entries of an identifier that were made with params."""
    return f"i:{escape(category)}:{escape(name)}"


def tags(names: Iterable[str], argument: str = "tags") -> tuple[str, ...]:
    """Internal names of a caller's tags, each once.

    Args:
        argument: what the caller calls them.

    Raises:
        TypeError: one string instead of several, or a tag that is none.
        ValueError: a tag is empty.
    """
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a sequence of str; write {argument}=[{names!r}]")
    if not names:
        return ()
    found = dict.fromkeys(names)
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"a tag must be a str, not {type(name).__name__}")
        if not name:
            raise ValueError("a tag must not be empty")
    return tuple(map(tag, found))


def implied(key: str, prefix: str) -> tuple[str, ...]:
    """The tags that follow from a key.

    Args:
        key: full key, by `CacheKeyBuilder` or any other.
        prefix: the namespace, escaped, with a colon.
    """
    if not key.startswith(prefix):
        return _EVERYTHING_ALONE
    parts = key[len(prefix) :].split(":", 4)
    if len(parts) == 3:
        return _of_category(parts[1])
    if len(parts) == 4:
        return (*_of_category(parts[1]), f"i:{parts[1]}:{parts[2]}")
    return _EVERYTHING_ALONE


@lru_cache(1024)
def _of_category(escaped: str) -> tuple[str, ...]:
    # The same object for many keys, rather than one more for the collector of garbage with each.
    return (EVERYTHING, "c:" + escaped)
