"""The managers: what an app holds in its hand.

`CacheManager` addresses by full key, `UnifiedCacheManager` by category, identifier and parameters.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import _patterns, _tags
from ._clock import SYSTEM_CLOCK, Clock
from ._computing import DEFAULT_OPTIONS, Computing
from ._engine import MISSING, Engine
from ._forking import renew_in_children
from ._generations import Generations
from ._guard import Guard
from ._keys import CacheKeyBuilder, escape
from ._listening import Listening
from ._options import Duration, EntryOptions, seconds
from ._recovery import Recovery
from ._redis_url import parse_redis_url
from ._settings import load_config
from ._stack import Stack
from ._watching import Watchers
from .codecs import Framing, ValueCodec
from .config import CacheConfig, CacheLayer, require_categories, require_config
from .exceptions import ConfigurationError, FrameError
from .http import StoredPart, StoredResponse, VariantIndex
from .layers.memory import MemoryBackend
from .telemetry import names
from .telemetry.otel import DISK_SAMPLE, SIZE_SAMPLE_MEMORY, Telemetry
from .typing import Layer, Newsroom, SharedLayer

if TYPE_CHECKING:
    from .layers._database import Database

T = TypeVar("T")

_CLOSE_TIMEOUT = 5.0
_LONGEST_WAIT = 30.0
"""Seconds for which one process waits for another one's transaction at most, however long a request may take."""
_TRUST = 5.0
"""Seconds for which a process relies on what it knows of tags, while it does not hear of invalidations."""


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
        self._engine = _build_engine(self.config, clock, lower)
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

    async def aclose(self, timeout: float = _CLOSE_TIMEOUT) -> None:
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

    async def aclose(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Close the manager below, unless it was given: then whoever made it closes it."""
        if self._made:
            await self.manager.aclose(timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


AnyManager = CacheManager | UnifiedCacheManager
"""What every `cache=` takes."""


def manager_of(cache: AnyManager | None) -> CacheManager:
    """The `CacheManager` behind a `cache=` argument; `None` means that of the process.

    Raises:
        TypeError: it is something else.
    """
    if cache is None:
        return get_cache_manager().manager
    if isinstance(cache, UnifiedCacheManager):
        return cache.manager
    if isinstance(cache, CacheManager):
        return cache
    raise TypeError(f"cache must be a CacheManager or a UnifiedCacheManager, not {type(cache).__name__}")


class _ProcessManager:
    """Holds the process's manager. The one place where a manager is global, because the interface asks for one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.manager: UnifiedCacheManager | None = None
        renew_in_children(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()

    def present(self) -> UnifiedCacheManager | None:
        """The manager, if there is one that is open."""
        manager = self.manager
        return None if manager is None or manager.manager._engine.closed else manager


_process = _ProcessManager()


def get_cache_manager() -> UnifiedCacheManager:
    """The process's manager, made on first use, and again after it was closed, as the environment says.

    `load_config` says what that may hold; without variables `AURELIS_CACHE_…` it is `CacheConfig()`.

    Raises:
        ConfigurationError, MissingExtraError, OSError: as `load_config`.
    """
    if (manager := _process.present()) is not None:
        return manager
    config = load_config()  # without the lock: it may import modules of the app, and those ask for the manager, too
    with _process.lock:
        if (manager := _process.present()) is None:
            _process.manager = manager = UnifiedCacheManager(config)
        return manager


def set_cache_manager(manager: AnyManager | None) -> UnifiedCacheManager | None:
    """Make this the process's manager; `None`: a new one is made on the next use.

    Returns:
        The one before, which is not closed; `None`: there was none. To be set again where a test has replaced it.

    Raises:
        TypeError: it is no manager.

    Example:
        >>> before = set_cache_manager(CacheManager())
        >>> after = set_cache_manager(before)
    """
    if manager is not None:
        manager_of(manager)
    with _process.lock:
        before = _process.manager
        _process.manager = UnifiedCacheManager(manager) if isinstance(manager, CacheManager) else manager
    return before


def _build_engine(config: CacheConfig, clock: Clock, lower: Sequence[Layer]) -> Engine:
    telemetry = Telemetry(
        config.name,
        spans=config.spans,
        span_attributes=config.span_attributes,
        span_hash_key=config.hash_key() if config.span_keys == "hash" else None,
    )
    codec = ValueCodec((*config.types, StoredPart, StoredResponse, VariantIndex))
    framing = config.framing()
    memory: MemoryBackend | None = None
    memory_ttl = 0.0
    guards: list[Guard] = []
    for layer in config.effective_layers():
        if layer.backend == "memory":
            memory_ttl = seconds(layer.ttl)
            memory = MemoryBackend(
                layer.max_size or config.max_size,
                memory_ttl,
                max_bytes=config.max_bytes,
                copy=config.copy,
                codec=codec,
                clock=clock,
            )
            _observe_memory(telemetry, memory)
        elif layer.backend == "redis":
            guards.append(_redis(layer, config, codec, framing, clock, telemetry))
    if lower:
        if not config.copy:
            raise ConfigurationError("copy=False keeps objects by reference and works with memory alone")
        memory_ttl = min(memory_ttl, seconds(config.l1_ttl))
    guards += [_guarded(layer, seconds(config.ttl), config, clock, telemetry) for layer in lower]
    for layer in config.effective_layers():
        if layer.backend == "disk":
            shared_above = next((guard for guard in guards if isinstance(guard.layer, SharedLayer)), None)
            at = 0 if shared_above is None else len(guards)  # one that shares is asked before those that do not
            guards.insert(at, _disk(layer, shared_above, config, codec, framing, clock, telemetry))
    prefix = escape(config.namespace) + ":"
    shared = any(isinstance(guard.layer, SharedLayer) for guard in guards)
    first = int(clock.time() * 1_000_000) if guards and not shared else 0  # as Redis begins, in microseconds
    stack = Stack(
        memory,
        memory_ttl,
        guards,
        codec=codec,
        copy=config.copy,
        clock=clock,
        timeout=seconds(config.timeout),
        generations=Generations(clock, shared=shared, trust=min(seconds(config.l1_ttl), _TRUST), first=first),
        prefix=prefix,
    )
    if memory is not None:
        telemetry.table.alias(
            stack.first.invalidated, names.EVICTIONS, **{names.LAYER: names.L1, names.REASON: "invalidated"}
        )
        stack.first.note_size = telemetry.sizes(names.L1, SIZE_SAMPLE_MEMORY).note
    engine = Engine(stack, telemetry, clock)
    if stack.shared is not None and isinstance(stack.shared.layer, Newsroom):
        heartbeat = seconds(config.heartbeat)
        listening = Listening(stack, engine.flights, stack.shared.layer, telemetry, engine.bridge, heartbeat)
        recovery = Recovery(
            stack.shared, stack.generations, telemetry, clock, stack.timeout, listening.spawn, stack.forget
        )
        engine.listening, stack.recovery = listening, recovery
        telemetry.gauge(names.PENDING, recovery, lambda recovery: recovery.pending)
    telemetry.gauge(names.WAITING, engine.flights, lambda flights: flights.waiting)
    return engine


def _redis(
    layer: CacheLayer, config: CacheConfig, codec: ValueCodec, framing: Framing, clock: Clock, telemetry: Telemetry
) -> Guard:
    from .layers.redis import RedisBackend  # imported here, because memory alone must not need redis-py

    backend: Layer = RedisBackend(
        config,
        codec=codec,
        framing=framing,
        clock=clock,
        damaged=lambda error: telemetry.incident(names.L2, "get", f"frame_{error.reason}"),
    )
    return _guarded(backend, seconds(layer.ttl), config, clock, telemetry)


def _disk(
    layer: CacheLayer,
    shared: Guard | None,
    config: CacheConfig,
    codec: ValueCodec,
    framing: Framing,
    clock: Clock,
    telemetry: Telemetry,
) -> Guard:
    # Imported here, because memory alone must not need SQLite.
    from .layers._database import Database
    from .layers._disk_entries import DiskEntries
    from .layers.disk import DiskBackend

    assert config.cache_dir is not None, "the configuration has been checked"
    max_size, patience = layer.max_size or config.disk_max_size, min(seconds(config.timeout), _LONGEST_WAIT)

    def damaged(error: FrameError) -> None:
        telemetry.incident(names.L3, "get", f"frame_{error.reason}")

    disk: DiskEntries
    if shared is None:
        disk = DiskBackend(
            config.cache_dir,
            max_size,
            max_bytes=config.disk_max_bytes,
            timeout=patience,
            namespace=config.namespace,
            codec=codec,
            framing=framing,
            clock=clock,
            damaged=damaged,
        )
    else:
        database = Database(config.cache_dir, max_size, config.disk_max_bytes, patience, clock)
        # Numbers of another server mean nothing, so what was stored by them is not seen.
        server = "" if config.redis_url is None else parse_redis_url(config.redis_url).identity
        scope = f"below {type(shared.layer).__name__} {server} {config.namespace}"
        disk = DiskEntries(database, scope, codec, clock, damaged, framing)
    _observe_disk(telemetry, disk.database, os.path.realpath(config.cache_dir))
    return _guarded(disk, seconds(layer.ttl), config, clock, telemetry, timed=DISK_SAMPLE)


def _guarded(
    layer: Layer, ttl: float, config: CacheConfig, clock: Clock, telemetry: Telemetry, timed: int = 1
) -> Guard:
    return Guard(
        layer,
        ttl,
        clock,
        telemetry,
        threshold=config.breaker_failures,
        pause=seconds(config.breaker_pause),
        timed=timed,
    )


def _observe_memory(telemetry: Telemetry, memory: MemoryBackend) -> None:
    layer = {names.LAYER: names.L1}
    telemetry.gauge(names.ENTRIES, memory, lambda memory: len(memory.entries), **layer)
    telemetry.gauge(names.USAGE, memory, lambda memory: int(memory.entries.currsize), **layer)
    telemetry.gauge(names.LIMIT, memory, lambda memory: memory.max_bytes, **layer)
    telemetry.table.alias(memory.entries.evicted, names.EVICTIONS, **layer, **{names.REASON: "capacity"})
    telemetry.table.alias(memory.expired, names.EVICTIONS, **layer, **{names.REASON: "expired"})


def _observe_disk(telemetry: Telemetry, disk: Database, folder: str) -> None:
    layer = {names.LAYER: names.L3}
    telemetry.gauge(names.ENTRIES, disk, lambda disk: disk.entries, folder, **layer)
    telemetry.gauge(names.USAGE, disk, lambda disk: disk.bytes, folder, **layer)
    telemetry.gauge(names.LIMIT, disk, lambda disk: disk.max_bytes, folder, **layer)
    telemetry.table.alias(disk.evicted, names.EVICTIONS, **layer, **{names.REASON: "capacity"})
    telemetry.table.alias(disk.expired, names.EVICTIONS, **layer, **{names.REASON: "expired"})
