"""What a strategy needs of the store behind a cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aurelis.cache.exceptions import ConfigurationError, type_name


class DataStore(Protocol):
    """Where the data is at home: a database, a service, a file.

    Values are those that a cache can store (see `CacheConfig.types`); the store makes of them what it likes. A store
    may have two more coroutine methods:

    * `set_many(values)`: keep all values of a mapping by key. `WriteBehind` gives it whole batches. When it raises, any
      part of them may be stored; each is tried again by `set`.
    * `delete(key)`: forget the key. Without it, the strategies cannot delete.

    `set`, `set_many` and `delete` must be repeatable: after a failure, or the death of a process, what has been done
    may be done once more.
    """

    def get(self, key: str, /) -> Awaitable[Any]:
        """The value; `None` if there is none. `Any`: only the caller knows what was stored."""
        ...

    def set(self, key: str, value: Any, /) -> Awaitable[object]:
        """Keep the value, and return when it is kept. What is returned is not looked at."""
        ...


def require_store(what: str, store: object) -> None:
    """Refuse what cannot be a data store.

    Raises:
        ConfigurationError: it has no `get` or no `set`.
    """
    missing = [name for name in ("get", "set") if not callable(getattr(store, name, None))]
    if missing:
        raise ConfigurationError(
            f"{what}: a data store needs coroutine methods get(key) and set(key, value); "
            f"{type_name(type(store))} lacks {' and '.join(missing)}"
        )


def deleting(what: str, store: object) -> Callable[[str], Awaitable[object]]:
    """The store's `delete`.

    Raises:
        ConfigurationError: it has none.
    """
    delete: Callable[[str], Awaitable[object]] | None = getattr(store, "delete", None)
    if not callable(delete):
        raise ConfigurationError(f"{what}: the data store {type_name(type(store))} has no delete(key)")
    return delete
