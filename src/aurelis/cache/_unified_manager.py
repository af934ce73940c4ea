"""The manager that addresses by category, identifier and parameters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _tags
from ._cache_manager import CLOSE_TIMEOUT, CacheManager
from ._options import Duration, EntryOptions
from .config import CacheConfig, require_categories, require_config
from .exceptions import ConfigurationError

T = TypeVar("T")


class UnifiedCacheManager:
    """A cache addressed by category, identifier and parameters.

    Args:
        config_or_manager: a configuration, or the `CacheManager` to stand on, which is never closed here; `None` means
            `CacheConfig()`.
        categories: options of single categories, by name, in place of those that the configuration has for them. What
            a call says itself wins. `set` and `set_many` take the `ttl` from them, `get_or_compute` all.

    Attributes:
        manager: the `CacheManager` below.
        key_builder: builds its keys.

    Raises:
        ConfigurationError: it is neither, or the options of a category are none.
    """

    def __init__(
        self,
        config_or_manager: CacheConfig | CacheManager | None = None,
        *,
        categories: Mapping[str, EntryOptions] | None = None,
    ) -> None:
        if categories is not None:
            require_categories("UnifiedCacheManager: categories", categories)
        self._made = not isinstance(config_or_manager, CacheManager)
        if self._made and config_or_manager is not None:
            require_config("UnifiedCacheManager", config_or_manager)
        if isinstance(config_or_manager, CacheManager):
            self.manager = config_or_manager
        else:
            self.manager = CacheManager(config_or_manager)
        self._options = {**(self.manager.config.categories or {}), **(categories or {})}
        self.key_builder = self.manager.key_builder

    def _key(self, category: str, identifier: str, params: Mapping[str, Any] | None) -> str:
        return self.key_builder.build_key(category, identifier, params)

    def _ttl(self, category: str, ttl: Duration | None) -> Duration | None:
        options = self._options.get(category) if ttl is None else None
        return ttl if options is None else options.ttl

    async def get(
        self, category: str, identifier: str, params: Mapping[str, Any] | None = None, default: Any = None
    ) -> Any:
        """The value, or `default`."""
        return await self.manager.get(self._key(category, identifier, params), default)

    async def set(
        self,
        category: str,
        identifier: str,
        value: object,
        ttl: Duration | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> bool:
        """Keep the value; true if every layer took it. Raises as `CacheManager.set`."""
        key = self._key(category, identifier, params)
        return await self.manager.set(key, value, self._ttl(category, ttl), tags)

    async def get_many(
        self, category: str, identifiers: Iterable[str], params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The values found, by identifier."""
        keys = {self._key(category, identifier, params): identifier for identifier in identifiers}
        found = await self.manager.get_many(keys)
        return {keys[key]: value for key, value in found.items()}

    async def set_many(
        self,
        category: str,
        mapping: Mapping[str, object],
        ttl: Duration | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> bool:
        """Keep the values, given by identifier."""
        values = {self._key(category, identifier, params): value for identifier, value in mapping.items()}
        return await self.manager.set_many(values, self._ttl(category, ttl), tags)

    async def get_or_compute(
        self,
        category: str,
        identifier: str,
        compute: Callable[[], Awaitable[T]],
        params: Mapping[str, Any] | None = None,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        options: EntryOptions | None = None,
    ) -> T:
        """The value, or that of `compute`, as `CacheManager.get_or_compute`."""
        key = self._key(category, identifier, params)
        return await self.manager.get_or_compute(key, compute, ttl, tags, options or self._options.get(category))

    async def delete(
        self, category: str, identifier: str, params: Mapping[str, Any] | None = None, *, soft: bool = False
    ) -> bool:
        """Forget the value; true if it existed somewhere. As `CacheManager.delete`."""
        return await self.manager.delete(self._key(category, identifier, params), soft=soft)

    async def invalidate(
        self,
        category: str | None = None,
        identifier: str | None = None,
        pattern: str | None = None,
        *,
        soft: bool = False,
    ) -> None:
        """Make out of date what is meant: an identifier with all its variants by params, a pattern, or a category.

        Args:
            category: alone, all that is in it; beside a pattern, what the pattern may name.
            identifier: of the category.
            pattern: as for `CacheManager.invalidate_pattern`.
            soft: not gone but stale: still of use where the options of `get_or_compute` allow stale values. Not for
                patterns.

        Raises:
            ConfigurationError: nothing is named, or what contradicts each other, or the pattern is empty or begins with
                `*` without a category.
            UnkeyableError: a part is no string.
            LayerError: a shared layer could not be reached, so other processes may still see it.
        """
        if pattern is not None:
            if identifier is not None or soft:
                raise ConfigurationError("invalidate: a pattern has no identifier beside it, and is never soft")
            await self.manager._invalidate_named(pattern, category)
            return
        if category is None:
            raise ConfigurationError("invalidate: name a category or a pattern; to forget everything use clear()")
        key = self._key(category, identifier or "", None)
        if identifier is None:
            await self.manager.invalidate_category(category, soft=soft)
            return
        try:
            await self.manager._engine.invalidate((_tags.identifier(category, identifier),), soft=soft)
        finally:
            await self.manager.delete(key, soft=soft)

    async def invalidate_tags(self, *tags: str, soft: bool = False) -> None:
        """Make everything with one of these tags out of date. Raises as `CacheManager.invalidate_tags`."""
        await self.manager.invalidate_tags(*tags, soft=soft)

    async def invalidate_category(self, category: str, *, soft: bool = False) -> None:
        """Make everything in the category out of date. Raises as `CacheManager.invalidate_tags`."""
        await self.manager.invalidate_category(category, soft=soft)

    async def invalidate_pattern(
        self, pattern: str, *, everything: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> int:
        """Forget all keys that a pattern names. As `CacheManager.invalidate_pattern`."""
        return await self.manager.invalidate_pattern(pattern, everything=everything, progress=progress)

    async def clear(self) -> None:
        """Forget everything in the namespace. Raises as `CacheManager.clear`."""
        await self.manager.clear()

    async def aclose(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the manager below, unless it was given: then whoever made it closes it."""
        if self._made:
            await self.manager.aclose(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
