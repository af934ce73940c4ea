"""Cache aside: what is not in the cache is computed, and kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from aurelis.cache._options import Duration
from aurelis.cache.manager import AnyManager, CacheManager, manager_of

T = TypeVar("T")


class CacheAside:
    """The app reads through the cache, and writes past it.

    Args:
        cache: a manager; full keys are used with either kind. `None`: the process's, found at each call.

    Raises:
        TypeError: it is no manager.

    Example:
        >>> import asyncio
        >>> async def square(number: int) -> int:
        ...     print("computing")
        ...     return number * number
        >>> async def main() -> list[int]:
        ...     async with CacheManager() as cache:
        ...         aside = CacheAside(cache)
        ...         return [await aside.get_or_compute("square:7", square, 60, 7) for _ in range(2)]
        >>> asyncio.run(main())
        computing
        [49, 49]
    """

    def __init__(self, cache: AnyManager | None = None) -> None:
        self._given = None if cache is None else manager_of(cache)

    @property
    def cache(self) -> CacheManager:
        """The manager below."""
        return manager_of(None) if self._given is None else self._given

    async def get_or_compute(
        self,
        key: str,
        compute_func: Callable[..., Awaitable[T]],
        ttl: Duration | None = None,
        *args: Any,  # what the function takes
        **kwargs: Any,
    ) -> T:
        """The value; when there is none, that of `compute_func(*args, **kwargs)`, which one caller runs for all.

        As `CacheManager.get_or_compute`: `None` is a value, errors reach all who wait and are not kept. A value that
        the app has changed in the store is to be deleted from the cache by `cache.delete(key)`.

        Args:
            ttl: seconds or timedelta; `None`: each layer's own. Arguments of the function come after it.

        Raises:
            RecursiveLoadError: the function waits for the key that it computes.
            ValueError: the ttl is negative or not a number.
        """
        return await self.cache.get_or_compute(key, partial(compute_func, *args, **kwargs), ttl)
