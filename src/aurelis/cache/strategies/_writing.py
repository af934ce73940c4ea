"""Values that come into the cache because they were written elsewhere first.

Of two writes of a key at once, nobody here knows which one was the later there. So a write takes the key's lease before
it begins, and its value is kept only if nothing has changed the key and no other write was under way meanwhile;
otherwise the key is deleted, and who asks next reads what has come of it:

* of two processes, one has the lease. The other one deletes the key when it has written, which ends the lease: what the
  first one keeps afterwards is refused, and what it has kept before is gone;
* of two writes in one process, both delete;
* a load that has read the value before the write is overtaken by what is kept or deleted here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from aurelis.cache._engine import Engine
from aurelis.cache._leases import Permit
from aurelis.cache._packing import Keep, Packed
from aurelis.cache._writes import Write
from aurelis.cache.exceptions import CacheError

Act = Callable[[], Awaitable[object]]


async def write(engine: Engine, key: str, packed: Packed, ttl: float | None, lease: float, act: Act) -> bool:
    """Do it, and keep the value then; true if every layer took it.

    Args:
        ttl: as for `CacheManager.set`.
        lease: seconds.

    Raises:
        BaseException: whatever `act` raises. Whether it was done is not known then, so the key is deleted.
    """
    engine.check(key)
    with engine.writes.during(key) as own:
        budget = await engine.ready()
        permit: Permit | None = None
        if engine.stack.shared is not None:
            _, permit = await engine.acquire(key, budget, again=True, life=lease)
        async with _or_forget(engine, key):
            await act()
            return await _keep(engine, key, packed, ttl, permit, own)


async def remove(engine: Engine, key: str, act: Act) -> None:
    """Do it, and delete the key then. Raises as `write`."""
    engine.check(key)
    with engine.writes.during(key):
        async with _or_forget(engine, key):
            await act()
            await forget(engine, key)


async def forget(engine: Engine, key: str) -> bool:
    """Delete the key; false if a shared layer could not be told now, which is counted, and made up for later."""
    try:
        await engine.delete(key)
    except CacheError:
        return False
    return True


@contextlib.asynccontextmanager
async def _or_forget(engine: Engine, key: str) -> AsyncIterator[None]:
    try:
        try:
            yield
        except Exception:
            await forget(engine, key)
            raise
    except Exception:
        raise
    except BaseException:  # also a cancellation while it was being forgotten
        with contextlib.suppress(RuntimeError):  # the event loop ends
            engine.flights.run_to_its_end(_forget(engine, key))
        raise


async def _forget(engine: Engine, key: str) -> None:
    await forget(engine, key)


async def _keep(engine: Engine, key: str, packed: Packed, ttl: float | None, permit: Permit | None, own: Write) -> bool:
    kept = False
    if ttl == 0:
        return await forget(engine, key)
    if not own.overlapped:
        if permit is None or permit.fence is None:  # nothing is shared, or it does not answer: as for `set`
            kept = await engine.keep({key: packed}, ttl)
            if not own.overlapped:
                return kept
        elif permit.owner:
            kept = await _publish(engine, key, packed, ttl, permit)
    if not kept or own.overlapped:
        await forget(engine, key)
        return False
    return True


async def _publish(engine: Engine, key: str, packed: Packed, ttl: float | None, permit: Permit) -> bool:
    budget = await engine.after([engine.flights.fence(key)])
    try:
        outcome = await engine.stack.publish({key: packed}, Keep(ttl), permit, budget, anew=True)
    finally:
        engine.flights.fence(key)  # a load that joined the old value meanwhile
    engine.telemetry.store(outcome.result)
    return outcome.result == "stored"
