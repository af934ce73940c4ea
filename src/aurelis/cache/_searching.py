"""Looks through the layers: for keys that match, and for what they hold of one key."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from functools import partial

from ._first_layer import Found
from ._stack import Stack
from ._tags import BELOW
from .telemetry import names
from .typing import SearchableLayer


async def remove_matching(
    stack: Stack, matches: Callable[[str], bool], start: str, progress: Callable[[int, int], None] | None
) -> int:
    """Forget all keys that match, in memory and in layers that can be searched; returns how many entries that were.

    Args:
        start: what their `category:identifier` begins with.
        progress: told, after each batch, how many keys were looked at and how many of them matched.

    Raises:
        LayerError: a layer failed; what it had found until then is gone.
    """
    own = stack.first.forget_matching(matches)
    removed = seen = 0
    if stack.below is not None:
        # Other machines have keys below that nobody here can look through. So all that lies there goes.
        await stack.invalidate((BELOW,), soft=False, budget=stack.budget())
    for guard in stack.lower:
        layer = guard.layer
        if not isinstance(layer, SearchableLayer):
            continue
        async with contextlib.aclosing(layer.keys(start)) as batches:
            while True:
                batch = await guard.call("scan", partial(anext, batches, None), stack.budget())
                if batch is None:
                    break
                found = [key for key in batch if matches(key)]
                seen += len(batch)
                if found:
                    gone = await guard.call("delete", partial(layer.discard, found), stack.budget())
                    guard.invalidated.n += gone
                    removed += gone
                if progress is not None:
                    progress(seen, removed)
    return max(removed, len(own | stack.first.forget_matching(matches)))


async def matching(stack: Stack, matches: Callable[[str], bool], start: str) -> AsyncGenerator[str, None]:
    """The keys that match, in memory and in layers that can be searched; some may come twice.

    Args:
        start: what their `category:identifier` begins with.

    Raises:
        LayerError: a layer failed.
    """
    own = set() if stack.memory is None else {key for key in list(stack.memory.entries) if matches(key)}
    for key in own:
        yield key
    for guard in stack.lower:
        if not isinstance(guard.layer, SearchableLayer):
            continue
        async with contextlib.aclosing(guard.layer.keys(start)) as batches:
            while (batch := await guard.call("scan", partial(anext, batches, None), stack.budget())) is not None:
                for key in batch:
                    if key not in own and matches(key):
                        yield key


async def stored(stack: Stack, key: str) -> list[Found]:
    """What each layer holds under the key that no invalidation has overtaken. Nothing is counted or promoted.

    Raises:
        LayerError: a layer failed.
    """
    found = [] if (entry := stack.peek(key)) is None else [Found(entry, names.L1)]
    for guard in stack.lower:
        below = await guard.call("get", partial(guard.layer.lookup, key), stack.budget())
        if below is not None:
            below = await stack.judging.one(below, stack.first.tags(key, below), stack.budget())
        if below is not None:
            found.append(Found(below, guard.name))
    return found
