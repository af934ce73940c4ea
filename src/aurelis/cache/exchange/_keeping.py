"""Carrying out what a policy has decided to store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from aurelis.cache._decisions import Store
from aurelis.cache._engine import Engine
from aurelis.cache._entry import NO_DETAILS, Details
from aurelis.cache._guard import Budget
from aurelis.cache._leases import Permit
from aurelis.cache._packing import Keep, Packed
from aurelis.cache.exceptions import CacheError
from aurelis.cache.http import LoadedResponse, ResponseHead
from aurelis.cache.typing import ExchangePolicy

Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class PackedValues:
    """What is to be stored, by key; the key of the response among it; and the keys of what must make room for it."""

    values: Mapping[str, Packed]
    key: str
    displaced: tuple[str, ...]


def pack(
    engine: Engine,
    policy: ExchangePolicy[Q, ResponseHead, LoadedResponse],
    request: Q,
    decision: Store,
    key: str,
) -> PackedValues:
    """The response, and the index by which it is found if it is a variant. `key`: where the decision names none."""
    own = decision.key or key
    values = {own: engine.stack.pack(decision.value, trusted=True)}
    displaced: tuple[str, ...] = ()
    if decision.index is not None:
        index_key, index = decision.index
        known = engine.stack.peek(index_key)
        index, displaced = policy.on_indexed(request, index, None if known is None else known.value)
        values[index_key] = engine.stack.pack(index, trusted=True)
    return PackedValues(values, own, displaced)


async def publish(engine: Engine, packed: PackedValues, decision: Store, permit: Permit, budget: Budget) -> None:
    """Store it in all layers, unless something newer has overtaken it."""
    engine.note_apart(packed.values)
    details = Details(decision.tags) if decision.tags else NO_DETAILS
    keep = Keep(decision.fresh_for, decision.stale_for, details=details)
    outcome = await engine.stack.publish(packed.values, keep, permit, budget)
    engine.telemetry.store(outcome.of(packed.key))  # once, though a variant has an index beside it
    for key in packed.displaced:
        with suppress(CacheError):  # that layer is told later
            await engine.stack.remove(key, budget)


def announced_length(head: ResponseHead) -> int:
    """Bytes of the body as the head announces them; 0: it does not."""
    for name, value in head.headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else 0
    return 0
