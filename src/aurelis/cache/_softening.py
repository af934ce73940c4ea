"""Makes what is stored under one key stale, so that it is of use only where stale values are."""

from __future__ import annotations

from functools import partial
from secrets import token_hex

from ._guard import Budget
from ._stack import Stack
from .exceptions import LayerError


async def soften(stack: Stack, key: str, budget: Budget) -> bool:
    """Make what is stored under the key stale; true if there was something.

    Under a lease, so that whatever else changes the key meanwhile counts. What somebody loads, or has changed, is
    forgotten, which is never wrong.

    Raises:
        LayerError: a shared layer could not be reached, so others may still see it fresh; here it is gone.
    """
    guard = stack.shared
    if guard is None:
        return await _soften_own(stack, key, budget)
    existed = stack.forget(key)
    try:
        act = partial(stack.layer.acquire, key, token_hex(16).encode(), again=True, life=stack.timeout)
        acquired = await guard.call("acquire", act, budget)
        # What the layer has may be older than what it has not been told yet.
        may = acquired.own and not stack.is_waiting(key)
        softened = await _put_back(stack, key, acquired.lease, budget) if may else None
        if softened is None:
            return await stack.take(guard, key, budget) or existed
        await guard.call("delete", partial(stack.layer.announce, (key,)), budget)
    except LayerError:
        stack.lower_layers.not_removed(key)
        raise
    finally:
        stack.forget(key)  # a reader may have promoted it
    stack.lower_layers.settled((key,))
    return existed or softened


async def _put_back(stack: Stack, key: str, lease: bytes, budget: Budget) -> bool | None:
    """Replace what the shared layer has by the same, but stale; whether there was something. `None`: overtaken."""
    guard, layer = stack.shared, stack.layer
    assert guard is not None
    entry = await guard.call("get", partial(layer.lookup, key), budget)
    if entry is None:
        await guard.call("release", partial(layer.release, key, lease), budget)
        return False
    entry = await stack.judging.one(entry, stack.first.tags(key, entry), budget)
    if entry is None:  # out of date, but others may not know that yet
        return None
    act = partial(layer.publish, key, lease, {key: stack.first.aged(entry)}, release=True)
    return True if await guard.call("set", act, budget) else None


async def _soften_own(stack: Stack, key: str, budget: Budget) -> bool:
    entry = stack.peek(key)
    stack.first.count_removals((key,))
    if stack.memory is not None and entry is not None:
        stack.memory.put(key, stack.first.aged(entry))
    existed = entry is not None
    for guard in stack.lower:
        below = await guard.call("get", partial(guard.layer.lookup, key), budget)
        if below is not None:
            existed = True
            await guard.call("set", partial(guard.layer.store, key, stack.first.aged(below)), budget)
    return existed
