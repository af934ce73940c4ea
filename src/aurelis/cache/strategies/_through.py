"""Write through: the data store first, then the cache."""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, TypeVar

from aurelis.cache._options import Duration, seconds
from aurelis.cache.manager import AnyManager, manager_of

from . import _writing
from ._store import DataStore, deleting, require_store

S = TypeVar("S", bound=DataStore)


class WriteThrough(Generic[S]):
    """Reads and writes go through the cache to the data store, and a write has returned when the store has it.

    What the cache has afterwards is what the store has, also when keys are written by several tasks, threads and
    processes at once: where it is not known whose write came last, the cache forgets the key.

    Args:
        cache: a manager; full keys are used with either kind.
        data_store: see `DataStore`.

    Attributes:
        cache: the `CacheManager`.
        data_store: the store.

    Raises:
        ConfigurationError: the store lacks `get` or `set`.
        TypeError: `cache` is no manager.

    Example:
        >>> import asyncio
        >>> from aurelis.cache import CacheManager
        >>> class Table:
        ...     def __init__(self) -> None:
        ...         self.rows: dict[str, object] = {}
        ...     async def get(self, key: str) -> object:
        ...         print("reading")
        ...         return self.rows.get(key)
        ...     async def set(self, key: str, value: object) -> None:
        ...         self.rows[key] = value
        >>> async def main() -> object:
        ...     async with CacheManager() as cache:
        ...         users = WriteThrough(cache, Table())
        ...         await users.set("user:17", {"name": "Ada"})
        ...         return await users.get("user:17"), users.data_store.rows
        >>> asyncio.run(main())
        ({'name': 'Ada'}, {'user:17': {'name': 'Ada'}})
    """

    def __init__(self, cache: AnyManager, data_store: S) -> None:
        require_store("WriteThrough", data_store)
        self.cache = manager_of(cache)
        self.data_store = data_store
        self._lease = seconds(self.cache.config.lease)

    async def get(self, key: str) -> Any:
        """The value; `None` if the store has none. What the store answers is kept, `None` too.

        One caller asks the store for all who ask meanwhile, in all processes. What it raises reaches them as it was.
        """
        return await self.cache.get_or_compute(key, partial(self.data_store.get, key))

    async def set(self, key: str, value: object, ttl: Duration | None = None) -> bool:
        """Keep the value in the store, then in the cache.

        Args:
            ttl: seconds or timedelta that the cache keeps it; `None`: each layer's own; 0: it does not.

        Returns:
            Whether every layer of the cache has it now. One that has not has no older value either: it was told to
            forget the key, or is told as soon as it answers.

        Raises:
            UnstorableValueError: the cache cannot store the value; the store was not asked.
            ValueError: the ttl is negative or not a number.
            BaseException: whatever the store raises. Whether it has the value is not known then, so the cache forgets
                the key.
        """
        life = None if ttl is None else seconds(ttl)
        engine = self.cache._engine
        engine.check(key)
        act = partial(self.data_store.set, key, value)
        return await _writing.write(engine, key, engine.stack.pack(value), life, self._lease, act)

    async def delete(self, key: str) -> None:
        """Delete the key in the store, then in the cache.

        Raises:
            ConfigurationError: the store has no `delete`.
            BaseException: as `set`.
        """
        act = partial(deleting("WriteThrough", self.data_store), key)
        await _writing.remove(self.cache._engine, key, act)
