"""Finds where in a value an object is, so that an error can say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aurelis.cache._canonical import key_step

from ._registry import Incomplete, Registry

_MAX_SEARCHED: Final = 100_000


def find(culprit: object, value: object, registry: Registry) -> str:
    """Return the path to an object, for example ``"value['rows'][0].owner"``, or ``"value"`` if that is far.

    Args:
        culprit: The object itself, found by identity.
        value: Where to search; may contain itself.
        registry: The classes whose instances are looked into.
    """
    seen: dict[int, object] = {}  # holds what it has seen: a number is only good as long as its object lives
    left = [(value, "value")]
    while left and len(seen) < _MAX_SEARCHED:
        node, path = left.pop()
        if node is culprit:
            return path
        if id(node) not in seen:
            seen[id(node)] = node
            left.extend((part, path + step) for part, step in _parts(node, registry))
    return "value"


def _parts(node: object, registry: Registry) -> Iterator[tuple[object, str]]:
    if type(node) in registry.by_type:
        yield from _state(node, registry)
    elif isinstance(node, dict):
        for position, (key, item) in enumerate(node.items()):
            yield item, key_step(key, position)
            yield key, f"<key {position}>"
    elif isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield item, f"[{index}]"
    elif isinstance(node, set | frozenset):
        for item in node:
            yield item, "{…}"


def _state(node: object, registry: Registry) -> Iterator[tuple[object, str]]:
    _, shape = registry.by_type[type(node)]
    try:
        groups = shape.dismantle(node)
    except Incomplete:
        return
    for group in groups:
        for attributes in group if isinstance(group, list) else [group]:
            if isinstance(attributes, dict):
                for name, item in attributes.items():
                    yield item, f".{name}"
