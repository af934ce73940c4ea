"""The manager that addresses by full key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from . import _patterns, _tags
from ._assembly import build_engine
from ._clock import SYSTEM_CLOCK, Clock
from ._computing import DEFAULT_OPTIONS, Computing
from ._engine import MISSING
from ._keys import CacheKeyBuilder, escape
from ._options import Duration, EntryOptions, seconds
from ._watching import Watchers
from .config import CacheConfig, require_config
from .telemetry import names
from .typing import Layer

T = TypeVar("T")

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for which a cache that is closed lets loads go on."""


class CacheManager:
    """A cache of one or several layers, addressed by full key.

    Works from several event loops and threads at once. Connects to shared layers when it first needs them.

    Args:
        config: `None` means `CacheConfig()`: in memory only.
        clock: for tests that move time.
        lower: layers of your own below those of the configuration, in the order in which they are asked. One that is a
            `SharedLayer` takes the part of Redis. `aurelis.cache.testing` has the tests that a layer must pass.

    Attributes:
        config: the configuration.
        key_builder: builds keys in this cache's namespace.

    Raises:
        ConfigurationError: it is no configuration, or a layer cannot be built from it.

    Example:
        >>> import asyncio
        >>> async def main() -> object:
        ...     async with CacheManager() as cache:
        ...         await cache.set("greeting", "hello", ttl=60)
        ...         return await cache.get("greeting")
        >>> asyncio.run(main())
        'hello'
    """

    def __init__(
        self, config: CacheConfig | None = None, *, clock: Clock = SYSTEM_CLOCK, lower: Sequence[Layer] = ()
    ) -> None:
        self.config = CacheConfig() if config is None else config
        require_config("CacheManager", self.config)
        self.key_builder = CacheKeyBuilder(self.config.namespace)
        self._engine = build_engine(self.config, clock, lower)
        self._read_memory = self._engine.read_memory
        self._computing = Computing(self._engine, seconds(self.config.lease))
        self._watchers = Watchers()

    async def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` when nothing is stored or no layer answers in time.

        `Any`, because only the caller knows what was stored. Mutable values are copies of the caller's own.
        """
        value = self._read_memory(key)
        if value is MISSING:
            value = await self._engine.get(key)
            if value is MISSING:
                return default
        return value

    async def set(self, key: str, value: object, ttl: Duration | None = None, tags: Iterable[str] = ()) -> bool:
        """Keep the value in every layer.

        Args:
            ttl: seconds or timedelta; `None`: each layer's own; `math.inf`: never expires; 0: nothing is kept, and
                what was kept under the key is gone.
            tags: names by which it can be invalidated together with others.

        Returns:
            Whether every layer took it. A failing layer is counted and never raises.

        Raises:
            UnstorableValueError: the value holds a type that is neither built in nor registered in `types`.
            ValueError: the ttl is negative or not a number.
        """
        return await self._engine.set_many({key: value}, None if ttl is None else seconds(ttl), _tags.tags(tags))

    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values found, by key, in the order asked; one round trip for those that memory does not have."""
        return await self._engine.get_many(list(keys))

    async def set_many(
        self, mapping: Mapping[str, object], ttl: Duration | None = None, tags: Iterable[str] = ()
    ) -> bool:
        """`set` for many keys in one round trip; nothing is stored when one value is refused."""
        return await self._engine.set_many(dict(mapping), None if ttl is None else seconds(ttl), _tags.tags(tags))

    async def get_or_compute(
        self,
        key: str,
        compute: Callable[[], Awaitable[T]],
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        options: EntryOptions | None = None,
    ) -> T:
        """The value; when there is none, that of `compute`, which one caller runs for all who ask meanwhile.

        The load runs in a task of its own: cancelling one caller does not harm the others, and when the last one
        leaves it is cancelled. What it raises reaches every waiter as it was, and is not stored. A value of a type that
        cannot be stored is returned, counted, and warned of once per type.

        Args:
            compute: coroutine function without arguments.
            ttl: as for `set`; 0: loads are shared while they run, and nothing is kept.
            tags: as for `set`.
            options: stale values, refreshes in the background, timeouts and more.

        Raises:
            RecursiveLoadError: `compute` waits for the key that it loads.
            LoadTimeoutError: it took longer than the options allow, and there was nothing stale to serve.
            ValueError: the ttl is negative or not a number.
        """
        return await self._computed(key, compute, ttl, tags, options)

    async def _computed(
        self,
        key: str,
        compute: Callable[[], Awaitable[T]],
        ttl: Duration | None,
        tags: Iterable[str],
        options: EntryOptions | None,
        told: Callable[[str], None] | None = None,
    ) -> T:
        """`get_or_compute`, which says how the request was counted."""
        life = None if ttl is None else seconds(ttl)
        value = self._read_memory(key)
        if value is MISSING:
            value = await self._computing.get_or_compute(
                key, compute, life, _tags.tags(tags), options or DEFAULT_OPTIONS, told=told
            )
        elif told is not None:
            told(names.HIT)
        return value  # type: ignore[return-value]  # what is stored under the key is what `compute` gives

    async def delete(self, key: str, *, soft: bool = False) -> bool:
        """Forget the key everywhere; true if it existed somewhere. A load under way is not stored.

        Args:
            soft: not gone but stale: still of use where the options of `get_or_compute` allow stale values.

        Raises:
            LayerError: a shared layer could not be reached, so other processes may still see the value.
        """
        return await (self._engine.soften(key) if soft else self._engine.delete(key))

    async def invalidate_tags(self, *tags: str, soft: bool = False) -> None:
        """Make everything with one of these tags out of date, everywhere, however much it is.

        A load under way of something with such a tag is not stored.

        Args:
            soft: not gone but stale: still of use where the options of `get_or_compute` allow stale values.

        Raises:
            LayerError: a shared layer could not be reached, so other processes may still see it. This one does not.
        """
        if names := _tags.tags(tags):
            await self._engine.invalidate(names, soft=soft)

    async def invalidate_category(self, category: str, *, soft: bool = False) -> None:
        """`invalidate_tags` for all keys of a category."""
        await self._engine.invalidate((_tags.category(category),), soft=soft)

    async def invalidate_pattern(
        self, pattern: str, *, everything: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Forget all keys that a pattern names, by looking at them; tags and categories need not look.

        The pattern stands for the whole `category:identifier`, both parts escaped as in keys; all variants by params
        are meant. `*` is any text, and nothing else has a meaning.

        Args:
            everything: allows a pattern that begins with `*` and so has to look at every key.
            progress: called after each batch with the number of keys looked at and removed so far.

        Returns:
            How many entries were removed.

        Raises:
            ConfigurationError: the pattern is empty, or begins with `*` without `everything`.
            LayerError: a shared layer failed meanwhile; what was found until then is gone.

        Example:
            >>> import asyncio
            >>> from aurelis.cache import UnifiedCacheManager
            >>> async def main() -> int:
            ...     async with UnifiedCacheManager() as cache:
            ...         await cache.set("user", "17", "Ada")
            ...         await cache.set("user", "18", "Grace")
            ...         return await cache.manager.invalidate_pattern("user:1*")
            >>> asyncio.run(main())
            2
        """
        return await self._invalidate_named(pattern, None, everything=everything, progress=progress)

    async def _invalidate_named(
        self,
        pattern: str,
        category: str | None,
        *,
        everything: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        prefix = escape(self.config.namespace) + ":"
        matches = _patterns.matcher(pattern, prefix, category=category, everything=everything)
        return await self._engine.invalidate_matching(matches, _patterns.literal_start(pattern, category), progress)

    async def clear(self) -> None:
        """Forget everything in this cache's namespace, and nothing of its neighbours.

        What shared layers hold is out of date at once, however much it is, and goes when its time to live ends.

        Raises:
            LayerError: a shared layer could not be reached.
        """
        await self._engine.clear()

    async def aclose(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Let loads end within `timeout` seconds, cancel the rest, close connections.

        Twice is harmless; who comes while another one closes it waits until that is done.
        """
        await self._engine.aclose(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
