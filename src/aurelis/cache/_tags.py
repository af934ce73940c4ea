"""Names of what can be invalidated at once: a tag, a category, an identifier, everything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ._keys import escape

EVERYTHING: Final = "*"
"""The tag of all entries of a namespace."""


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


def tags(names: Iterable[str]) -> tuple[str, ...]:
    """Internal names of a caller's tags, each once.

    Raises:
        TypeError: one string instead of several, or a tag that is none.
        ValueError: a tag is empty.
    """
    if isinstance(names, str):
        raise TypeError(f"tags must be a sequence of str; write tags=[{names!r}]")
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
        return (EVERYTHING,)
    parts = key[len(prefix) :].split(":", 4)
    if len(parts) == 3:
        return (EVERYTHING, "c:" + parts[1])
    if len(parts) == 4:
        return (EVERYTHING, "c:" + parts[1], f"i:{parts[1]}:{parts[2]}")
    return (EVERYTHING,)
